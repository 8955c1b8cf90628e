//! What the machine gives beside the time: chance, threads for blocking work, and the network. A simulator may own them.
//!
//! A simulator runs whole roles in one thread, on tokio's paused clock. While a [`Simulation`] stands in a thread, what
//! the roles ask here is answered from its seed and its network, and blocking work is done on the spot, so that the
//! same seed gives the same run. Everywhere else the machine answers. Code on the road of a sample asks here, never
//! the machine directly.

use std::cell::RefCell;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

/// A connection, whoever made it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The network of a simulation: connects to a host and port, or refuses.
pub type Network = Box<dyn Fn(&str, u16) -> io::Result<Box<dyn Stream>>>;

struct World {
    random: u64,
    network: Network,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// While this stands, its thread belongs to a simulator.
#[derive(Debug)]
pub struct Simulation {
    /// It belongs to its thread.
    _thread: std::marker::PhantomData<*const ()>,
}

impl Simulation {
    /// Takes over this thread.
    #[must_use]
    pub fn begin(seed: u64, network: Network) -> Self {
        WORLD.with_borrow_mut(|world| *world = Some(World { random: seed, network }));
        Simulation { _thread: std::marker::PhantomData }
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        WORLD.with_borrow_mut(Option::take);
    }
}

/// Whether this thread is a simulator's.
#[must_use]
pub fn is_simulated() -> bool {
    WORLD.with_borrow(Option::is_some)
}

/// 64 random bits; the error is the machine's reason for giving none.
pub fn random_u64() -> Result<u64, String> {
    let simulated = WORLD.with_borrow_mut(|world| world.as_mut().map(|world| split_mix(&mut world.random)));
    match simulated {
        Some(bits) => Ok(bits),
        None => getrandom::u64().map_err(|error| error.to_string()),
    }
}

/// The next of a seeded row of numbers (`SplitMix64`): small, and good enough to choose by.
#[must_use]
pub fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The work did not end: it panicked, or the runtime is ending.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Interrupted(String);

/// Does what blocks (disks) on a thread that may.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Interrupted> {
    start_blocking(work).join().await
}

/// Begins what blocks, to be joined later.
pub fn start_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Blocking<T> {
    match is_simulated() {
        true => Blocking::Done(work()),
        false => Blocking::Running(tokio::task::spawn_blocking(work)),
    }
}

/// Blocking work that was begun.
#[derive(Debug)]
pub enum Blocking<T> {
    /// By a simulator, on the spot.
    Done(T),
    /// On a thread.
    Running(JoinHandle<T>),
}

impl<T> Blocking<T> {
    /// Whether joining would not wait.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match self {
            Self::Done(_) => true,
            Self::Running(thread) => thread.is_finished(),
        }
    }

    /// Waits for the end.
    pub async fn join(self) -> Result<T, Interrupted> {
        match self {
            Self::Done(result) => Ok(result),
            Self::Running(thread) => thread.await.map_err(|error| Interrupted(error.to_string())),
        }
    }
}

/// A connection of the simulated network; `None` where the machine's is to be used.
pub(crate) fn dial(host: &str, port: u16) -> Option<io::Result<Box<dyn Stream>>> {
    WORLD.with_borrow(|world| world.as_ref().map(|world| (world.network)(host, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulation_owns_chance_in_its_thread_and_only_there() {
        let draw = || (0..3).map(|_| random_u64().unwrap()).collect::<Vec<_>>();
        let refuse = || -> Network { Box::new(|_, _| Err(io::ErrorKind::ConnectionRefused.into())) };
        let simulation = Simulation::begin(7, refuse());
        let first = draw();
        assert!(std::thread::spawn(|| !is_simulated() && dial("h", 1).is_none()).join().unwrap());
        drop(simulation);
        assert!(!is_simulated());
        let _simulation = Simulation::begin(7, refuse());
        assert_eq!(draw(), first);
        assert!(dial("h", 1).unwrap().is_err());
    }
}
