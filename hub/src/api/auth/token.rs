//! The hub's token: made once, kept private, compared without telling.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::PASSWORD_BYTES_MAX;

/// Bytes of a token or session id: 256 bits cannot be guessed.
const SECRET_BYTES: usize = 32;

/// The hub's token: the page's password and the API's Bearer token.
#[derive(Clone)]
pub struct Token {
    text: String,
    path: PathBuf,
    is_new: bool,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.path.display())
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("{path}: {source}; the hub keeps its API token there", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{path}: holds no token (32 to 1024 printable characters); delete it and start again for a new one", path = path.display())]
    NoToken {
        /// Which.
        path: PathBuf,
    },
    /// Others on the machine can read it.
    #[error("{path}: can be read by others on this machine; run chmod 600 on it", path = path.display())]
    Open {
        /// Which.
        path: PathBuf,
    },
    /// The machine gives no random numbers.
    #[error("the machine gives no random numbers: {0}")]
    Random(getrandom::Error),
}

impl Token {
    /// Reads `{data_dir}/token`, or makes it.
    pub fn open(data_dir: &Path) -> Result<Token, TokenError> {
        let path = data_dir.join("token");
        let failed = |source| TokenError::File { path: path.clone(), source };
        match File::open(&path) {
            Ok(mut file) => {
                if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
                    return Err(TokenError::Open { path });
                }
                let mut text = String::new();
                io::Read::by_ref(&mut file)
                    .take(PASSWORD_BYTES_MAX as u64 + 2)
                    .read_to_string(&mut text)
                    .map_err(failed)?;
                let text = text.trim().to_owned();
                let is_token = (32..=PASSWORD_BYTES_MAX).contains(&text.len())
                    && text.bytes().all(|b| b.is_ascii_graphic());
                if is_token {
                    Ok(Token { text, path, is_new: false })
                } else {
                    Err(TokenError::NoToken { path })
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = secret().map_err(TokenError::Random)?;
                write_private(&path, &format!("{text}\n")).map_err(failed)?;
                Ok(Token { text, path, is_new: true })
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The token itself: to be shown once, to the person who starts the hub.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where it is kept.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this start made it.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.is_new
    }

    pub(super) fn is(&self, given: &str) -> bool {
        same(self.text.as_bytes(), given.as_bytes())
    }
}

/// Writes beside and renames, so that a crash leaves no half file; nobody else on the machine can read it.
pub(super) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// 256 random bits as text.
pub(super) fn secret() -> Result<String, getrandom::Error> {
    let mut bytes = [0u8; SECRET_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Compares without telling by its time where the first difference is. The length is no secret.
fn same(ours: &[u8], given: &[u8]) -> bool {
    let difference = ours.iter().zip(given).fold(0u8, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    ours.len() == given.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let first = Token::open(folder.path()).unwrap();
        assert!(first.is_new() && first.text().len() == 43);
        let mode = std::fs::metadata(first.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = Token::open(folder.path()).unwrap();
        assert!(!second.is_new() && second.text() == first.text());
        assert!(!format!("{second:?}").contains(second.text()));
        std::fs::set_permissions(first.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Token::open(folder.path()), Err(TokenError::Open { .. })));
        std::fs::set_permissions(first.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(first.path(), "short").unwrap();
        assert!(matches!(Token::open(folder.path()), Err(TokenError::NoToken { .. })));
    }

    #[test]
    fn comparing_looks_at_every_byte() {
        assert!(same(b"abc", b"abc") && !same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }
}
