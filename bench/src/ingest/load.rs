//! What an agent would send, as packets built beforehand, and the thread that sends them and reads the receipts.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use model::Epoch;
use proto::receipt::{RECEIPT_METRIC, Receipt};
use proto::sparkplug::{PayloadView, WireValue};

use super::PATIENCE;
use super::plant::Plant;
use crate::broker::connection::{Connection, Door};
use crate::broker::packet;
use crate::generator::{DEVICE, Records};

/// Records that may be without receipt: some tenths of a second of the fastest road.
const WINDOW: u64 = 200_000;
/// Bytes of one write.
const WRITE_BYTES: usize = 256 * 1024;

/// Packets, and where each of them ends.
pub(super) struct Load {
    births: Vec<u8>,
    packets: Vec<u8>,
    ends: Vec<usize>,
    metrics: usize,
    epoch: Epoch,
}

impl Load {
    /// At most `records` of `metrics` values each, at most so many bytes.
    pub(super) fn build(metrics: usize, records: usize, bytes_max: usize) -> Load {
        let mut source = Records::new(metrics);
        let (mut births, mut packets, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        let device = format!("/{DEVICE}");
        let (nbirth, dbirth) = source.births();
        packet::publish(&mut births, &topic("NBIRTH", ""), &nbirth);
        packet::publish(&mut births, &topic("DBIRTH", &device), &dbirth);
        let (data, mut payload) = (topic("DDATA", &device), Vec::new());
        while ends.len() < records && packets.len() < bytes_max {
            payload.clear();
            source.encode_next(&mut payload);
            packet::publish(&mut packets, &data, &payload);
            ends.push(packets.len());
        }
        Load { births, packets, ends, metrics, epoch: source.epoch() }
    }

    pub(super) fn records(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn values(&self) -> usize {
        self.ends.len() * self.metrics
    }

    pub(super) fn bytes(&self) -> usize {
        self.packets.len()
    }

    /// Logs in, sends everything, and waits for the receipt of the last record.
    pub(super) fn send(&mut self, plant: &Plant) -> Result<(), String> {
        let mut connection = open(plant.mqtt)?;
        let mut poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
        connection.register(poll.registry(), 0)?;
        let (mut events, mut buffer) = (Events::with_capacity(4), vec![0; 1 << 20]);
        let (mut covered, mut written, started) = (0_u64, 0, Instant::now());
        let mut births = std::mem::take(&mut self.births);
        let all = self.ends.len() as u64;
        while covered < all {
            if started.elapsed() > PATIENCE {
                return Err(format!("receipts cover {covered} of {all} records"));
            }
            let allowed = usize::try_from(covered + WINDOW).unwrap_or(usize::MAX).min(self.ends.len());
            let bound = allowed.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or(0);
            let mut wrote = 0;
            if !births.is_empty() {
                wrote = connection.write(&births)?;
                births.drain(..wrote);
            } else if written < bound {
                wrote = connection.write(&self.packets[written..bound.min(written + WRITE_BYTES)])?;
                written += wrote;
            }
            let wait = if wrote > 0 { Duration::ZERO } else { Duration::from_millis(50) };
            poll.poll(&mut events, Some(wait)).map_err(|error| format!("epoll: {error}"))?;
            let epoch = self.epoch;
            connection.read(&mut buffer, |packet| {
                covered =
                    covered.max(packet.payload().and_then(|payload| end_of(payload, epoch)).unwrap_or(0));
            })?;
        }
        connection.close()
    }
}

fn topic(kind: &str, device: &str) -> String {
    format!("spBv1.0/bench/{kind}/gen{device}")
}

fn open(port: u16) -> Result<Connection, String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let door = Door { address, login: Some(("gen".into(), "bench".into())), tls: None };
    let started = Instant::now();
    loop {
        match Connection::open(&door, "gen", true) {
            Ok(mut connection) => {
                connection.subscribe(&topic("NCMD", ""), 0)?;
                return Ok(connection);
            }
            Err(error) if started.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The end of what a receipt covers without a hole.
fn end_of(payload: &[u8], epoch: Epoch) -> Option<u64> {
    let view = PayloadView::decode(payload).ok()?;
    let metric = view.metrics.iter().find(|metric| metric.name == Some(RECEIPT_METRIC))?;
    let WireValue::Bytes(bytes) = metric.value else { return None };
    let receipt = Receipt::decode(bytes).ok()?;
    let (_, ranges) = receipt.durable.into_iter().find(|(of, _)| *of == epoch)?;
    Some(ranges.contiguous_end(0))
}
