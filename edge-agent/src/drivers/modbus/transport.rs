//! One Modbus TCP connection: requests, their deadlines, and what each failure means.
//!
//! Every answer is checked against its request here (`call` of the library checks transaction, unit and function, its
//! typed helpers assert the rest). A connection that failed once is dropped by its owner: a late answer must never be
//! taken for the next one.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_modbus::client::{Client, Context};
use tokio_modbus::{ExceptionCode, Request, Response, Slave};

use super::address::{Span, Table, Written};
use crate::drivers::DriverError;

/// A connection to one unit.
pub(super) struct Connection {
    context: Context,
    deadline: Duration,
}

/// The device's answer, or its exception.
pub(super) type Answer<T> = Result<T, ExceptionCode>;

impl Connection {
    /// Connects to `host:port`.
    pub(super) async fn open(target: &str, unit: u8, deadline: Duration) -> Result<Self, DriverError> {
        let connected = timeout(deadline, TcpStream::connect(target)).await;
        let stream = match connected {
            Err(_) => {
                return Err(DriverError::NotConnected(format!(
                    "{target} did not accept within {deadline:?}"
                )));
            }
            Ok(Err(error)) => return Err(DriverError::NotConnected(format!("{target}: {error}"))),
            Ok(Ok(stream)) => stream,
        };
        let failed = |error: io::Error| DriverError::NotConnected(format!("{target}: {error}"));
        stream.set_nodelay(true).map_err(failed)?;
        // A write that waits in the socket for a broken line must die with the connection, not arrive when the line is
        // mended: closing resets.
        stream.set_zero_linger().map_err(failed)?;
        Ok(Connection { context: tokio_modbus::client::tcp::attach_slave(stream, Slave(unit)), deadline })
    }

    /// Reads cells; bits come as 0 and 1.
    pub(super) async fn read(&mut self, span: Span) -> Result<Answer<Vec<u16>>, DriverError> {
        let Span { table, start, count } = span;
        let request = match table {
            Table::Coils => Request::ReadCoils(start, count),
            Table::DiscreteInputs => Request::ReadDiscreteInputs(start, count),
            Table::InputRegisters => Request::ReadInputRegisters(start, count),
            Table::HoldingRegisters => Request::ReadHoldingRegisters(start, count),
        };
        let response = match self.call(request).await? {
            Ok(response) => response,
            Err(exception) => return Ok(Err(exception)),
        };
        match response {
            Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits)
                if bits.len() == usize::from(count).next_multiple_of(8) =>
            {
                Ok(Ok(bits.into_iter().take(usize::from(count)).map(u16::from).collect()))
            }
            Response::ReadInputRegisters(registers) | Response::ReadHoldingRegisters(registers)
                if registers.len() == usize::from(count) =>
            {
                Ok(Ok(registers))
            }
            _ => Err(DriverError::Malformed(format!("the answer does not hold the {count} cells asked for"))),
        }
    }

    /// Writes from cell `start` on. Where the device has not the function for one cell, the one for many is tried:
    /// the exception says that nothing was written.
    pub(super) async fn write(&mut self, start: u16, written: &Written) -> Result<Answer<()>, DriverError> {
        match written {
            Written::Coil(on) => match self.write_checked(Request::WriteSingleCoil(start, *on)).await? {
                Err(ExceptionCode::IllegalFunction) => {
                    self.write_checked(Request::WriteMultipleCoils(start, Cow::Owned(vec![*on]))).await
                }
                answer => Ok(answer),
            },
            Written::Registers(registers) => {
                if let &[register] = registers.as_slice() {
                    match self.write_checked(Request::WriteSingleRegister(start, register)).await? {
                        Err(ExceptionCode::IllegalFunction) => {}
                        answer => return Ok(answer),
                    }
                }
                self.write_checked(Request::WriteMultipleRegisters(start, Cow::Owned(registers.clone())))
                    .await
            }
            Written::Masked { and, or } => {
                self.write_checked(Request::MaskWriteRegister(start, *and, *or)).await
            }
        }
    }

    async fn write_checked(&mut self, request: Request<'static>) -> Result<Answer<()>, DriverError> {
        let expected = echo_of(&request);
        Ok(match self.call(request).await? {
            Ok(response) if Some(&response) == expected.as_ref() => Ok(()),
            Ok(_) => {
                return Err(DriverError::Malformed(
                    "the device confirmed another write than asked for".into(),
                ));
            }
            Err(exception) => Err(exception),
        })
    }

    async fn call(&mut self, request: Request<'_>) -> Result<Answer<Response>, DriverError> {
        match timeout(self.deadline, self.context.call(request)).await {
            Err(_) => Err(DriverError::Silent(self.deadline)),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(tokio_modbus::Error::Protocol(error))) => {
                Err(DriverError::Malformed(short(&error.to_string())))
            }
            Ok(Err(tokio_modbus::Error::Transport(error))) => Err(failure(&error)),
        }
    }

    /// Says goodbye to the device.
    pub(super) async fn close(mut self) {
        // Nothing depends on it: the socket is closed by the drop in any case.
        drop(timeout(Duration::from_millis(100), self.context.disconnect()).await);
    }
}

/// What a device answers to a write that it did.
fn echo_of(request: &Request<'_>) -> Option<Response> {
    Some(match request {
        Request::WriteSingleCoil(start, on) => Response::WriteSingleCoil(*start, *on),
        Request::WriteSingleRegister(start, word) => Response::WriteSingleRegister(*start, *word),
        Request::WriteMultipleCoils(start, bits) => {
            Response::WriteMultipleCoils(*start, u16::try_from(bits.len()).ok()?)
        }
        Request::WriteMultipleRegisters(start, words) => {
            Response::WriteMultipleRegisters(*start, u16::try_from(words.len()).ok()?)
        }
        Request::MaskWriteRegister(start, and, or) => Response::MaskWriteRegister(*start, *and, *or),
        _ => return None,
    })
}

fn failure(error: &io::Error) -> DriverError {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, HostUnreachable, InvalidData, InvalidInput,
        NetworkUnreachable, TimedOut, UnexpectedEof,
    };
    match error.kind() {
        InvalidData | InvalidInput | UnexpectedEof => DriverError::Malformed(error.to_string()),
        BrokenPipe | ConnectionAborted | ConnectionReset | HostUnreachable | NetworkUnreachable
        | TimedOut => DriverError::NotConnected(error.to_string()),
        // At the end of the stream the library reports whatever errno the thread saw last.
        _ => DriverError::NotConnected("the device closed the connection".into()),
    }
}

/// A message with the device's bytes in it must not fill a log.
fn short(text: &str) -> String {
    text.chars().take(200).collect()
}
