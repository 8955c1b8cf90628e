//! Waiting longer after each failure, with jitter, so that a thousand agents do not knock at once.

use std::time::Duration;

/// Doubling delays with up to 50 % jitter.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Delays from `first`, doubling up to `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Backoff { first, longest, next: first }
    }

    /// The delay to wait now; the following one is twice as long.
    pub fn wait(&mut self) -> Duration {
        let base = self.next;
        self.next = (base * 2).min(self.longest);
        base / 2 + base.mul_f64(random_fraction() / 2.0)
    }

    /// Starts again from the first delay.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A random number in `[0, 1)`; 0.5 if the machine has no randomness to give.
#[must_use]
pub fn random_fraction() -> f64 {
    crate::world::random_u64().map_or(0.5, |bits| (bits >> 11) as f64 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for expected in [100, 200, 400, 800, 1000, 1000] {
            let waited = backoff.wait().as_millis();
            assert!(waited >= expected / 2 && waited <= expected, "{waited} for {expected}");
        }
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_millis(100));
    }
}
