//! A Modbus/TCP server for load: many devices of holding registers in one thread, a port for each.
//!
//! It answers at once, with what [`Steps`] says at that moment; what it costs is this process's, not the agent's.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::steps::Steps;

const READ_HOLDING_REGISTERS: u8 = 3;
const ILLEGAL_FUNCTION: u8 = 1;
const ILLEGAL_ADDRESS: u8 = 2;
/// Length of a request to read: header, function, address, count.
const REQUEST_BYTES: usize = 12;
/// Connections in all, so that a client which never stops connecting ends the run and not the machine.
const CONNECTIONS_MAX: usize = 4_096;

/// The server; ends when dropped.
pub(super) struct ModbusServer {
    pub(super) ports: Vec<u16>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ModbusServer {
    /// `devices` of `registers` holding registers each.
    pub(super) fn start(devices: usize, registers: usize, steps: Steps) -> Result<ModbusServer, String> {
        let failed = |error: std::io::Error| format!("the Modbus server: {error}");
        let poll = Poll::new().map_err(failed)?;
        let (mut listeners, mut ports) = (Vec::new(), Vec::new());
        for device in 0..devices {
            let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).map_err(failed)?;
            ports.push(listener.local_addr().map_err(failed)?.port());
            poll.registry().register(&mut listener, Token(device), Interest::READABLE).map_err(failed)?;
            listeners.push(listener);
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let mut served = Served { poll, listeners, clients: Vec::new(), registers, steps };
        let thread = std::thread::spawn(move || served.run(&over));
        Ok(ModbusServer { ports, is_over, thread: Some(thread) })
    }
}

impl Drop for ModbusServer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

struct Served {
    poll: Poll,
    listeners: Vec<TcpListener>,
    clients: Vec<Option<Client>>,
    registers: usize,
    steps: Steps,
}

struct Client {
    stream: TcpStream,
    device: usize,
    /// The beginning of a request whose rest has not come.
    begun: Vec<u8>,
}

impl Served {
    fn run(&mut self, over: &AtomicBool) {
        let mut events = Events::with_capacity(256);
        while !over.load(Ordering::Acquire) {
            if self.poll.poll(&mut events, Some(Duration::from_millis(100))).is_err() {
                continue; // interrupted
            }
            for event in &events {
                match event.token().0.checked_sub(self.listeners.len()) {
                    None => self.accept(event.token().0),
                    Some(client) => self.serve(client),
                }
            }
        }
    }

    fn accept(&mut self, device: usize) {
        while let Some(Ok((mut stream, _))) = self.listeners.get(device).map(TcpListener::accept) {
            let free = self.clients.iter().position(Option::is_none).unwrap_or(self.clients.len());
            let token = Token(self.listeners.len() + free);
            let is_watched = self.poll.registry().register(&mut stream, token, Interest::READABLE).is_ok();
            if free >= CONNECTIONS_MAX || !is_watched {
                continue;
            }
            stream.set_nodelay(true).ok();
            let client = Some(Client { stream, device, begun: Vec::new() });
            match self.clients.get_mut(free) {
                Some(place) => *place = client,
                None => self.clients.push(client),
            }
        }
    }

    fn serve(&mut self, number: usize) {
        let Some(place) = self.clients.get_mut(number) else { return };
        let Some(client) = place else { return };
        let mut buffer = [0; 1024];
        loop {
            match client.stream.read(&mut buffer) {
                Ok(got) if got > 0 => client.begun.extend_from_slice(&buffer[..got]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                _ => break,
            }
            let mut answers = Vec::new();
            while let Some(request) = client.begun.get(..REQUEST_BYTES) {
                let first = client.device * self.registers;
                answer(request, first, self.registers, &self.steps, &mut answers);
                client.begun.drain(..REQUEST_BYTES);
            }
            // An answer has at most 259 bytes and is waited for: a socket has room for it.
            if client.stream.write_all(&answers).is_err() {
                break;
            }
        }
        *place = None;
    }
}

/// Appends the answer to a request of [`REQUEST_BYTES`].
fn answer(request: &[u8], first: usize, registers: usize, steps: &Steps, into: &mut Vec<u8>) {
    let word = |at: usize| usize::from(u16::from_be_bytes([request[at], request[at + 1]]));
    let (function, address, count) = (request[7], word(8), word(10));
    let mut data = Vec::with_capacity(2 + 2 * count);
    if function != READ_HOLDING_REGISTERS {
        data.extend([function | 0x80, ILLEGAL_FUNCTION]);
    } else if count == 0 || count > 125 || address + count > registers {
        data.extend([function | 0x80, ILLEGAL_ADDRESS]);
    } else {
        data.extend([function, u8::try_from(2 * count).unwrap_or(u8::MAX)]);
        let now = steps.now_us();
        for point in first + address..first + address + count {
            let low = u16::try_from(steps.at(point, now) % (1 << 16)).unwrap_or(0);
            data.extend(low.to_be_bytes());
        }
    }
    into.extend_from_slice(&request[..4]);
    into.extend(u16::try_from(1 + data.len()).unwrap_or(u16::MAX).to_be_bytes());
    into.push(request[6]);
    into.extend(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream as Blocking;

    fn ask(stream: &mut Blocking, function: u8, address: u16, count: u16) -> Vec<u8> {
        let mut request = vec![0, 7, 0, 0, 0, 6, 1, function];
        request.extend(address.to_be_bytes());
        request.extend(count.to_be_bytes());
        stream.write_all(&request[..5]).unwrap();
        std::thread::sleep(Duration::from_millis(5)); // a request in two pieces
        stream.write_all(&request[5..]).unwrap();
        let mut head = [0; 6];
        stream.read_exact(&mut head).unwrap();
        let mut rest = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]]))];
        stream.read_exact(&mut rest).unwrap();
        assert_eq!(head[..4], [0, 7, 0, 0]);
        rest
    }

    #[test]
    fn registers_are_the_steps_of_now_and_what_is_not_there_is_an_exception() {
        let steps = Steps::new(Duration::from_millis(5));
        let server = ModbusServer::start(3, 10, steps).unwrap();
        let mut stream = Blocking::connect(("127.0.0.1", server.ports[2])).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let before = steps.now_us();
        let answer = ask(&mut stream, 3, 4, 6);
        let after = steps.now_us();
        assert_eq!(answer[..3], [1, 3, 12]);
        for (nth, pair) in answer[3..].chunks(2).enumerate() {
            let (shown, point) = (u64::from(u16::from_be_bytes([pair[0], pair[1]])), 24 + nth);
            assert!((steps.at(point, before)..=steps.at(point, after)).contains(&shown) && shown > 0);
        }
        assert_eq!(ask(&mut stream, 3, 5, 6), [1, 0x83, 2]);
        assert_eq!(ask(&mut stream, 6, 5, 6), [1, 0x86, 1]);
    }
}
