//! The group-committing writer of progress.
//!
//! Calls queue up while a group is being committed; the next group takes all queued calls. With one client a group is
//! one call; with many clients they share the cost of a sync. A group is committed in up to two parts:
//!
//! 1. Calls that change an open attempt *in place*, such as an advance, are decided on the cached state of the attempt
//!    ([`cache`]) and written in one step, on the condition that the cached states are still those of the rows
//!    ([`crate::progress::write_unread`]). If one is not, nothing is written, and the calls join the second part. On
//!    PostgreSQL, this part includes calls that create their end user, who cannot have an attempt yet.
//! 2. All others: a transaction locks and reads the attempts, the pure functions are applied in order in memory
//!    ([`decide`]), and the rows are written.
//!
//! On PostgreSQL, each part has one query for all attempts and at most one statement per table. On SQLite, each part is
//! one job of a thread ([`crate::sqlite`]), with a statement per row.
//!
//! Invariants (`tests/it/writer.rs` and `tests/it/writer_races.rs`):
//! - A result is returned only after its commit has succeeded.
//! - A call is decided on the state that its attempt has when the call takes effect, regardless of other processes.
//! - Calls of a group on the same attempt take effect in queue order.
//! - A failing call does not affect others: a group that the database rejects is retried call by call.

mod cache;
mod decide;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use sqlx::PgPool;
use tokio::sync::{Mutex, mpsc, oneshot};
use waypost_core::id::VersionId;
use waypost_core::progress::{Attempt, Outcome};
use waypost_core::webhook::NewDelivery;
use waypost_core::{Error as CoreError, Random, Timestamp};
use waypost_jobs::{Job, Jobs, WorkerHandle};

use self::cache::AttemptCache;
use self::decide::{DecidedGroup, UnreadDecision, decide_unread};
use crate::db::{Db, Dialect};
use crate::error::{Error, Result};
use crate::progress::{self, KeptConnection, NewEndUser, ProgressKey, UnreadBatch};
use crate::session::NewSession;
use crate::tool_call::ToolCall;

/// The maximum number of calls in a group. It bounds a group's memory and the time that others wait for the writer.
const GROUP: usize = 256;
/// The capacity of the queue. If it is full, senders wait.
const QUEUE: usize = 4_096;
/// The writer's tasks. On PostgreSQL, two groups run concurrently, each on its own connection. SQLite uses only the
/// first task: a second one would halve the size of the groups, and each group writes the same index pages again.
const WORKERS: [&str; 2] = ["writer", "writer-2"];
/// The time that a writer task keeps its PostgreSQL connection without a call.
const KEPT: Duration = Duration::from_secs(1);
/// A group that runs for this long is stuck: database timeouts are much shorter.
const LATE: Duration = Duration::from_secs(60);
/// The maximum number of attempts for a group of one call if transactions conflict.
const MAX_ATTEMPTS: u32 = 5;

/// The result of applying a call to an attempt.
#[derive(Debug)]
pub enum Decision {
    /// The call took effect, or there was nothing to change.
    Done(Box<Outcome>),
    /// The call needs a version that is not in memory. The caller loads it and retries.
    NeedVersion(VersionId),
    /// The call is rejected.
    Rejected(CoreError),
}

/// A pure function that decides a call from the open attempt, if any. It may be called more than once.
pub type DecideFn = Box<dyn Fn(Option<&Attempt>) -> Decision + Send + Sync>;
/// Creates the record of a call from its outcome.
pub type RecordFn = Box<dyn Fn(&Outcome) -> ToolCall + Send + Sync>;
/// Creates the webhook deliveries from the outcome of a call.
pub type DeliveriesFn = Box<dyn Fn(&Outcome) -> Vec<NewDelivery> + Send + Sync>;

/// A call on an end user's progress in one walkthrough.
pub struct ProgressCall {
    /// The progress to change.
    pub key: ProgressKey,
    /// The end user to create, if any. Written only if the call changes something.
    pub new_end_user: Option<NewEndUser>,
    /// The session to create, if any. Written only if the call changes something.
    pub new_session: Option<NewSession>,
    /// The client's name, for the events.
    pub client_name: Option<String>,
    /// Creates the record of the call. Called only if the call changes something.
    pub tool_call: Option<RecordFn>,
    /// Creates the webhook deliveries; `None` if there are no receivers. Called only if the call changes something.
    pub deliveries: Option<DeliveriesFn>,
    /// Decides what to do with the open attempt.
    pub decide: DecideFn,
    /// The time of the call.
    pub now: Timestamp,
}

type Reply = oneshot::Sender<Result<Decision>>;

struct QueuedCall {
    call: ProgressCall,
    reply: Reply,
}

/// The sending half of the writer. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<QueuedCall>,
}

impl Writer {
    /// Starts the writer's tasks. They end when all [`Writer`]s are dropped and the queue is empty.
    #[must_use]
    pub fn start(db: Db, random: Arc<dyn Random>) -> (Self, Vec<tokio::task::JoinHandle<()>>) {
        Self::start_in(&Jobs::default(), db, random)
    }

    /// Starts the writer's tasks as workers of `jobs`. They end like those of [`Writer::start`].
    #[must_use]
    pub fn start_in(jobs: &Jobs, db: Db, random: Arc<dyn Random>) -> (Self, Vec<tokio::task::JoinHandle<()>>) {
        let (queue, calls) = mpsc::channel(QUEUE);
        let calls = Arc::new(Mutex::new(calls));
        let workers = if db.dialect() == Dialect::Sqlite { &WORKERS[..1] } else { &WORKERS };
        let worker = Worker { db, random, cache: AttemptCache::new() };
        let work = |name: &&'static str| {
            let worker = worker.clone();
            let calls = Arc::clone(&calls);
            let job = Job { late_after: LATE, ..Job::new(name, Duration::ZERO) };
            jobs.start_worker(job.serving(), move |handle| worker.clone().run(Arc::clone(&calls), handle))
        };
        let tasks = workers.iter().map(work).collect();
        (Self { queue }, tasks)
    }

    /// Enqueues a call and waits until its effects are committed.
    ///
    /// # Errors
    /// Returns an error if the database fails or the writer has stopped. Nothing is changed in that case, unless the
    /// database is unavailable ([`Error::is_unavailable`]): the response to a successful commit may have been lost.
    pub async fn call(&self, call: ProgressCall) -> Result<Decision> {
        let (reply, result) = oneshot::channel();
        self.queue.send(QueuedCall { call, reply }).await.map_err(|_| Error::WriterStopped)?;
        metrics::gauge!("waypost_writer_queue_depth").set(self.depth() as f64);
        result.await.map_err(|_| Error::WriterStopped)?
    }

    /// Returns the number of queued calls.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

/// Sends the same error to all callers.
fn fail_all(replies: impl IntoIterator<Item = Reply>, error: impl Into<Arc<Error>>) {
    let error = error.into();
    for reply in replies {
        let _ = reply.send(Err(Error::Group(Arc::clone(&error))));
    }
}

/// Counts a committed group.
fn count_group(calls: usize, statements: u64) {
    metrics::counter!("waypost_writer_groups_total").increment(1);
    metrics::counter!("waypost_writer_calls_total").increment(calls as u64);
    metrics::counter!("waypost_writer_statements_total").increment(statements);
    metrics::histogram!("waypost_writer_group_size").record(calls as f64);
}

#[derive(Clone)]
struct Worker {
    db: Db,
    random: Arc<dyn Random>,
    cache: AttemptCache,
}

impl Worker {
    async fn run(self, calls: Arc<Mutex<mpsc::Receiver<QueuedCall>>>, handle: WorkerHandle) {
        let mut kept = KeptConnection::default();
        loop {
            let mut group = Vec::with_capacity(GROUP);
            // The worker that holds the lock takes all queued calls; the next worker takes later ones.
            let receive = async { calls.lock().await.recv_many(&mut group, GROUP).await };
            let count = if kept.is_some() {
                let Ok(count) = tokio::time::timeout(KEPT, receive).await else {
                    kept.release();
                    continue;
                };
                count
            } else {
                receive.await
            };
            if count == 0 {
                return;
            }
            let _busy = handle.begin_item();
            self.process(&mut kept, group).await;
        }
    }

    async fn process(&self, kept: &mut KeptConnection, group: Vec<QueuedCall>) {
        // Skips calls whose caller no longer waits: the caller may have retried in the meantime.
        let pending: Vec<_> = group.into_iter().filter(|queued| !queued.reply.is_closed()).collect();
        let left = self.process_unread(kept, pending).await;
        if left.is_empty() {
            return;
        }
        let (calls, replies): (Vec<_>, Vec<_>) = left.into_iter().map(|queued| (queued.call, queued.reply)).unzip();
        let calls = Arc::new(calls);
        match self.commit(&calls, 0..calls.len()).await {
            Ok(decisions) => {
                for (reply, decision) in replies.into_iter().zip(decisions) {
                    // Fails if the caller no longer waits. The call has taken effect anyway.
                    let _ = reply.send(Ok(decision));
                }
            }
            // If the database is unavailable, retrying each call would only take longer.
            Err(error) if error.is_unavailable() => fail_all(replies, error),
            Err(_) => {
                if calls.len() > 1 {
                    metrics::counter!("waypost_writer_groups_split_total").increment(1);
                }
                self.process_one_by_one(&calls, replies).await;
            }
        }
    }

    /// Commits the calls that can be decided without reading their attempts, and replies to them. Returns the calls
    /// that are left for a transaction.
    async fn process_unread(&self, kept: &mut KeptConnection, group: Vec<QueuedCall>) -> Vec<QueuedCall> {
        let cached = self.cache.get_all(group.iter().map(|queued| &queued.call.key));
        let can_open = self.db.dialect() == Dialect::Postgres;
        let decided = decide_unread(group.iter().map(|queued| &queued.call), cached, can_open);
        let (mut unread, mut left) = (Vec::with_capacity(group.len()), Vec::new());
        let (mut decisions, mut batch) = (Vec::with_capacity(group.len()), UnreadBatch::default());
        for (queued, decided) in group.into_iter().zip(decided) {
            let Some(UnreadDecision { decided, before, after }) = decided else {
                left.push(queued);
                continue;
            };
            match &before {
                Some(before) => batch.add_change(&queued.call.key, before, after),
                None => batch.add_first_attempt(&queued.call.key, after),
            }
            decisions.push(decided.add_rows(&queued.call, before.as_deref(), &*self.random, batch.rows_mut()));
            unread.push(queued);
        }
        if unread.is_empty() {
            return left;
        }
        match self.db.with_timeout(progress::write_unread(&self.db, kept, batch)).await {
            Ok(Some((batch, statements))) => {
                self.cache.replace_all(batch.into_attempts().map(|(key, attempt)| (key, Some(attempt))));
                count_group(unread.len(), statements);
                for (queued, decision) in unread.into_iter().zip(decisions) {
                    let _ = queued.reply.send(Ok(decision));
                }
            }
            Err(error) if error.is_unavailable() => {
                fail_all(unread.into_iter().chain(left.drain(..)).map(|queued| queued.reply), error);
            }
            // An attempt has changed in the meantime, or the database has rejected a row.
            Ok(None) | Err(_) => {
                metrics::counter!("waypost_writer_groups_outdated_total").increment(1);
                left.extend(unread);
            }
        }
        left
    }

    /// Retries the calls of a failed group one by one.
    async fn process_one_by_one(&self, calls: &Arc<Vec<ProgressCall>>, replies: Vec<Reply>) {
        let mut replies = replies.into_iter();
        for (position, reply) in (0..calls.len()).zip(replies.by_ref()) {
            match self.commit_alone(calls, position).await {
                Err(error) if error.is_unavailable() => {
                    let error = Arc::new(error);
                    let _ = reply.send(Err(Error::Group(Arc::clone(&error))));
                    return fail_all(replies, error);
                }
                result => {
                    let _ = reply.send(result);
                }
            }
        }
    }

    /// Runs a single call. Retries it if it conflicts with another transaction, including one that opened the same
    /// attempt first, which the retry then finds.
    async fn commit_alone(&self, calls: &Arc<Vec<ProgressCall>>, position: usize) -> Result<Decision> {
        let mut attempts = 1;
        loop {
            match self.commit(calls, position..position + 1).await {
                Ok(mut decisions) => return decisions.pop().ok_or(Error::WriterStopped),
                Err(error)
                    if (error.is_conflict_between_transactions() || error.is_unique_violation())
                        && attempts < MAX_ATTEMPTS =>
                {
                    attempts += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Runs a part of `calls` in one transaction.
    async fn commit(&self, calls: &Arc<Vec<ProgressCall>>, range: Range<usize>) -> Result<Vec<Decision>> {
        let Committed { decisions, open, statements } = match &self.db {
            Db::Sqlite { write, .. } => {
                let (calls, range) = (Arc::clone(calls), range.clone());
                let random = Arc::clone(&self.random);
                write.run(move |conn| commit_sqlite(conn, &calls[range], &*random)).await?
            }
            Db::Postgres(pool) => {
                let commit = commit_postgres(pool, &calls[range.clone()], &*self.random);
                self.db.with_timeout(commit).await?
            }
        };
        let calls = &calls[range];
        let absent = calls.iter().map(|call| &call.key).filter(|key| !open.contains_key(key));
        self.cache.replace_all(absent.map(|key| (key.clone(), None)));
        self.cache.replace_all(open.into_iter().map(|(key, attempt)| (key, Some(Arc::new(attempt)))));
        count_group(calls.len(), statements);
        Ok(decisions)
    }
}

/// The results of a transaction.
struct Committed {
    /// The decisions, in the order of the calls.
    decisions: Vec<Decision>,
    /// The open attempts after the calls.
    open: HashMap<ProgressKey, Attempt>,
    statements: u64,
}

/// Runs the transaction of a group on SQLite.
fn commit_sqlite(conn: &mut Connection, calls: &[ProgressCall], random: &dyn Random) -> Result<Committed> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let open = progress::sqlite::find_open(&tx, calls.iter().map(|call| &call.key))?;
    let DecidedGroup { decisions, batch, open } = DecidedGroup::new(calls, open, random);
    // BEGIN, a SELECT per call and COMMIT, in addition to the statements of the batch.
    let mut statements = calls.len() as u64 + 2;
    if !batch.is_empty() {
        statements += progress::sqlite::write(&tx, &batch)?;
        tx.commit()?;
    }
    Ok(Committed { decisions, open, statements })
}

/// Runs the transaction of a group on PostgreSQL.
async fn commit_postgres(pool: &PgPool, calls: &[ProgressCall], random: &dyn Random) -> Result<Committed> {
    let mut tx = Box::pin(pool.begin()).await?;
    let open = progress::lock_open_postgres(&mut tx, calls.iter().map(|call| &call.key)).await?;
    let DecidedGroup { decisions, batch, open } = DecidedGroup::new(calls, open, random);
    // BEGIN, the SELECT and COMMIT, in addition to the statements of the batch.
    let mut statements = 3;
    if !batch.is_empty() {
        statements += progress::write_postgres(&mut tx, &batch).await?;
        tx.commit().await?;
    }
    Ok(Committed { decisions, open, statements })
}
