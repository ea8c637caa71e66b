//! The state of each job: counters, and whether it is late.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::Job;

/// The effect of a late job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Impact {
    /// This process cannot serve requests correctly and should not receive any.
    Serving,
    /// Requests are still served. An operator should investigate.
    Housekeeping,
}

/// A snapshot of the state of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus {
    /// Name of the job.
    pub name: &'static str,
    /// Effect of the job being late.
    pub impact: Impact,
    /// Number of runs started; for a worker, number of items.
    pub runs: u64,
    /// Number of failed runs, including panics.
    pub failures: u64,
    /// Number of runs that panicked.
    pub panics: u64,
    /// Whether this process runs the job. `false` if another process holds its lease.
    pub is_active: bool,
    /// For a periodic job, the time since the last success, or since the start if there was none. For a worker, the
    /// time it has spent on its current item.
    pub age: Duration,
    /// Whether `age` has reached the job's `late_after`.
    pub is_late: bool,
}

/// The outcome of a run.
pub(crate) enum Outcome {
    Succeeded,
    /// Another process runs the job.
    Standby,
    Failed,
    Panicked(String),
}

impl Outcome {
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Self::Failed | Self::Panicked(_))
    }
}

pub(crate) struct Entry {
    pub(crate) job: Job,
    state: Mutex<State>,
}

struct State {
    runs: u64,
    failures: u64,
    panics: u64,
    is_active: bool,
    has_ended: bool,
    was_late: bool,
    /// Time of the last success, or of the start of the current item; `None` for a worker that is waiting.
    since: Option<Instant>,
}

/// Logs and counts a panic under `name`.
pub(crate) fn count_panic(name: &'static str, message: &str) {
    tracing::error!(job = name, panic = message, "job panicked");
    metrics::counter!("waypost_job_panics_total", "job" => name).increment(1);
}

impl Entry {
    pub(crate) fn new(job: Job) -> Self {
        // Create the counters with value 0 so that alerts can be based on them.
        for name in ["waypost_job_runs_total", "waypost_job_failures_total", "waypost_job_panics_total"] {
            metrics::counter!(name, "job" => job.name).absolute(0);
        }
        let state = State {
            runs: 0,
            failures: 0,
            panics: 0,
            is_active: false,
            has_ended: false,
            was_late: false,
            since: Some(Instant::now()),
        };
        Self { job, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the start of a run.
    pub(crate) fn begin(&self) {
        let mut state = self.state();
        state.runs += 1;
        state.is_active = true;
        metrics::counter!("waypost_job_runs_total", "job" => self.job.name).increment(1);
    }

    /// Records the end of a run.
    pub(crate) fn end(&self, outcome: Outcome) {
        let mut state = self.state();
        match outcome {
            Outcome::Succeeded => state.since = Some(Instant::now()),
            Outcome::Standby => (state.since, state.is_active) = (Some(Instant::now()), false),
            Outcome::Failed => self.fail(&mut state),
            Outcome::Panicked(message) => {
                state.panics += 1;
                self.fail(&mut state);
                count_panic(self.job.name, &message);
            }
        }
    }

    fn fail(&self, state: &mut State) {
        state.failures += 1;
        metrics::counter!("waypost_job_failures_total", "job" => self.job.name).increment(1);
    }

    /// Records that a worker has started processing an item, or is waiting for the next one.
    pub(crate) fn set_busy(&self, is_busy: bool) {
        let mut state = self.state();
        state.since = is_busy.then(Instant::now);
        if is_busy {
            state.runs += 1;
            metrics::counter!("waypost_job_runs_total", "job" => self.job.name).increment(1);
        }
    }

    /// Records the start of a worker.
    pub(crate) fn activate(&self) {
        let mut state = self.state();
        (state.is_active, state.since) = (true, None);
    }

    /// Records that a worker has ended because its queue is closed.
    pub(crate) fn close(&self) {
        self.state().has_ended = true;
    }

    pub(crate) fn status(&self) -> Option<JobStatus> {
        let state = self.state();
        if state.has_ended {
            return None;
        }
        let age = state.since.map(|since| since.elapsed()).unwrap_or_default();
        Some(JobStatus {
            name: self.job.name,
            impact: self.job.impact,
            runs: state.runs,
            failures: state.failures,
            panics: state.panics,
            is_active: state.is_active,
            age,
            is_late: age >= self.job.late_after,
        })
    }

    /// Updates the gauges, and logs when the job becomes late or is no longer late.
    pub(crate) fn observe(&self, is_stopped: bool) {
        let Some(status) = self.status() else { return };
        let is_late = status.is_late && !is_stopped;
        let name = status.name;
        metrics::gauge!("waypost_job_age_seconds", "job" => name).set(status.age.as_secs_f64());
        metrics::gauge!("waypost_job_late", "job" => name).set(if is_late { 1.0 } else { 0.0 });
        metrics::gauge!("waypost_job_active", "job" => name).set(if status.is_active { 1.0 } else { 0.0 });
        let was_late = std::mem::replace(&mut self.state().was_late, is_late);
        if is_late && !was_late {
            tracing::error!(job = name, age_s = status.age.as_secs(), "job is late");
        } else if was_late && !is_late {
            tracing::info!(job = name, "job is no longer late");
        }
    }
}
