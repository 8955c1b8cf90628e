//! A serial port as a stream of bytes: raw, non-blocking, with the line's settings. Unix only.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use rustix::termios::{ControlModes, OptionalActions, QueueSelector, tcflush, tcgetattr, tcsetattr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};

/// Parity bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parity {
    None,
    Even,
    Odd,
}

/// Settings of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SerialSettings {
    /// Device file.
    pub(super) port: PathBuf,
    /// Bits per second.
    pub(super) baud: u32,
    /// Parity bit.
    pub(super) parity: Parity,
    /// 1 or 2.
    pub(super) stop_bits: u8,
    /// 7 or 8.
    pub(super) data_bits: u8,
}

/// An open port; closed when dropped.
pub(super) struct SerialPort {
    file: File,
    /// tokio's name for any file that can be polled; they are two more handles of the same port.
    receiver: Receiver,
    sender: Sender,
}

impl SerialPort {
    /// Opens and sets it; what was left in its buffers is thrown away.
    pub(super) fn open(settings: &SerialSettings) -> io::Result<SerialPort> {
        let flags = rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&settings.port)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        let mut line = tcgetattr(&file)?;
        line.make_raw();
        line.set_speed(settings.baud)?;
        let all = ControlModes::PARENB | ControlModes::PARODD | ControlModes::CSTOPB | ControlModes::CSIZE;
        line.control_modes.remove(all | ControlModes::CRTSCTS);
        line.control_modes.insert(ControlModes::CREAD | ControlModes::CLOCAL);
        line.control_modes.insert(match settings.parity {
            Parity::None => ControlModes::empty(),
            Parity::Even => ControlModes::PARENB,
            Parity::Odd => ControlModes::PARENB | ControlModes::PARODD,
        });
        line.control_modes.insert(if settings.data_bits == 7 {
            ControlModes::CS7
        } else {
            ControlModes::CS8
        });
        if settings.stop_bits == 2 {
            line.control_modes.insert(ControlModes::CSTOPB);
        }
        tcsetattr(&file, OptionalActions::Now, &line)?;
        tcflush(&file, QueueSelector::IOFlush)?;
        let receiver = Receiver::from_file_unchecked(file.try_clone()?)?;
        let sender = Sender::from_file_unchecked(file.try_clone()?)?;
        Ok(SerialPort { file, receiver, sender })
    }

    /// Some bytes; 0 when the port is gone.
    pub(super) async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.receiver.read(into).await
    }

    /// What has already arrived; `WouldBlock` if nothing has.
    pub(super) fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.receiver.try_read(into)
    }

    /// All bytes.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sender.write_all(bytes).await
    }
}

/// What was not sent will not be: a write that arrives later is worse than none.
impl Drop for SerialPort {
    fn drop(&mut self) {
        tcflush(&self.file, QueueSelector::IOFlush).ok(); // a port that is gone sends nothing either
    }
}
