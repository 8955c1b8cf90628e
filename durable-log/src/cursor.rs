//! Named durable positions, one small file each, replaced as a whole.
//!
//! ```text
//! 0  magic "FOREBAYC"   8  version u32   12  position u64   20  CRC32C of bytes 0..20
//! ```
//! The file name is the percent-encoded cursor name and `.cursor`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::segment::{damaged, io};
use crate::storage::{Storage, read_full, write_full};
use crate::{LogError, Position};

const MAGIC: &[u8; 8] = b"FOREBAYC";
const VERSION: u32 = 1;
const FILE_BYTES: usize = 24;
const SUFFIX: &str = ".cursor";
/// Written first, then renamed. The suffix is that of an unfinished segment: opening removes both alike.
const UNFINISHED_SUFFIX: &str = ".cursor.new";
/// Percent-encoding may triple it, and a file name has 255 bytes.
const NAME_BYTES_MAX: usize = 80;

const _: () = assert!(NAME_BYTES_MAX * 3 + UNFINISHED_SUFFIX.len() <= 255);

/// Sets `name` to `at`, durable when this returns.
pub(crate) fn set(storage: &dyn Storage, name: &str, at: Position) -> Result<(), LogError> {
    write(storage, &encode_name(name)?, at)
}

fn write(storage: &dyn Storage, stem: &str, at: Position) -> Result<(), LogError> {
    let unfinished = format!("{stem}{UNFINISHED_SUFFIX}");
    let target = format!("{stem}{SUFFIX}");
    let file = storage.create(&unfinished).map_err(|e| io(storage, "creating", &unfinished, e))?;
    write_full(&*file, &encode(at), 0).map_err(|e| io(storage, "writing", &unfinished, e))?;
    file.sync().map_err(|e| io(storage, "syncing", &unfinished, e))?;
    storage.rename(&unfinished, &target).map_err(|e| io(storage, "renaming", &unfinished, e))?;
    storage.sync_dir().map_err(|e| io(storage, "syncing", "", e))
}

/// Whether a file is a whole cursor, or none at all by its name.
pub(crate) fn check(storage: &dyn Storage, file: &str) -> Result<(), LogError> {
    if file.strip_suffix(SUFFIX).and_then(decode_name).is_none() {
        return Ok(());
    }
    let opened = storage.open(file, false).map_err(|e| io(storage, "opening", file, e))?;
    let mut bytes = [0; FILE_BYTES];
    let read = read_full(&*opened, &mut bytes, 0).map_err(|e| io(storage, "reading", file, e))?;
    decode(storage, file, bytes.get(..read).unwrap_or_default()).map(|_position| ())
}

/// Puts a cursor file that was damaged to a position.
pub(crate) fn replace(storage: &dyn Storage, file: &str, at: Position) -> Result<(), LogError> {
    file.strip_suffix(SUFFIX).map_or(Ok(()), |stem| write(storage, stem, at))
}

/// All cursors of the directory.
pub(crate) fn all(storage: &dyn Storage) -> Result<BTreeMap<String, Position>, LogError> {
    let mut found = BTreeMap::new();
    for entry in storage.list().map_err(|e| io(storage, "listing", "", e))? {
        let Some(name) = entry.name.strip_suffix(SUFFIX).and_then(decode_name) else { continue };
        let file = match storage.open(&entry.name, false) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue, // removed meanwhile
            Err(error) => return Err(io(storage, "opening", &entry.name, error)),
        };
        let mut bytes = [0; FILE_BYTES];
        let read = read_full(&*file, &mut bytes, 0).map_err(|e| io(storage, "reading", &entry.name, e))?;
        found.insert(name, decode(storage, &entry.name, bytes.get(..read).unwrap_or_default())?);
    }
    Ok(found)
}

/// Removes `name`, durable when this returns.
pub(crate) fn remove(storage: &dyn Storage, name: &str) -> Result<bool, LogError> {
    let target = format!("{}{SUFFIX}", encode_name(name)?);
    match storage.remove(&target) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io(storage, "removing", &target, error)),
    }
    storage.sync_dir().map_err(|e| io(storage, "syncing", "", e))?;
    Ok(true)
}

fn encode(at: Position) -> [u8; FILE_BYTES] {
    let mut bytes = [0; FILE_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..20].copy_from_slice(&at.0.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..20]);
    bytes[20..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(storage: &dyn Storage, file: &str, bytes: &[u8]) -> Result<Position, LogError> {
    let whole = bytes
        .first_chunk::<FILE_BYTES>()
        .filter(|bytes| bytes[..8] == *MAGIC && crc32c::crc32c(&bytes[..20]).to_le_bytes() == bytes[20..]);
    let Some(bytes) = whole else {
        return Err(damaged(
            storage,
            file,
            0,
            "it is not a whole cursor; remove it to start that reader anew",
        ));
    };
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[8..12]);
    let version = u32::from_le_bytes(word);
    if version > VERSION {
        return Err(LogError::NewerVersion { path: storage.path(file), found: version, known: VERSION });
    }
    let mut at = [0; 8];
    at.copy_from_slice(&bytes[12..20]);
    Ok(Position(u64::from_le_bytes(at)))
}

fn encode_name(name: &str) -> Result<String, LogError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(LogError::BadName { name: name.to_owned(), bytes_max: NAME_BYTES_MAX });
    }
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").unwrap_or_default(); // a String takes everything
        }
    }
    Ok(encoded)
}

fn decode_name(stem: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(stem.len());
    let mut rest = stem.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let (digits, after) = after.split_first_chunk::<2>()?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok().filter(|name| !name.is_empty())
}
