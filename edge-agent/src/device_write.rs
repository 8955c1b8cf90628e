//! One command at one device: written at most once, never late, read back.
//!
//! The outcome is honest: `done` only if the device shows the written value; what nobody can say is `unknown`, and is
//! never tried again.

use std::time::Duration;

use model::{CommandOutcome, Value};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::acquisition::{Attended, Keeper};
use crate::drivers::{Driver, DriverError};
use crate::outbox::OutboxError;

/// A write may take so long.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
/// So may reading back.
const READ_BACK_DEADLINE: Duration = Duration::from_secs(5);
/// A PLC shows a new value a cycle or two later: looked at so often, with a pause between.
const READ_BACK_TRIES: u32 = 5;
const READ_BACK_PAUSE: Duration = Duration::from_millis(150);

/// A checked command for a device.
#[derive(Debug)]
pub struct DeviceWrite {
    /// Index of the point in the device's list.
    pub point: usize,
    /// Raw value.
    pub raw: Value,
    /// Not after this.
    pub not_after: Instant,
    /// Who waits for the outcome.
    pub answer: oneshot::Sender<WriteOutcome>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteOutcome {
    /// In the command's words.
    pub outcome: CommandOutcome,
    /// What the device showed afterwards, in its raw type; empty if it was not read.
    pub read_back: Option<Value>,
}

impl DeviceWrite {
    /// Answers that nothing was written.
    pub fn refuse(self, why: &str) {
        self.end(CommandOutcome::Refused(why.to_owned()), None);
    }

    fn end(self, outcome: CommandOutcome, read_back: Option<Value>) {
        self.answer.send(WriteOutcome { outcome, read_back }).ok(); // whoever asked may have gone
    }
}

/// Writes and reads back. An error means that the driver must be closed before anything else.
pub(crate) async fn execute(
    driver: &mut dyn Driver,
    keeper: &mut Keeper,
    write: DeviceWrite,
) -> Result<Option<DriverError>, OutboxError> {
    let left = write.not_after.saturating_duration_since(Instant::now());
    if left.is_zero() {
        write.end(CommandOutcome::Expired, None);
        return Ok(None);
    }
    // What the device has not taken by then is withdrawn: the driver is cut off and closed.
    let deadline = WRITE_DEADLINE.min(left);
    match keeper.attend(deadline, driver.write(write.point, &write.raw)).await? {
        Attended::Answered(Ok(())) => {}
        Attended::Answered(Err(error @ DriverError::InDoubt { .. })) => {
            write.end(CommandOutcome::Unknown(error.to_string()), None);
            return Ok(None);
        }
        Attended::Answered(Err(
            error @ (DriverError::Refused { .. } | DriverError::Config(_) | DriverError::Denied(_)),
        )) => {
            write.end(CommandOutcome::Refused(error.to_string()), None);
            return Ok(None);
        }
        Attended::Answered(Err(error)) => {
            write.end(CommandOutcome::Unknown(format!("while writing: {error}")), None);
            return Ok(Some(error));
        }
        Attended::Cut | Attended::Shutdown => {
            write.end(CommandOutcome::Unknown("the device did not confirm the write".into()), None);
            return Ok(Some(DriverError::Silent(deadline)));
        }
    }
    read_back(driver, keeper, write).await
}

async fn read_back(
    driver: &mut dyn Driver,
    keeper: &mut Keeper,
    write: DeviceWrite,
) -> Result<Option<DriverError>, OutboxError> {
    let mut shown = None;
    for attempt in 0..READ_BACK_TRIES {
        if attempt > 0 {
            sleep(READ_BACK_PAUSE).await;
        }
        match keeper.attend(READ_BACK_DEADLINE, driver.read_one(write.point)).await? {
            Attended::Answered(Ok(reading)) => shown = reading.value,
            Attended::Answered(Err(error)) => {
                let why = format!("written, but reading back failed: {error}");
                write.end(CommandOutcome::Unknown(why), None);
                return Ok(Some(error));
            }
            Attended::Cut | Attended::Shutdown => {
                write.end(CommandOutcome::Unknown("written, but not read back in time".into()), None);
                return Ok(Some(DriverError::Silent(READ_BACK_DEADLINE)));
            }
        }
        if shown.as_ref() == Some(&write.raw) {
            write.end(CommandOutcome::Done, shown);
            return Ok(None);
        }
    }
    write.end(CommandOutcome::Unknown("written, but the device shows another value".into()), shown);
    Ok(None)
}
