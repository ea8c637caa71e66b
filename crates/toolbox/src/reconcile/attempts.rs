//! The crashes of a container, and the time at which it may start again.

use std::collections::VecDeque;
use std::time::Duration;

/// The number of crashes within [`WINDOW`] that constitutes a crash loop.
pub const CRASHES: usize = 3;
/// The period in which crashes are counted.
pub const WINDOW: Duration = Duration::from_secs(300);
/// The first delay in a crash loop, which doubles with every crash.
pub const MIN_DELAY: Duration = Duration::from_secs(5);
/// The longest delay.
pub const MAX_DELAY: Duration = Duration::from_secs(300);
/// The time for which a server must be healthy before its crashes are forgotten.
pub const HEALTHY: Duration = Duration::from_secs(300);

/// The failed attempts to keep one container running. All times are since the start of the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempts {
    recent: VecDeque<Duration>,
    /// The number of crashes since the crash loop began; 0 outside of one.
    loops: u32,
    next_start: Duration,
    message: String,
    /// The time for which the server was healthy before `healthy_since`.
    healthy_for: Duration,
    healthy_since: Option<Duration>,
}

/// The health of a server, as far as it matters for its crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// The server is healthy or not needed.
    Healthy,
    /// The server is being started or replaced.
    Pending,
    /// The server is unhealthy.
    Unhealthy,
}

impl Attempts {
    /// Records that a container exited unexpectedly. It may start again at once, except in a crash loop.
    pub fn crashed(&mut self, now: Duration, message: impl Into<String>) {
        self.record(now, message.into());
    }

    /// Records that a container could not be started, or did not become ready. It may start again after at least
    /// five seconds, because the cause is probably still present.
    pub fn failed(&mut self, now: Duration, message: impl Into<String>) {
        self.record(now, message.into());
        self.next_start = self.next_start.max(now + MIN_DELAY);
    }

    fn record(&mut self, now: Duration, message: String) {
        self.forget_old(now);
        self.recent.push_back(now);
        if self.recent.len() > CRASHES {
            self.recent.pop_front();
        }
        if self.loops > 0 || self.recent.len() >= CRASHES {
            self.loops = self.loops.saturating_add(1);
        }
        let doublings = self.loops.saturating_sub(1).min(16);
        let delay = if self.loops == 0 { Duration::ZERO } else { MIN_DELAY * 2_u32.pow(doublings) };
        self.next_start = now + delay.min(MAX_DELAY);
        self.message = message;
        self.interrupt();
    }

    fn interrupt(&mut self) {
        self.healthy_for = Duration::ZERO;
        self.healthy_since = None;
    }

    /// Records the health of the server. After five healthy minutes, the crashes are forgotten. The time during which
    /// it is being replaced does not count, but does not interrupt the period either.
    pub fn observe(&mut self, observation: Observation, now: Duration) {
        let healthy_for =
            self.healthy_for + self.healthy_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        match observation {
            _ if now < self.next_start => self.interrupt(),
            Observation::Unhealthy => self.interrupt(),
            Observation::Pending => (self.healthy_for, self.healthy_since) = (healthy_for, None),
            Observation::Healthy if healthy_for >= HEALTHY => *self = Self::default(),
            Observation::Healthy => (self.healthy_for, self.healthy_since) = (healthy_for, Some(now)),
        }
    }

    /// Returns the time at which the crashes are forgotten if the server stays healthy; `None` if it is not healthy.
    #[must_use]
    pub fn ends(&self) -> Option<Duration> {
        self.healthy_since.map(|since| since + HEALTHY.saturating_sub(self.healthy_for))
    }

    fn forget_old(&mut self, now: Duration) {
        while self.loops == 0 && self.recent.front().is_some_and(|at| now >= *at + WINDOW) {
            self.recent.pop_front();
        }
    }

    /// Whether the server crashes repeatedly.
    #[must_use]
    pub fn is_crash_loop(&self) -> bool {
        self.loops > 0
    }

    /// Whether there are no recent failures.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.recent.is_empty()
    }

    /// Returns the earliest time at which the container may start.
    #[must_use]
    pub fn next_start(&self) -> Duration {
        self.next_start
    }

    /// Returns the cause of the last crash or failure.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn delays_double_from_the_third_crash_on() {
        let mut attempts = Attempts::default();
        let mut now = secs(1_000);
        let mut delays = Vec::new();
        for _ in 0..10 {
            attempts.crashed(now, "exited");
            delays.push((attempts.next_start() - now).as_secs());
            now = attempts.next_start() + secs(1);
        }
        assert_eq!(delays, [0, 0, 5, 10, 20, 40, 80, 160, 300, 300]);
        assert!(attempts.is_crash_loop());
    }

    #[test]
    fn crashes_that_are_far_apart_are_not_a_crash_loop() {
        let mut attempts = Attempts::default();
        for hour in 1..20 {
            attempts.crashed(secs(hour * 151), "exited");
            assert!(!attempts.is_crash_loop(), "{hour}");
        }
        attempts.crashed(secs(19 * 151 + 1), "exited");
        assert!(attempts.is_crash_loop());
    }

    #[test]
    fn five_healthy_minutes_end_a_crash_loop() {
        let mut attempts = Attempts::default();
        for second in 0..3 {
            attempts.crashed(secs(second), "exited");
        }
        let observe = |attempts: &mut Attempts, observation, at| attempts.observe(observation, secs(at));
        observe(&mut attempts, Observation::Healthy, 10);
        observe(&mut attempts, Observation::Healthy, 200);
        observe(&mut attempts, Observation::Unhealthy, 300);
        assert_eq!(attempts.ends(), None);
        observe(&mut attempts, Observation::Healthy, 301);
        // A planned replacement takes 50 seconds.
        observe(&mut attempts, Observation::Pending, 400);
        observe(&mut attempts, Observation::Healthy, 450);
        assert_eq!(attempts.ends(), Some(secs(651)));
        observe(&mut attempts, Observation::Healthy, 650);
        assert!(attempts.is_crash_loop());
        observe(&mut attempts, Observation::Healthy, 651);
        assert!(!attempts.is_crash_loop() && attempts.is_empty());
        attempts.crashed(secs(652), "exited");
        assert_eq!(attempts.next_start(), secs(652));
    }

    #[test]
    fn a_failed_start_is_not_retried_at_once() {
        let mut attempts = Attempts::default();
        attempts.failed(secs(1), "no image");
        assert_eq!(attempts.next_start(), secs(6));
        assert_eq!(attempts.message(), "no image");
    }

    proptest! {
        /// A crash loop begins exactly when three attempts fail within five minutes, and delays stay within the limits.
        #[test]
        fn a_crash_loop_begins_with_three_crashes_in_five_minutes(gaps in prop::collection::vec(0_u64..400, 1..20)) {
            let mut attempts = Attempts::default();
            let mut times: Vec<u64> = Vec::new();
            let mut expected = false;
            for gap in gaps {
                let now = times.last().copied().unwrap_or_default() + gap;
                times.push(now);
                attempts.crashed(secs(now), "exited");
                expected |= times.len() >= 3 && now - times[times.len() - 3] < 300;
                prop_assert_eq!(attempts.is_crash_loop(), expected);
                let delay = attempts.next_start() - secs(now);
                prop_assert!(delay <= MAX_DELAY && (delay >= MIN_DELAY) == expected);
            }
        }
    }
}
