//! What a running hub says over its API, compared with a table that this machine can read.

use std::collections::BTreeMap;

use bridge::sinks::location::Location;
use model::{Epoch, RangeSet};
use proto::account::Account;
use proto::feed::FeedPage;
use proto::log_record::{AgentId, CatalogueEntry, LogRecord};
use serde_json::Value;

use super::cold::{add_loss, add_refused, add_table, add_waiting, for_sink, scan_table};
use super::compare::{Accepted, DeviceLine, Findings, Held, Kept, Key};
use crate::hub_client::HubClient;

/// Asks the hub for the sink's cursor, reads the table, asks for the accounts, then for the log from the cursor on.
pub fn gather(hub: &HubClient, table: &Location, sink: &str) -> Result<Findings, String> {
    if table.folder().is_some_and(|folder| !folder.exists()) {
        return Err(format!(
            "there is no table at {table}: give the folder or URL that the bridge's sink `{sink}` writes to"
        ));
    }
    let from = cursor_of(&hub.get("/api/v1/reconcile")?, sink);
    let mut found = Findings::default();
    add_table(&mut found, &scan_table(table)?)?;
    let accounts = hub.get("/api/v1/reconcile?losses=true")?;
    let received = add_accounts(&mut found, &accounts)?;
    let end = accounts["log"]["end"].as_u64().ok_or("the hub does not say where its log ends")?;
    add_log(&mut found, hub, sink, from, end, &received)?;
    add_decisions(&mut found, &accounts, sink)?;
    Ok(found)
}

/// The position that the sink has reported; 0 if the hub knows no such sink (then the whole log is read).
fn cursor_of(answer: &Value, sink: &str) -> u64 {
    let sinks = answer["sinks"].as_array().into_iter().flatten();
    sinks.filter(|view| view["name"] == sink).find_map(|view| view["position"].as_u64()).unwrap_or(0)
}

/// Enters the accounts; returns what the hub had received of each epoch at that moment.
fn add_accounts(found: &mut Findings, answer: &Value) -> Result<BTreeMap<Key, RangeSet>, String> {
    let mut received = BTreeMap::new();
    for agent in answer["agents"].as_array().into_iter().flatten() {
        for epoch in agent["epochs"].as_array().into_iter().flatten() {
            let key = key(agent, epoch)
                .ok_or_else(|| format!("the hub names an epoch without a number: {epoch}"))?;
            let ranges = ranges(&epoch["ranges"]);
            let (lost, quarantined) = (ranges_of(epoch, "lost"), ranges_of(epoch, "quarantined"));
            if let Some(why) = epoch["mismatch"].as_str() {
                found.broken.insert(key.clone(), why.to_owned());
            }
            let foreign = agent["foreign"] == true;
            let mut settled = lost.clone();
            settled.extend(&quarantined);
            if let (Some(end), false) = (epoch["reported"]["end"].as_u64(), foreign) {
                add_on_the_way(found, &key, &ranges, &settled, end);
            }
            let end = if foreign { 0 } else { ranges.end() };
            found.accepted.insert(key.clone(), Accepted { end, total: account(&epoch["received"])? });
            if !lost.is_empty() {
                let why = "gone at the agent before the hub had them".to_owned();
                found.lost.entry(key.clone()).or_default().push((lost, why));
            }
            if !quarantined.is_empty() {
                let why = "payloads that the hub could not decode; see `forebay quarantine list`".to_owned();
                let waiting = Kept { offsets: quarantined, account: None, why };
                found.kept.entry(key.clone()).or_default().push(waiting);
            }
            found.devices.insert(key.clone(), devices(&epoch["devices"]));
            received.insert(key, ranges);
        }
    }
    Ok(received)
}

/// Enters the ledger's reasons and what the sink refused.
fn add_decisions(found: &mut Findings, answer: &Value, sink: &str) -> Result<(), String> {
    for loss in answer["losses"].as_array().into_iter().flatten() {
        let entry = serde_json::from_value(loss.clone()).map_err(|error| format!("a loss: {error}"))?;
        add_loss(found, entry, sink);
    }
    for refused in answer["refused"].as_array().into_iter().flatten() {
        let (Some(key), Some(offset)) = (key(refused, refused), refused["offset"].as_u64()) else { continue };
        if refused["sink"] == sink {
            let state = refused["state"].as_str().unwrap_or("waiting");
            let by = refused["decided_by"].as_str().unwrap_or("somebody");
            let ended = (state != "waiting").then_some((state, by));
            let id = refused["id"].as_str().unwrap_or("?");
            add_refused(found, key, offset, account(&refused["account"])?, id, ended);
        }
    }
    Ok(())
}

fn devices(list: &Value) -> Vec<DeviceLine> {
    let devices = list.as_array().into_iter().flatten().map(|device| {
        let number = |name: &str| device[name].as_u64().unwrap_or(0);
        DeviceLine {
            device: device["device"].as_str().unwrap_or("?").to_owned(),
            read: number("read"),
            dead_band: number("dead_band"),
            quarantined: number("quarantined"),
            made: number("made"),
            received: number("received"),
        }
    });
    devices.collect()
}

/// What the agent has said it accepted and the hub has not: on its way; its samples are not counted here.
fn add_on_the_way(found: &mut Findings, key: &Key, ranges: &RangeSet, settled: &RangeSet, end: u64) {
    let mut there = ranges.clone();
    there.extend(settled);
    let mut offsets = RangeSet::new();
    for range in there.missing(0..end) {
        offsets.insert(range);
    }
    if !offsets.is_empty() {
        found.agent_only.insert(key.clone(), Held { offsets, account: Some(Account::default()) });
    }
}

/// Enters the records of the log's positions `[from, end)` that the hub had received when it was asked.
fn add_log(
    found: &mut Findings,
    hub: &HubClient,
    sink: &str,
    from: u64,
    end: u64,
    received: &BTreeMap<Key, RangeSet>,
) -> Result<(), String> {
    let mut agents: BTreeMap<AgentId, String> = BTreeMap::new();
    let (mut from, mut catalogue) = (from, 0);
    while from < end {
        let page = hub.get_bytes(&format!("/api/v1/feed?sink={sink}&from={from}&catalogue={catalogue}"))?;
        let page = FeedPage::decode(page).map_err(|error| error.to_string())?;
        for entry in &page.catalogue {
            if let CatalogueEntry::Agent { id, node } = entry {
                agents.insert(*id, node.to_string());
            }
        }
        for (position, record) in page.entries.iter().filter(|(position, _)| *position < end) {
            if record.is_empty() {
                continue; // damaged and given up; the ledger has it
            }
            let record =
                LogRecord::decode(record).map_err(|error| format!("position {position}: {error}"))?;
            if let Some((agent, batch, account)) = for_sink(record, sink)
                && let Some(name) = agents.get(&agent)
            {
                let (key, offset) = ((name.clone(), batch.id.epoch), batch.id.offset.0);
                if received.get(&key).is_some_and(|ranges| ranges.contains(offset)) {
                    add_waiting(found, key, offset, account);
                }
            }
        }
        if page.next <= from && page.catalogue_next <= catalogue {
            return Err(format!("the hub's log ends at {from} although it said {end}"));
        }
        (from, catalogue) = (page.next, page.catalogue_next);
    }
    Ok(())
}

fn key(agent: &Value, epoch: &Value) -> Option<Key> {
    let number = u64::from_str_radix(epoch["epoch"].as_str()?, 16).ok()?;
    Some((agent["agent"].as_str()?.to_owned(), Epoch(number)))
}

fn ranges_of(epoch: &Value, name: &str) -> RangeSet {
    ranges(&epoch[name])
}

fn ranges(list: &Value) -> RangeSet {
    let mut set = RangeSet::new();
    for range in list.as_array().into_iter().flatten() {
        if let (Some(start), Some(end)) = (range[0].as_u64(), range[1].as_u64()) {
            set.insert(start..end);
        }
    }
    set
}

fn account(value: &Value) -> Result<Account, String> {
    let checksum = value["checksum"].as_str().and_then(|text| u64::from_str_radix(text, 16).ok());
    match (value["count"].as_u64(), checksum) {
        (Some(count), Some(checksum)) => Ok(Account { count, checksum }),
        _ => Err(format!("the hub gave no account: {value}")),
    }
}
