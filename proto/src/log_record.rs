//! Records in the two logs: what an agent accepted, what a hub received, and the catalogues that name their points.
//!
//! Framing (length, checksum) is the log's business; these are the bytes inside. All numbers are little endian;
//! varint is protobuf's, "signed" a zigzag varint, text and bytes have a varint length before them.
//!
//! ```text
//! u8 version = 1 · u8 kind · body, which ends where the bytes end
//!
//! kind 1 Accepted        account · batch · [counts]; flag 2: the device went down with it
//! kind 2 Received        agent varint · account · batch · [counts]
//! kind 3 SourcePosition  source text · position bytes
//! kind 4 CommandSeen     id 16 bytes · expires_at signed µs
//! kind 6 EpochGone       epoch u64 · end varint · account
//! kind 5 Lost            agent varint · epoch u64 · start varint · length varint (> 0) · reason text
//! kind 7 Again           sink text · agent varint · account · batch: a record that this sink had refused
//! kind 8 Retried         origin u8 · epoch u64 · position varint: in one group with what a retry brought
//! kind 16 Agent          agent varint · group text · node text
//! kind 17 Point          point varint · agent varint · path text · flags u8 · [device text] · metric text
//!                        · type u8 · unit text · [min f64] · [max f64] · [dead band f64] · description text
//!                        flags: 1 device, 2 writable, 4 min, 8 max, 16 dead band
//!
//! account = count varint · checksum u64
//! batch   = flags u8 · epoch u64 · offset varint · accepted_at signed µs · columns (columns.rs)
//!           flags: 1 is_historical, 2 device down, 4 with a column of qualities (absent if all are Good), 8 counts follow
//! counts  = read varint · dead band varint · quarantined varint · made varint
//! ```
//!
//! Unknown versions and kinds are errors that name themselves; unknown flags, types, qualities and left-over bytes
//! are damage. A reader never guesses.

mod columns;
mod reader;

use model::{
    Epoch, NodeId, Offset, PointDefinition, PointId, PointPath, Quality, RecordId, SampleBatch, Timestamp,
};

use self::reader::{Reader, put_bytes, put_signed};
use crate::account::{Account, DeviceCounts};
use crate::varint;

const VERSION: u8 = 1;

const ACCEPTED: u8 = 1;
const RECEIVED: u8 = 2;
const SOURCE_POSITION: u8 = 3;
const COMMAND_SEEN: u8 = 4;
const LOST: u8 = 5;
const EPOCH_GONE: u8 = 6;
const AGAIN: u8 = 7;
const RETRIED: u8 = 8;
const AGENT: u8 = 16;
const POINT: u8 = 17;

const IS_HISTORICAL: u8 = 1;
const DEVICE_DOWN: u8 = 2;
const WITH_QUALITY: u8 = 4;
const WITH_COUNTS: u8 = 8;

const HAS_DEVICE: u8 = 1;
const WRITABLE: u8 = 2;
const HAS_MIN: u8 = 4;
const HAS_MAX: u8 = 8;
const HAS_DEAD_BAND: u8 = 16;

/// Number of an agent in a hub's catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(pub u32);

/// What a sample record says about its device besides its samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceEvent {
    /// Nothing: the device goes on.
    #[default]
    None,
    /// These Stale samples are its last: a DDEATH follows.
    Down,
}

/// One record of a log. A log holds many kinds; a reader of a later version's kind gets an error, not a guess.
#[derive(Clone, Debug, PartialEq)]
pub enum LogRecord {
    /// In an agent's log: samples of one device, with the epoch's running account after them.
    Accepted {
        /// Identity, acceptance time, samples.
        batch: SampleBatch,
        /// Running account of the epoch, this record included.
        account: Account,
        /// Whether the device went down with it.
        event: DeviceEvent,
        /// What became of everything that the device has read in this epoch, as of this record.
        counts: Option<DeviceCounts>,
    },
    /// In a plant log: samples of one agent, with their own account.
    Received {
        /// Whose.
        agent: AgentId,
        /// Identity at the agent, acceptance time, samples with the hub's point ids.
        batch: SampleBatch,
        /// Account of this record alone.
        account: Account,
        /// What the agent counted at the device, as of this record.
        counts: Option<DeviceCounts>,
    },
    /// In an agent's log, in one atomic group with the samples that it covers: where the source stands now.
    SourcePosition {
        /// Name of the device whose driver reads the source.
        source: String,
        /// The driver's own bytes.
        position: Vec<u8>,
    },
    /// In an agent's log: a command's id, durable before anything is written to a device.
    CommandSeen {
        /// Its id.
        id: [u8; 16],
        /// When it can be forgotten: its expiry plus a margin.
        expires_at: Timestamp,
    },
    /// In an agent's log: nothing of the epoch is held any more, and no receipt covered all of it. Births go on naming it
    /// until the hub has counted what it never got as lost.
    EpochGone {
        /// Which.
        epoch: Epoch,
        /// One past its last record.
        end: u64,
        /// Its account at `end`.
        account: Account,
    },
    /// In a plant log: offsets that will never come, counted as settled (design §4.9).
    Lost {
        /// Whose.
        agent: AgentId,
        /// In which epoch.
        epoch: Epoch,
        /// First offset.
        start: u64,
        /// One past the last.
        end: u64,
        /// Why.
        reason: String,
    },
    /// In a plant log: a record that one sink had refused, for that sink once more. No other reader counts it.
    Again {
        /// For which sink.
        sink: String,
        /// Whose.
        agent: AgentId,
        /// The record as it was received.
        batch: SampleBatch,
        /// Account of this record alone.
        account: Account,
    },
    /// In a plant log, in one atomic group with what it brought: an entry of the quarantine was retried. So a retry that
    /// was cut off by a crash is known to have happened, or not.
    Retried {
        /// Which of the hub's quarantine logs: 1 payloads, 2 refused records.
        origin: u8,
        /// Epoch of that log at the entry.
        epoch: u64,
        /// Its position there.
        position: u64,
    },
}

/// One entry of a point catalogue: an append-only list, later entries of one id replace earlier ones.
#[derive(Clone, Debug, PartialEq)]
pub enum CatalogueEntry {
    /// An agent of a hub.
    Agent {
        /// Its number.
        id: AgentId,
        /// Its Sparkplug name.
        node: NodeId,
    },
    /// A point; `agent` is [`AgentId`] 0 in an agent's own catalogue.
    Point {
        /// Its number in this catalogue.
        id: PointId,
        /// Whose point.
        agent: AgentId,
        /// What it is.
        definition: PointDefinition,
    },
}

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a later version of the program.
    #[error("record version {0} is newer than this program; upgrade it")]
    Version(u8),
    /// A kind that this version does not know.
    #[error("record kind {0} is unknown to this program; upgrade it")]
    Kind(u8),
    /// The bytes are damaged: what was expected.
    #[error("damaged record: {0}")]
    Damaged(&'static str),
}

impl LogRecord {
    /// Appends the record's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Accepted { batch, account, event, counts } => {
                out.extend_from_slice(&[VERSION, ACCEPTED]);
                put_account(account, out);
                let down = if *event == DeviceEvent::Down { DEVICE_DOWN } else { 0 };
                put_batch(batch, down | counts_flag(*counts), out);
                put_counts(*counts, out);
            }
            Self::Received { agent, batch, account, counts } => {
                out.extend_from_slice(&[VERSION, RECEIVED]);
                varint::put(u64::from(agent.0), out);
                put_account(account, out);
                put_batch(batch, counts_flag(*counts), out);
                put_counts(*counts, out);
            }
            Self::Again { sink, agent, batch, account } => {
                out.extend_from_slice(&[VERSION, AGAIN]);
                put_bytes(sink.as_bytes(), out);
                varint::put(u64::from(agent.0), out);
                put_account(account, out);
                put_batch(batch, 0, out);
            }
            Self::Retried { origin, epoch, position } => {
                out.extend_from_slice(&[VERSION, RETRIED, *origin]);
                out.extend_from_slice(&epoch.to_le_bytes());
                varint::put(*position, out);
            }
            Self::SourcePosition { source, position } => {
                out.extend_from_slice(&[VERSION, SOURCE_POSITION]);
                put_bytes(source.as_bytes(), out);
                put_bytes(position, out);
            }
            Self::CommandSeen { id, expires_at } => {
                out.extend_from_slice(&[VERSION, COMMAND_SEEN]);
                out.extend_from_slice(id);
                put_signed(expires_at.0, out);
            }
            Self::EpochGone { epoch, end, account } => {
                out.extend_from_slice(&[VERSION, EPOCH_GONE]);
                out.extend_from_slice(&epoch.0.to_le_bytes());
                varint::put(*end, out);
                put_account(account, out);
            }
            Self::Lost { agent, epoch, start, end, reason } => {
                debug_assert!(start < end, "an empty range is not lost");
                out.extend_from_slice(&[VERSION, LOST]);
                varint::put(u64::from(agent.0), out);
                out.extend_from_slice(&epoch.0.to_le_bytes());
                varint::put(*start, out);
                varint::put(end.wrapping_sub(*start), out);
                put_bytes(reason.as_bytes(), out);
            }
        }
    }

    /// Reads one record; the bytes must hold nothing else.
    pub fn decode(bytes: &[u8]) -> Result<LogRecord, RecordError> {
        let mut reader = Reader::new(bytes);
        let record = match kind(&mut reader)? {
            ACCEPTED => {
                let account = read_account(&mut reader)?;
                let known = IS_HISTORICAL | DEVICE_DOWN | WITH_QUALITY | WITH_COUNTS;
                let (batch, flags) = read_batch(&mut reader, known)?;
                let event = if flags & DEVICE_DOWN == 0 { DeviceEvent::None } else { DeviceEvent::Down };
                Self::Accepted { batch, account, event, counts: read_counts(&mut reader, flags)? }
            }
            RECEIVED => {
                let agent = AgentId(reader.number32()?);
                let account = read_account(&mut reader)?;
                let (batch, flags) = read_batch(&mut reader, IS_HISTORICAL | WITH_QUALITY | WITH_COUNTS)?;
                Self::Received { agent, batch, account, counts: read_counts(&mut reader, flags)? }
            }
            AGAIN => {
                let (sink, agent) = (reader.text()?.to_owned(), AgentId(reader.number32()?));
                let account = read_account(&mut reader)?;
                let (batch, _) = read_batch(&mut reader, IS_HISTORICAL | WITH_QUALITY)?;
                Self::Again { sink, agent, batch, account }
            }
            RETRIED => {
                Self::Retried { origin: reader.byte()?, epoch: reader.fixed64()?, position: reader.varint()? }
            }
            SOURCE_POSITION => {
                let source = reader.text()?.to_owned();
                Self::SourcePosition { source, position: reader.bytes()?.to_vec() }
            }
            COMMAND_SEEN => Self::CommandSeen { id: reader.array()?, expires_at: reader.timestamp()? },
            EPOCH_GONE => Self::EpochGone {
                epoch: reader.epoch()?,
                end: reader.varint()?,
                account: read_account(&mut reader)?,
            },
            LOST => {
                let (agent, epoch) = (AgentId(reader.number32()?), reader.epoch()?);
                let (start, length) = (reader.varint()?, reader.varint()?);
                let end = start.checked_add(length).filter(|end| *end > start);
                let end = end.ok_or(RecordError::Damaged("a range that is none"))?;
                Self::Lost { agent, epoch, start, end, reason: reader.text()?.to_owned() }
            }
            other => return Err(RecordError::Kind(other)),
        };
        reader.end()?;
        Ok(record)
    }
}

fn kind(reader: &mut Reader<'_>) -> Result<u8, RecordError> {
    match reader.byte()? {
        VERSION => reader.byte(),
        0 => Err(RecordError::Damaged("there is no version 0")),
        newer => Err(RecordError::Version(newer)),
    }
}

fn put_account(account: &Account, out: &mut Vec<u8>) {
    varint::put(account.count, out);
    out.extend_from_slice(&account.checksum.to_le_bytes());
}

fn read_account(reader: &mut Reader<'_>) -> Result<Account, RecordError> {
    Ok(Account { count: reader.varint()?, checksum: reader.fixed64()? })
}

const fn counts_flag(counts: Option<DeviceCounts>) -> u8 {
    if counts.is_some() { WITH_COUNTS } else { 0 }
}

fn put_counts(counts: Option<DeviceCounts>, out: &mut Vec<u8>) {
    let Some(DeviceCounts { read, dead_band, quarantined, made }) = counts else { return };
    [read, dead_band, quarantined, made].into_iter().for_each(|count| varint::put(count, out));
}

fn read_counts(reader: &mut Reader<'_>, flags: u8) -> Result<Option<DeviceCounts>, RecordError> {
    if flags & WITH_COUNTS == 0 {
        return Ok(None);
    }
    let (read, dead_band) = (reader.varint()?, reader.varint()?);
    Ok(Some(DeviceCounts { read, dead_band, quarantined: reader.varint()?, made: reader.varint()? }))
}

fn put_batch(batch: &SampleBatch, mut flags: u8, out: &mut Vec<u8>) {
    let with_quality = batch.samples.iter().any(|sample| sample.quality != Quality::GOOD);
    if batch.is_historical {
        flags |= IS_HISTORICAL;
    }
    if with_quality {
        flags |= WITH_QUALITY;
    }
    out.push(flags);
    out.extend_from_slice(&batch.id.epoch.0.to_le_bytes());
    varint::put(batch.id.offset.0, out);
    put_signed(batch.accepted_at.0, out);
    columns::put(&batch.samples, batch.accepted_at, with_quality, out);
}

fn read_batch(reader: &mut Reader<'_>, known: u8) -> Result<(SampleBatch, u8), RecordError> {
    let flags = reader.byte()?;
    if flags & !known != 0 {
        return Err(RecordError::Damaged("unknown flags"));
    }
    let id = RecordId { epoch: reader.epoch()?, offset: Offset(reader.varint()?) };
    let accepted_at = reader.timestamp()?;
    let samples = columns::read(reader, accepted_at, flags & WITH_QUALITY != 0)?;
    Ok((SampleBatch { id, accepted_at, is_historical: flags & IS_HISTORICAL != 0, samples }, flags))
}

impl CatalogueEntry {
    /// Appends the entry's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Agent { id, node } => {
                out.extend_from_slice(&[VERSION, AGENT]);
                varint::put(u64::from(id.0), out);
                put_bytes(node.group().as_bytes(), out);
                put_bytes(node.node().as_bytes(), out);
            }
            Self::Point { id, agent, definition } => {
                out.extend_from_slice(&[VERSION, POINT]);
                varint::put(u64::from(id.0), out);
                varint::put(u64::from(agent.0), out);
                put_definition(definition, out);
            }
        }
    }

    /// Reads one entry; the bytes must hold nothing else.
    pub fn decode(bytes: &[u8]) -> Result<CatalogueEntry, RecordError> {
        let mut reader = Reader::new(bytes);
        let entry = match kind(&mut reader)? {
            AGENT => {
                let id = AgentId(reader.number32()?);
                let node = NodeId::new(reader.text()?, reader.text()?);
                Self::Agent { id, node: node.map_err(|_| RecordError::Damaged("no name of a node"))? }
            }
            POINT => {
                let (id, agent) = (PointId(reader.number32()?), AgentId(reader.number32()?));
                Self::Point { id, agent, definition: read_definition(&mut reader)? }
            }
            other => return Err(RecordError::Kind(other)),
        };
        reader.end()?;
        Ok(entry)
    }
}

fn put_definition(definition: &PointDefinition, out: &mut Vec<u8>) {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    let flags = flag(definition.device.is_some(), HAS_DEVICE)
        | flag(definition.writable, WRITABLE)
        | flag(definition.min.is_some(), HAS_MIN)
        | flag(definition.max.is_some(), HAS_MAX)
        | flag(definition.dead_band.is_some(), HAS_DEAD_BAND);
    put_bytes(definition.path.as_str().as_bytes(), out);
    out.push(flags);
    if let Some(device) = &definition.device {
        put_bytes(device.as_bytes(), out);
    }
    put_bytes(definition.metric.as_bytes(), out);
    out.push(definition.data_type.code());
    put_bytes(definition.unit.as_bytes(), out);
    for number in [definition.min, definition.max, definition.dead_band].into_iter().flatten() {
        out.extend_from_slice(&number.to_le_bytes());
    }
    put_bytes(definition.description.as_bytes(), out);
}

fn read_definition(reader: &mut Reader<'_>) -> Result<PointDefinition, RecordError> {
    let path = PointPath::new(reader.text()?).map_err(|_| RecordError::Damaged("no path"))?;
    let flags = reader.byte()?;
    if flags & !(HAS_DEVICE | WRITABLE | HAS_MIN | HAS_MAX | HAS_DEAD_BAND) != 0 {
        return Err(RecordError::Damaged("unknown flags"));
    }
    let has = |bit: u8| flags & bit != 0;
    let device = if has(HAS_DEVICE) { Some(reader.text()?.to_owned()) } else { None };
    let metric = reader.text()?.to_owned();
    let data_type = columns::data_type(reader.byte()?)?;
    let unit = reader.text()?.to_owned();
    let mut number = |bit: u8| if has(bit) { reader.double().map(Some) } else { Ok(None) };
    let (min, max, dead_band) = (number(HAS_MIN)?, number(HAS_MAX)?, number(HAS_DEAD_BAND)?);
    let description = reader.text()?.to_owned();
    let writable = has(WRITABLE);
    Ok(PointDefinition { path, device, metric, data_type, unit, min, max, writable, dead_band, description })
}

#[cfg(test)]
mod tests;
