//! Jobs that run at an interval.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::lease::{self, Held};
use crate::state::{Entry, Impact, Outcome};
use crate::{Leases, Result};

/// The first pause after a failure; each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How long a run under way may take after the job was told to stop.
pub(crate) const GRACE: Duration = Duration::from_millis(500);

/// A job that runs at an interval, or the name and the limits of a worker.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// Its name: a noun, unique in the process. It is a label of metrics and part of `/readyz`.
    pub name: &'static str,
    /// The time between the end of a run and the start of the next one.
    pub interval: Duration,
    /// How long a run may take. It is dropped then, and counts as failed.
    pub limit: Duration,
    /// The longest pause after failures.
    pub max_pause: Duration,
    /// After how long without a success the job is late.
    pub late_after: Duration,
    /// What it means if the job is late.
    pub impact: Impact,
}

impl Job {
    /// Housekeeping at an interval: a run may take 5 minutes, pauses after failures last at most a minute, and the job is
    /// late after 10 minutes without a success, or after 3 intervals if that is longer.
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

    /// A job without which this process cannot serve: `/readyz` fails when it is late.
    #[must_use]
    pub fn serving(self) -> Self {
        Self { impact: Impact::Serving, ..self }
    }

    /// The pause before the next run, after `failures` failures in a row.
    pub(crate) fn pause(&self, failures: u32) -> Duration {
        if failures == 0 {
            return self.interval;
        }
        let doubled = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(16));
        doubled.min(self.max_pause).max(self.interval)
    }
}

/// Runs the job until `stop`.
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
        let held = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            held = lease::acquire(entry, leases) => held,
        };
        let outcome = match held {
            Held::No => Outcome::Standby,
            Held::Failed => Outcome::Failed,
            Held::Yes => {
                entry.begin();
                tokio::select! {
                    outcome = limited(entry, leases, &run) => outcome,
                    () = overtime(stop) => break,
                }
            }
        };
        failures = if outcome.is_failure() { failures + 1 } else { 0 };
        entry.end(outcome);
        pause = entry.job.pause(failures);
    }
    lease::release(entry, leases).await;
}

async fn overtime(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(GRACE).await;
}

/// One run: it ends at the job's limit, or when the lease is lost.
async fn limited<F, R>(entry: &Entry, leases: Option<&dyn Leases>, run: &F) -> Outcome
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
            tracing::error!(job = name, limit_s = entry.job.limit.as_secs(), "job took too long and was ended");
            Outcome::Failed
        }
        () = lease::lost(entry, leases) => {
            tracing::warn!(job = name, "job was ended because another process holds its lease");
            Outcome::Failed
        }
    }
}

/// Runs `work`; returns the message of its panic.
pub(crate) async fn catch<T>(work: impl Future<Output = T>) -> std::result::Result<T, String> {
    // What the work shares with others is behind locks that recover from a panic, or in the database.
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
    })
}
