//! The pauses between attempts to connect.

use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// A link that was open for this time resets the pauses. Two machines with the same identity, which close each other's
/// link, therefore do so only every 15 to 30 seconds in the long term.
const STABLE: Duration = Duration::from_secs(60);

/// Exponential backoff with jitter.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Returns the pause after a connection that lasted for `duration`. It is between half of a limit and the limit,
    /// which starts at 0.5 s and doubles up to 30 s.
    pub(super) fn next(&mut self, duration: Duration) -> Duration {
        if duration >= STABLE {
            self.failures = 0;
        }
        let limit = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        limit.mul_f64(0.5 + 0.5 * random_fraction())
    }
}

/// Returns a number from 0 to 1. Without random bytes, there is no jitter.
fn random_fraction() -> f64 {
    let mut bytes = [u8::MAX; 4];
    let _ = SystemRandom::new().fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_one_and_are_reset_by_a_stable_link() {
        let mut backoff = Backoff::default();
        for limit in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            let pause = backoff.next(Duration::from_secs(1));
            let limit = Duration::from_millis(limit);
            assert!(pause >= limit / 2 && pause <= limit, "{pause:?} of {limit:?}");
        }
        assert!(backoff.next(STABLE) <= FIRST);
        assert!((0..20).map(|_| random_fraction()).any(|fraction| fraction != random_fraction()));
    }
}
