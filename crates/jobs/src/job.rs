//! Jobs that run at an interval.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::lease::{self, LeaseAttempt};
use crate::state::{Entry, Impact, Outcome};
use crate::{Leases, Result};

/// Pause after the first failure. Each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Time for which a run may continue after the job was told to stop.
pub(crate) const GRACE: Duration = Duration::from_millis(500);

/// The name, interval and limits of a periodic job or of a worker.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// Name of the job: a noun, unique in the process. Used as a metric label and in the response of `/readyz`.
    pub name: &'static str,
    /// Time between the end of a run and the start of the next one.
    pub interval: Duration,
    /// Maximum duration of a run. A run that takes longer is dropped and counts as failed.
    pub limit: Duration,
    /// Maximum pause after failures.
    pub max_pause: Duration,
    /// Time without a success after which the job is late.
    pub late_after: Duration,
    /// Effect of the job being late.
    pub impact: Impact,
}

impl Job {
    /// Creates a housekeeping job. A run may take 5 minutes, pauses after failures last at most one minute, and the job
    /// is late after 10 minutes without a success or after 3 intervals, whichever is longer.
    #[must_use]
    pub fn new(name: &'static str, interval: Duration) -> Self {
        Self {
            name,
            interval,
            limit: Duration::from_secs(300),
            max_pause: Duration::from_secs(60),
            late_after: Duration::from_secs(600).max(3 * interval),
            impact: Impact::Housekeeping,
        }
    }

    /// Marks the job as required for serving: `/readyz` fails while the job is late.
    #[must_use]
    pub fn serving(self) -> Self {
        Self { impact: Impact::Serving, ..self }
    }

    /// Returns the pause before the next run after `failures` consecutive failures.
    pub(crate) fn pause(&self, failures: u32) -> Duration {
        if failures == 0 {
            return self.interval;
        }
        let doubled = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(16));
        doubled.min(self.max_pause).max(self.interval)
    }
}

/// Runs the job until `stop` is cancelled.
pub(crate) async fn supervise<F, R>(entry: &Entry, leases: Option<&dyn Leases>, stop: &CancellationToken, run: F)
where
    F: Fn() -> R,
    R: Future<Output = Result>,
{
    let mut pause = Duration::ZERO;
    let mut failures = 0;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
        let attempt = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            attempt = lease::acquire(entry, leases) => attempt,
        };
        let outcome = match attempt {
            LeaseAttempt::HeldElsewhere => Outcome::Standby,
            LeaseAttempt::Failed => Outcome::Failed,
            LeaseAttempt::Acquired => {
                entry.begin();
                tokio::select! {
                    outcome = run_once(entry, leases, &run) => outcome,
                    () = wait_for_grace_period(stop) => break,
                }
            }
        };
        failures = if outcome.is_failure() { failures + 1 } else { 0 };
        entry.end(outcome);
        pause = entry.job.pause(failures);
    }
    lease::release(entry, leases).await;
}

async fn wait_for_grace_period(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(GRACE).await;
}

/// Executes one run. It ends early at the job's time limit or when the lease is lost.
async fn run_once<F, R>(entry: &Entry, leases: Option<&dyn Leases>, run: &F) -> Outcome
where
    F: Fn() -> R,
    R: Future<Output = Result>,
{
    let name = entry.job.name;
    tokio::select! {
        ended = catch(async { run().await }) => match ended {
            Ok(Ok(())) => Outcome::Succeeded,
            Ok(Err(error)) => {
                tracing::warn!(job = name, %error, "job failed");
                Outcome::Failed
            }
            Err(message) => Outcome::Panicked(message),
        },
        () = tokio::time::sleep(entry.job.limit) => {
            tracing::error!(job = name, limit_s = entry.job.limit.as_secs(), "job timed out");
            Outcome::Failed
        }
        () = lease::lost(entry, leases) => {
            tracing::warn!(job = name, "job stopped because its lease was lost");
            Outcome::Failed
        }
    }
}

/// Runs `work`. If it panics, returns the panic message as the error.
pub(crate) async fn catch<T>(work: impl Future<Output = T>) -> std::result::Result<T, String> {
    // Unwind safety: shared state is either behind locks that recover from poisoning, or in the database.
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
    })
}
