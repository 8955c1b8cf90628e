//! `[hub.broker.limits]`: bounds that depend on the plant, each with its default and the reason for it.
//! Bounds that do not are constants of the broker (`broker/limits.rs`).

use std::time::Duration;

use model::limits::MQTT_PACKET_BYTES_MAX;
use runtime::config_file::{Located, Problems, Section};

/// Ten times a large plant's agents and screens, twice over.
const CONNECTIONS: usize = 2_000;
/// What one process can hold in sockets; each costs a descriptor and some KB.
const CONNECTIONS_MAX: usize = 100_000;
/// One retained message per point of the largest hub, several times over.
const RETAINED_MESSAGES: usize = 1_000_000;
/// They are held in memory: what a small industrial PC can spare.
const RETAINED_BYTES: u64 = 256 << 20;
/// Sessions that outlive their connections: each client of a full broker may have one, and some are left behind.
const SESSIONS: usize = 5_000;
/// A day at ten messages a second.
const SESSION_MESSAGES: u64 = 1_000_000;
/// One session that nobody fetches cannot fill the journal.
const SESSION_BYTES: u64 = 1_000_000_000;
/// All of them: a fifth of what the plant log takes by default.
const JOURNAL_BYTES: u64 = 4_000_000_000;
/// A screen that shows every point of a line one by one.
const SUBSCRIPTIONS_PER_CLIENT: usize = 1_000;
/// Enough to fill a link of 100 ms with 10 000 messages a second.
const INFLIGHT: u16 = 1_024;
/// As long as the plant log is kept by default: a session left for longer is nobody's.
const SESSION_EXPIRY_MAX: Duration = Duration::from_secs(7 * 86_400);
/// A client that is gone without a word is noticed within one and a half times this.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(3_600);

/// The keep-alive field has 16 bits of seconds [MQTT 5.0 §3.1.2.10].
const KEEP_ALIVE_SECONDS_MAX: u64 = 65_535;
/// The expiry field has 32 bits of seconds; all ones mean for ever [MQTT 5.0 §3.1.2.11.2].
const EXPIRY_SECONDS_MAX: u64 = 4_294_967_294;
/// Births of small nodes and CONNECT with its will must fit.
const PACKET_BYTES_MIN: usize = 16 << 10;
/// The journal needs room for a few segments.
const JOURNAL_BYTES_MIN: u64 = 64_000_000;

/// How much the hub's own broker takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// ... of them from one address; by default half, so that one address never takes all.
    pub connections_per_address: usize,
    /// Bytes of one MQTT packet, both ways.
    pub packet_bytes: usize,
    /// Topics with a retained message.
    pub retained_messages: usize,
    /// Bytes of retained topics and payloads.
    pub retained_bytes: u64,
    /// Sessions that outlive their connections.
    pub sessions: usize,
    /// Messages waiting for one session.
    pub session_messages: u64,
    /// Bytes waiting for one session.
    pub session_bytes: u64,
    /// Filters of one client.
    pub subscriptions_per_client: usize,
    /// Messages of QoS 1 and 2 on their way to one client, and from it (receive maximum).
    pub inflight: u16,
    /// Bytes of the journal on disk.
    pub journal_bytes: u64,
    /// A session is kept no longer than this after its connection ended.
    pub session_expiry_max: Duration,
    /// Clients that ask for a longer keep-alive, or for none, get this one (MQTT 5) or are held to it.
    pub keep_alive_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: CONNECTIONS,
            connections_per_address: CONNECTIONS / 2,
            packet_bytes: MQTT_PACKET_BYTES_MAX,
            retained_messages: RETAINED_MESSAGES,
            retained_bytes: RETAINED_BYTES,
            sessions: SESSIONS,
            session_messages: SESSION_MESSAGES,
            session_bytes: SESSION_BYTES,
            subscriptions_per_client: SUBSCRIPTIONS_PER_CLIENT,
            inflight: INFLIGHT,
            journal_bytes: JOURNAL_BYTES,
            session_expiry_max: SESSION_EXPIRY_MAX,
            keep_alive_max: KEEP_ALIVE_MAX,
        }
    }
}

impl Limits {
    /// Reads the section; what is not written or wrong has its default.
    pub(super) fn read(mut section: Section<'_>, problems: &mut Problems) -> Limits {
        let mut limits = Limits::default();
        let found = &mut section;
        let connections = count(found, "connections", 1..=CONNECTIONS_MAX, problems);
        limits.connections = connections.map_or(CONNECTIONS, |l| l.value);
        let per_address = count(found, "connections_per_address", 1..=CONNECTIONS_MAX, problems);
        limits.connections_per_address =
            per_address.as_ref().map_or((limits.connections / 2).max(1), |l| l.value);
        if let Some(per_address) = per_address
            && per_address.value > limits.connections
        {
            let rule = format!("must not be more than connections, {}", limits.connections);
            problems.push(per_address.problem(rule));
        }
        let packet =
            bytes(found, "packet_bytes", PACKET_BYTES_MIN as u64..=MQTT_PACKET_BYTES_MAX as u64, problems);
        if let Some(packet) = &packet {
            limits.packet_bytes = usize::try_from(packet.value).unwrap_or(MQTT_PACKET_BYTES_MAX);
        }
        set(&mut limits.retained_messages, count(found, "retained_messages", 0..=100_000_000, problems));
        set(&mut limits.retained_bytes, bytes(found, "retained_bytes", 0..=1 << 40, problems));
        set(&mut limits.sessions, count(found, "sessions", 0..=1_000_000, problems));
        let messages = count(found, "session_messages", 1..=1_000_000_000, problems);
        set(&mut limits.session_messages, messages.map(|l| l.map(|count| count as u64)));
        let journal = bytes(found, "journal_bytes", JOURNAL_BYTES_MIN..=1 << 50, problems);
        set(&mut limits.journal_bytes, journal);
        let session = bytes(found, "session_bytes", limits.packet_bytes as u64..=1 << 50, problems);
        match session {
            Some(session) if session.value > limits.journal_bytes => {
                let rule = format!("must not be more than journal_bytes, {}", limits.journal_bytes);
                problems.push(session.problem(rule));
            }
            session => set(&mut limits.session_bytes, session),
        }
        limits.session_bytes = limits.session_bytes.min(limits.journal_bytes);
        set(
            &mut limits.subscriptions_per_client,
            count(found, "subscriptions_per_client", 1..=1_000_000, problems),
        );
        let inflight = count(found, "inflight", 1..=usize::from(u16::MAX), problems);
        set(&mut limits.inflight, inflight.map(|l| l.map(|n| u16::try_from(n).unwrap_or(u16::MAX))));
        let seconds = |least, most| Duration::from_secs(least)..=Duration::from_secs(most);
        let expiry = found.duration("session_expiry_max", problems, seconds(0, EXPIRY_SECONDS_MAX));
        set(&mut limits.session_expiry_max, expiry);
        let keep_alive = found.duration("keep_alive_max", problems, seconds(5, KEEP_ALIVE_SECONDS_MAX));
        set(&mut limits.keep_alive_max, keep_alive);
        section.finish(problems);
        limits
    }
}

fn set<T>(limit: &mut T, found: Option<Located<T>>) {
    if let Some(found) = found {
        *limit = found.value;
    }
}

fn count(
    section: &mut Section<'_>,
    key: &str,
    range: std::ops::RangeInclusive<usize>,
    problems: &mut Problems,
) -> Option<Located<usize>> {
    let as_read = |bound: usize| i64::try_from(bound).unwrap_or(i64::MAX);
    let found = section.integer(key, problems, as_read(*range.start())..=as_read(*range.end()))?;
    Some(found.map(|number| usize::try_from(number).unwrap_or(0)))
}

fn bytes(
    section: &mut Section<'_>,
    key: &str,
    range: std::ops::RangeInclusive<u64>,
    problems: &mut Problems,
) -> Option<Located<u64>> {
    let found = section.size(key, problems)?;
    if range.contains(&found.value) {
        return Some(found);
    }
    problems.push(found.problem(format!("must be from {} to {} bytes", range.start(), range.end())));
    None
}
