//! A TCP link that breaks on command: cut, half-open, slow, refusing, and with bytes that arrive changed.
//!
//! One listener; each connection is a thread per direction. Everything is decided by the test (or by the seed of
//! [`Corruption`]), nothing by chance of the machine. What the proxy did is counted, so that a test can say how much it broke.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::random::Random;

/// How often a direction looks at its orders.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes taken from a socket at once.
const PIECE: usize = 16 * 1024;

/// Which bytes are changed: about one in `one_in`, by this seed, each to another value.
#[derive(Clone, Copy, Debug)]
pub struct Corruption {
    /// Bytes between two changed ones, on average.
    pub one_in: u64,
    /// The same seed and the same bytes: the same damage.
    pub seed: u64,
}

/// What has passed and what has been done to it.
#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    bytes: AtomicU64,
    changed: AtomicU64,
}

#[derive(Debug)]
struct Orders {
    target: SocketAddr,
    is_over: AtomicBool,
    refuses: AtomicBool,
    stalls: AtomicBool,
    /// Bytes per second and direction; 0: as fast as it goes.
    rate: AtomicU64,
    corruption: Mutex<Option<Corruption>>,
    open: Mutex<Vec<TcpStream>>,
    count: Counts,
}

impl Orders {
    fn open(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn corruption(&self) -> Option<Corruption> {
        *self.corruption.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The link; whatever runs through it ends when this is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    /// Where it listens.
    pub address: SocketAddr,
    orders: Arc<Orders>,
}

impl FaultProxy {
    /// A link to `target` that works.
    ///
    /// # Panics
    /// If there is no free port.
    #[must_use]
    pub fn to(target: SocketAddr) -> FaultProxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let orders = Arc::new(Orders {
            target,
            is_over: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            stalls: AtomicBool::new(false),
            rate: AtomicU64::new(0),
            corruption: Mutex::new(None),
            open: Mutex::default(),
            count: Counts::default(),
        });
        let theirs = Arc::clone(&orders);
        std::thread::spawn(move || accept(&listener, &theirs));
        FaultProxy { address, orders }
    }

    /// Ends every connection at once (both sides see it).
    pub fn cut(&self) {
        for stream in self.orders.open().drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    /// With `true` the link is down: connections are cut, and new ones ended as soon as they come.
    pub fn set_down(&self, is_down: bool) {
        self.orders.refuses.store(is_down, Ordering::SeqCst);
        if is_down {
            self.cut();
        }
    }

    /// With `true` nothing gets through in either direction, and neither side is told (half-open).
    pub fn set_stalled(&self, stalls: bool) {
        self.orders.stalls.store(stalls, Ordering::SeqCst);
    }

    /// At most so many bytes per second in each direction of each connection; 0: no bound.
    pub fn set_rate(&self, bytes_per_second: u64) {
        self.orders.rate.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Changes bytes from now on, in both directions.
    pub fn corrupt(&self, corruption: Option<Corruption>) {
        *self.orders.corruption.lock().unwrap_or_else(PoisonError::into_inner) = corruption;
    }

    /// Connections that were accepted.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.orders.count.connections.load(Ordering::SeqCst)
    }

    /// Bytes passed on.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.orders.count.bytes.load(Ordering::SeqCst)
    }

    /// Bytes passed on that were changed.
    #[must_use]
    pub fn changed(&self) -> u64 {
        self.orders.count.changed.load(Ordering::SeqCst)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.orders.is_over.store(true, Ordering::SeqCst);
        self.cut();
        TcpStream::connect(self.address).ok(); // wakes the listener
    }
}

fn accept(listener: &TcpListener, orders: &Arc<Orders>) {
    for (near, number) in listener.incoming().map_while(Result::ok).zip(0..) {
        if orders.is_over.load(Ordering::SeqCst) {
            return;
        }
        if orders.refuses.load(Ordering::SeqCst) {
            continue; // dropped: ended
        }
        let Ok(far) = TcpStream::connect_timeout(&orders.target, Duration::from_secs(2)) else { continue };
        orders.count.connections.fetch_add(1, Ordering::SeqCst);
        if let Err(error) = join(near, far, number, orders) {
            eprintln!("fault proxy: {error}");
        }
    }
}

/// Starts both directions of one connection.
fn join(near: TcpStream, far: TcpStream, number: u64, orders: &Arc<Orders>) -> io::Result<()> {
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
    }
    let mut open = orders.open();
    open.retain(|stream| stream.peer_addr().is_ok());
    open.extend([near.try_clone()?, far.try_clone()?]);
    drop(open);
    for (from, to, way) in [(near.try_clone()?, far.try_clone()?, 0), (far, near, 1)] {
        let orders = Arc::clone(orders);
        std::thread::spawn(move || {
            pass(from, to, number * 2 + way, &orders);
        });
    }
    Ok(())
}

/// Passes bytes on in one direction until either side ends.
fn pass(mut from: TcpStream, mut to: TcpStream, way: u64, orders: &Orders) {
    let mut damage = Damage::default();
    let mut buffer = vec![0; PIECE];
    while !orders.is_over.load(Ordering::SeqCst) {
        if orders.stalls.load(Ordering::SeqCst) {
            std::thread::sleep(LOOK);
            continue; // nothing is read either: the sender's socket fills
        }
        let rate = orders.rate.load(Ordering::SeqCst);
        let most = if rate == 0 { PIECE } else { PIECE.min(usize::try_from(rate / 50).unwrap_or(1).max(1)) };
        let count = match from.read(&mut buffer[..most]) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        if rate > 0 {
            std::thread::sleep(Duration::from_secs_f64(count as f64 / rate as f64));
        }
        // What was read before a stall began stays in the link until it ends.
        while orders.stalls.load(Ordering::SeqCst) && !orders.is_over.load(Ordering::SeqCst) {
            std::thread::sleep(LOOK);
        }
        let piece = &mut buffer[..count];
        let changed = damage.apply(orders.corruption(), way, piece);
        if to.write_all(piece).is_err() {
            break;
        }
        orders.count.bytes.fetch_add(count as u64, Ordering::SeqCst);
        orders.count.changed.fetch_add(changed, Ordering::SeqCst);
    }
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}

/// Where the next changed byte of one direction is.
#[derive(Default)]
struct Damage {
    random: Option<Random>,
    /// Bytes until it.
    left: u64,
}

impl Damage {
    fn apply(&mut self, corruption: Option<Corruption>, way: u64, piece: &mut [u8]) -> u64 {
        let Some(Corruption { one_in, seed }) = corruption else {
            self.random = None;
            return 0;
        };
        let random = self.random.get_or_insert_with(|| {
            let mut random = Random::new(seed ^ way.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            self.left = random.below(one_in * 2);
            random
        });
        let mut changed = 0;
        for byte in piece {
            if self.left == 0 {
                // Half of them one flipped bit, half of them any other value.
                *byte ^= match random.below(2) {
                    0 => 1 << random.below(8),
                    _ => u8::try_from(1 + random.below(255)).unwrap_or(1),
                };
                changed += 1;
                self.left = 1 + random.below(one_in * 2);
            }
            self.left -= 1;
        }
        changed
    }
}
