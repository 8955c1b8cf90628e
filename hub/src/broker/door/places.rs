//! How many connections there may be, in all and from one address, and how many bytes those may take that nobody knows
//! yet.
//!
//! A [`Slot`] is a connection's place; dropping it frees the place. A connection first stands in the lobby, which is
//! a little larger than the room, so that a client is told that the room is full instead of being cut off. What it costs
//! there is bounded for each (4 KB) and, where more is needed (TLS, a large CONNECT), for all together and for one
//! address: who does not get bytes waits, and costs nothing meanwhile.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections beyond the limit that are heard before they are refused.
const LOBBY: usize = 64;
/// Bytes for TLS handshakes and large CONNECTs of those who are not logged in: some 500 handshakes at a time.
const BUDGET_BYTES: usize = 16 << 20;
/// ... of one address: half, so that no address takes all.
const BUDGET_BYTES_PER_ADDRESS: usize = BUDGET_BYTES / 2;
/// Unit of the budget.
const PIECE_BYTES: usize = 1 << 10;

/// All places.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connections_max: usize,
    per_address_max: usize,
    taken: Mutex<Taken>,
    budget: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    seated: usize,
    addresses: HashMap<IpAddr, Address>,
}

#[derive(Debug)]
struct Address {
    connections: usize,
    budget: Arc<Semaphore>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Too many connections.
    All,
    /// Too many from this address.
    Address,
}

/// A connection's place.
#[derive(Debug)]
pub(in crate::broker) struct Slot {
    places: Places,
    address: IpAddr,
    seated: bool,
    budget: Arc<Semaphore>,
}

/// Bytes of the budget; dropping gives them back.
#[derive(Debug)]
pub(super) struct Share {
    _address: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(connections_max: usize, per_address_max: usize) -> Self {
        Places(Arc::new(Inner {
            connections_max,
            per_address_max,
            taken: Mutex::default(),
            budget: Arc::new(Semaphore::new(BUDGET_BYTES / PIECE_BYTES)),
        }))
    }

    /// A place in the lobby.
    pub(super) fn take(&self, address: IpAddr) -> Result<Slot, Full> {
        let mut taken = self.taken();
        if taken.all >= self.0.connections_max.saturating_add(LOBBY) {
            return Err(Full::All);
        }
        let entry = taken.addresses.entry(address).or_insert_with(|| Address {
            connections: 0,
            budget: Arc::new(Semaphore::new(BUDGET_BYTES_PER_ADDRESS / PIECE_BYTES)),
        });
        if entry.connections >= self.0.per_address_max {
            return Err(Full::Address); // the entry was there before: the maximum is not 0
        }
        entry.connections += 1;
        let budget = Arc::clone(&entry.budget);
        taken.all += 1;
        Ok(Slot { places: self.clone(), address, seated: false, budget })
    }

    /// Connections, with those in the lobby.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.taken().all
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Moves from the lobby into the room; false if that is full.
    pub(super) fn seat(&mut self) -> bool {
        let mut taken = self.places.taken();
        if !self.seated && taken.seated < self.places.0.connections_max {
            taken.seated += 1;
            self.seated = true;
        }
        self.seated
    }

    /// Waits for so many bytes; more than an address may have are never there.
    pub(super) async fn share(&self, bytes: usize) -> Option<Share> {
        let pieces = u32::try_from(bytes.div_ceil(PIECE_BYTES)).ok()?;
        if pieces as usize > BUDGET_BYTES_PER_ADDRESS / PIECE_BYTES {
            return None;
        }
        let address = Arc::clone(&self.budget).acquire_many_owned(pieces).await.ok()?;
        let all = Arc::clone(&self.places.0.budget).acquire_many_owned(pieces).await.ok()?;
        Some(Share { _address: address, _all: all })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        taken.seated -= usize::from(self.seated);
        if let Some(entry) = taken.addresses.get_mut(&self.address) {
            entry.connections -= 1;
            if entry.connections == 0 {
                taken.addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn an_address_takes_its_part_and_all_take_the_whole() {
        let places = Places::new(2, 3);
        let mut first: Vec<Slot> = (0..3).map(|_| places.take(address(1)).unwrap()).collect();
        assert_eq!(places.take(address(1)).unwrap_err(), Full::Address);
        let mut other = places.take(address(2)).unwrap();
        assert!(first[0].seat() && first[0].seat() && other.seat());
        assert!(!first[1].seat(), "the room has two places");
        drop(other);
        assert!(first[1].seat());
        let lobby: Vec<Slot> = (3..).map_while(|last| places.take(address(last)).ok()).collect();
        assert_eq!(places.count(), 2 + LOBBY);
        drop((first, lobby));
        assert_eq!(places.count(), 0);
        assert!(places.taken().addresses.is_empty() && places.taken().seated == 0);
    }

    #[tokio::test]
    async fn one_address_never_takes_all_bytes() {
        use std::time::Duration;
        use tokio::time::timeout;

        let places = Places::new(10, 10);
        let (one, two) = (places.take(address(1)).unwrap(), places.take(address(2)).unwrap());
        let all_of_one = one.share(BUDGET_BYTES_PER_ADDRESS).await.unwrap();
        assert!(timeout(Duration::from_millis(50), one.share(1)).await.is_err(), "it waits");
        assert!(two.share(BUDGET_BYTES_PER_ADDRESS).await.is_some());
        assert!(two.share(BUDGET_BYTES_PER_ADDRESS + 1).await.is_none());
        drop(all_of_one);
        assert!(one.share(1).await.is_some());
    }
}
