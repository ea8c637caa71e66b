//! The bounded batch writer of what is not part of a change: calls that only read, calls that failed, calls that were
//! turned away, and the use of sessions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{Notify, mpsc};
use waypost_core::Timestamp;
use waypost_core::id::{OrganizationId, ServerId};
use waypost_jobs::{Job, Jobs, WorkerHandle};

use crate::counted_call;
use crate::db::Db;
use crate::error::Result;
use crate::session::{self, NewSession};
use crate::tool_call::{self, Refusals, ToolCall};

/// Records that may wait; one more waits at the sender for a moment. Memory stays bounded.
const QUEUE: usize = 8_192;
/// Records in a batch at most.
const BATCH: usize = 512;
/// The least time between two batches: on SQLite each takes the one writer away from the users for a moment.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a batch is tried while the database is away.
const TRIES: u32 = 50;
/// How long a call waits for room in the queue: the record of a call is worth less than its answer.
const ROOM: Duration = Duration::from_secs(1);
/// A batch that is written for so long is stuck: it is given up earlier.
const LATE: Duration = Duration::from_secs(600);

/// Something to write down soon.
#[derive(Debug, Clone)]
pub enum Record {
    /// A call that changed nothing.
    Call(Box<ToolCall>),
    /// A session without a handle was used.
    Session(Box<NewSession>),
    /// A handle was used.
    Used {
        /// SHA-256 of the handle, hexadecimal.
        handle_hash: String,
        /// When.
        at: Timestamp,
    },
}

/// The counts of rejected calls that are not written yet. Anyone can cause any number of them, so they take no place in the
/// queue: each server, minute and reason is one entry.
#[derive(Debug, Default)]
struct Rejections {
    counts: Mutex<HashMap<(ServerId, i64, &'static str), Refusals>>,
    /// Wakes the recorder's task.
    added: Notify,
}

impl Rejections {
    fn add(&self, (organization_id, server_id): (&OrganizationId, &ServerId), reason: &'static str, at: Timestamp) {
        let minute = at.0.div_euclid(tool_call::MINUTE_MS);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = counts.entry((server_id.clone(), minute, reason)).or_insert_with(|| Refusals {
            server_id: server_id.clone(),
            minute,
            reason: reason.to_owned(),
            organization_id: organization_id.clone(),
            count: 0,
        });
        entry.count += 1;
        drop(counts);
        self.added.notify_one();
    }

    /// Takes all counts, in one order for every process, so that two of them cannot wait for each other's rows.
    fn take(&self) -> Vec<Refusals> {
        let counts = std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        let mut counts: Vec<_> = counts.into_values().collect();
        counts.sort_by(|a, b| {
            (a.server_id.as_str(), a.minute, &a.reason).cmp(&(b.server_id.as_str(), b.minute, &b.reason))
        });
        counts
    }
}

/// The sending side: clone it freely. When every one is dropped, what is queued is written and the task ends.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Record>,
    rejections: Arc<Rejections>,
}

impl Recorder {
    /// Starts the recorder's task.
    #[must_use]
    pub fn start(db: Db) -> (Self, tokio::task::JoinHandle<()>) {
        Self::start_in(&Jobs::default(), db)
    }

    /// Starts the recorder's task as a worker among `jobs`.
    #[must_use]
    pub fn start_in(jobs: &Jobs, db: Db) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, records) = mpsc::channel(QUEUE);
        let (records, rejections) = (Arc::new(tokio::sync::Mutex::new(records)), Arc::new(Rejections::default()));
        let recorder = Self { queue, rejections: Arc::clone(&rejections) };
        let job = Job { late_after: LATE, ..Job::new("recorder", Duration::ZERO) };
        let work = move |handle| run(db.clone(), Arc::clone(&records), Arc::clone(&rejections), handle);
        (recorder, jobs.start_worker(job, work))
    }

    /// Counts a call of a server that was rejected before it reached a tool. Never waits.
    pub fn count_rejection(&self, server: (&OrganizationId, &ServerId), reason: &'static str, at: Timestamp) {
        metrics::counter!("waypost_rejected_calls_total", "reason" => reason).increment(1);
        self.rejections.add(server, reason, at);
    }

    /// Queues a record; waits a moment when the queue is full, and gives the record up when that does not help.
    pub async fn record(&self, record: Record) {
        match self.queue.send_timeout(record, ROOM).await {
            Ok(()) => {}
            Err(SendTimeoutError::Timeout(_)) => {
                metrics::counter!("waypost_records_lost_total").increment(1);
                tracing::warn!("the queue of records is full, a call is not recorded");
            }
            Err(SendTimeoutError::Closed(_)) => {
                tracing::error!("a call came after the recorder had stopped and is not recorded");
            }
        }
    }
}

async fn run(
    db: Db,
    records: Arc<tokio::sync::Mutex<mpsc::Receiver<Record>>>,
    rejections: Arc<Rejections>,
    handle: WorkerHandle,
) {
    let mut records = records.lock().await;
    let mut records_batch = Vec::with_capacity(BATCH);
    loop {
        let is_open = tokio::select! {
            count = records.recv_many(&mut records_batch, BATCH) => count > 0,
            () = rejections.added.notified() => true,
        };
        let batch = Batch { records: std::mem::take(&mut records_batch), refusals: rejections.take() };
        if batch.len() > 0 {
            let _busy = handle.begin_item();
            let unwritten = Unwritten(batch.len());
            write_until_done(&db, &batch).await;
            std::mem::forget(unwritten);
        }
        if !is_open {
            return;
        }
        records_batch = batch.records;
        records_batch.clear();
        if !records.is_closed() && records.len() < BATCH {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Records that are lost if writing them panics: they are not tried again, because they may be the cause.
struct Unwritten(u64);

impl Drop for Unwritten {
    fn drop(&mut self) {
        metrics::counter!("waypost_records_lost_total").increment(self.0);
    }
}

/// What is written in one transaction.
struct Batch {
    records: Vec<Record>,
    refusals: Vec<Refusals>,
}

impl Batch {
    /// The recorded and the rejected calls.
    fn len(&self) -> u64 {
        let rejected: i64 = self.refusals.iter().map(|refusals| refusals.count).sum();
        self.records.len() as u64 + rejected.unsigned_abs()
    }
}

async fn write_until_done(db: &Db, batch: &Batch) {
    for attempt in 0..TRIES {
        match db.in_time(write(db, batch)).await {
            Ok(()) => return,
            // Only the answer to an earlier commit was lost.
            Err(error) if attempt > 0 && error.is_unique_violation() => return,
            // Also when an end user was deleted between the look and the write: the next look finds that.
            Err(error)
                if error.is_unavailable()
                    || error.is_conflict_between_transactions()
                    || error.is_foreign_key_violation() =>
            {
                tracing::warn!(%error, records = batch.len(), "the records of calls wait for the database");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                tracing::error!(%error, records = batch.len(), "the records of calls are lost");
                metrics::counter!("waypost_records_lost_total").increment(batch.len());
                return;
            }
        }
    }
    metrics::counter!("waypost_records_lost_total").increment(batch.len());
    tracing::error!(records = batch.len(), "the database stayed away, the records of calls are lost");
}

async fn write(db: &Db, batch: &Batch) -> Result<()> {
    let mut calls = Vec::new();
    let mut used: HashMap<&str, Timestamp> = HashMap::new();
    // In one order for every process, as the counts of rejected calls.
    let mut sessions: BTreeMap<&str, NewSession> = BTreeMap::new();
    for record in &batch.records {
        match record {
            Record::Call(call) => calls.push((**call).clone()),
            Record::Session(session) => {
                let entry = sessions.entry(session.id.as_str()).or_insert_with(|| (**session).clone());
                entry.last_used_at = entry.last_used_at.max(session.last_used_at);
            }
            Record::Used { handle_hash, at } => {
                let last = used.entry(handle_hash).or_insert(*at);
                *last = (*last).max(*at);
            }
        }
    }
    let mut tx = db.begin().await?;
    counted_call::record(&mut tx, calls).await?;
    if !batch.refusals.is_empty() {
        tool_call::add_refusals(&mut tx, &batch.refusals).await?;
    }
    if !sessions.is_empty() {
        let sessions: Vec<_> = sessions.into_values().collect();
        session::put_used(&mut tx, &sessions).await?;
    }
    let mut used: Vec<_> = used.into_iter().collect();
    used.sort();
    for (handle_hash, at) in used {
        session::used(&mut tx, handle_hash, at).await?;
    }
    tx.commit().await
}
