//! The health of a server, derived from its probes.

use std::time::Duration;

use waypost_toolbox_proto::Health;

/// The number of failed probes after which a server is unhealthy.
const FAILURES: u32 = 3;
/// The number of successful probes after which a server is healthy again.
const SUCCESSES: u32 = 2;

/// The results of the probes of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HealthTracker {
    report: Health,
    /// The number of probes in a row that contradict `report.ok`.
    contrary: u32,
    /// The time since which the server has been healthy.
    since: Option<Duration>,
}

impl HealthTracker {
    /// Returns the health of a server whose check succeeded at `at`. `now` is the time since the start of the daemon.
    pub(super) fn healthy(at: i64, now: Duration) -> Self {
        let report = Health { ok: true, checked_at: at, latency_ms: None, message: None };
        Self { report, contrary: 0, since: Some(now) }
    }

    /// Records a probe.
    pub(super) fn record(&mut self, result: Result<Duration, String>, at: i64, now: Duration) {
        let needed = if self.report.ok { FAILURES } else { SUCCESSES };
        let ok = result.is_ok();
        self.report.checked_at = at;
        match result {
            Ok(latency) => {
                self.report.latency_ms = Some(u64::try_from(latency.as_millis()).unwrap_or(u64::MAX));
                self.report.message = None;
            }
            Err(message) => {
                self.report.latency_ms = None;
                self.report.message = Some(message);
            }
        }
        self.contrary = if ok == self.report.ok { 0 } else { self.contrary + 1 };
        if self.contrary >= needed {
            self.report.ok = ok;
            self.contrary = 0;
            self.since = ok.then_some(now);
        }
    }

    /// Returns the health to report.
    pub(super) fn report(&self) -> &Health {
        &self.report
    }

    /// Returns the time since which the server has been healthy; `None` if it is not.
    pub(super) fn since(&self) -> Option<Duration> {
        self.since
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Three failures in a row make a server unhealthy, and two successes in a row make it healthy.
        #[test]
        fn only_repeated_results_change_the_health(results in prop::collection::vec(any::<bool>(), 0..40)) {
            let mut health = HealthTracker::healthy(0, Duration::ZERO);
            let mut expected = true;
            for (index, ok) in results.iter().enumerate() {
                let result = if *ok { Ok(Duration::from_millis(7)) } else { Err("no answer".to_owned()) };
                health.record(result, 1, Duration::from_secs(1));
                let last = |n: usize| index + 1 >= n && results[index + 1 - n..=index].iter().all(|r| r == ok);
                // Runs that are longer than needed change nothing.
                expected = if *ok { expected || last(2) } else { expected && !last(3) };
                prop_assert_eq!(health.report().ok, expected);
                prop_assert_eq!(health.since().is_some(), expected);
                prop_assert_eq!(health.report().latency_ms.is_some(), *ok);
            }
        }
    }
}
