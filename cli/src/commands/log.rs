//! `forebay log`: what a log directory holds, whether it is whole, and what is safe to do if it is not. Only `repair`
//! changes anything, and only after asking.

use std::path::{Path, PathBuf};

use durable_log::{InspectReport, LogError, LogView, Position, VerifyReport};
use model::Epoch;
use proto::log_record::{CatalogueEntry, LogRecord};
use serde_json::{Value, json};

mod repair;

use crate::arguments::{Log, LogAction};
use crate::output::{DONE, FAILED, grouped, size};
use crate::{complain, say};

/// Exit 0 if the log is whole (and, for inspect, could be read), else 1.
#[must_use]
pub fn run(options: &Log) -> u8 {
    let done = match &options.action {
        LogAction::Inspect { dir, records, from, json } => {
            inspect(dir, *from, *records, *json).map(|()| true)
        }
        LogAction::Verify { dir, json } => verify_all(dir, *json),
        LogAction::Repair { dir, yes, dry_run } => repair::run(dir, *yes, *dry_run),
    };
    match done {
        Ok(true) => DONE,
        Ok(false) => FAILED,
        Err(error) => {
            complain!("{}", chain(&error));
            FAILED
        }
    }
}

/// An error with what caused it.
pub(super) fn chain(error: &LogError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        text += &format!(": {deeper}");
        cause = deeper.source();
    }
    text
}

/// A folder without a segment is a wrong path, not a whole log: every log has one from its first opening on.
fn no_log(dir: &Path) -> LogError {
    let source = std::io::Error::new(
        std::io::ErrorKind::NotFound,
        "there is no log in it; logs are folders such as hub/plant-log or an agent's outbox",
    );
    LogError::Io { doing: "opening", path: dir.to_owned(), source }
}

/// The directory itself if it is a log, else the logs below it, two levels deep (`data_dir/catalogue/copy`).
pub(super) fn logs_in(dir: &Path) -> Result<Vec<PathBuf>, LogError> {
    if holds_a_log(dir) {
        return Ok(vec![dir.to_owned()]);
    }
    let io = |source| LogError::Io { doing: "opening", path: dir.to_owned(), source };
    let mut found = Vec::new();
    for below in folders(dir).map_err(io)? {
        let deeper = folders(&below).map_err(io)?;
        found.extend(std::iter::once(below).chain(deeper).filter(|folder| holds_a_log(folder)));
    }
    if found.is_empty() { Err(no_log(dir)) } else { Ok(found) }
}

fn folders(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() && path.file_name().is_some_and(|name| name != "damaged") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn holds_a_log(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).any(|name| {
        name.strip_suffix(".log").is_some_and(|first| first.len() == 20 && first.parse::<u64>().is_ok())
    })
}

fn verify_all(dir: &Path, as_json: bool) -> Result<bool, LogError> {
    let mut all_whole = true;
    let logs = logs_in(dir)?;
    for log in &logs {
        if logs.len() > 1 && !as_json {
            say!("{}", log.display());
        }
        all_whole &= verify(log, as_json)?;
    }
    let mut beside = vec![dir.to_owned()];
    for below in folders(dir).unwrap_or_default() {
        let deeper = folders(&below).unwrap_or_default();
        beside.extend(std::iter::once(below).chain(deeper));
    }
    for folder in beside {
        all_whole &= verify_beside(&folder, as_json);
    }
    Ok(all_whole)
}

/// What is no log but belongs to one: checkpoints, the broker's snapshots, an agent's session file.
fn verify_beside(folder: &Path, as_json: bool) -> bool {
    let mut files = hub::verify::files(folder);
    if let Some(found) = edge_agent::uplink::verify_session_file(folder) {
        files.push(hub::verify::Checked { path: folder.join("session"), damage: found.err() });
    }
    for hub::verify::Checked { path, damage } in &files {
        match damage {
            _ if as_json => say!("{}", json!({"path": path, "whole": damage.is_none(), "damage": damage})),
            None => say!("whole: {}", path.display()),
            Some(why) => say!(
                "DAMAGED  {}: {why}. It is a short cut: the next start does without it or takes its copy",
                path.display()
            ),
        }
    }
    files.iter().all(|file| file.damage.is_none())
}

fn verify(dir: &Path, as_json: bool) -> Result<bool, LogError> {
    let report = durable_log::verify(dir)?;
    if report.segments.is_empty() && report.is_whole() {
        return Err(no_log(dir));
    }
    Ok(verified(&report, as_json))
}

fn inspect(dir: &Path, from: u64, records: u64, as_json: bool) -> Result<(), LogError> {
    let report = durable_log::inspect(dir)?;
    if report.segments.is_empty() {
        return Err(no_log(dir));
    }
    if as_json {
        say!("{}", outline_json(&report));
    } else {
        outline(&report);
    }
    if records > 0 {
        let (view, _) = LogView::open_read_only(dir)?;
        let mut reader = view.reader(Position(from));
        for _ in 0..records {
            let Some((position, bytes)) = reader.next()? else { break };
            let what = describe(bytes);
            if as_json {
                say!("{}", json!({"position": position.0, "record": what}))
            } else {
                say!("{position}  {what}")
            }
        }
    }
    Ok(())
}

fn outline(report: &InspectReport) {
    say!("{}", report.path.display());
    say!("{}", report.recovery);
    for segment in &report.segments {
        say!(
            "  {}  epoch {}  positions [{}, {})  {}{}",
            segment.path.file_name().unwrap_or_default().to_string_lossy(),
            Epoch(segment.epoch),
            segment.first,
            segment.end,
            size(segment.bytes),
            if segment.sealed { "" } else { "  open" },
        );
    }
    for (name, position) in &report.cursors {
        say!("  cursor {name} at {position}");
    }
    let bytes: u64 = report.segments.iter().map(|segment| segment.bytes).sum();
    let records: u64 = report.segments.iter().map(|segment| segment.end.0 - segment.first.0).sum();
    say!("{} records in {} segments, {}", grouped(records), report.segments.len(), size(bytes));
}

fn outline_json(report: &InspectReport) -> Value {
    let segments: Vec<Value> = report
        .segments
        .iter()
        .map(|segment| {
            json!({
                "path": segment.path, "epoch": Epoch(segment.epoch).to_string(), "first": segment.first.0,
                "end": segment.end.0, "bytes": segment.bytes, "sealed": segment.sealed,
            })
        })
        .collect();
    let cursors: serde_json::Map<String, Value> =
        report.cursors.iter().map(|(name, position)| (name.clone(), json!(position.0))).collect();
    json!({"path": report.path, "recovery": report.recovery.to_string(), "segments": segments, "cursors": cursors})
}

fn verified(report: &VerifyReport, as_json: bool) -> bool {
    let damaged: Vec<String> = report
        .segments
        .iter()
        .filter_map(|segment| Some(format!("{}: {}", segment.path.display(), segment.damage.as_ref()?)))
        .chain(report.problems.iter().cloned())
        .collect();
    let torn = report.cut.as_ref().map(ToString::to_string);
    if as_json {
        say!(
            "{}",
            json!({"path": report.path, "whole": report.is_whole(), "records": report.records(), "holes": report.holes(),
                "torn_end": torn, "damage": damaged})
        );
        return report.is_whole();
    }
    damaged.iter().for_each(|damage| say!("DAMAGED  {damage}"));
    if let Some(torn) = torn {
        say!("torn end, which the next start cuts (it was never reported durable): {torn}");
    }
    let verdict = if report.is_whole() { "whole" } else { "DAMAGED" };
    if report.holes() > 0 {
        say!("{} positions are holes: their records were damaged once and given up", grouped(report.holes()));
    }
    if !report.is_whole() {
        say!("`forebay log repair {}` says what can be done", report.path.display());
    }
    say!("{verdict}: {} records in {} segments", grouped(report.records()), report.segments.len());
    report.is_whole()
}

/// One record of any of our logs in a line.
pub(super) fn describe(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "a hole: damaged once and given up".to_owned();
    }
    match LogRecord::decode(bytes) {
        Ok(LogRecord::Accepted { batch, account, event, .. }) => format!(
            "accepted {}  {} samples  at {}  running {}:{:016x}{}",
            batch.id,
            batch.samples.len(),
            batch.accepted_at,
            account.count,
            account.checksum,
            if event == proto::log_record::DeviceEvent::Down { "  device down" } else { "" },
        ),
        Ok(LogRecord::Received { agent, batch, .. }) => format!(
            "received from agent {}  {}  {} samples  accepted at {}{}",
            agent.0,
            batch.id,
            batch.samples.len(),
            batch.accepted_at,
            if batch.is_historical { "  historical" } else { "" },
        ),
        Ok(LogRecord::Again { sink, agent, batch, .. }) => format!(
            "again for sink {sink}, of agent {}  {}  {} samples",
            agent.0,
            batch.id,
            batch.samples.len()
        ),
        Ok(LogRecord::Retried { origin, position, .. }) => {
            format!("retried quarantine entry {}{position}", if origin == 1 { 'p' } else { 'r' })
        }
        Ok(LogRecord::SourcePosition { source, position }) => {
            format!("source position of {source}  {}", String::from_utf8_lossy(&position))
        }
        Ok(LogRecord::EpochGone { epoch, end, account }) => {
            format!(
                "epoch gone       epoch {epoch}, {end} records, {} samples, not all at the hub",
                account.count
            )
        }
        Ok(LogRecord::CommandSeen { id, expires_at }) => {
            format!("command {}  expires {expires_at}", model::CommandId(id))
        }
        Ok(LogRecord::Lost { agent, epoch, start, end, reason }) => {
            format!("lost of agent {}  epoch {epoch}  offsets [{start}, {end})  {reason}", agent.0)
        }
        Err(_) => match CatalogueEntry::decode(bytes) {
            Ok(CatalogueEntry::Agent { id, node }) => format!("agent {}  {node}", id.0),
            Ok(CatalogueEntry::Point { id, agent, definition }) => format!(
                "point {} of agent {}  {}  {}  {}",
                id.0,
                agent.0,
                definition.path,
                definition.data_type.name(),
                definition.unit
            ),
            Err(_) => format!("{} bytes", bytes.len()),
        },
    }
}
