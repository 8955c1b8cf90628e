//! Changes the access file and keeps its comments: for `forebay user`, and for enrolment.
//!
//! [`edit`] holds a lock beside the file from reading to renaming, so that two who change it at a time do not undo each
//! other, and checks the whole file before it replaces the old one: a running hub never meets a half or wrong one.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{NodeId, Timestamp};
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use super::file::{AccessFile, check_name};
pub use super::password::{NewToken, SecretError, hash_password};
use super::rights::Reserved;
pub use super::rights::Verdict;
use super::watch;

/// What a new file says.
const TEMPLATE: &str = include_str!("template.toml");

/// Why the access file was not read or changed. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file, its lock or its folder cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file has mistakes already; each on a line of its own.
    #[error("the access file has mistakes, correct them first:\n{0}")]
    Mistakes(String),
    /// The change would be a mistake.
    #[error("{0}")]
    Refused(String),
    /// There is no identity of that name.
    #[error("there is no identity {name:?} in {}", path.display())]
    Unknown {
        /// The name.
        name: String,
        /// The file.
        path: PathBuf,
    },
}

/// An identity, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Name.
    pub name: String,
    /// The Sparkplug node as which it speaks.
    pub node: Option<NodeId>,
    /// Its roles.
    pub roles: Vec<String>,
    /// Whether it has a password.
    pub password: bool,
    /// Whether it has a token.
    pub token: bool,
    /// Whether it may log in with a client certificate.
    pub certificate: bool,
    /// Certificates from before are refused.
    pub certificates_from: Option<Timestamp>,
    /// Whether it may not log in at all.
    pub disabled: bool,
}

/// What shall be different about an identity; what is `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Its roles. A new identity needs them.
    pub roles: Option<Vec<String>>,
    /// The Sparkplug node as which it speaks.
    pub node: Option<NodeId>,
    /// A password's hash, from [`hash_password`].
    pub password: Option<String>,
    /// A token's hash, from [`NewToken`].
    pub token: Option<String>,
    /// Whether it may log in with a client certificate.
    pub certificate: Option<bool>,
    /// Certificates from before this time are refused, to the second.
    pub certificates_from: Option<Timestamp>,
    /// Whether it may not log in at all.
    pub disabled: Option<bool>,
}

/// What is asked of [`check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish<'a> {
    /// Publish to a topic.
    Publish(&'a str),
    /// Subscribe to a filter.
    Subscribe(&'a str),
}

/// The access file while it is being changed.
#[derive(Debug)]
pub struct Edit {
    path: PathBuf,
    file: AccessFile,
    document: DocumentMut,
}

/// Makes the file, with its comments, if there is none. Readable by its owner only.
///
/// # Errors
/// The folder or file cannot be made.
pub fn ensure(path: &Path) -> Result<(), EditError> {
    if path.exists() {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
    }
    let _lock = lock(path)?;
    if path.exists() { Ok(()) } else { replace(path, TEMPLATE).map_err(failed(path)) }
}

/// The identities of a file.
///
/// # Errors
/// The file cannot be read or has mistakes.
pub fn list(path: &Path) -> Result<Vec<Listed>, EditError> {
    Ok(read(path)?.1.listed())
}

/// Whether an identity may do something, and why. `host_id` is the hub's Sparkplug host id.
///
/// # Errors
/// The file cannot be read or has mistakes, or there is no such identity.
pub fn check(path: &Path, name: &str, wish: Wish<'_>, host_id: &str) -> Result<Verdict, EditError> {
    let (_, file) = read(path)?;
    let found = file.find(name);
    let (_, entry) = found.ok_or_else(|| EditError::Unknown { name: name.into(), path: path.into() })?;
    let rights = file.rights(entry, &Arc::new(Reserved::new(host_id)));
    Ok(match wish {
        Wish::Publish(topic) => rights.judge_publish(topic),
        Wish::Subscribe(filter) => rights.judge_subscribe(filter),
    })
}

/// Reads the file (or makes it), lets `change` work on it, checks the result and replaces the file atomically.
///
/// # Errors
/// What `change` returns; the file cannot be read or written, has mistakes, or would have some. Nothing is written then.
pub fn edit<T>(path: &Path, change: impl FnOnce(&mut Edit) -> Result<T, EditError>) -> Result<T, EditError> {
    ensure(path)?;
    let _lock = lock(path)?;
    let (text, file) = read(path)?;
    let document = text.parse::<DocumentMut>().map_err(|error| EditError::Mistakes(error.to_string()))?;
    let mut edit = Edit { path: path.to_owned(), file, document };
    let done = change(&mut edit)?;
    let changed = edit.document.to_string();
    if changed != text {
        AccessFile::parse(path, changed.clone()).map_err(EditError::Refused)?;
        replace(path, &changed).map_err(failed(path))?;
    }
    Ok(done)
}

impl Edit {
    /// The identities as they were read.
    #[must_use]
    pub fn listed(&self) -> Vec<Listed> {
        self.file.listed()
    }

    /// The identity as it was read.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Listed> {
        self.file.find(name).map(|(_, entry)| entry.into())
    }

    /// Names of the roles as they were read.
    #[must_use]
    pub fn roles(&self) -> Vec<String> {
        self.file.roles.keys().map(ToString::to_string).collect()
    }

    /// Adds an identity.
    ///
    /// # Errors
    /// There is one of that name, or the name cannot be one.
    pub fn add(&mut self, name: &str, change: &Change) -> Result<(), EditError> {
        check_name(name).map_err(|rule| EditError::Refused(format!("the name {name:?} {rule}")))?;
        if self.position(name)?.is_some() {
            return Err(EditError::Refused(format!("there is an identity {name:?} already")));
        }
        let mut table = Table::new();
        table.insert("name", value(name));
        table.insert("roles", value(Array::new()));
        apply(&mut table, change);
        table.decor_mut().set_prefix("\n");
        self.identities()?.push(table);
        Ok(())
    }

    /// Changes an identity.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn update(&mut self, name: &str, change: &Change) -> Result<(), EditError> {
        let nth = self.known(name)?;
        if let Some(table) = self.identities()?.get_mut(nth) {
            apply(table, change);
        }
        Ok(())
    }

    /// Adds an identity, or changes the one of that name.
    ///
    /// # Errors
    /// The name cannot be one.
    pub fn put(&mut self, name: &str, change: &Change) -> Result<(), EditError> {
        if self.position(name)?.is_some() { self.update(name, change) } else { self.add(name, change) }
    }

    /// Removes an identity.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn remove(&mut self, name: &str) -> Result<(), EditError> {
        let nth = self.known(name)?;
        self.identities()?.remove(nth);
        Ok(())
    }

    fn known(&mut self, name: &str) -> Result<usize, EditError> {
        let path = self.path.clone();
        self.position(name)?.ok_or_else(|| EditError::Unknown { name: name.into(), path })
    }

    fn position(&mut self, name: &str) -> Result<Option<usize>, EditError> {
        let is_it = |table: &Table| table.get("name").and_then(Item::as_str) == Some(name);
        Ok(self.identities()?.iter().position(is_it))
    }

    fn identities(&mut self) -> Result<&mut ArrayOfTables, EditError> {
        let item = self.document.entry("identities").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        item.as_array_of_tables_mut().ok_or_else(|| {
            EditError::Refused("identities are written as a list; write [[identities]] tables instead".into())
        })
    }
}

fn apply(table: &mut Table, change: &Change) {
    let mut set = |key: &str, to: Option<Item>| {
        let Some(Item::Value(mut to)) = to else { return };
        if let Some(Item::Value(old)) = table.get(key) {
            *to.decor_mut() = old.decor().clone(); // the comment behind it stays
        }
        table.insert(key, Item::Value(to));
    };
    set("node", change.node.as_ref().map(|node| value(node.to_string())));
    set("roles", change.roles.as_ref().map(|roles| value(roles.iter().collect::<Array>())));
    set("password", change.password.as_ref().map(value));
    set("token", change.token.as_ref().map(value));
    set("certificate", change.certificate.map(value));
    set("certificates_from", change.certificates_from.map(|time| value(written(time))));
    set("disabled", change.disabled.map(value));
}

/// `2026-11-25T10:00:00Z`: certificates know seconds. Rounded up, so that one made a moment before counts as before.
fn written(time: Timestamp) -> String {
    let seconds = time.micros().div_euclid(1_000_000) + i64::from(time.micros().rem_euclid(1_000_000) > 0);
    let time = chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

impl AccessFile {
    fn listed(&self) -> Vec<Listed> {
        self.identities.iter().map(Listed::from).collect()
    }
}

impl From<&super::file::Entry> for Listed {
    fn from(entry: &super::file::Entry) -> Self {
        Listed {
            name: entry.name.clone(),
            node: entry.node.clone(),
            roles: entry.roles.iter().map(ToString::to_string).collect(),
            password: entry.password.is_some(),
            token: entry.token.is_some(),
            certificate: entry.certificate,
            certificates_from: entry.certificates_from,
            disabled: entry.disabled,
        }
    }
}

fn read(path: &Path) -> Result<(String, AccessFile), EditError> {
    let text = watch::read(path).map_err(EditError::Mistakes)?;
    let file = AccessFile::parse(path, text.clone()).map_err(EditError::Mistakes)?;
    Ok((text, file))
}

/// A lock that ends with the returned file.
fn lock(path: &Path) -> Result<File, EditError> {
    let beside = beside(path, "lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&beside);
    let file = file.map_err(failed(&beside))?;
    give_to_owner_of_folder(&beside, &file);
    file.lock().map_err(failed(&beside))?;
    Ok(file)
}

/// Writes beside, syncs, renames, syncs the folder. Owner and permissions of an old file stay.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let fresh = beside(path, "new");
    let old = std::fs::metadata(path).ok();
    let mode = old.as_ref().map_or(0o600, |old| old.permissions().mode() & 0o777);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    if old.is_none() {
        give_to_owner_of_folder(path, &file);
    }
    if let Some(old) = old {
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
            // Root changes a file that the hub's user owns: it must stay readable for the hub.
            std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
    }
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    File::open(folder_of(path))?.sync_all()
}

/// What root makes in the hub's folder must be the hub's. For others this is neither needed nor possible.
fn give_to_owner_of_folder(path: &Path, file: &File) {
    if let (Ok(folder), Ok(made)) = (std::fs::metadata(folder_of(path)), file.metadata())
        && made.uid() == 0
        && folder.uid() != 0
    {
        std::os::unix::fs::fchown(file, Some(folder.uid()), Some(folder.gid())).ok();
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `.access.toml.lock`, in the same folder.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{ending}"))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> EditError {
    let path = path.to_owned();
    move |source| EditError::File { path, source }
}

#[cfg(test)]
mod tests;
