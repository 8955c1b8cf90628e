//! The picture of all sessions and retained messages at one position, so that the log below it can go.
//!
//! ```text
//! snapshot = magic "FOREBAYB" | version u32 = 1 | 0 u32 | position u64 | log epoch u64 | crc u32 | 0 u32 | items
//!            crc: CRC32C of bytes 0..32; log epoch: of the record before position, 0 if that was not held any more
//! item     = length u32 | crc u32 | kind u8 | body           length of kind and body; crc: CRC32C over the number of
//!                                                            the item (u64, from 0), kind and body
//! kind 1   session       id | client id | identity | expiry | flags u8 | [disconnected at i64 µs] | base | end
//!                        | base position | queued bytes | count { packet id u16 } | count { done ordinal − base }
//!                        | count { ordinal with PUBREC − base }            flags: 1 disconnected
//!      2   subscription  of the session before: filter | options u8 | subscription id + 1, or 0
//!      3   retained      message, as in a record
//!      4   end           next session | number of items before this one
//! ```
//! Numbers, texts and messages are encoded as in `encoding.rs`. The file is written beside the log as
//! `snapshot.new`, synced, renamed to `snapshot`, and the directory synced; only then the log is trimmed. The same is
//! then written once more as `snapshot.copy`: the log below it is gone, so a flipped bit must not cost everything.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use durable_log::{Position, Storage, StorageFile};

use super::encoding::{
    DecodeError, Decoder, put_bytes, put_message, put_number, put_ordinals, put_subscription,
};
use super::record::{Message, SessionId};
use super::recovered::{Replaying, SessionState};

/// The file's name, beside the segments.
pub(super) const FILE: &str = "snapshot";
/// A second copy.
const COPY: &str = "snapshot.copy";
const UNFINISHED: &str = "snapshot.new";

const MAGIC: &[u8; 8] = b"FOREBAYB";
pub(super) const VERSION: u32 = 1;
const HEAD_BYTES: usize = 40;
const ITEM_HEAD_BYTES: usize = 8;
/// An item holds one session's sets (65 535 identifiers and twice as many ordinals) or one message.
const ITEM_BYTES_MAX: usize = 16 * 1024 * 1024;
/// One write or read.
const PIECE_BYTES: usize = 256 * 1024;

const SESSION: u8 = 1;
const SUBSCRIPTION: u8 = 2;
const RETAINED: u8 = 3;
const END: u8 = 4;

const DISCONNECTED: u8 = 1;

/// Two sets of ordinals within the in-flight window, one of packet identifiers, two texts.
const SESSION_BYTES_MAX: usize = 2 * 65_536 * 10 + 65_536 * 2 + 2 * 65_536 + 128;
const _: () = assert!(SESSION_BYTES_MAX <= ITEM_BYTES_MAX);
const _: () = assert!(model::limits::MQTT_PACKET_BYTES_MAX + 1024 <= ITEM_BYTES_MAX);

/// What the core knows of everything that was appended so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotState {
    /// Persistent sessions.
    pub(crate) sessions: Vec<SessionState>,
    /// Retained messages.
    pub(crate) retained: Vec<Arc<Message>>,
    /// The first number that no session has, clean ones included.
    pub(crate) next_session: SessionId,
}

/// Where a snapshot stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stand {
    /// Every record below is in it.
    pub(super) position: Position,
    /// Epoch of the record before, 0 if unknown.
    pub(super) log_epoch: u64,
}

/// Why a file is no snapshot.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    #[error("cannot be read")]
    Io(#[from] io::Error),
    #[error("is damaged at byte {byte}: {what}")]
    Damaged { byte: u64, what: String },
    #[error("has format version {0}, newer than this program's")]
    Newer(u32),
}

/// Writes a snapshot; durable, and the only one, when this returns. Returns its size in bytes.
pub(super) fn write(storage: &dyn Storage, stand: Stand, state: &SnapshotState) -> io::Result<u64> {
    let written = write_items(storage, stand, state, FILE);
    if written.is_err() {
        storage.remove(UNFINISHED).ok(); // on a full disk its room is needed; else it is in nobody's way
        return written;
    }
    if let Err(error) = write_items(storage, stand, state, COPY) {
        storage.remove(UNFINISHED).ok();
        tracing::debug!(%error, "the copy of the broker's snapshot is older than it");
    }
    written
}

fn write_items(storage: &dyn Storage, stand: Stand, state: &SnapshotState, name: &str) -> io::Result<u64> {
    let mut out = Items { file: storage.create(UNFINISHED)?, buffer: head(stand), written: 0, items: 0 };
    for session in &state.sessions {
        out.item(SESSION, |body| put_session(body, session))?;
        for (filter, options, id) in &session.subscriptions {
            out.item(SUBSCRIPTION, |body| put_subscription(body, filter, *options, *id))?;
        }
    }
    for message in &state.retained {
        out.item(RETAINED, |body| put_message(body, message))?;
    }
    let items = out.items;
    out.item(END, |body| {
        put_number(body, state.next_session.0);
        put_number(body, items);
    })?;
    out.flush()?;
    out.file.sync()?;
    storage.rename(UNFINISHED, name)?;
    storage.sync_dir()?;
    Ok(out.written)
}

fn head(stand: Stand) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PIECE_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&stand.position.0.to_le_bytes());
    bytes.extend_from_slice(&stand.log_epoch.to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

struct Items {
    file: Arc<dyn StorageFile>,
    buffer: Vec<u8>,
    written: u64,
    items: u64,
}

impl Items {
    fn item(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let from = self.buffer.len();
        self.buffer.extend_from_slice(&[0; ITEM_HEAD_BYTES]);
        self.buffer.push(kind);
        body(&mut self.buffer);
        if let Some((head, content)) =
            self.buffer.get_mut(from..).and_then(|item| item.split_at_mut_checked(ITEM_HEAD_BYTES))
        {
            let length =
                u32::try_from(content.len()).ok().filter(|length| *length as usize <= ITEM_BYTES_MAX);
            let length = length.ok_or_else(|| io::Error::other("an item above the maximum"))?;
            let (length_bytes, crc_bytes) = head.split_at_mut(4);
            length_bytes.copy_from_slice(&length.to_le_bytes());
            crc_bytes.copy_from_slice(&item_crc(self.items, content).to_le_bytes());
        }
        self.items += 1;
        if self.buffer.len() >= PIECE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            let written = match self.file.write_at(rest, self.written) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.written += written as u64;
            rest = rest.get(written..).unwrap_or_default();
        }
        self.buffer.clear();
        self.buffer.shrink_to(PIECE_BYTES);
        Ok(())
    }
}

fn item_crc(number: u64, content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), content)
}

fn put_session(out: &mut Vec<u8>, session: &SessionState) {
    put_number(out, session.id.0);
    put_bytes(out, session.client_id.as_bytes());
    put_bytes(out, session.identity.as_bytes());
    put_number(out, u64::from(session.expiry_s));
    out.push(if session.disconnected_at.is_some() { DISCONNECTED } else { 0 });
    if let Some(at) = session.disconnected_at {
        out.extend_from_slice(&at.0.to_le_bytes());
    }
    for number in [session.base, session.end, session.base_position.0, session.queued_bytes] {
        put_number(out, number);
    }
    put_number(out, session.received.len() as u64);
    session.received.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
    put_ordinals(out, session.base, session.done.iter().copied());
    put_ordinals(out, session.base, session.received_out.iter().copied());
}

/// Reads the copy of the snapshot, when the snapshot itself is damaged.
pub(super) fn read_copy(storage: &dyn Storage, into: &mut Replaying) -> Result<Option<Stand>, SnapshotError> {
    read_file(storage, COPY, into)
}

/// Reads the snapshot into `into`; `None` if there is none.
pub(super) fn read(storage: &dyn Storage, into: &mut Replaying) -> Result<Option<Stand>, SnapshotError> {
    read_file(storage, FILE, into)
}

/// Whether a file of that name is a whole snapshot; `None` if the name is no snapshot's. Blocking.
pub(crate) fn verify(storage: &dyn Storage, name: &str) -> Option<Result<(), String>> {
    [FILE, COPY].contains(&name).then(|| {
        let read = read_file(storage, name, &mut Replaying::default());
        read.map(|_stand| ()).map_err(|error| error.to_string())
    })
}

fn read_file(
    storage: &dyn Storage,
    name: &str,
    into: &mut Replaying,
) -> Result<Option<Stand>, SnapshotError> {
    let file = match storage.open(name, false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut pieces = Pieces { left: file.bytes()?, file, buffer: Vec::new(), used: 0, offset: 0 };
    let stand = pieces.head()?;
    let mut session = None;
    let mut items = 0;
    loop {
        let at = pieces.offset;
        let content = pieces.item(items)?;
        let is_end = read_item(Decoder(content), into, &mut session, items)
            .map_err(|error| SnapshotError::Damaged { byte: at, what: error.to_string() })?;
        if is_end {
            break;
        }
        items += 1;
    }
    into_place(&mut session, into);
    if pieces.left > 0 {
        return Err(pieces.damaged("bytes follow its end"));
    }
    Ok(Some(stand))
}

fn into_place(session: &mut Option<SessionState>, into: &mut Replaying) {
    session.take().into_iter().for_each(|session| into.session(session));
}

/// True if it was the end.
fn read_item(
    mut from: Decoder<'_>,
    into: &mut Replaying,
    session: &mut Option<SessionState>,
    number: u64,
) -> Result<bool, DecodeError> {
    let kind = from.u8()?;
    match kind {
        SESSION => {
            into_place(session, into);
            *session = Some(read_session(&mut from)?);
        }
        SUBSCRIPTION => {
            let owner = session.as_mut().ok_or(DecodeError::Damaged("a subscription of nobody"))?;
            owner.subscriptions.push(from.subscription()?);
        }
        RETAINED => into.retained(Arc::new(from.message()?)),
        END => {
            into.next_session(from.session()?);
            if from.number()? != number {
                return Err(DecodeError::Damaged("another number of items than was written"));
            }
        }
        _ => return Err(DecodeError::Damaged("an item of an unknown kind")),
    }
    from.end()?;
    Ok(kind == END)
}

fn read_session(from: &mut Decoder<'_>) -> Result<SessionState, DecodeError> {
    let (id, client_id, identity) = (from.session()?, from.text()?.into(), from.text()?.into());
    let expiry_s = from.number_u32()?;
    let disconnected_at = match from.u8()? {
        0 => None,
        DISCONNECTED => Some(from.time()?),
        _ => return Err(DecodeError::Damaged("a session with an unknown flag")),
    };
    let (base, end) = (from.number()?, from.number()?);
    let (base_position, queued_bytes) = (Position(from.number()?), from.number()?);
    let mut received = BTreeSet::new();
    for _ in 0..from.count(2)? {
        received.insert(from.u16()?);
    }
    let done = from.ordinals(base)?.into_iter().collect();
    let received_out = from.ordinals(base)?.into_iter().collect();
    if base > end {
        return Err(DecodeError::Damaged("a session that is further than its messages"));
    }
    Ok(SessionState {
        id,
        client_id,
        identity,
        expiry_s,
        disconnected_at,
        subscriptions: Vec::new(),
        received,
        base,
        end,
        done,
        received_out,
        base_position,
        queued_bytes,
    })
}

/// The file, read in pieces.
struct Pieces {
    file: Arc<dyn StorageFile>,
    /// Read; up to `used` handed out.
    buffer: Vec<u8>,
    used: usize,
    /// Byte of the file that is handed out next.
    offset: u64,
    /// Bytes from there to the end of the file.
    left: u64,
}

impl Pieces {
    fn damaged(&self, what: impl Into<String>) -> SnapshotError {
        SnapshotError::Damaged { byte: self.offset, what: what.into() }
    }

    fn head(&mut self) -> Result<Stand, SnapshotError> {
        let bytes: [u8; HEAD_BYTES] = self.array()?;
        let damaged = |what: &str| SnapshotError::Damaged { byte: 0, what: what.into() };
        let mut from = &bytes[..];
        let magic: [u8; 8] = fixed(&mut from);
        let version = u32::from_le_bytes(fixed(&mut from));
        let _reserved: [u8; 4] = fixed(&mut from);
        let (position, log_epoch) =
            (u64::from_le_bytes(fixed(&mut from)), u64::from_le_bytes(fixed(&mut from)));
        let crc = u32::from_le_bytes(fixed(&mut from));
        if magic != *MAGIC {
            return Err(damaged("it is no snapshot"));
        }
        let rest: [u8; 4] = fixed(&mut from);
        if version == 0 || crc != crc32c::crc32c(&bytes[..32]) {
            return Err(damaged("the checksum of its head does not fit"));
        }
        if version > VERSION {
            return Err(SnapshotError::Newer(version));
        }
        if rest != [0; 4] {
            return Err(damaged("its head ends otherwise than it was written"));
        }
        Ok(Stand { position: Position(position), log_epoch })
    }

    fn item(&mut self, number: u64) -> Result<&[u8], SnapshotError> {
        let head: [u8; ITEM_HEAD_BYTES] = self.array()?;
        let mut from = &head[..];
        let (length, crc) = (u32::from_le_bytes(fixed(&mut from)), u32::from_le_bytes(fixed(&mut from)));
        let length = length as usize;
        if length > ITEM_BYTES_MAX {
            return Err(self.damaged("an item is above the maximum"));
        }
        if crc != item_crc(number, self.take(length)?) {
            return Err(self.damaged("the checksum of the item before does not fit"));
        }
        Ok(self.buffer.get(self.used - length..self.used).unwrap_or_default())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let taken = self.take(N)?;
        let mut array = [0; N];
        array.copy_from_slice(taken);
        Ok(array)
    }

    /// The next bytes; they stay in the buffer until more are asked for.
    fn take(&mut self, bytes: usize) -> Result<&[u8], SnapshotError> {
        if bytes as u64 > self.left {
            return Err(self.damaged("it is cut"));
        }
        if self.buffer.len() - self.used < bytes {
            self.buffer.drain(..self.used);
            self.used = 0;
            let target = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.max(PIECE_BYTES));
            let mut filled = self.buffer.len();
            self.buffer.resize(target.max(filled), 0);
            while let Some(space) = self.buffer.get_mut(filled..).filter(|space| !space.is_empty()) {
                match self.file.read_at(space, self.offset + filled as u64) {
                    Ok(0) => return Err(self.damaged("it is cut")),
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let from = self.used;
        self.used += bytes;
        self.offset += bytes as u64;
        self.left -= bytes as u64;
        Ok(self.buffer.get(from..self.used).unwrap_or_default())
    }
}

/// The first bytes of what is known to be long enough.
fn fixed<const N: usize>(from: &mut &[u8]) -> [u8; N] {
    match from.split_first_chunk::<N>() {
        Some((taken, rest)) => {
            *from = rest;
            *taken
        }
        None => [0; N],
    }
}
