//! `forebay points`: point lists out of other programs' exports.

use edge_agent::points::import::{ImportOptions, import};

use crate::arguments::points::{Import, Points, PointsAction};
use crate::output::{DONE, FAILED, USAGE};
use crate::{complain, say};

/// An export of the largest agent is a tenth of this.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Exit 0 if all was taken over, 1 if something was not, 2 if nothing could be read.
#[must_use]
pub fn run(options: &Points) -> u8 {
    let PointsAction::Import(options) = &options.action;
    let bytes = match read(options) {
        Ok(bytes) => bytes,
        Err(error) => {
            complain!("{}: {error}", options.file.display());
            return USAGE;
        }
    };
    let how = ImportOptions {
        driver: options.driver.clone(),
        unit: options.unit,
        order: options.order.clone(),
        writable: options.writable,
        groups: options.groups,
    };
    let imported = match import(&options.file, &bytes, options.from.source(), &how) {
        Ok(imported) => imported,
        Err(error) => {
            complain!("{}: {error}", options.file.display());
            return USAGE;
        }
    };
    if imported.taken > 0 {
        say!("{}", imported.list.trim_end());
    }
    imported.left_out.iter().for_each(|problem| complain!("{problem}"));
    imported.notes.iter().for_each(|note| complain!("note: {note}"));
    let count = imported.left_out.len();
    complain!("{} points taken over, {count} left out", imported.taken);
    if count == 0 && imported.taken > 0 { DONE } else { FAILED }
}

fn read(options: &Import) -> Result<Vec<u8>, String> {
    let size = std::fs::metadata(&options.file).map_err(|error| error.to_string())?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("is longer than {FILE_BYTES_MAX} bytes"));
    }
    std::fs::read(&options.file).map_err(|error| error.to_string())
}
