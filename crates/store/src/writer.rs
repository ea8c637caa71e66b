//! The group-committing writer of progress.
//!
//! Calls queue up while a group is being committed; the next group takes all queued calls. A group reads all affected
//! attempts with one query, applies the pure functions in order in memory, writes one multi-row statement per table,
//! commits, and only then responds. With one client a group is one call; with many clients they share the cost of a
//! sync.
//!
//! Invariants:
//! - A result is returned only after its commit has succeeded.
//! - Calls on the same attempt take effect in queue order.
//! - A failing call does not affect others: a group that the database rejects is retried call by call.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use waypost_core::event::EventKind;
use waypost_core::id::{EventId, ProgressId, VersionId};
use waypost_core::progress::{Attempt, Outcome};
use waypost_core::webhook::NewDelivery;
use waypost_core::{Error as CoreError, Random, Timestamp};
use waypost_jobs::{Job, Jobs, WorkerHandle};

use crate::db::{Db, Dialect};
use crate::error::{Error, Result};
use crate::progress::{self, Batch, EventDetails, NewEndUser, ProgressKey};
use crate::session::NewSession;
use crate::tool_call::ToolCall;

/// The maximum number of calls in a group. It bounds a group's memory and the time that others wait for the writer.
const GROUP: usize = 256;
/// The capacity of the queue. If it is full, senders wait.
const QUEUE: usize = 4_096;
/// The writer's tasks. On PostgreSQL two groups run concurrently, each on its own connection.
const WORKERS: [&str; 2] = ["writer", "writer-2"];
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

/// The pure function from the open attempt to a decision. It may be called more than once.
pub type DecideFn = Box<dyn Fn(Option<&Attempt>) -> Decision + Send + Sync>;
/// Creates the record of a call from its outcome.
pub type RecordFn = Box<dyn Fn(&Outcome) -> ToolCall + Send + Sync>;
/// Creates the webhook deliveries from the outcome of a call.
pub type DeliveriesFn = Box<dyn Fn(&Outcome) -> Vec<NewDelivery> + Send + Sync>;

/// A call on one progress.
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

struct Queued {
    call: ProgressCall,
    reply: Reply,
}

/// The sending side. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Queued>,
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
        // SQLite allows a single writer.
        let workers = if db.dialect() == Dialect::Sqlite { &WORKERS[..1] } else { &WORKERS };
        let work = |name: &&'static str| {
            let worker = Worker { db: db.clone(), random: Arc::clone(&random) };
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
        self.queue.send(Queued { call, reply }).await.map_err(|_| Error::WriterStopped)?;
        metrics::gauge!("waypost_writer_queue_depth").set(self.depth() as f64);
        result.await.map_err(|_| Error::WriterStopped)?
    }

    /// Returns the number of queued calls.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

/// Applies a call to an attempt. The record and the deliveries are created only if the call changes something.
fn decide_and_record(call: &ProgressCall, attempt: Option<&Attempt>) -> (Decision, Option<ToolCall>, Vec<NewDelivery>) {
    let decision = (call.decide)(attempt);
    let changed = match &decision {
        Decision::Done(outcome) if !outcome.change.is_empty() => Some(outcome),
        _ => None,
    };
    let record = changed.zip(call.tool_call.as_ref()).map(|(outcome, record)| record(outcome));
    let deliveries = changed.zip(call.deliveries.as_ref()).map(|(outcome, create)| create(outcome)).unwrap_or_default();
    (decision, record, deliveries)
}

/// Sends the same error to all callers.
fn fail_all(replies: impl IntoIterator<Item = Reply>, error: impl Into<Arc<Error>>) {
    let error = error.into();
    for reply in replies {
        let _ = reply.send(Err(Error::Group(Arc::clone(&error))));
    }
}

#[derive(Clone)]
struct Worker {
    db: Db,
    random: Arc<dyn Random>,
}

impl Worker {
    async fn run(self, calls: Arc<Mutex<mpsc::Receiver<Queued>>>, handle: WorkerHandle) {
        loop {
            let mut group = Vec::with_capacity(GROUP);
            // The worker that holds the lock takes all queued calls; the next worker takes later ones.
            if calls.lock().await.recv_many(&mut group, GROUP).await == 0 {
                return;
            }
            let _busy = handle.begin_item();
            self.process(group).await;
        }
    }

    async fn process(&self, group: Vec<Queued>) {
        // Skips calls whose caller no longer waits: it may have retried in the meantime.
        let pending = group.into_iter().filter(|queued| !queued.reply.is_closed());
        let (calls, replies): (Vec<_>, Vec<_>) = pending.map(|queued| (queued.call, queued.reply)).unzip();
        if calls.is_empty() {
            return;
        }
        match self.commit(&calls).await {
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

    /// Retries the calls of a failed group one by one.
    async fn process_one_by_one(&self, calls: &[ProgressCall], replies: Vec<Reply>) {
        let mut replies = replies.into_iter();
        for (call, reply) in calls.iter().zip(replies.by_ref()) {
            match self.commit_alone(call).await {
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
    async fn commit_alone(&self, call: &ProgressCall) -> Result<Decision> {
        let mut attempts = 1;
        loop {
            match self.commit(std::slice::from_ref(call)).await {
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

    /// Runs a group in one transaction.
    async fn commit(&self, calls: &[ProgressCall]) -> Result<Vec<Decision>> {
        self.db.with_timeout(self.run_transaction(calls)).await
    }

    async fn run_transaction(&self, calls: &[ProgressCall]) -> Result<Vec<Decision>> {
        let mut tx = self.db.begin().await?;
        let open = progress::lock_open(&mut tx, calls.iter().map(|call| &call.key)).await?;
        let (decisions, batch) = self.decide(calls, open);
        // BEGIN, the SELECT and COMMIT, in addition to the statements of the batch.
        let mut statements = 3;
        if batch.is_empty() {
            drop(tx);
        } else {
            statements += progress::write(&mut tx, &batch).await?;
            tx.commit().await?;
        }
        metrics::counter!("waypost_writer_groups_total").increment(1);
        metrics::counter!("waypost_writer_calls_total").increment(calls.len() as u64);
        metrics::counter!("waypost_writer_statements_total").increment(statements);
        metrics::histogram!("waypost_writer_group_size").record(calls.len() as f64);
        Ok(decisions)
    }

    /// Applies the calls in order in memory.
    fn decide(&self, calls: &[ProgressCall], mut open: HashMap<ProgressKey, Attempt>) -> (Vec<Decision>, Batch) {
        let mut batch = Batch::default();
        // An attempt may change several times within a group; only its final state is written.
        let mut touched: HashMap<ProgressId, (usize, Attempt, bool)> = HashMap::new();
        let mut order = Vec::new();
        let mut decisions = Vec::with_capacity(calls.len());
        for (at, call) in calls.iter().enumerate() {
            // A panic in one call's functions must not stop the writer.
            let (decision, record, deliveries) =
                catch_unwind(AssertUnwindSafe(|| decide_and_record(call, open.get(&call.key)))).unwrap_or_else(|_| {
                    (Decision::Rejected(CoreError::internal("a call on progress panicked")), None, Vec::new())
                });
            if let Decision::Done(outcome) = &decision
                && !outcome.change.is_empty()
            {
                let change = &outcome.change;
                batch.add_end_user(call.new_end_user.clone(), call.new_session.clone());
                for (attempt, is_new) in change.close.iter().map(|attempt| (attempt, false)).chain(
                    change.upsert.iter().map(|put| (put, open.get(&call.key).is_none_or(|old| old.id != put.id))),
                ) {
                    let entry = touched.entry(attempt.id.clone()).or_insert_with(|| {
                        order.push(attempt.id.clone());
                        (at, attempt.clone(), is_new)
                    });
                    entry.1 = attempt.clone();
                }
                self.add_details(call, outcome, open.get(&call.key), &mut batch);
                batch.add_tool_call(record);
                batch.add_deliveries(deliveries);
                match &change.upsert {
                    Some(put) => open.insert(call.key.clone(), put.clone()),
                    None => open.remove(&call.key),
                };
            }
            decisions.push(decision);
        }
        for id in order {
            if let Some((at, attempt, is_new)) = touched.get(&id) {
                batch.add_attempt(&calls[*at].key, attempt, *is_new);
            }
        }
        (decisions, batch)
    }

    /// Adds completion, events and copies of completions of one call to `batch`.
    fn add_details(&self, call: &ProgressCall, outcome: &Outcome, before: Option<&Attempt>, batch: &mut Batch) {
        let change = &outcome.change;
        if let Some(subject) = change.upsert.as_ref().or(change.close.as_ref()) {
            if let Some(step) = &change.completion {
                batch.add_completion(subject, step.clone(), call.now);
            }
            // The attempt itself contains the time of its last activity, so no query is needed.
            let before = before.filter(|attempt| attempt.id == subject.id);
            let mut elapsed_ms = before.map(|attempt| call.now.since(attempt.last_activity_at).max(0));
            for (kind, step_id) in &change.events {
                let id = EventId::new(call.now, &*self.random);
                let (step_id, client_name) = (step_id.clone(), call.client_name.clone());
                let is_end = *kind == EventKind::Completed;
                let took_ms = is_end.then(|| call.now.since(subject.started_at).max(0));
                let details = EventDetails { kind: *kind, step_id, client_name, elapsed_ms, took_ms };
                batch.add_event(id, &call.key, subject, details, call.now);
                elapsed_ms = Some(0);
            }
        }
        if let (Some(from), Some(put)) = (&change.copy_completions_from, &change.upsert) {
            batch.copy_completions(from.clone(), put.id.clone());
        }
    }
}
