//! Whether a process may use a folder for its data, asked before anything in it is touched.
//!
//! A folder that belongs to somebody else is refused even where it could be written: files that root leaves in the folder
//! of a service keep that service from starting the next time.

use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::geteuid;

/// Why a folder cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataFolderError {
    /// It is something else.
    #[error("{} is no folder; name another data_dir. Nothing was changed", path.display())]
    NoFolder {
        /// What was named.
        path: PathBuf,
    },
    /// It belongs to another user.
    #[error(
        "{} belongs to user {owner}, and this process runs as user {user}. Start it as user {owner}, or give \
         it the folder: chown -R {user} {}. Nothing was changed", path.display(), path.display()
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// It, or the folder in which it would be made, cannot be written.
    #[error("{} cannot be written by this process (user {user}{mode}); {advice}. Nothing was changed", path.display())]
    NotWritable {
        /// The folder.
        path: PathBuf,
        /// Who asks.
        user: u32,
        /// Its permissions, where they can be read.
        mode: String,
        /// What to do.
        advice: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// It cannot even be looked at.
    #[error("{} cannot be looked at by this process; check the path and its permissions. Nothing was changed", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// Checks a folder and gives its absolute path. Changes nothing; a folder that is missing is good if it can be made.
pub fn check(path: &Path) -> Result<PathBuf, DataFolderError> {
    let path = std::path::absolute(path)
        .map_err(|source| DataFolderError::Unreadable { path: path.to_owned(), source })?;
    let mut existing = path.as_path();
    let metadata = loop {
        match std::fs::metadata(existing) {
            Ok(metadata) => break metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => match existing.parent() {
                Some(parent) => existing = parent,
                None => return Err(DataFolderError::Unreadable { path, source: error }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(DataFolderError::NoFolder { path });
            }
            Err(source) => return Err(DataFolderError::Unreadable { path, source }),
        }
    };
    if !metadata.is_dir() {
        return Err(DataFolderError::NoFolder { path: existing.to_owned() });
    }
    let user = geteuid().as_raw();
    if existing == path && metadata.uid() != user {
        return Err(DataFolderError::Foreign { path, owner: metadata.uid(), user });
    }
    match access(existing, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Ok(path),
        Err(error) => {
            let source = io::Error::from(error);
            let advice = if source.kind() == io::ErrorKind::ReadOnlyFilesystem {
                "its file system is mounted read-only: mount it for writing, or name another data_dir"
            } else {
                "correct its permissions (chmod u+rwx), or name another data_dir"
            };
            let mut mode = String::new();
            write!(mode, ", permissions {:04o}", metadata.permissions().mode() & 0o7777).unwrap_or_default();
            Err(DataFolderError::NotWritable { path: existing.to_owned(), user, mode, advice, source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_ours_or_one_to_be_made_is_good() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(check(dir.path()).unwrap(), dir.path());
        let deeper = dir.path().join("a/b");
        assert_eq!(check(&deeper).unwrap(), deeper);
        assert!(!deeper.exists());
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(check(&file), Err(DataFolderError::NoFolder { .. })));
        assert!(matches!(check(&file.join("x")), Err(DataFolderError::NoFolder { .. })));
        assert!(check(Path::new("some/where")).unwrap().is_absolute());
    }
}
