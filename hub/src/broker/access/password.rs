//! Secrets: argon2id hashes of passwords, hashes of tokens, the agents' password of this machine.
//!
//! A password is hashed with 7 MiB and five passes (one of the equal choices of OWASP's list), so that two at a time
//! stay small on an industrial PC. Hashes with other parameters are verified too, within bounds: a file cannot make the
//! hub take a minute or a gigabyte per login. The memory is kept and used again ([`HashMemory`]): given back, it would
//! stay in the allocator's hands, once per thread that ever hashed.
//! A token is a random text of 256 bits. Nobody guesses it, so one round of SHA-256 protects it in the file.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use argon2::password_hash::{PasswordHash as Phc, PasswordHasher as _, Salt, SaltString};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::super::BrokerError;

/// A password or token from the network is not longer.
pub(super) const PASSWORD_BYTES_MAX: usize = 1_024;

/// File with the password of the agents of this machine, in the hub's data folder.
const AGENT_TOKEN_FILE: &str = "agent-token";

/// KiB, passes, lanes of new hashes.
const MEMORY_KIB: u32 = 7 << 10;
const PASSES: u32 = 5;
const LANES: u32 = 1;

/// The same of hashes that others made.
const MEMORY_KIB_MAX: u32 = 64 << 10;
const PASSES_MAX: u32 = 10;
const LANES_MAX: u32 = 4;

const TOKEN_BYTES: usize = 32;

/// What a token's hash begins with.
const TOKEN_SCHEME: &str = "sha256:";

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The password cannot be used.
    #[error("{0}")]
    Password(&'static str),
    /// The machine gives no random numbers.
    #[error("the machine gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// The hash function refuses.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

/// A password's hash in PHC form, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PasswordHash(Arc<str>);

impl PasswordHash {
    /// Checks that the text is a hash that can be verified in bounded time and memory.
    pub(super) fn parse(text: &str) -> Result<PasswordHash, String> {
        const RULE: &str =
            "must be an argon2id hash; `forebay user add` writes it, a password itself is never kept";
        let hash = Phc::new(text).map_err(|_| RULE.to_owned())?;
        if hash.algorithm != argon2::ARGON2ID_IDENT || hash.hash.is_none() || hash.salt.is_none() {
            return Err(RULE.into());
        }
        let params = Params::try_from(&hash).map_err(|_| RULE.to_owned())?;
        if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX || params.p_cost() > LANES_MAX {
            return Err(format!(
                "takes too much for a login: at most m={MEMORY_KIB_MAX}, t={PASSES_MAX}, p={LANES_MAX}"
            ));
        }
        Ok(PasswordHash(text.into()))
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }

    pub(super) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// Whether it is this password's. Takes tens of milliseconds on purpose.
    pub(super) fn is_of(&self, password: &[u8], memory: &mut HashMemory) -> bool {
        let Ok(hash) = Phc::new(&self.0) else { return false };
        let (Some(salt), Some(right), Ok(params)) = (hash.salt, hash.hash, Params::try_from(&hash)) else {
            return false;
        };
        let Ok(version) = hash.version.map_or(Ok(Version::default()), Version::try_from) else {
            return false;
        };
        let mut bytes = [0; Salt::MAX_LENGTH];
        let Ok(salt) = salt.decode_b64(&mut bytes) else { return false };
        let blocks = memory.blocks(params.block_count());
        let argon2 = Argon2::new(Algorithm::Argon2id, version, params);
        let mut output = vec![0; right.len()];
        argon2.hash_password_into_with_memory(password, salt, &mut output, blocks).is_ok()
            && same(&output, right.as_bytes())
    }

    /// One that no password has, to spend the time of a name that exists on one that does not.
    pub(super) fn of_nobody() -> Result<PasswordHash, SecretError> {
        let mut random = [0; TOKEN_BYTES];
        getrandom::fill(&mut random).map_err(SecretError::Random)?;
        hash(&random, MEMORY_KIB, PASSES).map(|text| PasswordHash(text.into()))
    }
}

/// Memory for one hash at a time.
#[derive(Default)]
pub(super) struct HashMemory(Vec<Block>);

impl std::fmt::Debug for HashMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HashMemory({} KiB)", self.0.len())
    }
}

impl HashMemory {
    fn blocks(&mut self, count: usize) -> &mut [Block] {
        if self.0.len() < count {
            self.0 = vec![Block::new(); count];
        }
        &mut self.0
    }

    /// Forgets what was in it, and what only a hash of others' making needed.
    pub(super) fn tidied(mut self) -> HashMemory {
        self.0.truncate(MEMORY_KIB as usize);
        self.0.shrink_to_fit();
        self.0.fill(Block::new());
        self
    }
}

/// The argon2id hash of a password as the access file keeps it, with a fresh salt.
///
/// # Errors
/// The password is empty or longer than 1024 bytes, or the machine gives no random numbers.
pub fn hash_password(password: &[u8]) -> Result<String, SecretError> {
    match password.len() {
        0 => Err(SecretError::Password("the password is empty")),
        1..=PASSWORD_BYTES_MAX => hash(password, MEMORY_KIB, PASSES),
        _ => Err(SecretError::Password("the password is longer than 1024 bytes")),
    }
}

fn hash(password: &[u8], memory_kib: u32, passes: u32) -> Result<String, SecretError> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(SecretError::Random)?;
    let failed = |error: &dyn std::fmt::Display| SecretError::Hash(error.to_string());
    let salt = SaltString::encode_b64(&salt).map_err(|error| failed(&error))?;
    let params = Params::new(memory_kib, passes, LANES, None).map_err(|error| failed(&error))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon2.hash_password(password, &salt).map_err(|error| failed(&error))?;
    Ok(hash.to_string())
}

/// A new token: what its owner gets, and what the access file keeps.
pub struct NewToken {
    /// The token itself, to be shown once.
    pub text: String,
    /// Its hash, `sha256:…`.
    pub hash: String,
}

impl NewToken {
    /// 256 random bits.
    ///
    /// # Errors
    /// The machine gives no random numbers.
    pub fn make() -> Result<NewToken, SecretError> {
        let mut random = [0; TOKEN_BYTES];
        getrandom::fill(&mut random).map_err(SecretError::Random)?;
        let text = URL_SAFE_NO_PAD.encode(random);
        let hash = format!("{TOKEN_SCHEME}{}", hex(&token_hash(text.as_bytes())));
        Ok(NewToken { text, hash })
    }
}

pub(super) fn token_hash(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Reads `sha256:` and 64 hex digits.
pub(super) fn parse_token_hash(text: &str) -> Result<[u8; 32], String> {
    const RULE: &str = "must be sha256: and 64 hex digits; `forebay user add NAME --token` writes it";
    let digits = text.strip_prefix(TOKEN_SCHEME).filter(|digits| digits.len() == 64).ok_or(RULE)?;
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| RULE)?;
        if pair.starts_with('+') {
            return Err(RULE.into());
        }
        *byte = u8::from_str_radix(pair, 16).map_err(|_| RULE)?;
    }
    Ok(hash)
}

/// Compares in a time that depends on the lengths only. Nothing equals an empty secret.
pub(super) fn same(given: &[u8], right: &[u8]) -> bool {
    let difference = given.iter().zip(right).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    given.len() == right.len() && !right.is_empty() && difference == 0
}

/// The agents' password: made at first start, readable by the owner only.
pub(super) fn agent_password(data_dir: &Path) -> Result<String, BrokerError> {
    let path = data_dir.join(AGENT_TOKEN_FILE);
    let failed = |why: String| BrokerError::Password { path: path.clone(), why };
    if path.exists() {
        return super::super::read_password(&path);
    }
    let mut random = [0; TOKEN_BYTES];
    getrandom::fill(&mut random).map_err(|error| failed(error.to_string()))?;
    let token = hex(&random);
    let fresh = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(data_dir)?;
        std::fs::remove_file(&fresh).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        writeln!(file, "{token}")?;
        file.sync_all()?;
        std::fs::rename(&fresh, &path)
    };
    write().map_err(|error| failed(error.to_string()))?;
    Ok(token)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
