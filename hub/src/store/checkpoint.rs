//! A periodic picture of accounts and last values, so that opening need not read the whole log.
//!
//! It is a short cut, never the truth: it is valid only if the log still holds the record before its position, in
//! the epoch that the checkpoint names ([`Checkpoint::fits`]). A log that was cut behind it, or replaced, refuses it,
//! and the accounts are counted from the log again. Two generations are kept; retention keeps the log from the older
//! one's position on, so one bad file costs time, not truth.
//!
//! Beside them is a picture of the accounts alone, `counted`, made anew before the hub keeps that a sink stands further
//! on: whatever the hub knows a sink to hold is in it. If the log is then found damaged where a sink has read already, it says whose
//! records those were; agents that still hold them would otherwise be asked again, and the table would count them twice.
//!
//! ```text
//! magic "FBHUBCKP" | version u16 = 3 | reserved u16 | body length u64 | CRC32C of all before and the body u32 | body
//! body   = log epoch u64 | position u64 | values position u64 | agents u32 { agent } | chunks u32 { chunk }
//! agent  = id u32 | epochs u32 { epoch u64 | flags u8 | ranges | account | agent account | lost | quarantined
//!          | verified end u64 | [reported] | [settled account] | [mismatch text]
//!          | history u64 | devices u32 { device } }
//!          flags: 1 foreign, 2 reported, 4 settled account, 8 mismatch
//! device = name text | as of u64 | read u64 | dead band u64 | quarantined u64 | made u64 | received u64
//! text   = length u32 | UTF-8
//! ranges = count u32 { start u64 | end u64 }      account = count u64 | checksum u64
//! reported = first held u64 | end u64 | before account | total account
//! chunk  = arrivals u32 { i64 µs } | length u32 | a LogRecord::Received that holds the last values
//! ```
//! All numbers are little endian.

use std::io;

use durable_log::{LogView, Position, Storage};
use model::{Epoch, Offset, RangeSet, RecordId, Sample, SampleBatch, Timestamp};
use proto::account::{Account, DeviceCounts};
use proto::log_record::{AgentId, LogRecord};
use proto::sparkplug::EpochAccount;
use runtime::mistakes::{Mistake, is_made};

use super::accounts::{Accounts, AgentBook, EpochBook};
use super::{DeviceAccount, LastValue};

const MAGIC: &[u8; 8] = b"FBHUBCKP";
const VERSION: u16 = 3;
const HEAD_BYTES: usize = 24;
/// More than the largest hub's points and epochs need; bounds what is read into memory.
const BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Last values per chunk.
const CHUNK: usize = 1024;

const NEWEST: &str = "checkpoint";
const PREVIOUS: &str = "checkpoint.previous";
const UNFINISHED: &str = "checkpoint.new";
const COUNTED: &str = "counted";
const COUNTED_UNFINISHED: &str = "counted.new";

const FOREIGN: u8 = 1;
const REPORTED: u8 = 2;
const SETTLED: u8 = 4;
const MISMATCH: u8 = 8;

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Checkpoint {
    /// Epoch of the record before `accounts.position`; 0 if that is 0.
    pub(super) log_epoch: u64,
    /// Every record below `accounts.position` is counted.
    pub(super) accounts: Accounts,
    /// Every record below this has been seen by `values`.
    pub(super) values_position: u64,
    /// Last values.
    pub(super) values: Vec<LastValue>,
}

/// Why a file is no checkpoint.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckpointError {
    #[error("cannot be read")]
    Io(#[from] io::Error),
    #[error("is damaged: {0}")]
    Damaged(&'static str),
    #[error("has version {0}, newer than this program's; use the newer program")]
    Newer(u16),
}

impl Checkpoint {
    /// These accounts and values, bound to the log; `None` if the record before their position is not held any more.
    pub(super) fn of(
        view: &LogView,
        accounts: Accounts,
        values_position: u64,
        values: Vec<LastValue>,
    ) -> Option<Self> {
        let log_epoch = match accounts.position.checked_sub(1) {
            None => 0,
            Some(last) => view.epoch_of(Position(last))?,
        };
        Some(Checkpoint { log_epoch, accounts, values_position, values })
    }

    /// Whether the log holds what this counts: nothing was cut away behind it, and it is the same log.
    pub(super) fn fits(&self, view: &LogView) -> bool {
        let position = self.accounts.position;
        let end = view.durable_end().0;
        if is_made(Mistake::RangesBeside) {
            return true;
        }
        position <= end
            && self.values_position <= end
            && (position == 0 || view.epoch_of(Position(position - 1)) == Some(self.log_epoch))
    }
}

/// Writes a checkpoint and makes it durable; the one before stays as the previous generation.
pub(super) fn write(storage: &dyn Storage, checkpoint: &Checkpoint) -> io::Result<()> {
    write_file(storage, UNFINISHED, checkpoint)?;
    if storage.list()?.iter().any(|entry| entry.name == NEWEST) {
        storage.rename(NEWEST, PREVIOUS)?;
    }
    storage.rename(UNFINISHED, NEWEST)?;
    storage.sync_dir()
}

/// Writes the picture of the accounts alone and makes it durable.
pub(super) fn write_counted(storage: &dyn Storage, counted: &Checkpoint) -> io::Result<()> {
    write_file(storage, COUNTED_UNFINISHED, counted)?;
    storage.rename(COUNTED_UNFINISHED, COUNTED)?;
    storage.sync_dir()
}

fn write_file(storage: &dyn Storage, name: &str, checkpoint: &Checkpoint) -> io::Result<()> {
    let mut bytes = vec![0; HEAD_BYTES];
    encode(checkpoint, &mut bytes);
    let body = bytes.get(HEAD_BYTES..).unwrap_or_default();
    let length = body.len() as u64;
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&[0; 2]);
    head.extend_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head), body);
    head.extend_from_slice(&crc.to_le_bytes());
    bytes.splice(..HEAD_BYTES, head);

    let file = storage.create(name)?;
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match file.write_at(rest, written as u64)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            more => written += more,
        }
    }
    file.sync()
}

/// The picture of the accounts alone, if there is one that can be read. Checkpoints tell of a later version.
pub(super) fn read_counted(storage: &dyn Storage) -> Result<Option<Checkpoint>, CheckpointError> {
    let Some(entry) = storage.list()?.into_iter().find(|entry| entry.name == COUNTED) else {
        return Ok(None);
    };
    match read_one(storage, COUNTED, entry.bytes) {
        Ok(counted) => Ok(Some(counted)),
        Err(newer @ CheckpointError::Newer(_)) => Err(newer),
        Err(error) => {
            tracing::error!(file = %storage.path(COUNTED).display(), %error, "left out");
            Ok(None)
        }
    }
}

/// Every readable checkpoint, newest first. One that a later version wrote is an error; damaged ones are left out.
pub(super) fn read(storage: &dyn Storage) -> Result<Vec<Checkpoint>, CheckpointError> {
    let mut found = Vec::new();
    for entry in storage.list()? {
        if ![NEWEST, PREVIOUS, UNFINISHED].contains(&entry.name.as_str()) {
            continue;
        }
        match read_one(storage, &entry.name, entry.bytes) {
            Ok(checkpoint) => found.push(checkpoint),
            Err(newer @ CheckpointError::Newer(_)) => return Err(newer),
            Err(_half_written) if entry.name == UNFINISHED => {}
            Err(error) => {
                tracing::error!(file = %storage.path(&entry.name).display(), %error, "checkpoint left out");
            }
        }
    }
    found.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.accounts.position));
    Ok(found)
}

/// Whether a file of that name is a whole checkpoint or picture; `None` if the name is neither's. Blocking.
pub(crate) fn verify(storage: &dyn Storage, name: &str) -> Option<Result<(), String>> {
    let is_ours = [NEWEST, PREVIOUS, COUNTED].contains(&name);
    let bytes = || storage.list().ok()?.into_iter().find(|entry| entry.name == name).map(|entry| entry.bytes);
    is_ours.then(|| {
        let read = read_one(storage, name, bytes().unwrap_or(0));
        read.map(|_checkpoint| ()).map_err(|error| error.to_string())
    })
}

fn read_one(storage: &dyn Storage, name: &str, bytes: u64) -> Result<Checkpoint, CheckpointError> {
    if bytes > BYTES_MAX {
        return Err(CheckpointError::Damaged("it is too large"));
    }
    let length = usize::try_from(bytes).map_err(|_| CheckpointError::Damaged("it is too large"))?;
    let mut content = vec![0; length];
    let file = storage.open(name, false)?;
    let mut filled = 0;
    while let Some(rest) = content.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64)? {
            0 => break,
            more => filled += more,
        }
    }
    let mut head = Reader(&content);
    if head.take(8)? != MAGIC {
        return Err(CheckpointError::Damaged("it is no checkpoint"));
    }
    let version = u16::from_le_bytes(head.array()?);
    head.take(2)?;
    let (length, crc) = (head.u64()?, head.u32()?);
    let covered = content.get(..HEAD_BYTES - size_of::<u32>()).unwrap_or_default();
    if length != head.0.len() as u64 || crc != crc32c::crc32c_append(crc32c::crc32c(covered), head.0) {
        return Err(CheckpointError::Damaged("length or checksum is wrong"));
    }
    match version {
        VERSION => {}
        0..VERSION => return Err(CheckpointError::Damaged("a version that this program no longer reads")),
        newer => return Err(CheckpointError::Newer(newer)),
    }
    decode(head)
}

fn encode(checkpoint: &Checkpoint, out: &mut Vec<u8>) {
    put(out, checkpoint.log_epoch);
    put(out, checkpoint.accounts.position);
    put(out, checkpoint.values_position);
    put_count(out, checkpoint.accounts.agents.len());
    for (agent, book) in &checkpoint.accounts.agents {
        out.extend_from_slice(&agent.0.to_le_bytes());
        put_count(out, book.epochs.len());
        for (epoch, book) in &book.epochs {
            put(out, epoch.0);
            put_epoch(out, book);
        }
    }
    put_count(out, checkpoint.values.len().div_ceil(CHUNK));
    for chunk in checkpoint.values.chunks(CHUNK) {
        put_values(out, chunk);
    }
}

fn put_epoch(out: &mut Vec<u8>, book: &EpochBook) {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    out.push(
        flag(book.foreign, FOREIGN)
            | flag(book.reported.is_some(), REPORTED)
            | flag(book.settled_account.is_some(), SETTLED)
            | flag(book.mismatch.is_some(), MISMATCH),
    );
    put_ranges(out, &book.ranges);
    put_account(out, book.account);
    put_account(out, book.agent_account);
    put_ranges(out, &book.lost);
    put_ranges(out, &book.quarantined);
    put(out, book.verified_end);
    if let Some(reported) = &book.reported {
        put(out, reported.first_held);
        put(out, reported.end);
        put_account(out, reported.before);
        put_account(out, reported.total);
    }
    if let Some(account) = book.settled_account {
        put_account(out, account);
    }
    if let Some(why) = &book.mismatch {
        put_text(out, why);
    }
    put(out, book.history);
    put_count(out, book.devices.len());
    for (name, DeviceAccount { counts, as_of, received }) in &book.devices {
        put_text(out, name);
        let DeviceCounts { read, dead_band, quarantined, made } = *counts;
        [*as_of, read, dead_band, quarantined, made, *received]
            .into_iter()
            .for_each(|number| put(out, number));
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_values(out: &mut Vec<u8>, values: &[LastValue]) {
    put_count(out, values.len());
    for value in values {
        out.extend_from_slice(&value.arrival.0.to_le_bytes());
    }
    let samples = values.iter().map(|last| Sample {
        point: last.point,
        time: last.time,
        value: last.value.clone(),
        quality: last.quality,
    });
    let id = RecordId { epoch: Epoch(1), offset: Offset(0) };
    let batch =
        SampleBatch { id, accepted_at: Timestamp(0), is_historical: false, samples: samples.collect() };
    let mut record = Vec::new();
    LogRecord::Received { agent: AgentId(0), batch, account: Account::default(), counts: None }
        .encode(&mut record);
    put_count(out, record.len());
    out.extend_from_slice(&record);
}

fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_account(out: &mut Vec<u8>, account: Account) {
    put(out, account.count);
    put(out, account.checksum);
}

fn put_ranges(out: &mut Vec<u8>, ranges: &RangeSet) {
    put_count(out, ranges.iter().len());
    for range in ranges.iter() {
        put(out, range.start);
        put(out, range.end);
    }
}

struct Reader<'a>(&'a [u8]);

fn decode(mut from: Reader<'_>) -> Result<Checkpoint, CheckpointError> {
    let mut checkpoint = Checkpoint { log_epoch: from.u64()?, ..Checkpoint::default() };
    checkpoint.accounts.position = from.u64()?;
    checkpoint.values_position = from.u64()?;
    for _ in 0..from.u32()? {
        let agent = AgentId(from.u32()?);
        let mut book = AgentBook::default();
        for _ in 0..from.u32()? {
            let epoch = Epoch(from.u64()?);
            book.epochs.insert(epoch, from.epoch(epoch)?);
        }
        checkpoint.accounts.agents.insert(agent, book);
    }
    for _ in 0..from.u32()? {
        from.values(&mut checkpoint.values)?;
    }
    if from.0.is_empty() { Ok(checkpoint) } else { Err(CheckpointError::Damaged("bytes are left over")) }
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], CheckpointError> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(CheckpointError::Damaged("it is cut"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CheckpointError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(CheckpointError::Damaged("it is cut"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, CheckpointError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, CheckpointError> {
        self.array().map(u64::from_le_bytes)
    }

    fn account(&mut self) -> Result<Account, CheckpointError> {
        Ok(Account { count: self.u64()?, checksum: self.u64()? })
    }

    fn ranges(&mut self) -> Result<RangeSet, CheckpointError> {
        let mut ranges = RangeSet::new();
        for _ in 0..self.u32()? {
            ranges.insert(self.u64()?..self.u64()?);
        }
        Ok(ranges)
    }

    fn epoch(&mut self, epoch: Epoch) -> Result<EpochBook, CheckpointError> {
        let [flags] = self.array()?;
        let mut book = EpochBook {
            foreign: flags & FOREIGN != 0,
            ranges: self.ranges()?,
            account: self.account()?,
            agent_account: self.account()?,
            lost: self.ranges()?,
            quarantined: self.ranges()?,
            verified_end: self.u64()?,
            ..EpochBook::default()
        };
        if flags & REPORTED != 0 {
            let (first_held, end) = (self.u64()?, self.u64()?);
            let (before, total) = (self.account()?, self.account()?);
            book.reported = Some(EpochAccount { epoch, first_held, end, before, total });
        }
        if flags & SETTLED != 0 {
            book.settled_account = Some(self.account()?);
        }
        if flags & MISMATCH != 0 {
            book.mismatch = Some(self.text()?);
        }
        book.history = self.u64()?;
        for _ in 0..self.u32()? {
            let (name, as_of) = (self.text()?, self.u64()?);
            let (read, dead_band) = (self.u64()?, self.u64()?);
            let counts = DeviceCounts { read, dead_band, quarantined: self.u64()?, made: self.u64()? };
            book.devices.insert(name, DeviceAccount { counts, as_of, received: self.u64()? });
        }
        Ok(book)
    }

    fn text(&mut self) -> Result<String, CheckpointError> {
        let length = self.u32()? as usize;
        let text = self.take(length)?.to_vec();
        String::from_utf8(text).map_err(|_| CheckpointError::Damaged("a text is no UTF-8"))
    }

    fn values(&mut self, into: &mut Vec<LastValue>) -> Result<(), CheckpointError> {
        let count = self.u32()? as usize;
        let arrivals = self.take(count.saturating_mul(8))?;
        let length = self.u32()? as usize;
        let record = LogRecord::decode(self.take(length)?);
        let Ok(LogRecord::Received { batch, .. }) = record else {
            return Err(CheckpointError::Damaged("last values cannot be read"));
        };
        if batch.samples.len() != count {
            return Err(CheckpointError::Damaged("last values do not fit together"));
        }
        let (arrivals, _) = arrivals.as_chunks::<8>();
        into.extend(batch.samples.into_iter().zip(arrivals).map(|(sample, arrival)| LastValue {
            point: sample.point,
            time: sample.time,
            arrival: Timestamp(i64::from_le_bytes(*arrival)),
            value: sample.value,
            quality: sample.quality,
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use durable_log::{Faults, FaultyStorage};
    use model::{PointId, Quality, Value};

    use super::*;
    use crate::store::accounts::{Change, Counted};

    fn checkpoint(position: u64) -> Checkpoint {
        let mut accounts = Accounts { position, ..Accounts::default() };
        let (agent, epoch) = (AgentId(3), Epoch(9));
        let (account, total) = (Account { count: 2, checksum: 7 }, Account { count: 9, checksum: 1 });
        for offset in [0, 1, 5, position] {
            let id = RecordId { epoch, offset: Offset(offset) };
            let running = Some(account);
            let counted = Counted::default();
            accounts.apply(&Change::Received { agent, id, account, agent_account: total, running, counted });
        }
        accounts.apply(&Change::Settled { agent, epoch, range: 2..4, quarantined: false });
        accounts.apply(&Change::Settled { agent, epoch, range: 4..5, quarantined: true });
        let reported = EpochAccount { epoch, first_held: 4, end: position + 9, before: account, total };
        accounts.apply(&Change::Reported { agent, account: reported });
        let id = RecordId { epoch: Epoch(8), offset: Offset(position) };
        accounts.apply(&Change::Foreign { agent: AgentId(4), id, account });
        for book in accounts.agents.values_mut() {
            for epoch in book.epochs.values_mut() {
                epoch.mismatch = Some("ä".into());
                epoch.settled_account = Some(total);
                epoch.history = 3;
                let counts = DeviceCounts { read: 1, dead_band: 2, quarantined: 3, made: 4 };
                epoch.devices.insert("ü".into(), DeviceAccount { counts, as_of: 5, received: 6 });
                epoch.verified_end = 3;
            }
        }
        let value = |n: u32| LastValue {
            point: PointId(n * 3),
            time: Timestamp(-1),
            arrival: Timestamp(i64::from(n)),
            value: (n != 1).then(|| Value::String("x".repeat(n as usize % 9))),
            quality: Quality::GOOD,
        };
        let values = (0..1100).map(value).collect();
        Checkpoint { log_epoch: 77, accounts, values_position: position - 1, values }
    }

    #[test]
    fn two_generations_come_back_and_damage_is_left_out() {
        let disk = FaultyStorage::new(1);
        for position in [10, 20, 30] {
            write(&disk, &checkpoint(position)).unwrap();
        }
        assert_eq!(read(&disk).unwrap(), [checkpoint(30), checkpoint(20)]);
        let file = disk.open(NEWEST, true).unwrap();
        file.write_at(&[0xff], 1000).unwrap();
        assert_eq!(read(&disk).unwrap(), [checkpoint(20)]);
        // A flipped bit in the version is damage; a newer version has a checksum that fits.
        file.write_at(&[4, 0], 8).unwrap();
        assert_eq!(read(&disk).unwrap(), [checkpoint(20)]);
        write(&disk, &checkpoint(40)).unwrap();
        let mut bytes = disk.bytes_of(NEWEST).unwrap();
        bytes[8] = 4;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..20]), &bytes[HEAD_BYTES..]);
        bytes[20..24].copy_from_slice(&crc.to_le_bytes());
        disk.replace(NEWEST, bytes);
        assert!(matches!(read(&disk), Err(CheckpointError::Newer(4))));
    }

    #[test]
    fn a_power_cut_at_any_call_leaves_a_whole_checkpoint() {
        for seed in 0..60 {
            let disk = FaultyStorage::new(seed);
            write(&disk, &checkpoint(10)).unwrap();
            write(&disk, &checkpoint(20)).unwrap();
            let one_in = seed % 4 + 1;
            disk.set_faults(Faults { write_error: one_in * 2, sync_error: one_in, ..Faults::default() });
            let written = write(&disk, &checkpoint(30)).is_ok();
            let found = read(&disk.crash()).unwrap();
            let newest = found.first().map(|found| found.accounts.position);
            assert!(
                newest >= Some(10) && (!written || newest == Some(30)),
                "seed {seed}: {newest:?}, {written}"
            );
        }
    }

    #[test]
    fn no_bytes_are_read_as_something_else() {
        let mut bytes = Vec::new();
        encode(&checkpoint(10), &mut bytes);
        assert!(decode(Reader(&bytes)).is_ok());
        for cut in (0..bytes.len()).step_by(61) {
            assert!(decode(Reader(&bytes[..cut])).is_err());
        }
    }
}
