//! Supervised background jobs.
//!
//! A [`Job`] runs periodically. A worker ([`Jobs::start_worker`]) waits for items from a queue. Both are supervised:
//! a panic is caught, logged and counted, and the job is restarted with an increasing pause.
//!
//! Invariants (tests/supervision.rs, tests/lease.rs):
//! 1. A job has at most one run at a time per process. Every run ends: by returning, by a panic, or at the time limit.
//! 2. A job with a lease runs only while this process holds the lease, and stops when the lease is lost.
//! 3. A job is late if it has not succeeded for `late_after`; a worker is late if it has been processing one item for
//!    that long. A job that another process runs is not late, and neither is a job that was told to stop.
//! 4. [`Jobs::stop`] ends every periodic job: a current run may finish within half a second and is then dropped. Leases
//!    are released. Workers end with their queues.
//!
//! Intervals are measured with [`tokio::time`], which tests can pause, so changes of the system clock do not make a job
//! late.

mod job;
mod lease;
mod state;
mod worker;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use job::Job;
pub use lease::{LEASE, LeaseResult, Leases};
pub use state::{Impact, JobStatus};
pub use worker::WorkerHandle;

use state::Entry;

/// The error of a run that failed.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// The result of a run.
pub type Result = std::result::Result<(), Error>;

/// The supervised jobs of a process. Cheap to clone; clones share the same jobs.
#[derive(Clone, Default)]
pub struct Jobs(Arc<Inner>);

#[derive(Default)]
struct Inner {
    entries: Mutex<Vec<Arc<Entry>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Jobs {
    /// Starts a job that runs in every process. `run` is called immediately, and again `job.interval` after each run.
    pub fn start<F, R>(&self, job: Job, run: F)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result> + Send + 'static,
    {
        self.spawn(job, None, run);
    }

    /// Starts a job that runs in at most one of the processes sharing `leases` at a time.
    pub fn start_leased<F, R>(&self, job: Job, leases: Arc<dyn Leases>, run: F)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result> + Send + 'static,
    {
        self.spawn(job, Some(leases), run);
    }

    fn spawn<F, R>(&self, job: Job, leases: Option<Arc<dyn Leases>>, run: F)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result> + Send + 'static,
    {
        let entry = self.register(job);
        let stop = self.0.stop.clone();
        self.0.tasks.spawn(async move {
            job::supervise(&entry, leases.as_deref(), &stop, run).await;
        });
    }

    fn register(&self, job: Job) -> Arc<Entry> {
        let entry = Arc::new(Entry::new(job));
        self.entries().push(Arc::clone(&entry));
        entry
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the status of every job, in the order in which they were started. Workers that have ended are omitted.
    #[must_use]
    pub fn statuses(&self) -> Vec<JobStatus> {
        self.entries().iter().filter_map(|entry| entry.status()).collect()
    }

    /// Returns the jobs that are late. Empty after [`Jobs::stop`] was called.
    #[must_use]
    pub fn late_jobs(&self) -> Vec<JobStatus> {
        if self.0.stop.is_cancelled() {
            return Vec::new();
        }
        self.statuses().into_iter().filter(|status| status.is_late).collect()
    }

    /// Updates the gauges of every job and logs which jobs have become late or are no longer late. Must be called
    /// periodically.
    pub fn observe(&self) {
        let is_stopped = self.0.stop.is_cancelled();
        for entry in self.entries().iter() {
            entry.observe(is_stopped);
        }
    }

    /// Stops every periodic job and waits until all of them have ended. A current run may take another half second and
    /// is then dropped. Workers are not affected: they end with their queues.
    pub async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        let longest = 2 * (job::GRACE + lease::RELEASE);
        if tokio::time::timeout(longest, self.0.tasks.wait()).await.is_err() {
            tracing::warn!("some jobs did not stop in time");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Runs a part of a job and catches its panics. Returns `None` if it panics; the panic is logged and counted under
/// `name`.
pub async fn catch<T>(name: &'static str, work: impl Future<Output = T>) -> Option<T> {
    job::catch(work).await.inspect_err(|message| state::count_panic(name, message)).ok()
}

/// Spawns `work` as a background task, independent of any request. A panic is logged and counted under `name`.
pub fn spawn(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
    #[expect(clippy::disallowed_methods, reason = "panics are counted and logged here")]
    tokio::spawn(async move {
        catch(name, work).await;
    })
}
