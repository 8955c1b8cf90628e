//! How fast an address may try tokens. A token has 256 random bits; this is against noise and load, and for the log.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Refused tries in a row before an address has to wait: a person who pastes half a line a few times.
const TRIES: u32 = 10;
/// One more try after so long.
const TRY_EVERY: Duration = Duration::from_secs(6);
/// Addresses remembered; beyond, they share one bucket.
const ADDRESSES_MAX: usize = 1024;

/// Refused tries by address; an IPv6 network of 64 bits counts as one, because it belongs to one machine.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    refused: HashMap<Option<IpAddr>, Tries>,
}

#[derive(Clone, Copy, Debug)]
struct Tries {
    refused: u32,
    since: Instant,
}

impl Tries {
    /// Without those that time has forgiven.
    fn now(self, now: Instant) -> Tries {
        let every = TRY_EVERY.as_secs();
        let passed = now.saturating_duration_since(self.since).as_secs() / every;
        let forgiven = u32::try_from(passed).unwrap_or(u32::MAX);
        let since = self.since + Duration::from_secs(every * passed.min(u64::from(TRIES)));
        Tries {
            refused: self.refused.saturating_sub(forgiven),
            since: if forgiven > TRIES { now } else { since },
        }
    }
}

impl Attempts {
    /// Seconds that an address has to wait, if it has to.
    pub(super) fn waiting(&self, peer: IpAddr, now: Instant) -> Option<u64> {
        let refused = |key| self.refused.get(&key).map_or(0, |tries| tries.now(now).refused);
        let most = refused(Some(network(peer))).max(refused(None));
        (most >= TRIES).then_some(TRY_EVERY.as_secs())
    }

    /// Counts a refused try.
    pub(super) fn refused(&mut self, peer: IpAddr, now: Instant) {
        let mut key = Some(network(peer));
        if !self.refused.contains_key(&key) && self.refused.len() >= ADDRESSES_MAX {
            self.refused.retain(|_, tries| tries.now(now).refused > 0);
            if self.refused.len() >= ADDRESSES_MAX {
                key = None;
            }
        }
        let tries = self.refused.entry(key).or_insert(Tries { refused: 0, since: now });
        *tries = tries.now(now);
        tries.refused = (tries.refused + 1).min(TRIES);
    }
}

fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6((u128::from(six) & !u128::from(u64::MAX)).into()),
        four => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_tries_then_one_in_six_seconds_for_each_address() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        for _ in 0..TRIES {
            assert_eq!(attempts.waiting(a, start), None);
            attempts.refused(a, start);
        }
        assert_eq!((attempts.waiting(a, start), attempts.waiting(b, start)), (Some(6), None));
        let later = start + TRY_EVERY;
        assert_eq!(attempts.waiting(a, later), None);
        attempts.refused(a, later);
        assert!(attempts.waiting(a, later).is_some());
        assert!(attempts.waiting(a, later + TRY_EVERY - Duration::from_millis(1)).is_some());
        assert_eq!(attempts.waiting(a, later + Duration::from_secs(3600)), None);
    }

    #[test]
    fn memory_is_bounded_and_a_network_of_ipv6_is_one_address() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for number in 0..100_000_u32 {
            attempts.refused(IpAddr::V4(number.into()), now);
        }
        assert!(attempts.refused.len() <= ADDRESSES_MAX + 1);
        assert!(attempts.waiting("250.0.0.1".parse().unwrap(), now).is_some(), "the shared bucket is empty");
        let mut attempts = Attempts::default();
        for number in 0..10 {
            attempts.refused(format!("2001:db8::{number}").parse().unwrap(), now);
        }
        assert!(attempts.waiting("2001:db8::ffff".parse().unwrap(), now).is_some());
        assert!(attempts.waiting("2001:db8:1::1".parse().unwrap(), now).is_none());
    }
}
