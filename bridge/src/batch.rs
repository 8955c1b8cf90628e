//! Records of the plant log gathered into rows for one commit, sorted and split by day.
//!
//! [`BatchBuilder`] keeps rows in columns of numbers (a point is its id, a text is a place in one arena), so a million
//! rows cost about 40 MB, and [`Batch`] turns slices of them into Arrow arrays only while a file is written (`table.rs`).
//! A batch is whole records of one plant-log epoch, at most `COMMIT_DAYS_MAX` days of them; rows of a day are ordered
//! by (path, source time, log order). What a row's day is: the day of its source time in UTC; where that is implausible
//! (before 1990 or after 2099), the day of its arrival; where that is implausible too, 1970-01-01.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::limits::{COMMIT_DAYS_MAX, VALUE_BYTES_MAX};
use model::{DataType, PointId, Quality, SampleBatch, Timestamp, Value};
use proto::log_record::AgentId;

use crate::catalogue::{Catalogue, Point};
use crate::cursor::Span;

/// Bits of a text's place that hold its length.
const TEXT_LENGTH_BITS: u32 = 20;

const _: () = assert!(VALUE_BYTES_MAX < 1 << TEXT_LENGTH_BITS);

/// What all rows of one record share.
#[derive(Clone, Debug)]
pub(crate) struct RecordHead {
    /// Index into the batch's agents.
    pub(crate) agent: u32,
    pub(crate) epoch: i64,
    pub(crate) offset: i64,
    pub(crate) arrival: i64,
    pub(crate) is_historical: bool,
}

/// The value of a row: its type's code (0 for none) and 64 bits: a number, or the place of a text.
#[derive(Clone, Copy, Debug)]
struct Cell {
    kind: u8,
    bits: u64,
}

/// Rows in columns.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// Place in the builder's points while building, rank in `Batch::points` afterwards.
    pub(crate) point: Vec<u32>,
    pub(crate) time: Vec<i64>,
    /// Index into the batch's records.
    pub(crate) record: Vec<u32>,
    pub(crate) index: Vec<u32>,
    pub(crate) quality: Vec<u32>,
    /// Code of the value's type; 0 for none.
    pub(crate) kind: Vec<u8>,
    /// A number, or the place of a text.
    pub(crate) bits: Vec<u64>,
    texts: Vec<u8>,
}

/// Bytes that one row takes in [`Rows`].
const ROW_BYTES: usize = 4 + 8 + 4 + 4 + 4 + 1 + 8;

/// Why a record was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordProblem {
    /// The catalogue does not know the point yet.
    #[error("point {} is not in the catalogue", .0.0)]
    UnknownPoint(PointId),
    /// The catalogue does not know the agent yet.
    #[error("agent {} is not in the catalogue", .0.0)]
    UnknownAgent(AgentId),
    /// An offset or epoch does not fit the table's signed columns.
    #[error("record {0} does not fit the table")]
    Unrepresentable(String),
}

/// Gathers records of one span.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    rows: Rows,
    records: Vec<RecordHead>,
    agents: Vec<Arc<str>>,
    agent_numbers: BTreeMap<AgentId, u32>,
    points: Vec<Point>,
    /// By point id: place in `points`, or [`NOWHERE`].
    place_of: Vec<u32>,
    days: BTreeSet<i32>,
}

const NOWHERE: u32 = u32::MAX;

impl BatchBuilder {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.time.len()
    }

    /// Bytes held, for the pump's bound.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows() * ROW_BYTES + self.records.len() * size_of::<RecordHead>() + self.rows.texts.len()
    }

    /// Whether the record can join: it must not bring the commit above `COMMIT_DAYS_MAX` days. The first always can.
    #[must_use]
    pub fn has_room_for(&self, batch: &SampleBatch) -> bool {
        if self.days.is_empty() {
            return true;
        }
        let (mut new, mut last) = (BTreeSet::new(), None);
        for sample in &batch.samples {
            let day = day_of(sample.time.0, batch.accepted_at.0);
            if last.replace(day) != Some(day) && !self.days.contains(&day) {
                new.insert(day);
            }
        }
        self.days.len() + new.len() <= COMMIT_DAYS_MAX
    }

    /// Adds a record's samples; all of them or, with an error, none.
    pub fn push(
        &mut self,
        agent: AgentId,
        batch: &SampleBatch,
        catalogue: &Catalogue,
    ) -> Result<(), RecordProblem> {
        if let Some(unknown) = batch.samples.iter().find(|s| catalogue.point(s.point).is_none()) {
            return Err(RecordProblem::UnknownPoint(unknown.point));
        }
        let unrepresentable = |_| RecordProblem::Unrepresentable(batch.id.to_string());
        if batch.samples.iter().any(|s| s.value.as_ref().is_some_and(|v| v.heap_bytes() > VALUE_BYTES_MAX)) {
            return Err(RecordProblem::Unrepresentable(batch.id.to_string()));
        }
        let head = RecordHead {
            epoch: i64::try_from(batch.id.epoch.0).map_err(unrepresentable)?,
            offset: i64::try_from(batch.id.offset.0).map_err(unrepresentable)?,
            arrival: batch.accepted_at.0,
            is_historical: batch.is_historical,
            agent: self.agent_number(agent, catalogue)?,
        };
        let record = u32::try_from(self.records.len()).map_err(unrepresentable)?;
        self.records.push(head);
        let mut last_day = None;
        for (index, sample) in (0u32..).zip(&batch.samples) {
            let day = day_of(sample.time.0, batch.accepted_at.0);
            if last_day.replace(day) != Some(day) {
                self.days.insert(day);
            }
            let place = self.place_of(sample.point, catalogue);
            let cell = self.rows.cell(sample.value.as_ref());
            self.rows.point.push(place);
            self.rows.time.push(sample.time.0);
            self.rows.record.push(record);
            self.rows.index.push(index);
            self.rows.quality.push(sample.quality.bits());
            self.rows.kind.push(cell.kind);
            self.rows.bits.push(cell.bits);
        }
        Ok(())
    }

    /// The point's place among this batch's; `push` has checked that the catalogue knows it.
    fn place_of(&mut self, id: PointId, catalogue: &Catalogue) -> u32 {
        let at = id.0 as usize;
        if self.place_of.len() <= at {
            self.place_of.resize(at + 1, NOWHERE);
        }
        let known = self.place_of.get(at).copied().unwrap_or(NOWHERE);
        if known != NOWHERE {
            return known;
        }
        let new = u32::try_from(self.points.len()).unwrap_or(NOWHERE);
        self.points.extend(catalogue.point(id).cloned());
        if let Some(place) = self.place_of.get_mut(at) {
            *place = new;
        }
        new
    }

    fn agent_number(&mut self, agent: AgentId, catalogue: &Catalogue) -> Result<u32, RecordProblem> {
        if let Some(number) = self.agent_numbers.get(&agent) {
            return Ok(*number);
        }
        let name = catalogue.agent(agent).ok_or(RecordProblem::UnknownAgent(agent))?;
        let number = u32::try_from(self.agents.len())
            .map_err(|_| RecordProblem::Unrepresentable(format!("agent {}", agent.0)))?;
        self.agents.push(Arc::clone(name));
        self.agent_numbers.insert(agent, number);
        Ok(number)
    }

    /// The rows, sorted and split by day, as the commit of `span`. A million rows take some hundred milliseconds.
    #[must_use]
    pub fn finish(mut self, site: &str, span: Span) -> Batch {
        let points = rank_points(&mut self.rows.point, self.points);
        let days = split_by_day(&self.rows, &self.records, &self.days, points.len());
        Batch {
            span,
            site: Arc::from(site),
            points,
            agents: self.agents,
            records: self.records,
            rows: self.rows,
            days,
        }
    }
}

impl Rows {
    #[expect(clippy::cast_sign_loss, reason = "bits are kept, not the number")]
    fn cell(&mut self, value: Option<&Value>) -> Cell {
        let Some(value) = value else { return Cell { kind: 0, bits: 0 } };
        let bits = match value {
            Value::Int8(v) => i64::from(*v) as u64,
            Value::Int16(v) => i64::from(*v) as u64,
            Value::Int32(v) => i64::from(*v) as u64,
            Value::Int64(v) => *v as u64,
            Value::UInt8(v) => u64::from(*v),
            Value::UInt16(v) => u64::from(*v),
            Value::UInt32(v) => u64::from(*v),
            Value::UInt64(v) => *v,
            Value::Float(v) => f64::from(*v).to_bits(),
            Value::Double(v) => v.to_bits(),
            Value::Boolean(v) => u64::from(*v),
            Value::DateTime(v) => v.0 as u64,
            Value::String(text) => self.place(text.as_bytes()),
            Value::Bytes(bytes) => self.place(bytes),
        };
        Cell { kind: value.data_type().code(), bits }
    }

    fn place(&mut self, bytes: &[u8]) -> u64 {
        let start = self.texts.len() as u64;
        self.texts.extend_from_slice(bytes);
        start << TEXT_LENGTH_BITS | (bytes.len() as u64 & ((1 << TEXT_LENGTH_BITS) - 1))
    }
}

/// One commit's rows.
#[derive(Debug)]
pub struct Batch {
    span: Span,
    site: Arc<str>,
    points: Vec<Point>,
    agents: Vec<Arc<str>>,
    records: Vec<RecordHead>,
    rows: Rows,
    days: Vec<DayRows>,
}

/// The rows of one day in file order, as indices.
#[derive(Debug)]
pub struct DayRows {
    /// Days since 1970-01-01.
    pub day: i32,
    order: Vec<u32>,
}

impl DayRows {
    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(crate) fn order(&self) -> &[u32] {
        &self.order
    }
}

/// A row as people think of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<'b> {
    /// `group/node`.
    pub agent: &'b str,
    /// Path relative to the site.
    pub path: &'b str,
    /// Of its record.
    pub epoch: i64,
    /// Of its record.
    pub offset: i64,
    /// In its record.
    pub index: u32,
    /// Source time, µs.
    pub time: i64,
    /// When its record was accepted, µs.
    pub arrival: i64,
    /// 32 bits.
    pub quality: u32,
    /// Type code and bits of the value; 0 for none. Texts are compared by their bytes.
    pub value: (u8, u64),
    /// Bytes of a text.
    pub text: &'b [u8],
    /// Whether it came as history.
    pub is_historical: bool,
}

/// One row as numbers, for the conversion to columns.
pub(crate) struct RowView<'b> {
    pub(crate) point: u32,
    pub(crate) time: i64,
    pub(crate) index: u32,
    pub(crate) quality: u32,
    pub(crate) kind: u8,
    pub(crate) bits: u64,
    pub(crate) record: &'b RecordHead,
}

impl Batch {
    /// What it covers.
    #[must_use]
    pub const fn span(&self) -> &Span {
        &self.span
    }

    /// Rows in all.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.time.len()
    }

    /// Offsets of its records in the agents' logs, in log order.
    pub fn offsets(&self) -> impl Iterator<Item = i64> {
        self.records.iter().map(|record| record.offset)
    }

    /// The rows of each day, ascending by day.
    #[must_use]
    pub fn days(&self) -> &[DayRows] {
        &self.days
    }

    /// All rows in one order by (path, source time, log order), with the day of each.
    #[must_use]
    pub fn order_over_days(&self) -> Vec<(i32, u32)> {
        let mut order: Vec<(i32, u32)> =
            self.days.iter().flat_map(|d| d.order.iter().map(|row| (d.day, *row))).collect();
        if self.days.len() > 1 {
            let key = |row: u32| {
                let at = row as usize;
                (self.rows.point.get(at).copied(), self.rows.time.get(at).copied(), row)
            };
            order.sort_unstable_by_key(|(_, row)| key(*row));
        }
        order
    }

    /// Every row, in the order of the log.
    pub fn every_row(&self) -> impl Iterator<Item = Row<'_>> {
        (0..u32::try_from(self.rows()).unwrap_or(u32::MAX)).map(|at| {
            let row = self.row(at);
            let is_text = row.kind == DataType::String.code() || row.kind == DataType::Bytes.code();
            Row {
                agent: self.agents.get(row.record.agent as usize).map_or("", |agent| agent),
                path: self.points.get(row.point as usize).map_or("", |point| &point.path),
                epoch: row.record.epoch,
                offset: row.record.offset,
                index: row.index,
                time: row.time,
                arrival: row.record.arrival,
                quality: row.quality,
                value: (row.kind, if is_text { 0 } else { row.bits }),
                text: if is_text { self.text(row.bits) } else { &[] },
                is_historical: row.record.is_historical,
            }
        })
    }

    pub(crate) fn site(&self) -> &Arc<str> {
        &self.site
    }

    pub(crate) fn columns(&self) -> &Rows {
        &self.rows
    }

    pub(crate) fn records(&self) -> &[RecordHead] {
        &self.records
    }

    pub(crate) fn points(&self) -> &[Point] {
        &self.points
    }

    pub(crate) fn agents(&self) -> &[Arc<str>] {
        &self.agents
    }

    /// The row of an index that this batch gave out.
    #[expect(
        clippy::indexing_slicing,
        reason = "indices come from the orders that `finish` made of these very rows"
    )]
    pub(crate) fn row(&self, row: u32) -> RowView<'_> {
        let at = row as usize;
        RowView {
            point: self.rows.point[at],
            time: self.rows.time[at],
            index: self.rows.index[at],
            quality: self.rows.quality[at],
            kind: self.rows.kind[at],
            bits: self.rows.bits[at],
            record: &self.records[self.rows.record[at] as usize],
        }
    }

    /// The bytes of a String or Bytes cell.
    pub(crate) fn text(&self, bits: u64) -> &[u8] {
        let start = usize::try_from(bits >> TEXT_LENGTH_BITS).unwrap_or(usize::MAX);
        let length = usize::try_from(bits & ((1 << TEXT_LENGTH_BITS) - 1)).unwrap_or(0);
        start.checked_add(length).and_then(|end| self.rows.texts.get(start..end)).unwrap_or_default()
    }
}

/// Replaces places by ranks by path; the points in that order.
fn rank_points(column: &mut [u32], points: Vec<Point>) -> Vec<Point> {
    let mut ranked: Vec<(u32, Point)> = (0u32..).zip(points).collect();
    ranked.sort_by(|(_, a), (_, b)| a.path.cmp(&b.path)); // stable: equal paths stay in order of appearance
    let mut ranks = vec![0u32; ranked.len()];
    for (rank, (place, _)) in (0u32..).zip(&ranked) {
        if let Some(slot) = ranks.get_mut(*place as usize) {
            *slot = rank;
        }
    }
    for place in column {
        *place = ranks.get(*place as usize).copied().unwrap_or(0);
    }
    ranked.into_iter().map(|(_, point)| point).collect()
}

/// The indices of each day's rows, ordered by (rank, time, log order).
///
/// Rows of one point mostly come in the order of time, so a stable distribution by rank leaves little to sort.
fn split_by_day(rows: &Rows, records: &[RecordHead], days: &BTreeSet<i32>, points: usize) -> Vec<DayRows> {
    let numbers: Vec<i32> = days.iter().copied().collect();
    let mut ranked: Vec<Vec<u32>> = numbers.iter().map(|_| Vec::new()).collect();
    let mut last = (i32::MIN, 0usize);
    for (row, (time, record)) in (0u32..).zip(rows.time.iter().zip(&rows.record)) {
        let arrival = records.get(*record as usize).map_or(0, |head| head.arrival);
        let day = day_of(*time, arrival);
        if last.0 != day {
            last = (day, numbers.binary_search(&day).unwrap_or(0));
        }
        if let Some(list) = ranked.get_mut(last.1) {
            list.push(row);
        }
    }
    let mut result = Vec::with_capacity(numbers.len());
    for (day, unsorted) in numbers.into_iter().zip(ranked) {
        let order = sort_rows(rows, unsorted, points);
        result.push(DayRows { day, order });
    }
    result
}

#[expect(
    clippy::indexing_slicing,
    reason = "ranks are below `points`, rows below the columns' length, by construction"
)]
fn sort_rows(rows: &Rows, unsorted: Vec<u32>, points: usize) -> Vec<u32> {
    let mut ends = vec![0u32; points + 1];
    for row in &unsorted {
        ends[rows.point[*row as usize] as usize + 1] += 1;
    }
    for rank in 1..ends.len() {
        ends[rank] += ends[rank - 1];
    }
    let mut order = vec![0u32; unsorted.len()];
    let mut next = ends.clone();
    for row in unsorted {
        let place = &mut next[rows.point[row as usize] as usize];
        order[*place as usize] = row;
        *place += 1;
    }
    for run in ends.windows(2) {
        let run = &mut order[run[0] as usize..run[1] as usize];
        let time = |row: &u32| rows.time[*row as usize];
        if !run.is_sorted_by_key(time) {
            run.sort_by_key(time); // stable: log order breaks ties
        }
    }
    order
}

/// The partition day of a row, as the top of this file says.
#[must_use]
pub fn day_of(time: i64, arrival: i64) -> i32 {
    let (time, arrival) = (Timestamp(time), Timestamp(arrival));
    let day = match (time.is_plausible(), arrival.is_plausible()) {
        (true, _) => time.day(),
        (false, true) => arrival.day(),
        (false, false) => 0,
    };
    i32::try_from(day).unwrap_or(0)
}

/// The type of a cell's code; `None` for no value.
pub(crate) fn cell_type(kind: u8) -> Option<DataType> {
    if kind == 0 { None } else { DataType::from_code(u32::from(kind)) }
}

/// The quality of a row's bits; they came from a [`Quality`].
pub(crate) fn cell_quality(bits: u32) -> Quality {
    Quality::from_bits(bits)
        .unwrap_or(Quality::new(model::QualityClass::Uncertain, model::Reason::Undecodable))
}

#[cfg(test)]
mod tests;
