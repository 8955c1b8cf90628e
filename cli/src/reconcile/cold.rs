//! What the folders of a plant on this machine hold: agents' outboxes, the hub's log, the table. Changes nothing;
//! works beside running processes as well as on cold directories.

use std::collections::BTreeMap;
use std::path::Path;

use bridge::scan::TableScan;
use bridge::sinks::location::Location;
use durable_log::{LogView, Position};
use hub::ledger::{LedgerEntry, LedgerKind};
use hub::store::{AgentAccount, EpochState};
use model::{Epoch, RangeSet, SampleBatch};
use proto::account::Account;
use proto::log_record::{AgentId, LogRecord};

use super::compare::{Accepted, DeviceLine, Findings, Held, Kept, Key};
use crate::plant::{self, Plant};

/// Entries of the ledger that are looked at.
pub const LOSSES_MAX: usize = 100_000;

/// Finds the plant in `dir` by its configuration files (`*.toml`), and reads it: table, agents, hub, in this order.
pub fn gather(dir: &Path) -> Result<Findings, String> {
    let plants = plant::in_folder(dir)?;
    let (sink, table) = sink_of(&plants).ok_or_else(|| {
        format!("no configuration in {} names a [bridge] with a sink; use --hub and --table", dir.display())
    })?;
    // The cursor before the table: then the table holds at least what the cursor says.
    let mut cursors = BTreeMap::new();
    for hub in plants.iter().filter_map(|plant| plant.hub.as_ref()) {
        if let Some(cold) = hub::store::cold::read(&hub.data_dir).map_err(|error| in_one_line(&error))? {
            cursors.insert(&hub.data_dir, cold.cursor_of(&sink).map_err(|error| in_one_line(&error))?);
        }
    }
    let scan = scan_table(&table)?;
    let mut found = Findings::default();
    add_table(&mut found, &scan)?;
    let mut outboxes = Vec::new();
    for edge in plants.iter().filter_map(|plant| plant.edge.as_ref()) {
        let folder = edge.data_dir.join("outbox");
        if folder.is_dir() {
            outboxes.push((edge.node.to_string(), read_outbox(&folder)?));
        }
    }
    let (mut accounts, mut waiting) = (Vec::new(), Vec::new());
    for hub in plants.iter().filter_map(|plant| plant.hub.as_ref()) {
        let from = cursors.get(&hub.data_dir).copied().unwrap_or(Position(0));
        accounts.extend(read_hub(&hub.data_dir, from, &sink, &mut waiting)?);
        let ledger = hub.data_dir.join("ledger");
        if ledger.is_dir() {
            let losses = hub::ledger::losses(&ledger, LOSSES_MAX).map_err(|error| in_one_line(&error))?;
            losses.into_iter().for_each(|entry| add_loss(&mut found, entry, &sink));
        }
    }
    let ends = ends(&outboxes, &accounts);
    for Waiting { key, offset, account } in waiting {
        if ends.get(&key).is_none_or(|end| offset < *end) {
            add_waiting(&mut found, key, offset, account);
        }
    }
    for hub in plants.iter().filter_map(|plant| plant.hub.as_ref()) {
        add_quarantine(&mut found, &hub.data_dir, &sink)?;
    }
    for (agent, outbox) in &outboxes {
        let book = accounts.iter().find(|account| account.agent.to_string() == *agent);
        add_outbox(&mut found, agent, outbox, book);
    }
    add_accounts(&mut found, &accounts);
    for (agent, outbox) in &outboxes {
        let book = accounts.iter().find(|account| account.agent.to_string() == *agent);
        add_dropped(&mut found, agent, outbox, book);
    }
    Ok(found)
}

/// Name and place of the first sink.
fn sink_of(plants: &[Plant]) -> Option<(String, Location)> {
    let bridge = plants.iter().find_map(|plant| plant.bridge.as_ref())?;
    bridge.sinks.iter().find_map(|sink| Some((sink.name.clone(), sink.sink.location()?.clone())))
}

/// Reads a table; one that does not exist yet holds nothing.
pub fn scan_table(table: &Location) -> Result<TableScan, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    match runtime.block_on(bridge::scan::scan(table.clone())) {
        Ok(scan) => Ok(scan),
        Err(bridge::scan::ScanError::NoTable(_)) => Ok(TableScan::default()),
        Err(error) => Err(format!("{table}: {error}")),
    }
}

/// Enters what the table holds.
pub fn add_table(found: &mut Findings, scan: &TableScan) -> Result<(), String> {
    if scan.foreign_rows > 0 {
        let first = scan.problems.first().map_or("", String::as_str);
        return Err(format!("{} rows of the table are not Forebay's: {first}", scan.foreign_rows));
    }
    for (key, rows) in &scan.epochs {
        let held = Held { offsets: rows.offsets.clone(), account: Some(rows.account) };
        found.table.insert(key.clone(), held);
        if rows.duplicates > 0 {
            found.doubles.insert(key.clone(), (rows.duplicates, rows.doubled.clone()));
        }
    }
    Ok(())
}

/// What an outbox says of one epoch.
#[derive(Clone, Debug, Default)]
struct OutboxEpoch {
    /// Offsets below are no longer on disk.
    first: u64,
    end: u64,
    total: Account,
    /// Account of each record that is on disk; unknown for the first after trimmed ones, whose running account
    /// holds theirs too.
    held: BTreeMap<u64, Option<Account>>,
}

fn read_outbox(folder: &Path) -> Result<BTreeMap<Epoch, OutboxEpoch>, String> {
    let (view, _) = LogView::open_read_only(folder).map_err(|error| error.to_string())?;
    let mut epochs: BTreeMap<Epoch, OutboxEpoch> = BTreeMap::new();
    for_each_record(&view, view.first(), |_, record| {
        if let LogRecord::EpochGone { epoch, end, account } = record {
            let gone = OutboxEpoch { first: end, end, total: account, held: BTreeMap::new() };
            epochs.entry(epoch).or_insert(gone);
        } else if let LogRecord::Accepted { batch, account, .. } = record {
            let offset = batch.id.offset.0;
            let epoch = epochs
                .entry(batch.id.epoch)
                .or_insert_with(|| OutboxEpoch { first: offset, ..OutboxEpoch::default() });
            let own = (offset == epoch.end).then(|| account.minus(epoch.total));
            epoch.held.insert(offset, own);
            (epoch.end, epoch.total) = (offset + 1, account);
        }
    })?;
    Ok(epochs)
}

fn for_each_record(
    view: &LogView,
    from: Position,
    mut each: impl FnMut(Position, LogRecord),
) -> Result<(), String> {
    let mut reader = view.reader(from);
    while let Some((position, bytes)) = reader.next().map_err(|error| error.to_string())? {
        if bytes.is_empty() {
            continue; // damaged and given up; the ledger has it
        }
        each(position, LogRecord::decode(bytes).map_err(|error| format!("position {position}: {error}"))?);
    }
    Ok(())
}

/// Enters what only the agent has. What the hub has received is on no way any more: it stands in the table or behind the
/// sink's cursor in the hub's log, or it is missing, also while the agent still holds it.
fn add_outbox(
    found: &mut Findings,
    agent: &str,
    outbox: &BTreeMap<Epoch, OutboxEpoch>,
    book: Option<&AgentAccount>,
) {
    for (epoch, state) in outbox {
        let key: Key = (agent.to_owned(), *epoch);
        let received = epoch_of(book, *epoch).map(|known| &known.ranges);
        let elsewhere = |offset: u64| {
            let within =
                |map: &BTreeMap<Key, Held>| map.get(&key).is_some_and(|held| held.offsets.contains(offset));
            within(&found.table)
                || within(&found.hub_only)
                || received.is_some_and(|ranges| ranges.contains(offset))
        };
        let mut only = Held { offsets: RangeSet::new(), account: Some(Account::default()) };
        for (offset, account) in state.held.iter().filter(|(offset, _)| !elsewhere(**offset)) {
            only.offsets.insert_one(*offset);
            only.account = only.account.zip(*account).map(|(sum, own)| sum.plus(own));
        }
        found.accepted.insert(key.clone(), Accepted { end: state.end, total: state.total });
        if !only.offsets.is_empty() {
            found.agent_only.insert(key, only);
        }
    }
}

/// A record of the hub's log from the sink's cursor on.
struct Waiting {
    key: Key,
    offset: u64,
    account: Account,
}

/// Reads the hub's log from the sink's cursor on into `waiting`; returns its accounts.
fn read_hub(
    data_dir: &Path,
    from: Position,
    sink: &str,
    waiting: &mut Vec<Waiting>,
) -> Result<Vec<AgentAccount>, String> {
    let Some(hub) = hub::store::cold::read(data_dir).map_err(|error| in_one_line(&error))? else {
        return Ok(Vec::new());
    };
    let names: BTreeMap<u32, String> =
        hub.accounts.iter().map(|account| (account.id.0, account.agent.to_string())).collect();
    for_each_record(&hub.view, from, |_, record| {
        if let Some((agent, batch, account)) = for_sink(record, sink)
            && let Some(name) = names.get(&agent.0)
        {
            waiting.push(Waiting { key: (name.clone(), batch.id.epoch), offset: batch.id.offset.0, account });
        }
    })?;
    Ok(hub.accounts)
}

/// A record that the sink makes rows of.
pub fn for_sink(record: LogRecord, sink: &str) -> Option<(AgentId, SampleBatch, Account)> {
    match record {
        LogRecord::Received { agent, batch, account, .. } => Some((agent, batch, account)),
        LogRecord::Again { sink: whose, agent, batch, account } if whose == sink => {
            Some((agent, batch, account))
        }
        _ => None,
    }
}

/// Enters what the sink refused and nobody has decided about.
fn add_quarantine(found: &mut Findings, data_dir: &Path, sink: &str) -> Result<(), String> {
    let Some(letters) = hub::store::cold::letters(data_dir).map_err(|error| in_one_line(&error))? else {
        return Ok(());
    };
    for refused in letters.refused().into_iter().filter(|refused| refused.sink == sink) {
        let Some((agent, record, account)) = refused.record else { continue };
        let Some(name) = letters.agents.get(&agent) else { continue };
        let key = (name.to_string(), record.epoch);
        let ended = refused.ended.as_ref().map(|ended| (ended.fate.word(), ended.by.as_str()));
        add_refused(found, key, record.offset.0, account, &refused.id.to_string(), ended);
    }
    Ok(())
}

/// Enters one record that the sink refused: it waits, or somebody decided that it stays out, so that it is on no way to the
/// table, whether the sink's cursor has passed it or not. What was retried is in the hub's log once more. To be called when
/// the log has been entered.
pub fn add_refused(
    found: &mut Findings,
    key: Key,
    offset: u64,
    account: Account,
    entry: &str,
    ended: Option<(&str, &str)>,
) {
    let offsets = RangeSet::of(offset..offset.saturating_add(1));
    if matches!(ended, None | Some(("discarded", _)))
        && let Some(held) = found.hub_only.get_mut(&key)
        && held.offsets.contains(offset)
    {
        held.offsets.remove(offset..offset.saturating_add(1));
        held.account = held.account.map(|sum| sum.minus(account));
    }
    match ended {
        None => {
            let why = format!("refused by the table; see `forebay quarantine show {entry}`");
            found.kept.entry(key).or_default().push(Kept { offsets, account: Some(account), why });
        }
        Some(("discarded", by)) => {
            let why = format!("refused by the table, and quarantine entry {entry} was discarded by {by}");
            found.lost.entry(key).or_default().push((offsets, why));
        }
        Some(_) => {}
    }
}

/// Enters what the ledger says of data that does not come: its reasons stand before general ones.
pub fn add_loss(found: &mut Findings, entry: LedgerEntry, sink: &str) {
    let of_other_reader = entry.kind == LedgerKind::TrimmedUnread
        && entry.reason.contains("the reader ")
        && !entry.reason.contains(&format!("the reader sink:{sink} "));
    let epoch = entry.epoch.as_deref().and_then(|text| u64::from_str_radix(text, 16).ok());
    let (Some(agent), Some(epoch), Some(start), Some(end), false) =
        (entry.agent, epoch, entry.start, entry.end, of_other_reader)
    else {
        return;
    };
    if start < end {
        let lost = (RangeSet::of(start..end), format!("{} ({})", entry.reason, entry.at));
        found.lost.entry((agent, Epoch(epoch))).or_default().push(lost);
    }
}

/// The agents' ends as they were read: what the hub received after that is not looked at. An epoch has none here if the
/// hub holds all of it and more (see [`add_accounts`]).
fn ends(
    outboxes: &[(String, BTreeMap<Epoch, OutboxEpoch>)],
    accounts: &[AgentAccount],
) -> BTreeMap<Key, u64> {
    let mut ends = BTreeMap::new();
    for (agent, outbox) in outboxes {
        let known = accounts.iter().find(|account| account.agent.to_string() == *agent);
        for (epoch, state) in outbox {
            let received = known.and_then(|account| account.epochs.iter().find(|held| held.epoch == *epoch));
            if !received.is_some_and(|received| is_ahead(received, state.end)) {
                ends.insert((agent.clone(), *epoch), state.end);
            }
        }
    }
    ends
}

/// Whether the hub holds every record of an epoch beyond its agent's end: the agent went on while we read, or was
/// restored from an older copy and has forgotten what it delivered. Then the hub's account is the one to compare.
fn is_ahead(received: &EpochState, end: u64) -> bool {
    received.ranges.end() > end && received.ranges.contains_range(&(0..received.ranges.end()))
}

/// Enters one record of the hub's log that may not be in the table yet.
pub fn add_waiting(found: &mut Findings, key: Key, offset: u64, account: Account) {
    if found.table.get(&key).is_some_and(|held| held.offsets.contains(offset)) {
        return;
    }
    let held = found
        .hub_only
        .entry(key)
        .or_insert_with(|| Held { account: Some(Account::default()), ..Held::default() });
    if held.offsets.insert_one(offset) {
        held.account = held.account.map(|sum| sum.plus(account));
    }
}

/// Enters what the hub says of its agents' epochs: what is settled without rows, whose paths differ, and what agents
/// have delivered and forgotten.
fn add_accounts(found: &mut Findings, accounts: &[AgentAccount]) {
    for agent in accounts {
        for state in &agent.epochs {
            let key: Key = (agent.agent.to_string(), state.epoch);
            if let Some(why) = &state.mismatch {
                found.broken.insert(key.clone(), why.clone());
            }
            if !state.lost.is_empty() {
                let why = "gone at the agent before the hub had them".to_owned();
                found.lost.entry(key.clone()).or_default().push((state.lost.clone(), why));
            }
            if !state.quarantined.is_empty() {
                let why = "payloads that the hub could not decode; see `forebay quarantine list`".to_owned();
                let offsets = state.quarantined.clone();
                found.kept.entry(key.clone()).or_default().push(Kept { offsets, account: None, why });
            }
            let devices = state.devices.iter().map(|(name, device)| DeviceLine {
                device: name.clone(),
                read: device.counts.read,
                dead_band: device.counts.dead_band,
                quarantined: device.counts.quarantined,
                made: device.counts.made,
                received: device.received,
            });
            found.devices.insert(key.clone(), devices.collect());
            // Numbered by the hub: offsets are positions of the plant log, among which other agents' records are.
            let end = if state.foreign { 0 } else { state.ranges.end() };
            let received = Accepted { end, total: state.agent_account };
            let accepted = found.accepted.entry(key).or_insert(received);
            if !state.foreign && is_ahead(state, accepted.end) {
                *accepted = received;
            }
            accepted.total = accepted.total.minus(state.agent_account).plus(state.account);
        }
    }
}

/// What an agent dropped by policy and has not told the hub yet; what the hub had received is not of this kind.
fn add_dropped(
    found: &mut Findings,
    agent: &str,
    outbox: &BTreeMap<Epoch, OutboxEpoch>,
    book: Option<&AgentAccount>,
) {
    for (epoch, state) in outbox {
        let known = epoch_of(book, *epoch);
        let mut there = known.map(|known| known.ranges.clone()).unwrap_or_default();
        known.iter().for_each(|known| {
            there.extend(&known.lost);
            there.extend(&known.quarantined);
        });
        let dropped = there.missing(0..state.first);
        if dropped.is_empty() {
            continue;
        }
        let mut lost = RangeSet::new();
        dropped.into_iter().for_each(|range| {
            lost.insert(range);
        });
        let why = "dropped by the agent's full outbox before the hub had them".to_owned();
        found.lost.entry((agent.to_owned(), *epoch)).or_default().push((lost, why));
    }
}

fn epoch_of(book: Option<&AgentAccount>, epoch: Epoch) -> Option<&EpochState> {
    book?.epochs.iter().find(|known| known.epoch == epoch)
}

fn in_one_line(error: &dyn std::error::Error) -> String {
    bridge::sinks::in_one_line(error)
}
