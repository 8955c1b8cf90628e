//! A simulated PLC: a Modbus TCP server that replays a recording of the Tennessee Eastman chemical plant.
//!
//! Its registers are laid out by the demo's point list ([`POINTS`]), the same file that the agent reads: mixed types,
//! scales and word orders. What becomes of a point:
//!
//! - named like a column of the recording (`XMEAS_n`, `XMV_n`): its value in the current row, then the next row's;
//! - `XMV_n` written by a client: holds what was written for [`HOLD_ROWS`] rows, as a valve in manual does;
//! - set-points (`SP_…`) and coils: keep what clients write, start at [`INITIAL`];
//! - the rest are made here from the row: alarms, the heartbeat.
//!
//! Encoding is written anew here rather than borrowed from the agent's driver, so that both must be right.

use std::collections::HashMap;
use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime::tasks::{TaskKind, Tasks};
use tokio::net::{TcpListener, TcpStream};
use tokio_modbus::server::{Service, tcp};
use tokio_modbus::{ExceptionCode, Request, Response};

/// The point list of the simulated PLC: what a real one's engineer would hand over.
pub const POINTS: &str = include_str!("../../demo-data/tep_points.csv");
/// A line per sample of the recorded plant.
pub const RECORDING: &str = include_str!("../../demo-data/tep_excerpt.csv");

/// Rows for which a written valve stays as written: long enough to see it, then the recording has it again.
pub const HOLD_ROWS: u32 = 200;
/// What set-points and coils are at the start, before scaling.
const INITIAL: &[(&str, f64)] = &[
    ("SP_reactor_pressure", 2705.0),
    ("SP_reactor_level", 75.0),
    ("SP_reactor_temperature", 120.4),
    ("SP_production", 22.95),
    ("agitator", 1.0),
    ("purge_open", 1.0),
];
/// Registers and bits of each table; the point list uses fewer.
const CELLS: usize = 256;

/// A running PLC.
#[derive(Clone, Debug)]
pub struct Plc {
    /// Where it listens.
    pub address: SocketAddr,
    memory: Arc<Mutex<Memory>>,
}

/// Why a PLC could not start.
#[derive(Debug, thiserror::Error)]
pub enum PlcError {
    /// The address is taken or not ours.
    #[error("the simulated PLC cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The files built into the binary do not fit each other.
    #[error("the demo's recording and point list: {0}")]
    Data(String),
}

/// Starts a PLC that shows one row of the recording per `spacing`; it ends with `tasks`.
///
/// # Errors
/// If it cannot listen.
pub async fn start(listen: SocketAddr, spacing: Duration, tasks: &Tasks) -> Result<Plc, PlcError> {
    let fault = |source| PlcError::Listen { address: listen, source };
    let listener = TcpListener::bind(listen).await.map_err(fault)?;
    let address = listener.local_addr().map_err(fault)?;
    let recording = Recording::read().map_err(PlcError::Data)?;
    let memory = Memory::new(layout().map_err(PlcError::Data)?);
    let plc = Plc { address, memory: Arc::new(Mutex::new(memory)) };
    plc.show(&recording, 0);

    let (server, shutdown) = (plc.clone(), tasks.shutdown());
    tasks.spawn(TaskKind::Server, "demo plc", async move {
        let on_connected = |stream: TcpStream, _| {
            let service = server.clone();
            async move {
                stream.set_nodelay(true)?;
                Ok(Some((service, stream)))
            }
        };
        let listener = tcp::Server::new(listener);
        tokio::select! {
            served = listener.serve(&on_connected, |_| {}) => served,
            () = shutdown.cancelled() => Ok(()),
        }
    });
    let (replayed, shutdown) = (plc.clone(), tasks.shutdown());
    tasks.spawn(TaskKind::Server, "demo plc replay", async move {
        let mut ticks = tokio::time::interval(spacing.max(Duration::from_millis(1)));
        let mut row = 0;
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            replayed.show(&recording, row);
            row += 1;
        }
        Ok::<(), io::Error>(())
    });
    Ok(plc)
}

impl Plc {
    fn show(&self, recording: &Recording, row: usize) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).show(recording, row);
    }
}

impl Service for Plc {
    type Request = Request<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = Ready<Result<Response, ExceptionCode>>;

    fn call(&self, request: Request<'static>) -> Self::Future {
        ready(self.memory.lock().unwrap_or_else(PoisonError::into_inner).answer(request))
    }
}

/// The recording: rows of numbers by column.
struct Recording {
    columns: HashMap<String, usize>,
    rows: Vec<Vec<f64>>,
}

impl Recording {
    fn read() -> Result<Recording, String> {
        let mut reader = csv::Reader::from_reader(RECORDING.as_bytes());
        let header = reader.headers().map_err(|error| error.to_string())?.clone();
        let columns = header.iter().enumerate().map(|(nth, name)| (name.to_owned(), nth)).collect();
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(|error| error.to_string())?;
            let row: Result<Vec<f64>, _> = record.iter().map(str::parse).collect();
            rows.push(row.map_err(|error| error.to_string())?);
        }
        if rows.is_empty() { Err("no rows".into()) } else { Ok(Recording { columns, rows }) }
    }

    /// A column's value in a row; after the last row comes the first.
    fn value(&self, name: &str, row: usize) -> Option<f64> {
        let row = self.rows.get(row % self.rows.len())?;
        row.get(*self.columns.get(name)?).copied()
    }
}

/// One point of the point list.
struct Cell {
    name: String,
    place: Place,
    form: Form,
    scale: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Coils,
    DiscreteInputs,
    InputRegisters,
    HoldingRegisters,
}

#[derive(Clone, Copy)]
struct Place {
    table: Table,
    start: usize,
    bit: Option<u32>,
    words_reversed: bool,
    bytes_swapped: bool,
}

#[derive(Clone, Copy)]
enum Form {
    Boolean,
    Int16,
    UInt16,
    UInt32,
    Float,
    Double,
}

impl Form {
    const fn registers(self) -> usize {
        match self {
            Form::Boolean | Form::Int16 | Form::UInt16 => 1,
            Form::UInt32 | Form::Float => 2,
            Form::Double => 4,
        }
    }

    /// The value's bytes, most significant first.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a PLC saturates")]
    fn bytes(self, value: f64) -> Vec<u8> {
        match self {
            Form::Boolean => vec![0, u8::from(value != 0.0)],
            Form::Int16 => (value.round() as i16).to_be_bytes().to_vec(),
            Form::UInt16 => (value.round() as u16).to_be_bytes().to_vec(),
            Form::UInt32 => (value.round() as u32).to_be_bytes().to_vec(),
            Form::Float => (value as f32).to_be_bytes().to_vec(),
            Form::Double => value.to_be_bytes().to_vec(),
        }
    }
}

/// Reads the point list.
fn layout() -> Result<Vec<Cell>, String> {
    let mut reader = csv::Reader::from_reader(POINTS.as_bytes());
    let header = reader.headers().map_err(|error| error.to_string())?.clone();
    let column =
        |name: &str| header.iter().position(|h| h == name).ok_or_else(|| format!("no column {name}"));
    let (name, address) = (column("name")?, column("address")?);
    let (form, scale) = (column("type")?, column("scale")?);
    let mut cells = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let text = |at: usize| record.get(at).unwrap_or("");
        let cell = Cell {
            name: text(name).to_owned(),
            place: place(text(address)).ok_or_else(|| format!("address {}", text(address)))?,
            form: match text(form) {
                "boolean" => Form::Boolean,
                "int16" => Form::Int16,
                "uint16" => Form::UInt16,
                "uint32" => Form::UInt32,
                "float" => Form::Float,
                "double" => Form::Double,
                other => return Err(format!("type {other}")),
            },
            scale: if text(scale).is_empty() { 1.0 } else { text(scale).parse().map_err(|_| "a scale")? },
        };
        if cell.place.start + cell.form.registers() > CELLS {
            return Err(format!("{} lies beyond the PLC's {CELLS} cells", cell.name));
        }
        cells.push(cell);
    }
    Ok(cells)
}

fn place(address: &str) -> Option<Place> {
    let mut parts = address.split_whitespace();
    let (table, number) = parts.next()?.split_once(':')?;
    let (start, bit) = match number.split_once('.') {
        Some((start, bit)) => (start, Some(bit.parse().ok()?)),
        None => (number, None),
    };
    let order = parts.next().unwrap_or("ABCD");
    Some(Place {
        table: match table {
            "co" => Table::Coils,
            "di" => Table::DiscreteInputs,
            "ir" => Table::InputRegisters,
            "hr" => Table::HoldingRegisters,
            _ => return None,
        },
        start: start.parse().ok()?,
        bit,
        words_reversed: matches!(order, "CDAB" | "DCBA"),
        bytes_swapped: matches!(order, "BADC" | "DCBA"),
    })
}

/// What the PLC holds.
struct Memory {
    cells: Vec<Cell>,
    coils: [bool; CELLS],
    discrete_inputs: [bool; CELLS],
    input_registers: [u16; CELLS],
    holding_registers: [u16; CELLS],
    /// Rows for which a holding register stays as a client wrote it.
    held: [u32; CELLS],
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("cells", &self.cells.len()).finish_non_exhaustive()
    }
}

impl Memory {
    fn new(cells: Vec<Cell>) -> Memory {
        let mut memory = Memory {
            cells: Vec::new(),
            coils: [false; CELLS],
            discrete_inputs: [false; CELLS],
            input_registers: [0; CELLS],
            holding_registers: [0; CELLS],
            held: [0; CELLS],
        };
        for (name, value) in INITIAL {
            if let Some(cell) = cells.iter().find(|cell| cell.name == *name) {
                memory.store(cell, *value);
            }
        }
        memory.cells = cells;
        memory
    }

    /// Lets the plant be as in this row of the recording.
    fn show(&mut self, recording: &Recording, row: usize) {
        let cells = std::mem::take(&mut self.cells);
        for held in &mut self.held {
            *held = held.saturating_sub(1);
        }
        for cell in &cells {
            let measured =
                |name: &str, above: f64| recording.value(name, row).is_some_and(|value| value > above);
            let made = match cell.name.as_str() {
                "disturbance" => Some(f64::from(measured("fault", 0.0))),
                "high_pressure" => Some(f64::from(measured("XMEAS_7", 2895.0))),
                "alarm_word_high_level" => Some(f64::from(measured("XMEAS_12", 60.0))),
                "alarm_word_low_feed" => Some(f64::from(!measured("XMEAS_1", 0.1))),
                "heartbeat" => Some(f64::from(u16::try_from(row % 65_536).unwrap_or(0))),
                name => recording.value(name, row),
            };
            if let Some(value) = made
                && !self.is_held(cell)
            {
                self.store(cell, value);
            }
        }
        self.cells = cells;
    }

    fn is_held(&self, cell: &Cell) -> bool {
        let Place { table, start, .. } = cell.place;
        let held = self.held.iter().skip(start).take(cell.form.registers());
        table == Table::HoldingRegisters && held.into_iter().any(|rows| *rows > 0)
    }

    fn store(&mut self, cell: &Cell, value: f64) {
        let Place { table, start, bit, words_reversed, bytes_swapped } = cell.place;
        let registers = match table {
            Table::Coils => return set(&mut self.coils, start, value != 0.0),
            Table::DiscreteInputs => return set(&mut self.discrete_inputs, start, value != 0.0),
            Table::InputRegisters => &mut self.input_registers,
            Table::HoldingRegisters => &mut self.holding_registers,
        };
        if let Some(bit) = bit {
            let old = registers.get(start).copied().unwrap_or(0);
            return set(registers, start, old & !(1 << bit) | u16::from(value != 0.0) << bit);
        }
        let mut words: Vec<u16> = cell
            .form
            .bytes(value / cell.scale)
            .chunks_exact(2)
            .map(|pair| pair.iter().fold(0, |word, byte| word << 8 | u16::from(*byte)))
            .map(|word: u16| if bytes_swapped { word.swap_bytes() } else { word })
            .collect();
        if words_reversed {
            words.reverse();
        }
        for (nth, word) in words.into_iter().enumerate() {
            set(registers, start + nth, word);
        }
    }

    fn answer(&mut self, request: Request<'static>) -> Result<Response, ExceptionCode> {
        Ok(match request {
            Request::ReadCoils(start, count) => Response::ReadCoils(read(&self.coils, start, count)?),
            Request::ReadDiscreteInputs(start, count) => {
                Response::ReadDiscreteInputs(read(&self.discrete_inputs, start, count)?)
            }
            Request::ReadInputRegisters(start, count) => {
                Response::ReadInputRegisters(read(&self.input_registers, start, count)?)
            }
            Request::ReadHoldingRegisters(start, count) => {
                Response::ReadHoldingRegisters(read(&self.holding_registers, start, count)?)
            }
            Request::WriteSingleCoil(start, on) => {
                write(&mut self.coils, start, &[on])?;
                Response::WriteSingleCoil(start, on)
            }
            Request::WriteMultipleCoils(start, bits) => {
                Response::WriteMultipleCoils(start, write(&mut self.coils, start, &bits)?)
            }
            Request::WriteSingleRegister(start, word) => {
                self.write_registers(start, &[word])?;
                Response::WriteSingleRegister(start, word)
            }
            Request::WriteMultipleRegisters(start, words) => {
                Response::WriteMultipleRegisters(start, self.write_registers(start, &words)?)
            }
            Request::MaskWriteRegister(start, and, or) => {
                let old: Vec<u16> = read(&self.holding_registers, start, 1)?;
                let new: Vec<u16> = old.into_iter().map(|old| old & and | or & !and).collect();
                self.write_registers(start, &new)?;
                Response::MaskWriteRegister(start, and, or)
            }
            _ => return Err(ExceptionCode::IllegalFunction),
        })
    }

    fn write_registers(&mut self, start: u16, words: &[u16]) -> Result<u16, ExceptionCode> {
        let count = write(&mut self.holding_registers, start, words)?;
        write(&mut self.held, start, &vec![HOLD_ROWS; words.len()])?;
        Ok(count)
    }
}

fn set<T>(cells: &mut [T], at: usize, value: T) {
    if let Some(cell) = cells.get_mut(at) {
        *cell = value;
    }
}

fn read<T: Copy>(cells: &[T], start: u16, count: u16) -> Result<Vec<T>, ExceptionCode> {
    let start = usize::from(start);
    cells.get(start..start + usize::from(count)).map(<[T]>::to_vec).ok_or(ExceptionCode::IllegalDataAddress)
}

fn write<T: Copy>(cells: &mut [T], start: u16, values: &[T]) -> Result<u16, ExceptionCode> {
    let start = usize::from(start);
    let place = cells.get_mut(start..start + values.len()).ok_or(ExceptionCode::IllegalDataAddress)?;
    place.copy_from_slice(values);
    u16::try_from(values.len()).map_err(|_| ExceptionCode::IllegalDataValue)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use edge_agent::driver_conformance::{self as conformance, Candidate};
    use edge_agent::drivers::Readings;
    use edge_agent::points::parse_list;
    use model::Value;
    use runtime::clock::Clock;
    use runtime::config_file::Problems;
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// The agent's view of the PLC: its driver on the demo's point list.
    fn candidate(plc: &Plc) -> Candidate {
        let mut problems = Problems::default();
        let points = parse_list(Path::new("tep_points.csv"), POINTS.as_bytes(), "plc", &mut problems);
        assert!(problems.is_empty(), "{:?}", problems.list);
        let setup = conformance::setup(points, Clock::machine(), "not-written".into());
        Candidate { driver: "modbus-tcp", text: format!("address = \"{}\"", plc.address), setup }
    }

    #[tokio::test]
    async fn the_driver_reads_what_the_recording_holds() {
        let tasks = Tasks::new(CancellationToken::new());
        let plc = start("127.0.0.1:0".parse().unwrap(), Duration::from_secs(3600), &tasks).await.unwrap();
        let candidate = candidate(&plc);
        let mut driver = candidate.driver();
        driver.open(None).await.unwrap();
        let mut readings = Readings::default();
        driver.read(&mut readings).await.unwrap();
        let (recording, cells) = (Recording::read().unwrap(), layout().unwrap());
        assert_eq!(readings.list.len(), 52 + 4 + 2 + 5);
        let mut compared = 0;
        for reading in readings.list {
            let (name, scale) = (&cells[reading.point].name, cells[reading.point].scale);
            let Some(expected) = recording.value(name, 0) else { continue };
            let read = reading.value.unwrap().as_f64().unwrap() * scale;
            assert!(
                (read - expected).abs() <= expected.abs() * 1e-6 + scale.fract() / 2.0,
                "{name}: {read} {expected}"
            );
            compared += 1;
        }
        assert_eq!(compared, 52);
        driver.close().await;
        assert!(tasks.drain().await.is_graceful());
    }

    #[tokio::test]
    async fn what_is_written_stays() {
        let tasks = Tasks::new(CancellationToken::new());
        let plc = start("127.0.0.1:0".parse().unwrap(), Duration::from_millis(1), &tasks).await.unwrap();
        let candidate = candidate(&plc);
        let at =
            |name: &str| candidate.setup.points.iter().position(|p| p.definition.metric == name).unwrap();
        conformance::writes_are_read_back(&candidate, at("SP_reactor_pressure"), &[Value::Float(2800.5)])
            .await;
        conformance::writes_are_read_back(&candidate, at("SP_reactor_level"), &[Value::Int16(8000)]).await;
        conformance::writes_are_read_back(&candidate, at("agitator"), &[Value::Boolean(false)]).await;
        conformance::writes_are_read_back(&candidate, at("XMV_3"), &[Value::Float(12.5)]).await;
        let mut driver = candidate.driver();
        driver.open(None).await.unwrap();
        let valve = at("XMV_3");
        let recorded = async {
            while driver.read_one(valve).await.unwrap().value == Some(Value::Float(12.5)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), recorded)
            .await
            .expect("the recording has the valve again");
        let set_point = driver.read_one(at("SP_reactor_pressure")).await.unwrap();
        assert_eq!(set_point.value, Some(Value::Float(2800.5)));
        assert!(tasks.drain().await.is_graceful());
    }

    #[tokio::test]
    async fn it_can_be_stopped_and_started_at_the_same_place() {
        let tasks = Tasks::new(CancellationToken::new());
        let plc = start("127.0.0.1:0".parse().unwrap(), Duration::from_millis(5), &tasks).await.unwrap();
        let candidate = candidate(&plc);
        conformance::close_then_open_works(&candidate).await;
        tasks.drain().await;
        conformance::open_without_peer_fails(&candidate).await;
        let tasks = Tasks::new(CancellationToken::new());
        start(plc.address, Duration::from_millis(5), &tasks).await.unwrap();
        conformance::close_then_open_works(&candidate).await;
        tasks.drain().await;
    }
}
