//! How fast one may guess secrets: a bucket of wrong guesses per key, of which one is forgiven at every interval.
//!
//! Used for the page and for MQTT log-ins. Bounded: beyond a number of keys, new ones share one bucket.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Buckets, one per key.
#[derive(Debug)]
pub(crate) struct Guesses<K> {
    burst: u32,
    every: Duration,
    keys_max: usize,
    buckets: Mutex<HashMap<Option<K>, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Wrong guesses not yet forgiven.
    wrong: u32,
    since: Instant,
}

impl<K: Eq + Hash> Guesses<K> {
    /// `burst` wrong guesses in a row, then one per `every`; `keys_max` keys remembered.
    pub(crate) fn new(burst: u32, every: Duration, keys_max: usize) -> Self {
        Guesses { burst, every, keys_max, buckets: Mutex::default() }
    }

    /// How long this key has to wait before its next guess is looked at.
    pub(crate) fn waiting(&self, key: K, now: Instant) -> Option<Duration> {
        let buckets = self.lock();
        let key = self.key(&buckets, key);
        let wrong = buckets.get(&key).map_or(0, |bucket| self.forgiven(*bucket, now).wrong);
        (wrong >= self.burst).then_some(self.every)
    }

    /// Takes one guess from the bucket; an error, how long to wait, if it is empty.
    pub(crate) fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.lock();
        buckets.retain(|_, bucket| self.forgiven(*bucket, now).wrong > 0);
        let key = self.key(&buckets, key);
        let bucket = buckets.entry(key).or_insert(Bucket { wrong: 0, since: now });
        *bucket = self.forgiven(*bucket, now);
        if bucket.wrong >= self.burst {
            return Err(self.every);
        }
        bucket.wrong += 1;
        Ok(())
    }

    /// Gives one back: the guess was right.
    pub(crate) fn give_back(&self, key: K) {
        let mut buckets = self.lock();
        let key = self.key(&buckets, key);
        if let Some(bucket) = buckets.get_mut(&key) {
            bucket.wrong = bucket.wrong.saturating_sub(1);
        }
    }

    fn key(&self, buckets: &HashMap<Option<K>, Bucket>, key: K) -> Option<K> {
        let key = Some(key);
        if buckets.len() < self.keys_max || buckets.contains_key(&key) { key } else { None }
    }

    fn forgiven(&self, bucket: Bucket, now: Instant) -> Bucket {
        let times = now.saturating_duration_since(bucket.since).as_nanos() / self.every.as_nanos().max(1);
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        Bucket {
            wrong: bucket.wrong.saturating_sub(times),
            since: bucket.since + self.every * times.min(1_000_000),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<K>, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address that counts: of IPv6 the network (/64), because one machine has all of it.
pub(crate) fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(6);

    #[test]
    fn a_bucket_empties_and_fills() {
        let guesses = Guesses::new(3, EVERY, 8);
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(guesses.waiting("a", now), None);
            assert_eq!(guesses.take("a", now), Ok(()));
        }
        assert_eq!(guesses.waiting("a", now), Some(EVERY));
        assert_eq!(guesses.take("a", now), Err(EVERY));
        assert_eq!(guesses.take("b", now), Ok(()), "another key");
        assert_eq!(guesses.take("a", now + EVERY), Ok(()), "one is forgiven");
        assert_eq!(guesses.take("a", now + EVERY), Err(EVERY));
        guesses.give_back("a");
        assert_eq!(guesses.take("a", now + EVERY), Ok(()));
    }

    #[test]
    fn keys_are_bounded_and_strangers_share() {
        let guesses = Guesses::new(2, EVERY, 100);
        let now = Instant::now();
        for key in 0..100_000 {
            guesses.take(key, now).ok();
        }
        assert!(guesses.lock().len() <= 101);
        assert_eq!(guesses.waiting(5, now), None, "has a bucket of its own, with one left");
        assert!(guesses.waiting(200_000, now).is_some(), "shares the others' empty one");
        assert_eq!(guesses.take(200_000, now + EVERY * 10), Ok(()), "all is forgiven and forgotten");
    }

    #[test]
    fn neighbours_of_one_network_are_one() {
        let of = |text: &str| neighbourhood(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
