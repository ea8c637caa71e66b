//! Supervised background work.
//!
//! A [`Job`] runs again and again, at an interval. A worker ([`Jobs::work`]) waits for items of a queue. Both are
//! supervised: a panic is caught, logged and counted, and the job is started again after a pause that grows.
//!
//! Invariants (tests/supervision.rs, tests/lease.rs):
//! 1. A job has one run at a time in a process, and a run ends: by itself, by a panic, or at the job's limit.
//! 2. A job with a lease runs only while this process holds the lease, and stops when another process has taken it.
//! 3. A job is late if it has not succeeded for `late_after`; a worker is late if it has been working on one item for that
//!    long. A job that another process runs for this one is not late, and neither is a job that was told to stop.
//! 4. [`Jobs::stop`] ends every job: a run under way may finish within half a second, then it is dropped. Leases are
//!    released.
//!
//! Intervals are measured with [`tokio::time`], which tests can pause; a change of the machine's clock makes no job late.

mod job;
mod lease;
mod state;
mod worker;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use job::Job;
pub use lease::{LEASE, LeaseResult, Leases};
pub use state::{Impact, Status};
pub use worker::Beat;

use state::Entry;

/// The error of a run that failed.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// The outcome of a run.
pub type Result = std::result::Result<(), Error>;

/// The supervised jobs of a process. Cheap to clone; clones share the jobs.
#[derive(Clone, Default)]
pub struct Jobs(Arc<Inner>);

#[derive(Default)]
struct Inner {
    entries: Mutex<Vec<Arc<Entry>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Jobs {
    /// Starts a job that runs in every process: `run` is called at once, and again `job.interval` after each run.
    pub fn start<F, R>(&self, job: Job, run: F)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result> + Send + 'static,
    {
        self.spawn(job, None, run);
    }

    /// Starts a job that at most one of the processes that share `leases` runs at a time.
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

    /// The state of every job, in the order in which they were started. Workers that have ended are not in it.
    #[must_use]
    pub fn statuses(&self) -> Vec<Status> {
        self.entries().iter().filter_map(|entry| entry.status()).collect()
    }

    /// The jobs that are late. Empty after [`Jobs::stop`] was called.
    #[must_use]
    pub fn late(&self) -> Vec<Status> {
        if self.0.stop.is_cancelled() {
            return Vec::new();
        }
        self.statuses().into_iter().filter(|status| status.is_late).collect()
    }

    /// Sets the gauges of every job, and logs which jobs have become late or are no longer late. Call it now and then.
    pub fn observe(&self) {
        let is_stopped = self.0.stop.is_cancelled();
        for entry in self.entries().iter() {
            entry.observe(is_stopped);
        }
    }

    /// Ends every job that runs at an interval, and waits until they have ended: a run under way may take another half
    /// second, then it is dropped. Workers are not affected: they end with their queues.
    pub async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        let longest = 2 * (job::GRACE + lease::RELEASE);
        if tokio::time::timeout(longest, self.0.tasks.wait()).await.is_err() {
            tracing::warn!("some jobs did not end in time");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Runs a part of a job's work that is a task of its own. Returns `None` if it panics, which is logged and counted under `name`.
pub async fn catch<T>(name: &'static str, work: impl Future<Output = T>) -> Option<T> {
    job::catch(work).await.inspect_err(|message| state::count_panic(name, message)).ok()
}

/// Runs `work` once in the background, outside of any request. A panic is logged and counted under `name`.
pub fn spawn(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        catch(name, work).await;
    })
}
