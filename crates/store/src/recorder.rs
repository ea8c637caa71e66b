//! The bounded batch writer of records that are not part of a change: read-only calls, failed calls, rejected calls,
//! calls through the gateway, and the use of sessions and tokens.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::error::{SendTimeoutError, TrySendError};
use tokio::sync::{Notify, mpsc};
use waypost_core::Timestamp;
use waypost_core::call::Call;
use waypost_core::id::{OrganizationId, ServerId};
use waypost_jobs::{Job, Jobs, WorkerHandle};

use crate::agent_token::{self, TokenUse};
use crate::call;
use crate::call_contents::{self, SealedContents};
use crate::counted_call;
use crate::db::Db;
use crate::error::Result;
use crate::session::{self, NewSession};
use crate::tool_call::{self, RejectionCount, ToolCall};

/// The capacity of the queue, which bounds memory. If it is full, senders wait briefly.
const QUEUE: usize = 8_192;
/// The maximum number of entries in the queue while contents of calls are added, which are larger than other entries.
const QUEUE_WITH_CONTENTS: usize = 1_024;
/// The maximum number of entries in a batch.
const BATCH: usize = 512;
/// The minimum time between two batches: on SQLite each blocks the single writer for a moment.
const PAUSE: Duration = Duration::from_millis(100);
/// The maximum number of attempts for a batch while the database is unavailable.
const MAX_ATTEMPTS: u32 = 50;
/// The time that a call waits for room in the queue. After that, its record is dropped, so that its response is not
/// delayed further.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// A batch that takes this long is stuck: its retries end earlier.
const LATE: Duration = Duration::from_secs(600);

/// An entry to record.
#[derive(Debug, Clone)]
pub enum RecorderEntry {
    /// A call that changed nothing.
    Call(Box<ToolCall>),
    /// The use of a session without a handle.
    Session(Box<NewSession>),
    /// The use of a handle.
    HandleUse {
        /// The hexadecimal SHA-256 of the handle.
        handle_hash: String,
        /// The time of the use.
        at: Timestamp,
    },
    /// The use of an agent's token.
    TokenUse(TokenUse),
    /// A call through the gateway.
    GatewayCall(Box<Call>),
    /// A call through the gateway with its contents.
    GatewayCallWithContents(Box<(Call, SealedContents)>),
}

/// The counts of rejected calls that are not written yet. Anyone can cause any number of them, so they are not queued:
/// there is one entry per server, minute and reason.
#[derive(Debug, Default)]
struct Rejections {
    counts: Mutex<HashMap<(ServerId, i64, &'static str), RejectionCount>>,
    /// Wakes the recorder's task.
    added: Notify,
}

impl Rejections {
    fn add(&self, organization_id: &OrganizationId, server_id: &ServerId, reason: &'static str, at: Timestamp) {
        let minute = at.0.div_euclid(tool_call::MINUTE_MS);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = counts.entry((server_id.clone(), minute, reason)).or_insert_with(|| RejectionCount {
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

    /// Removes and returns all counts, in the same order in every process, so that two processes cannot deadlock.
    fn drain(&self) -> Vec<RejectionCount> {
        let counts = std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        let mut counts: Vec<_> = counts.into_values().collect();
        counts.sort_by(|a, b| {
            (a.server_id.as_str(), a.minute, &a.reason).cmp(&(b.server_id.as_str(), b.minute, &b.reason))
        });
        counts
    }
}

/// The sending half of the recorder. Cheap to clone. When all clones are dropped, queued entries are written and the
/// task ends.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<RecorderEntry>,
    rejections: Arc<Rejections>,
}

impl Recorder {
    /// Starts the recorder's task.
    #[must_use]
    pub fn start(db: Db) -> (Self, tokio::task::JoinHandle<()>) {
        Self::start_in(&Jobs::default(), db)
    }

    /// Starts the recorder's task as a worker of `jobs`.
    #[must_use]
    pub fn start_in(jobs: &Jobs, db: Db) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, records) = mpsc::channel(QUEUE);
        let (records, rejections) = (Arc::new(tokio::sync::Mutex::new(records)), Arc::new(Rejections::default()));
        let recorder = Self { queue, rejections: Arc::clone(&rejections) };
        let job = Job { late_after: LATE, ..Job::new("recorder", Duration::ZERO) };
        let work = move |handle| run(db.clone(), Arc::clone(&records), Arc::clone(&rejections), handle);
        (recorder, jobs.start_worker(job, work))
    }

    /// Counts a call to a server that was rejected before it reached a tool. Never waits.
    pub fn count_rejection(
        &self,
        organization: &OrganizationId,
        server: &ServerId,
        reason: &'static str,
        at: Timestamp,
    ) {
        metrics::counter!("waypost_rejected_calls_total", "reason" => reason).increment(1);
        self.rejections.add(organization, server, reason, at);
    }

    /// Enqueues an entry. If the queue is full, waits briefly and then drops the entry.
    pub async fn record(&self, entry: RecorderEntry) {
        match self.queue.send_timeout(entry, SEND_TIMEOUT).await {
            Ok(()) => {}
            Err(SendTimeoutError::Timeout(_)) => {
                metrics::counter!("waypost_records_lost_total").increment(1);
                tracing::warn!("recorder queue is full, dropped an entry");
            }
            Err(SendTimeoutError::Closed(_)) => {
                tracing::error!("recorder has stopped, dropped an entry");
            }
        }
    }

    /// Whether there is room for a call with its contents.
    #[must_use]
    pub fn has_room_for_contents(&self) -> bool {
        self.queue.capacity() >= QUEUE - QUEUE_WITH_CONTENTS
    }

    /// Enqueues an entry. Never waits: if the queue is full, drops the entry and counts it as lost.
    pub fn record_or_drop(&self, entry: RecorderEntry) {
        match self.queue.try_send(entry) {
            Ok(()) => {}
            // Not logged: there can be thousands per second.
            Err(TrySendError::Full(_)) => metrics::counter!("waypost_records_lost_total").increment(1),
            Err(TrySendError::Closed(_)) => {
                tracing::error!("recorder has stopped, dropped an entry");
            }
        }
    }
}

async fn run(
    db: Db,
    records: Arc<tokio::sync::Mutex<mpsc::Receiver<RecorderEntry>>>,
    rejections: Arc<Rejections>,
    handle: WorkerHandle,
) {
    let mut records = records.lock().await;
    let mut buffer = Vec::with_capacity(BATCH);
    loop {
        let is_open = tokio::select! {
            count = records.recv_many(&mut buffer, BATCH) => count > 0,
            () = rejections.added.notified() => true,
        };
        let batch = Batch { records: std::mem::take(&mut buffer), rejections: rejections.drain() };
        if batch.len() > 0 {
            let _busy = handle.begin_item();
            let guard = LossGuard(batch.len());
            write_with_retries(&db, &batch).await;
            std::mem::forget(guard);
        }
        if !is_open {
            return;
        }
        buffer = batch.records;
        buffer.clear();
        if !records.is_closed() && records.len() < BATCH {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Counts the entries of a batch as lost if writing it panics. The batch is not retried, because its entries may be the
/// cause.
struct LossGuard(u64);

impl Drop for LossGuard {
    fn drop(&mut self) {
        metrics::counter!("waypost_records_lost_total").increment(self.0);
    }
}

/// The entries that are written in one transaction.
struct Batch {
    records: Vec<RecorderEntry>,
    rejections: Vec<RejectionCount>,
}

impl Batch {
    /// Returns the number of entries and rejected calls.
    fn len(&self) -> u64 {
        let rejected: i64 = self.rejections.iter().map(|rejections| rejections.count).sum();
        self.records.len() as u64 + rejected.unsigned_abs()
    }
}

async fn write_with_retries(db: &Db, batch: &Batch) {
    for attempt in 0..MAX_ATTEMPTS {
        match db.with_timeout(write(db, batch)).await {
            Ok(()) => return,
            // An earlier attempt succeeded, but its response was lost.
            Err(error) if attempt > 0 && error.is_unique_violation() => return,
            // A foreign key is violated if an end user is deleted between the check and the insert. The retry skips
            // their rows.
            Err(error)
                if error.is_unavailable()
                    || error.is_conflict_between_transactions()
                    || error.is_foreign_key_violation() =>
            {
                tracing::warn!(%error, records = batch.len(), "failed to write recorder batch, retrying");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                tracing::error!(%error, records = batch.len(), "failed to write recorder batch, entries are lost");
                metrics::counter!("waypost_records_lost_total").increment(batch.len());
                return;
            }
        }
    }
    metrics::counter!("waypost_records_lost_total").increment(batch.len());
    tracing::error!(records = batch.len(), "database stayed unavailable, recorder entries are lost");
}

async fn write(db: &Db, batch: &Batch) -> Result<()> {
    let (mut calls, mut tokens, mut gateway_calls, mut contents) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut used: HashMap<&str, Timestamp> = HashMap::new();
    // In the same order in every process, like the counts of rejected calls, so that two processes cannot deadlock.
    let mut sessions: BTreeMap<&str, NewSession> = BTreeMap::new();
    for record in &batch.records {
        match record {
            RecorderEntry::Call(call) => calls.push((**call).clone()),
            RecorderEntry::Session(session) => {
                let entry = sessions.entry(session.id.as_str()).or_insert_with(|| (**session).clone());
                entry.last_used_at = entry.last_used_at.max(session.last_used_at);
            }
            RecorderEntry::HandleUse { handle_hash, at } => {
                let last = used.entry(handle_hash).or_insert(*at);
                *last = (*last).max(*at);
            }
            RecorderEntry::TokenUse(token_use) => tokens.push(token_use.clone()),
            RecorderEntry::GatewayCall(call) => gateway_calls.push(&**call),
            RecorderEntry::GatewayCallWithContents(entry) => {
                let (call, sealed) = &**entry;
                gateway_calls.push(call);
                contents.push(sealed.clone());
            }
        }
    }
    let mut tx = db.begin().await?;
    counted_call::record(&mut tx, calls).await?;
    if !batch.rejections.is_empty() {
        tool_call::add_rejections(&mut tx, &batch.rejections).await?;
    }
    if !sessions.is_empty() {
        let sessions: Vec<_> = sessions.into_values().collect();
        session::upsert(&mut tx, &sessions).await?;
    }
    let mut used: Vec<_> = used.into_iter().collect();
    used.sort();
    for (handle_hash, at) in used {
        session::record_use(&mut tx, handle_hash, at).await?;
    }
    agent_token::record_uses(&mut tx, &tokens).await?;
    call::insert(&mut tx, gateway_calls).await?;
    if !contents.is_empty() {
        call_contents::insert(&mut tx, &contents).await?;
    }
    tx.commit().await
}
