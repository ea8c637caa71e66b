//! The group-committing writer of progress.
//!
//! Calls queue up while a group is being committed; the next group takes what has gathered. A group reads all affected
//! attempts in one query, applies the pure functions in order in memory, writes one multi-row statement per table,
//! commits, and only then answers. Under one client a group is one call; under many the cost of a sync is shared.
//!
//! Invariants:
//! - No answer is given before the commit that it tells of has returned.
//! - Calls on the same attempt take effect in the order in which they were taken from the queue.
//! - A call that fails, fails alone: a group that the database refuses is run again call by call.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use waypost_core::event::EventKind;
use waypost_core::id::{EventId, ProgressId, VersionId};
use waypost_core::progress::{Attempt, Outcome};
use waypost_core::webhook::NewDelivery;
use waypost_core::{Error as ActError, Random, Timestamp};
use waypost_jobs::{Job, Jobs, WorkerHandle};

use crate::db::{Db, Dialect};
use crate::error::{Error, Result};
use crate::progress::{self, Batch, Happened, NewEndUser, ProgressKey};
use crate::session::NewSession;
use crate::tool_call::ToolCall;

/// Calls in a group at most: bounds the memory of a group and the time that others wait for the writer.
const GROUP: usize = 256;
/// Calls that may wait; one more waits at the sender.
const QUEUE: usize = 4_096;
/// The writer's tasks. On PostgreSQL two groups are at work at the same time, each on its own connection.
const WORKERS: [&str; 2] = ["writer", "writer-2"];
/// A group that is at work for so long is stuck: the database is given up on much earlier.
const LATE: Duration = Duration::from_secs(60);
/// How often a group of one call is tried when transactions get into each other's way.
const TRIES: u32 = 5;

/// What a call makes of the attempt that it finds.
#[derive(Debug)]
pub enum Decided {
    /// It takes effect, or finds nothing to change.
    Done(Box<Outcome>),
    /// It needs the content of a version that is not in memory: load it and call again.
    NeedVersion(VersionId),
    /// It is refused.
    Refused(ActError),
}

/// The pure function from the open attempt to what shall be. It may be called more than once.
pub type Decide = Box<dyn Fn(Option<&Attempt>) -> Decided + Send + Sync>;
/// Makes the record of a call from what came of it.
pub type Record = Box<dyn Fn(&Outcome) -> ToolCall + Send + Sync>;
/// Makes the messages to receivers of webhooks from what came of a call.
pub type Announce = Box<dyn Fn(&Outcome) -> Vec<NewDelivery> + Send + Sync>;

/// A call on one progress.
pub struct Call {
    /// Whose progress.
    pub key: ProgressKey,
    /// The end user, when this call makes them; written only when the call changes something.
    pub new_end_user: Option<NewEndUser>,
    /// The session, when this call makes it; written only when the call changes something.
    pub new_session: Option<NewSession>,
    /// What the client calls itself, for the events.
    pub client_name: Option<String>,
    /// The record of the call; written only when the call changes something.
    pub tool_call: Option<Record>,
    /// Whom to tell of it; none when nobody wants to know. Asked only when the call changes something.
    pub announce: Option<Announce>,
    /// What to make of the open attempt.
    pub decide: Decide,
    /// When the call is made.
    pub now: Timestamp,
}

type Answer = oneshot::Sender<Result<Decided>>;

struct Queued {
    call: Call,
    answer: Answer,
}

/// The sending side: clone it freely.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Queued>,
}

impl Writer {
    /// Starts the writer's tasks. They end when every [`Writer`] is dropped and the queue is empty.
    #[must_use]
    pub fn start(db: Db, random: Arc<dyn Random>) -> (Self, Vec<tokio::task::JoinHandle<()>>) {
        Self::start_in(&Jobs::default(), db, random)
    }

    /// Starts the writer's tasks as workers among `jobs`. They end as those of [`Writer::start`].
    #[must_use]
    pub fn start_in(jobs: &Jobs, db: Db, random: Arc<dyn Random>) -> (Self, Vec<tokio::task::JoinHandle<()>>) {
        let (queue, calls) = mpsc::channel(QUEUE);
        let calls = Arc::new(Mutex::new(calls));
        // SQLite has one writer by nature.
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

    /// Makes a call and waits until what it decided is on disk.
    ///
    /// # Errors
    /// When the database fails, or the writer has stopped. Nothing was changed then, unless the database is away
    /// ([`Error::is_unavailable`]): it may have been lost with its answer to the commit.
    pub async fn call(&self, call: Call) -> Result<Decided> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Queued { call, answer }).await.map_err(|_| Error::Stopped)?;
        metrics::gauge!("waypost_writer_queue_depth").set(self.depth() as f64);
        answered.await.map_err(|_| Error::Stopped)?
    }

    /// How many calls wait.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

/// Calls what came along with a call: the record is made only of one that changes something.
fn decide_and_record(call: &Call, attempt: Option<&Attempt>) -> (Decided, Option<ToolCall>, Vec<NewDelivery>) {
    let decided = (call.decide)(attempt);
    let changed = match &decided {
        Decided::Done(outcome) if !outcome.change.is_empty() => Some(outcome),
        _ => None,
    };
    let record = changed.zip(call.tool_call.as_ref()).map(|(outcome, record)| record(outcome));
    let news = changed.zip(call.announce.as_ref()).map(|(outcome, announce)| announce(outcome)).unwrap_or_default();
    (decided, record, news)
}

/// Tells all of them of the same failure.
fn refuse_all(answers: impl IntoIterator<Item = Answer>, error: impl Into<Arc<Error>>) {
    let error = error.into();
    for answer in answers {
        let _ = answer.send(Err(Error::Group(Arc::clone(&error))));
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
            // Whoever holds the lock takes all that has gathered; the next worker takes what comes after.
            if calls.lock().await.recv_many(&mut group, GROUP).await == 0 {
                return;
            }
            let _busy = handle.begin_item();
            self.answer(group).await;
        }
    }

    async fn answer(&self, group: Vec<Queued>) {
        // Whoever has given up waiting was promised nothing, and may have tried again meanwhile.
        let wanted = group.into_iter().filter(|job| !job.answer.is_closed());
        let (calls, answers): (Vec<_>, Vec<_>) = wanted.map(|job| (job.call, job.answer)).unzip();
        if calls.is_empty() {
            return;
        }
        match self.commit(&calls).await {
            Ok(decided) => {
                for (answer, decided) in answers.into_iter().zip(decided) {
                    // A caller that has gone away does not need the answer; what it asked for is done.
                    let _ = answer.send(Ok(decided));
                }
            }
            // Nobody's call is to blame when the database is away, and asking again for each would only take longer.
            Err(error) if error.is_unavailable() => refuse_all(answers, error),
            Err(_) => {
                if calls.len() > 1 {
                    metrics::counter!("waypost_writer_groups_split_total").increment(1);
                }
                self.answer_each(&calls, answers).await;
            }
        }
    }

    /// Runs the calls of a group that failed one by one.
    async fn answer_each(&self, calls: &[Call], answers: Vec<Answer>) {
        let mut answers = answers.into_iter();
        for (call, answer) in calls.iter().zip(answers.by_ref()) {
            match self.commit_alone(call).await {
                Err(error) if error.is_unavailable() => {
                    let error = Arc::new(error);
                    let _ = answer.send(Err(Error::Group(Arc::clone(&error))));
                    return refuse_all(answers, error);
                }
                decided => {
                    let _ = answer.send(decided);
                }
            }
        }
    }

    /// Runs a single call, again as long as it is another transaction that stands in its way: also one that opened the
    /// same attempt first, which the next try will find.
    async fn commit_alone(&self, call: &Call) -> Result<Decided> {
        let mut tries = 1;
        loop {
            match self.commit(std::slice::from_ref(call)).await {
                Ok(mut decided) => return decided.pop().ok_or(Error::Stopped),
                Err(error)
                    if (error.is_conflict_between_transactions() || error.is_unique_violation()) && tries < TRIES =>
                {
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Runs a group in one transaction.
    async fn commit(&self, calls: &[Call]) -> Result<Vec<Decided>> {
        self.db.in_time(self.commit_in_one(calls)).await
    }

    async fn commit_in_one(&self, calls: &[Call]) -> Result<Vec<Decided>> {
        let mut tx = self.db.begin().await?;
        let open = progress::find_open(&mut tx, calls.iter().map(|call| &call.key)).await?;
        let (decided, batch) = self.decide(calls, open);
        // BEGIN, the SELECT and COMMIT come on top of what the batch needs.
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
        Ok(decided)
    }

    /// Applies the calls in order in memory.
    fn decide(&self, calls: &[Call], mut open: HashMap<ProgressKey, Attempt>) -> (Vec<Decided>, Batch) {
        let mut batch = Batch::default();
        // An attempt may change several times within a group: only its last form is written.
        let mut touched: HashMap<ProgressId, (usize, Attempt, bool)> = HashMap::new();
        let mut order = Vec::new();
        let mut decided = Vec::with_capacity(calls.len());
        for (at, call) in calls.iter().enumerate() {
            // A fault in one call's functions must not take the writer down with it.
            let (answer, record, news) =
                catch_unwind(AssertUnwindSafe(|| decide_and_record(call, open.get(&call.key)))).unwrap_or_else(|_| {
                    (Decided::Refused(ActError::internal("a call on progress panicked")), None, Vec::new())
                });
            if let Decided::Done(outcome) = &answer
                && !outcome.change.is_empty()
            {
                let change = &outcome.change;
                batch.newcomers(call.new_end_user.clone(), call.new_session.clone());
                for (attempt, is_new) in change.close.iter().map(|attempt| (attempt, false)).chain(
                    change.upsert.iter().map(|put| (put, open.get(&call.key).is_none_or(|old| old.id != put.id))),
                ) {
                    let entry = touched.entry(attempt.id.clone()).or_insert_with(|| {
                        order.push(attempt.id.clone());
                        (at, attempt.clone(), is_new)
                    });
                    entry.1 = attempt.clone();
                }
                self.describe(call, outcome, open.get(&call.key), &mut batch);
                batch.tool_calls(record);
                batch.deliveries(news);
                match &change.upsert {
                    Some(put) => open.insert(call.key.clone(), put.clone()),
                    None => open.remove(&call.key),
                };
            }
            decided.push(answer);
        }
        for id in order {
            if let Some((at, attempt, is_new)) = touched.get(&id) {
                batch.attempt(&calls[*at].key, attempt, *is_new);
            }
        }
        (decided, batch)
    }

    /// Completion, copies and events of one call.
    fn describe(&self, call: &Call, outcome: &Outcome, before: Option<&Attempt>, batch: &mut Batch) {
        let change = &outcome.change;
        if let Some(subject) = change.upsert.as_ref().or(change.close.as_ref()) {
            if let Some(step) = &change.completion {
                batch.completion(subject, step.clone(), call.now);
            }
            // The attempt is at hand, and it knows when it was last worked on: no further look is needed.
            let before = before.filter(|attempt| attempt.id == subject.id);
            let mut elapsed_ms = before.map(|attempt| call.now.since(attempt.last_activity_at).max(0));
            for (kind, step_id) in &change.events {
                let id = EventId::new(call.now, &*self.random);
                let (step_id, client_name) = (step_id.clone(), call.client_name.clone());
                let is_end = *kind == EventKind::Completed;
                let took_ms = is_end.then(|| call.now.since(subject.started_at).max(0));
                let happened = Happened { kind: *kind, step_id, client_name, elapsed_ms, took_ms };
                batch.event(id, &call.key, subject, happened, call.now);
                elapsed_ms = Some(0);
            }
        }
        if let (Some(from), Some(put)) = (&change.copy_completions_from, &change.upsert) {
            batch.copy(from.clone(), put.id.clone());
        }
    }
}
