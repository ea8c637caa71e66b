//! Workers: tasks that wait for items of a queue.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::state::{Entry, Outcome};
use crate::{Job, Jobs, job};

/// With this a worker tells that it is working on an item.
#[derive(Clone)]
pub struct Beat(Arc<Entry>);

/// The worker is working on an item until this is dropped.
pub struct Busy<'a>(&'a Entry);

impl Beat {
    /// The worker begins to work on an item.
    #[must_use]
    pub fn busy(&self) -> Busy<'_> {
        self.0.set_busy(true);
        Busy(&self.0)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.set_busy(false);
    }
}

impl Jobs {
    /// Starts a worker: `work` is called at once, and again after a pause if it panics. The task ends when `work` has
    /// returned, which it does when its queue is closed and empty; [`Jobs::stop`] does not end it.
    ///
    /// `job.late_after` is the longest time for one item; `job.interval` is the shortest pause after a panic; the limit does not apply.
    pub fn work<F, W>(&self, job: Job, mut work: F) -> JoinHandle<()>
    where
        F: FnMut(Beat) -> W + Send + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let entry = self.register(job);
        entry.activate();
        tokio::spawn(async move {
            let mut failures = 0;
            let mut started = Instant::now();
            while let Err(message) = job::catch(async { work(Beat(Arc::clone(&entry))).await }).await {
                entry.end(Outcome::Panicked(message));
                failures = if started.elapsed() > entry.job.max_pause { 1 } else { failures + 1 };
                tokio::time::sleep(entry.job.pause(failures)).await;
                started = Instant::now();
            }
            entry.close();
        })
    }
}
