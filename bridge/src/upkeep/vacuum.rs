//! Removes what no version within the retention needs: data files, and the beginning of the table's log.
//!
//! A data file goes if all of this holds:
//!
//! - the newest version does not name it, and no version that is younger than the retention did;
//! - it is older than the retention by the store's clock;
//! - it is none that the pump may still commit: the positions in its name are below the cursor in the table.
//!
//! The last rule is what makes it safe beside a pump at any speed: a name is committed once, before the cursor passes it.
//! Of the log, versions go that lie before the newest checkpoint that is itself older than the retention. Oldest first, so
//! that a crash leaves a log that begins later, never one with a gap.

use std::collections::BTreeSet;
use std::time::Duration;

use delta_kernel::SnapshotRef;
use futures_util::StreamExt as _;
use object_store::path::Path as StorePath;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use tokio::runtime::Handle;

use super::table::{Named, Table};
use crate::sinks::SinkError;
use crate::sinks::folder::word_of_file;
use crate::sinks::location::trouble;
use crate::table::DAY;

/// What a vacuum removed, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vacuumed {
    /// Data files that went.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that nothing names, but that are too young.
    pub young: u64,
    /// Files that only older versions name, still within the retention.
    pub named: u64,
    /// Files of the table's log that went.
    pub log_files: u64,
    /// The log now begins with this version.
    pub log_from: Option<u64>,
}

/// Removes, or with `dry_run` only counts.
pub(crate) fn vacuum(
    table: &Table,
    retain: Duration,
    now_ms: i64,
    dry_run: bool,
) -> Result<Vacuumed, SinkError> {
    let listed = list(table, None)?; // before the log is read: what is committed meanwhile is not in it
    let snapshot = table.latest()?;
    let (named, kept) = table.named(&snapshot)?;
    if retain > kept {
        return Err(SinkError::Unfit(format!(
            "the table forgets the names of removed files after {} hours, so they cannot be retained for {} hours; write a \
             shorter `retain`, or set the table's property delta.deletedFileRetentionDuration",
            kept.as_secs() / 3600,
            retain.as_secs() / 3600
        )));
    }
    let cutoff = now_ms.saturating_sub(i64::try_from(retain.as_millis()).unwrap_or(i64::MAX));
    let mut done = Vacuumed::default();
    for file in listed {
        match judge(table, &snapshot, &named, &file, cutoff)? {
            Verdict::Needed => {}
            Verdict::Named => done.named += 1,
            Verdict::Young => done.young += 1,
            Verdict::Gone => {
                done.files += 1;
                done.bytes += file.size;
                if !dry_run {
                    remove(table, &file.location)?;
                }
            }
        }
    }
    if !dry_run {
        remove_leftovers(table, cutoff);
    }
    clean_log(table, &snapshot, retain, now_ms, dry_run, &mut done)?;
    Ok(done)
}

enum Verdict {
    Needed,
    Named,
    Young,
    Gone,
}

fn judge(
    table: &Table,
    snapshot: &SnapshotRef,
    named: &Named,
    file: &ObjectMeta,
    cutoff: i64,
) -> Result<Verdict, SinkError> {
    let mut parts = file.location.parts();
    let is_in_a_day = parts.next().is_some_and(|part| part.as_ref().starts_with(&format!("{DAY}=")));
    let name = file.location.filename().unwrap_or_default();
    let is_data =
        is_in_a_day && file.location.extension() == Some("parquet") && !name.starts_with(['_', '.']);
    match named.get(&file.location) {
        _ if !is_data => return Ok(Verdict::Needed),
        Some(None) => return Ok(Verdict::Needed),
        Some(Some(removed)) if *removed >= cutoff => return Ok(Verdict::Named),
        Some(Some(_)) | None => {}
    }
    if file.last_modified.timestamp_millis() >= cutoff {
        return Ok(Verdict::Young);
    }
    let Some((hub, sink, end)) = parse_pump_file(name) else { return Ok(Verdict::Gone) };
    let id = format!("forebay/{hub}/{sink}");
    let cursor = snapshot
        .get_app_id_version(&id, &table.engine)
        .map_err(|error| trouble::unavailable("cannot read the cursor from the Delta table", &error))?;
    let is_behind = cursor.and_then(|cursor| u64::try_from(cursor).ok()).is_some_and(|cursor| end <= cursor);
    Ok(if is_behind { Verdict::Gone } else { Verdict::Young })
}

/// Hub, sink and end of a file that a pump wrote: `{hub}.{sink}-{epoch}-{start}-{end}[-{opening}].parquet`.
fn parse_pump_file(name: &str) -> Option<(String, String, u64)> {
    let mut parts = name.strip_suffix(".parquet")?.split('-');
    let (hub, sink) = parts.next()?.split_once('.')?;
    let numbers: Vec<&str> = parts.collect();
    let (epoch, start, end) = match numbers.as_slice() {
        [epoch, start, end] | [epoch, start, end, _] => (*epoch, *start, *end),
        _ => return None,
    };
    let is_ours = epoch.len() == 16 && start.len() == 20 && end.len() == 20;
    Some((word_of_file(hub)?, word_of_file(sink)?, end.parse().ok().filter(|_| is_ours)?))
}

fn list(table: &Table, prefix: Option<&StorePath>) -> Result<Vec<ObjectMeta>, SinkError> {
    let mut entries = table.folder.store.list(prefix);
    Handle::current().block_on(async {
        let mut found = Vec::new();
        while let Some(entry) = entries.next().await {
            found.push(entry.map_err(|error| trouble::unavailable("cannot list the table's files", &error))?);
        }
        Ok(found)
    })
}

fn remove(table: &Table, file: &StorePath) -> Result<(), SinkError> {
    match Handle::current().block_on(table.folder.store.delete(file)) {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(trouble::unavailable(&format!("cannot remove {file}"), &error)),
    }
}

/// In a folder: what a process left that died while it wrote a file (`….parquet#1`); a store lists no such thing.
fn remove_leftovers(table: &Table, cutoff: i64) {
    let Some(root) = &table.folder.root else { return };
    let days = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for day in days.filter(|path| path.is_dir()) {
        for file in std::fs::read_dir(&day).into_iter().flatten().flatten() {
            let is_left_over = file.file_name().to_str().is_some_and(|name| name.contains(".parquet#"));
            let modified = file.metadata().and_then(|meta| meta.modified()).ok();
            let modified = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            let is_old = modified.is_some_and(|at| i64::try_from(at.as_millis()).is_ok_and(|at| at < cutoff));
            if is_left_over && is_old {
                std::fs::remove_file(file.path()).ok(); // the next vacuum sees it again
            }
        }
    }
}

/// What a file of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogFile {
    /// One version, or several in one; up to this version.
    Commit(u64),
    /// A whole checkpoint in one file.
    Checkpoint(u64),
    /// Part of one, or a checksum.
    Beside(u64),
}

fn parse_log_file(name: &str) -> Option<LogFile> {
    let mut parts = name.split('.');
    let version = parts.next().filter(|text| text.len() == 20)?.parse().ok()?;
    let rest: Vec<&str> = parts.collect();
    Some(match rest.as_slice() {
        ["json"] => LogFile::Commit(version),
        [end, "compacted", "json"] => LogFile::Commit(end.parse().ok()?),
        ["checkpoint", "parquet"] => LogFile::Checkpoint(version),
        ["crc"] => LogFile::Beside(version),
        ["checkpoint", .., "parquet" | "json"] => LogFile::Beside(version),
        _ => return None,
    })
}

/// Where the log may begin, and the files before that, oldest first.
fn old_log_files(listed: &[ObjectMeta], newest: u64, cutoff: i64) -> (Option<u64>, Vec<StorePath>) {
    let of_name = |file: &ObjectMeta| Some((parse_log_file(file.location.filename()?)?, file.clone()));
    let files: Vec<(LogFile, ObjectMeta)> = listed.iter().filter_map(of_name).collect();
    let base = files.iter().filter_map(|(kind, file)| match kind {
        LogFile::Checkpoint(version)
            if *version <= newest && file.last_modified.timestamp_millis() < cutoff =>
        {
            Some(*version)
        }
        _ => None,
    });
    let Some(base) = base.max() else { return (None, Vec::new()) };
    let old: BTreeSet<(u64, StorePath)> = files
        .into_iter()
        .filter_map(|(kind, file)| {
            let (LogFile::Commit(version) | LogFile::Checkpoint(version) | LogFile::Beside(version)) = kind;
            (version < base).then_some((version, file.location))
        })
        .collect();
    (Some(base), old.into_iter().map(|(_, location)| location).collect())
}

fn clean_log(
    table: &Table,
    snapshot: &SnapshotRef,
    retain: Duration,
    now_ms: i64,
    dry_run: bool,
    done: &mut Vacuumed,
) -> Result<(), SinkError> {
    // Who set the property wants the log for so long at least.
    let retain =
        snapshot.table_properties().log_retention_duration.map_or(retain, |wanted| wanted.max(retain));
    let cutoff = now_ms.saturating_sub(i64::try_from(retain.as_millis()).unwrap_or(i64::MAX));
    let listed = list(table, Some(&StorePath::from("_delta_log")))?;
    let (base, old) = old_log_files(&listed, snapshot.version(), cutoff);
    done.log_files = old.len() as u64;
    done.log_from = base;
    if !dry_run {
        old.iter().try_for_each(|file| remove(table, file))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_pump_are_read_and_others_are_not_its_own() {
        let name = "hub_2d_c3_bc_2f1.lake-0000000000000011-00000000000000000005-00000000000000000009.parquet";
        assert_eq!(parse_pump_file(name), Some(("hub-ü/1".to_owned(), "lake".to_owned(), 9)));
        let far = name.replace(".parquet", "-00000000deadbeef.parquet");
        assert_eq!(parse_pump_file(&far).map(|(_, _, end)| end), Some(9));
        for foreign in
            ["compact-0123456789abcdef.parquet", "part-00000-abc-c000.snappy.parquet", "a.b-1-2-3.parquet"]
        {
            assert_eq!(parse_pump_file(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn the_log_is_cut_at_an_old_checkpoint_oldest_first() {
        let file = |name: &str, day: i64| ObjectMeta {
            location: StorePath::from(format!("_delta_log/{name}")),
            last_modified: chrono_at(day),
            size: 1,
            e_tag: None,
            version: None,
        };
        let mut files: Vec<ObjectMeta> =
            (0..30).map(|version| file(&format!("{version:020}.json"), version)).collect();
        for version in [10, 20] {
            files.push(file(&format!("{version:020}.checkpoint.parquet"), version));
        }
        files.push(file("_last_checkpoint", 20));
        files.push(file(&format!("{:020}.{:020}.compacted.json", 5, 12), 12));
        let cut = |day: i64| {
            let (base, old) = old_log_files(&files, 29, day * 86_400_000);
            (base, old.len())
        };
        assert_eq!(cut(9), (None, 0));
        assert_eq!(cut(11), (Some(10), 10));
        assert_eq!(cut(20), (Some(10), 10), "the checkpoint itself must be older");
        assert_eq!(cut(25), (Some(20), 22), "20 versions, a checkpoint, a compacted one");
        let (_, old) = old_log_files(&files, 29, 25 * 86_400_000);
        assert_eq!(old[0].filename(), Some("00000000000000000000.json"));
    }

    fn chrono_at(day: i64) -> chrono::DateTime<chrono::Utc> {
        (std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(day).unwrap() * 86_400)).into()
    }
}
