//! Decides a login. What is cheap comes first; a password's hash is the only thing that takes time, and only so many
//! are computed at once.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::NodeId;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::file::Entry;
use super::password::{HashMemory, PASSWORD_BYTES_MAX, PasswordHash, SecretError, same, token_hash};
use super::{ANONYMOUS, AccessBook, ClientCertificate, Credentials, Identity, Login, Proof, Refusal};
use crate::guesses::{Guesses, neighbourhood};

/// Wrong passwords in a row for one name from one address, and how soon one more is looked at; as at the page.
const NAME_GUESSES: u32 = 10;
const NAME_GUESS_EVERY: Duration = Duration::from_secs(6);
/// The same for all names from one address: several broken clients behind one address do not shut out the others.
const ADDRESS_GUESSES: u32 = 60;
const ADDRESS_GUESS_EVERY: Duration = Duration::from_secs(1);
/// Addresses (and names of them) that are remembered; beyond, they share one bucket.
const KEYS_MAX: usize = 4_096;

/// Passwords hashed at a time: 7 MiB each, and cores are left for the plant.
const HASHES_AT_ONCE: usize = 2;
/// Log-ins that wait for that: all agents of a large plant after a restart.
const WAITING_MAX: usize = 1_024;
/// Passwords remembered as right, 32 bytes each.
const VERIFIED_MAX: usize = 16_384;

/// Refusals of one address in the log, and how soon the next; more are counted only.
const LOGGED: u32 = 10;
const LOGGED_EVERY: Duration = Duration::from_secs(10);

/// CONNACK reason codes [MQTT 5.0 §3.2.2.2].
const BAD_USER_NAME_OR_PASSWORD: u8 = 0x86;
const NOT_AUTHORIZED: u8 = 0x87;
const SERVER_BUSY: u8 = 0x89;
const CONNECTION_RATE_EXCEEDED: u8 = 0x9F;

/// What guards the door: buckets, and passwords found right.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    by_name: Guesses<(IpAddr, Option<String>)>,
    by_address: Guesses<IpAddr>,
    logged: Guesses<IpAddr>,
    hashing: Arc<Semaphore>,
    /// What is not in use, at most [`HASHES_AT_ONCE`].
    memory: Arc<Mutex<Vec<HashMemory>>>,
    waiting: AtomicUsize,
    verified: Verified,
    nobody: PasswordHash,
}

/// Passwords found right lately, as keyed hashes together with the argon2 hash that they fit: a changed password is
/// another key, so nothing stale is ever found.
#[derive(Debug)]
struct Verified {
    key: [u8; 32],
    set: Mutex<HashSet<[u8; 32]>>,
}

impl Doorkeeper {
    pub(super) fn new() -> Result<Doorkeeper, SecretError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(SecretError::Random)?;
        Ok(Doorkeeper {
            by_name: Guesses::new(NAME_GUESSES, NAME_GUESS_EVERY, KEYS_MAX),
            by_address: Guesses::new(ADDRESS_GUESSES, ADDRESS_GUESS_EVERY, KEYS_MAX),
            logged: Guesses::new(LOGGED, LOGGED_EVERY, KEYS_MAX),
            hashing: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
            memory: Arc::default(),
            waiting: AtomicUsize::new(0),
            verified: Verified { key, set: Mutex::default() },
            nobody: PasswordHash::of_nobody()?,
        })
    }

    /// Refuses if a bucket of an address is empty.
    fn look_at_buckets(&self, address: IpAddr, name: Option<&str>) -> Result<(), Refusal> {
        let now = Instant::now();
        let by_name = self.by_name.waiting((address, name.map(str::to_owned)), now);
        by_name.or_else(|| self.by_address.waiting(address, now)).map_or(Ok(()), |wait| Err(slowed(wait)))
    }

    /// Takes a guess from both buckets of an address.
    fn take_guess(&self, address: IpAddr, name: Option<&str>) -> Result<(), Refusal> {
        let now = Instant::now();
        let key = || (address, name.map(str::to_owned));
        self.by_name.take(key(), now).map_err(slowed)?;
        self.by_address.take(address, now).map_err(|wait| {
            self.by_name.give_back(key()); // unseen, so not held against the name
            slowed(wait)
        })
    }

    fn give_guess_back(&self, address: IpAddr, name: &str) {
        self.by_name.give_back((address, Some(name.to_owned())));
        self.by_address.give_back(address);
    }

    /// Whether the password is that of the hash; on a thread of its own, when its turn comes.
    async fn verify(
        &self,
        hash: PasswordHash,
        password: &[u8],
        address: IpAddr,
        name: Option<&str>,
    ) -> Result<bool, Refusal> {
        self.look_at_buckets(address, name)?; // the waiting room is not for them
        let turn = {
            let place = Waiting::join(&self.waiting)?;
            let turn = Arc::clone(&self.hashing).acquire_owned().await;
            drop(place);
            turn.map_err(|_| Refusal { reason: SERVER_BUSY, why: "the hub is ending".into() })?
        };
        // Taken before it is known to be wrong: whoever hangs up meanwhile has guessed too.
        self.take_guess(address, name)?;
        let (password, idle) = (password.to_owned(), Arc::clone(&self.memory));
        let work = tokio::task::spawn_blocking(move || {
            let mut memory = idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
            let right = hash.is_of(&password, &mut memory);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(memory.tidied());
            drop(turn);
            right
        });
        work.await
            .map_err(|error| Refusal { reason: SERVER_BUSY, why: format!("password check ended: {error}") })
    }

    /// Whether this refusal is one for the log.
    pub(super) fn is_logged(&self, address: IpAddr) -> bool {
        self.logged.take(neighbourhood(address), Instant::now()).is_ok()
    }
}

/// A place among those that wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(count: &'a AtomicUsize) -> Result<Waiting<'a>, Refusal> {
        let place = Waiting(count);
        if count.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            let why = format!("more than {WAITING_MAX} log-ins wait for their passwords to be checked");
            return Err(Refusal { reason: SERVER_BUSY, why });
        }
        Ok(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Verified {
    fn digest(&self, hash: &PasswordHash, password: &[u8]) -> [u8; 32] {
        let length = (hash.text().len() as u64).to_be_bytes();
        let digest = Sha256::new_with_prefix(self.key);
        digest.chain_update(length).chain_update(hash.text()).chain_update(password).finalize().into()
    }

    fn knows(&self, digest: &[u8; 32]) -> bool {
        self.set.lock().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    fn add(&self, digest: [u8; 32]) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        if set.len() >= VERIFIED_MAX {
            set.clear(); // each is verified once more
        }
        set.insert(digest);
    }
}

impl AccessBook {
    /// Decides a login. A refusal is in the log, with address and user name, never with the password.
    ///
    /// Takes tens of milliseconds for a password not seen lately, longer when many come at once: give it a deadline.
    pub(in crate::broker) async fn login(&self, shown: Credentials<'_>) -> Result<Login, Refusal> {
        let decided = self.decide(&shown).await;
        if let Err(refusal) = &decided {
            let user: String = shown.user.unwrap_or("(none)").chars().take(64).collect();
            let (peer, reason, why) = (shown.peer, refusal.reason, &refusal.why);
            if self.0.doorkeeper.is_logged(peer.ip()) {
                tracing::warn!(%peer, ?user, reason, why, "MQTT login refused");
            } else {
                tracing::debug!(%peer, ?user, reason, why, "MQTT login refused");
            }
        }
        decided
    }

    async fn decide(&self, shown: &Credentials<'_>) -> Result<Login, Refusal> {
        let user = shown.user.filter(|user| !user.is_empty());
        let password = shown.password.filter(|password| !password.is_empty());
        let identity = match (user, password, &shown.certificate) {
            (_, Some(password), _) => self.by_secret(user, password, shown).await?,
            (_, None, Some(certificate)) => self.by_certificate(user, certificate)?,
            (Some(_), None, None) => return Err(wrong("no password")),
            (None, None, None) if shown.anonymous_read => {
                Identity { name: ANONYMOUS.into(), node: None, proof: Proof::None }
            }
            (None, None, None) => {
                return Err(Refusal {
                    reason: NOT_AUTHORIZED,
                    why: "no login, and one is needed here".into(),
                });
            }
        };
        // Asked anew: the file may have changed while a password was checked.
        match self.rights(&identity) {
            Some(rights) => Ok(Login { identity: Arc::new(identity), rights }),
            None => {
                let why = format!("{} is disabled, or has no role", identity.name);
                Err(Refusal { reason: NOT_AUTHORIZED, why })
            }
        }
    }

    /// By the certificate's first name that is an identity's; a user name chooses among them.
    fn by_certificate(
        &self,
        user: Option<&str>,
        certificate: &ClientCertificate,
    ) -> Result<Identity, Refusal> {
        let refused = |why: &str| Refusal {
            reason: NOT_AUTHORIZED,
            why: format!("certificate {} for {:?}: {why}", certificate.serial, certificate.names),
        };
        let rules = self.rules();
        let names = certificate.names.iter().filter(|name| user.is_none_or(|user| user == name.as_str()));
        let mut found = names.filter_map(|name| rules.file.find(name)).map(|(_, entry)| entry);
        let entry = found.find(|entry| entry.certificate);
        let entry = entry.ok_or_else(|| refused("no identity of these names logs in with certificates"))?;
        if !entry.accepts_certificate(certificate.not_before) {
            return Err(refused("revoked: older than the identity's certificates_from"));
        }
        Ok(entry.proven(Proof::Certificate(certificate.not_before)))
    }

    async fn by_secret(
        &self,
        user: Option<&str>,
        password: &[u8],
        shown: &Credentials<'_>,
    ) -> Result<Identity, Refusal> {
        let address = neighbourhood(shown.peer.ip());
        let door = &self.0.doorkeeper;
        if password.len() > PASSWORD_BYTES_MAX {
            door.take_guess(address, None)?;
            return Err(wrong("the password is too long"));
        }
        let rules = self.rules();
        let hash = token_hash(password);
        if let Some(entry) = rules.file.find_token(&hash)
            && user.is_none_or(|user| user == entry.name)
        {
            return Ok(entry.proven(Proof::Token(hash)));
        }
        let Some(user) = user else {
            door.take_guess(address, None)?;
            return Err(wrong("no such token"));
        };
        if let Ok(node) = NodeId::parse(user) {
            // A name with / is in no list.
            if same(password, &self.0.agent_password) && shown.loopback {
                return Ok(Identity { name: user.into(), node: Some(node), proof: Proof::AgentPassword });
            }
            door.take_guess(address, None)?;
            let right = same(password, &self.0.agent_password);
            let from_elsewhere =
                "the agents' password is for agents on this machine; give others an identity";
            return Err(wrong(if right {
                from_elsewhere
            } else {
                "not the agents' password of this machine"
            }));
        }
        let entry = rules.file.find(user).map(|(_, entry)| entry);
        let known = entry.and_then(|entry| Some((entry, entry.password.clone()?)));
        let digest = known.as_ref().map(|(_, hash)| door.verified.digest(hash, password));
        if let (Some((entry, hash)), Some(digest)) = (&known, &digest)
            && door.verified.knows(digest)
        {
            return Ok(entry.proven(Proof::Password(hash.shared())));
        }
        let listed = entry.map(|entry| entry.name.as_str());
        let hash = known.as_ref().map_or_else(|| door.nobody.clone(), |(_, hash)| hash.clone());
        let right = door.verify(hash, password, address, listed).await?;
        match (known, digest) {
            (Some((entry, hash)), Some(digest)) if right => {
                door.give_guess_back(address, &entry.name);
                door.verified.add(digest);
                Ok(entry.proven(Proof::Password(hash.shared())))
            }
            (Some(_), _) => Err(wrong("wrong password")),
            (None, _) if listed.is_some() => Err(wrong("has no password, and this is not its token")),
            (None, _) => Err(wrong("no identity of this name")),
        }
    }
}

impl Entry {
    fn proven(&self, proof: Proof) -> Identity {
        Identity { name: self.name.clone(), node: self.node.clone(), proof }
    }
}

fn slowed(wait: Duration) -> Refusal {
    let why = format!("too many wrong passwords; the next is looked at within {} s", wait.as_secs());
    Refusal { reason: CONNECTION_RATE_EXCEEDED, why }
}

/// What the client learns is the same for all of these.
fn wrong(why: &str) -> Refusal {
    Refusal { reason: BAD_USER_NAME_OR_PASSWORD, why: why.to_owned() }
}

#[cfg(test)]
mod tests;
