//! How full the disk of a sink's folder is: told at 80 % and at 90 %, before rows can no longer be written.
//!
//! Looked at from beside the pump, off the runtime's threads and with a deadline: a network mount may hang.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;

/// From here on somebody should look.
const FILLING_PERCENT: u8 = 80;
/// From here on somebody must.
const NEARLY_FULL_PERCENT: u8 = 90;
/// A line is left only so far below it: a figure at the line shall not flicker.
const BACK_PERCENT: u8 = 2;
const DEADLINE: Duration = Duration::from_secs(2);

/// A folder whose disk is watched.
#[derive(Debug)]
pub(crate) struct Room {
    folder: PathBuf,
    /// The line that is passed, 0 if none.
    line: u8,
    /// A question that a mount that hangs has not answered: no other is asked until it has.
    asked: Option<JoinHandle<Option<u8>>>,
}

impl Room {
    pub(crate) const fn new(folder: PathBuf) -> Self {
        Room { folder, line: 0, asked: None }
    }

    /// Percent used, and what is to be said of it; `None` if nobody can tell now.
    pub(crate) async fn look(&mut self) -> Option<(u8, Option<String>)> {
        let asked = self.asked.get_or_insert_with(|| {
            let folder = self.folder.clone();
            tokio::task::spawn_blocking(move || used_percent(&folder))
        });
        let answered = tokio::time::timeout(DEADLINE, asked).await.ok()?;
        self.asked = None;
        let used = answered.ok()??;
        Some((used, self.judge(used)))
    }

    fn judge(&mut self, used: u8) -> Option<String> {
        let passed = |line: u8| used >= if self.line >= line { line - BACK_PERCENT } else { line };
        self.line =
            [NEARLY_FULL_PERCENT, FILLING_PERCENT].into_iter().find(|line| passed(*line)).unwrap_or(0);
        let folder = self.folder.display();
        match self.line {
            NEARLY_FULL_PERCENT => Some(format!("the disk of {folder} is nearly full: {used} % is used")),
            FILLING_PERCENT => Some(format!("the disk of {folder} fills up: {used} % is used")),
            _ => None,
        }
    }

    /// The line that is passed: 0, 80 or 90.
    pub(crate) const fn line(&self) -> u8 {
        self.line
    }
}

/// Of the disk of the nearest folder that is there, in percent, rounded up; the rest is what this process may write.
fn used_percent(folder: &std::path::Path) -> Option<u8> {
    let there = folder.ancestors().find(|folder| folder.exists())?;
    let space = rustix::fs::statvfs(there).ok()?;
    // What only root may still write counts as gone.
    let all = space.f_blocks.saturating_sub(space.f_bfree.saturating_sub(space.f_bavail));
    let used = u128::from(all.saturating_sub(space.f_bavail)) * 100;
    u8::try_from(used.div_ceil(u128::from(all.max(1))).min(100)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_and_do_not_flicker() {
        let mut room = Room::new("/lake".into());
        let mut said = |used| {
            room.judge(used).map_or("", |text| if text.contains("nearly") { "nearly" } else { "fills" })
        };
        let told: Vec<&str> =
            [79, 80, 79, 78, 77, 90, 89, 88, 87, 100, 10].into_iter().map(&mut said).collect();
        assert_eq!(
            told,
            ["", "fills", "fills", "fills", "", "nearly", "nearly", "nearly", "fills", "nearly", ""]
        );
    }
}
