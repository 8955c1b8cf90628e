//! An opening: snapshot and log make the state, and what is missing or damaged is judged.

use std::collections::HashMap;

use durable_log::{Log, LogError, LogView, Position, Recovery, Storage};

use super::record::SessionId;
use super::recovered::{Recovered, Replaying, SessionState};
use super::snapshot::{self, SnapshotError, Stand};
use super::{JournalError, encoding};

/// A missing end of the log is filled with holes up to so many positions: each takes 12 bytes.
const SKIPPED_MAX: u64 = 1_000_000;

/// Snapshot and log make the state; also where the snapshot stands, and the bytes of log since.
pub(super) fn recover(
    storage: &dyn Storage,
    log: &mut Log,
    recovery: Recovery,
) -> Result<(Recovered, Position, u64), JournalError> {
    let mut has_holes = !recovery.repaired.is_empty();
    for repaired in &recovery.repaired {
        tracing::error!(%repaired, "the broker's journal");
    }
    loop {
        match restore(storage, log, recovery.cut.clone(), &mut has_holes) {
            Err(JournalError::Log(error @ LogError::Damaged { .. })) => {
                let healed = log.heal()?;
                if healed.is_empty() {
                    return Err(error.into());
                }
                healed.iter().for_each(|repaired| tracing::error!(%repaired, "the broker's journal"));
                has_holes = true;
            }
            restored => return restored,
        }
    }
}

fn restore(
    storage: &dyn Storage,
    log: &mut Log,
    cut: Option<durable_log::Cut>,
    has_holes: &mut bool,
) -> Result<(Recovered, Position, u64), JournalError> {
    let view = log.view();
    let first = view.first();
    let (stand, mut replaying) = read_snapshot(storage, log, has_holes)?;
    let mut reader = view.reader(stand.position);
    let mut bytes = 0;
    while let Some((position, record)) = reader.next()? {
        if record.is_empty() {
            *has_holes = true;
            continue;
        }
        bytes += record.len() as u64;
        let record = encoding::decode(record).map_err(|source| JournalError::Record { position, source })?;
        replaying.apply(position, record);
    }
    let mut recovered = replaying.finish(view.durable_end(), cut);
    if *has_holes {
        recount(&view, first, &mut recovered.sessions)?;
        bytes = u64::MAX / 2; // a snapshot soon, which knows nothing of the holes
    }
    find_first(storage, &view, &mut recovered.sessions)?;
    Ok((recovered, stand.position, bytes))
}

/// The snapshot, or its copy, or nothing if the log begins at the beginning.
fn read_snapshot(
    storage: &dyn Storage,
    log: &mut Log,
    has_holes: &mut bool,
) -> Result<(Stand, Replaying), JournalError> {
    let view = log.view();
    let (first, end) = (view.first(), view.durable_end());
    let path = storage.path(snapshot::FILE);
    let unusable = |what: String| JournalError::Snapshot { path: path.clone(), what };
    let io_fault = |source| JournalError::Io { doing: "reading", path: path.clone(), source };
    let mut replaying = Replaying::default();
    let read = match snapshot::read(storage, &mut replaying) {
        Err(error @ SnapshotError::Damaged { .. }) => {
            let kept = storage.set_aside(snapshot::FILE).map_err(io_fault)?;
            tracing::error!(error = %unusable(error.to_string()), kept = %kept.display(),
                "the snapshot of the broker's journal; its copy is tried");
            replaying = Replaying::default();
            match snapshot::read_copy(storage, &mut replaying) {
                Err(SnapshotError::Damaged { .. }) | Ok(None) if first == Position::ZERO => {
                    replaying = Replaying::default();
                    Ok(None)
                }
                Ok(None) => return Err(unusable("is damaged, and has no copy".to_owned())),
                read => read,
            }
        }
        read => read,
    };
    let stand = match read {
        Ok(None) if first > Position::ZERO => {
            return Err(unusable(format!("is missing, and the log begins only at position {first}")));
        }
        Ok(stand) => stand.unwrap_or(Stand { position: Position::ZERO, log_epoch: 0 }),
        Err(SnapshotError::Io(source)) => return Err(io_fault(source)),
        Err(SnapshotError::Newer(found)) => {
            return Err(LogError::NewerVersion { path, found, known: snapshot::VERSION }.into());
        }
        Err(error) => return Err(unusable(error.to_string())),
    };
    let is_this_log = view.segments().iter().any(|segment| segment.epoch == stand.log_epoch);
    if stand.position > end && is_this_log && stand.position.0 - end.0 <= SKIPPED_MAX {
        // The end of the log is lost. Its positions are not used again.
        tracing::error!(from = end.0, to = stand.position.0, "the end of the broker's journal is missing");
        log.skip_to(stand.position)?;
        *has_holes = true;
        return Ok((stand, replaying));
    }
    let before = stand.position.0.checked_sub(1).and_then(|last| view.epoch_of(Position(last)));
    if stand.position < first || stand.position > end {
        return Err(unusable(format!(
            "stands at position {}, and the log holds {first} to {end}",
            stand.position
        )));
    }
    if before.is_some_and(|epoch| stand.log_epoch != 0 && epoch != stand.log_epoch)
        && !(is_this_log && is_hole(&view, stand.position))
    {
        return Err(unusable("belongs to another log".to_owned()));
    }
    Ok((stand, replaying))
}

/// Whether the record before a position is one that was given up, of an opening after that of the snapshot.
fn is_hole(view: &LogView, at: Position) -> bool {
    let before = Position(at.0.saturating_sub(1));
    matches!(view.reader(before).next(), Ok(Some((position, []))) if position == before)
}

/// Counts every session's waiting messages anew, because some are gone: what stands in the log is what it will get. What
/// is known to be complete out of order is forgotten, so such messages come twice rather than never.
fn recount(view: &LogView, first: Position, sessions: &mut [SessionState]) -> Result<(), JournalError> {
    let mut waiting: HashMap<SessionId, (Position, Option<Position>, u64, u64)> =
        sessions.iter().map(|session| (session.id, (session.base_position.max(first), None, 0, 0))).collect();
    let from = waiting.values().map(|(from, ..)| *from).min().unwrap_or(first);
    let mut reader = view.reader(from);
    while let Some((position, record)) = reader.next()? {
        if record.is_empty() {
            continue;
        }
        let wanted = encoding::decode_wanted(record, |session| waiting.contains_key(&session))
            .map_err(|source| JournalError::Record { position, source })?;
        let Some((message, targets)) = wanted else { continue };
        for target in targets {
            if let Some((from, place, count, bytes)) = waiting.get_mut(&target.session)
                && position >= *from
            {
                place.get_or_insert(position);
                *count += 1;
                *bytes += message.bytes() as u64;
            }
        }
    }
    for session in sessions {
        let Some((_, place, count, bytes)) = waiting.get(&session.id).copied() else { continue };
        session.end = session.base + count;
        session.queued_bytes = bytes;
        session.base_position = place.unwrap_or(view.durable_end());
        session.done.clear();
        session.received_out.clear();
    }
    Ok(())
}

/// A session's place may lie below what is held: only messages for others stood between. That is proven by counting.
fn find_first(
    storage: &dyn Storage,
    view: &LogView,
    sessions: &mut [SessionState],
) -> Result<(), JournalError> {
    let first = view.first();
    let low = sessions.iter().filter(|session| session.base_position < first);
    let mut found: HashMap<SessionId, (Position, u64)> =
        low.map(|session| (session.id, (first, 0))).collect();
    if found.is_empty() {
        return Ok(());
    }
    let mut reader = view.reader(first);
    while let Some((position, record)) = reader.next()? {
        if record.is_empty() {
            continue;
        }
        let wanted = encoding::decode_wanted(record, |session| found.contains_key(&session))
            .map_err(|source| JournalError::Record { position, source })?;
        for target in wanted.into_iter().flat_map(|(_message, targets)| targets) {
            if let Some((place, count)) = found.get_mut(&target.session) {
                *place = if *count == 0 { position } else { *place };
                *count += 1;
            }
        }
    }
    for session in sessions {
        let Some((place, count)) = found.get(&session.id).copied() else { continue };
        if count != session.end - session.base {
            let (path, needed) = (storage.path(""), session.base_position);
            return Err(JournalError::Missing { path, session: session.id, needed, first });
        }
        session.base_position = place;
    }
    Ok(())
}
