//! The queue of events on disk: events that the control plane has not acknowledged survive restarts.
//!
//! Invariants (tests below, tests/it/replay.rs):
//! 1. Numbers increase and are never reused, even after a crash: numbers are reserved on disk before they are used.
//! 2. An event is sent only after it has been synced to disk. If writing to the disk fails, events are sent from
//!    memory, because the control plane should learn about a full disk.
//! 3. Events are kept until they are acknowledged. The queue is bounded: if it is full, superseded states of instances
//!    are removed first, and then the oldest events other than ends of deployments and removals.

mod disk;
mod state;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use waypost_toolbox_proto::message::ToolboxEvent;

use crate::clock::WallClock;
use disk::Disk;
use state::State;

pub use state::{MAX_BYTES, MAX_EVENTS};

/// The pause before a failed write is retried.
const RETRY: Duration = Duration::from_secs(5);

/// The queue of events. Cheap to clone; clones share the same queue.
#[derive(Clone)]
pub struct Queue(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Notified when there are changes to write.
    unwritten: Notify,
    /// Changes when events can be sent or have been acknowledged.
    changed: watch::Sender<u64>,
    clock: WallClock,
}

/// Writes the queue to disk. Must be run for events to be sent.
pub struct QueueWriter {
    queue: Queue,
    disk: Disk,
}

impl Queue {
    /// Opens the queue in `folder`. A damaged file is kept under another name, and its readable events are used.
    ///
    /// # Errors
    /// Returns any error of the file system.
    pub fn open(folder: &Path, clock: WallClock) -> io::Result<(Self, QueueWriter)> {
        let (disk, state) = Disk::open(folder)?;
        let (changed, _) = watch::channel(0);
        let queue = Self(Arc::new(Inner { state: Mutex::new(state), unwritten: Notify::new(), changed, clock }));
        let writer = QueueWriter { queue: queue.clone(), disk };
        Ok((queue, writer))
    }

    /// Adds an event. It is written to disk in the background.
    pub fn push(&self, event: ToolboxEvent) {
        self.state().push((self.0.clock)(), event);
        self.0.unwritten.notify_one();
    }

    /// Removes all events up to `sequence`.
    pub fn acknowledge(&self, sequence: u64) {
        self.state().acknowledge(sequence);
        self.0.unwritten.notify_one();
        self.notify();
    }

    /// Returns the number of the last returned event (`after` if there is none), and the events after number `after` as
    /// lines, in order. At most `max` events up to the last returned one wait for an acknowledgement.
    #[must_use]
    pub fn next_lines(&self, after: u64, max: usize) -> (u64, Vec<Bytes>) {
        self.state().next_lines(after, max)
    }

    /// Returns a receiver that changes when events can be sent or have been acknowledged.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Returns the number of events in the queue.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().len()
    }

    /// Whether every event has been acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.0.changed.send_modify(|version| *version = version.wrapping_add(1));
    }
}

impl QueueWriter {
    /// Writes changes until `stop` is cancelled, and then the remaining ones. The future must not be dropped, because a
    /// write may be in progress.
    pub async fn run(mut self, stop: CancellationToken) {
        let queue = self.queue.clone();
        let mut was_written = true;
        loop {
            let is_stopping = stop.is_cancelled();
            let result = self.write().await;
            if let Err(error) = &result
                && was_written
            {
                tracing::error!(%error, "failed to store events; they are kept in memory until the disk works again");
            }
            if is_stopping {
                return;
            }
            was_written = result.is_ok();
            let retry = if was_written { Duration::MAX } else { RETRY };
            tokio::select! {
                // A new event is sent at once, even if the disk still fails.
                _ = tokio::time::timeout(retry, queue.0.unwritten.notified()) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Writes all changes. The events can be sent even if writing fails.
    async fn write(&mut self) -> io::Result<()> {
        loop {
            let Some(batch) = self.queue.state().take_batch() else {
                return Ok(());
            };
            let sendable = batch.last;
            let mut disk = self.disk.clone();
            let written = tokio::task::spawn_blocking(move || disk.write(&batch)).await;
            let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
            let mut state = self.queue.state();
            state.mark_sendable(sendable);
            if written.is_err() {
                state.rewrite();
            }
            drop(state);
            self.queue.notify();
            written?;
        }
    }
}

#[cfg(test)]
mod tests;
