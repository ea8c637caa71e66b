//! Workers: tasks that wait for items from a queue.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::state::{Entry, Outcome};
use crate::{Job, Jobs, job};

/// Lets a worker report that it is processing an item.
#[derive(Clone)]
pub struct WorkerHandle(Arc<Entry>);

/// Marks the worker as processing an item until the guard is dropped.
pub struct ItemGuard<'a>(&'a Entry);

impl WorkerHandle {
    /// Reports that the worker has started processing an item.
    #[must_use]
    pub fn begin_item(&self) -> ItemGuard<'_> {
        self.0.set_busy(true);
        ItemGuard(&self.0)
    }
}

impl Drop for ItemGuard<'_> {
    fn drop(&mut self) {
        self.0.set_busy(false);
    }
}

impl Jobs {
    /// Starts a worker. `work` is called immediately, and again after a pause if it panics. The task ends when `work`
    /// returns. `work` must return when its queue is closed and empty, because [`Jobs::stop`] does not end the task.
    ///
    /// `job.late_after` is the maximum time for one item and `job.interval` the minimum pause after a panic.
    /// `job.limit` does not apply.
    pub fn start_worker<F, W>(&self, job: Job, mut work: F) -> JoinHandle<()>
    where
        F: FnMut(WorkerHandle) -> W + Send + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let entry = self.register(job);
        entry.activate();
        #[expect(clippy::disallowed_methods, reason = "the supervisor of workers")]
        tokio::spawn(async move {
            let mut failures = 0;
            let mut started = Instant::now();
            while let Err(message) = job::catch(async { work(WorkerHandle(Arc::clone(&entry))).await }).await {
                entry.end(Outcome::Panicked(message));
                failures = if started.elapsed() > entry.job.max_pause { 1 } else { failures + 1 };
                tokio::time::sleep(entry.job.pause(failures)).await;
                started = Instant::now();
            }
            entry.close();
        })
    }
}
