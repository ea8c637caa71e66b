//! The two connections that write to a SQLite file.
//!
//! The functions that are written once for both databases use a connection of sqlx, which runs SQLite on a separate
//! thread and wakes the waiting task for every statement. The writer of progress uses the other connection: a thread
//! that runs a whole transaction as one job and replies once.
//!
//! Invariants (`tests/it/sqlite.rs`):
//! - Within a process, the connections are used one at a time, in the order of the requests. They never wait for each
//!   other in SQLite's busy handler, which sleeps between attempts and is not fair. (After an error, the rollback of a
//!   transaction that was dropped may overlap with the next one, which then waits there.)
//! - A job has ended its transaction before another job starts: after a panic or a failed rollback, its connection is
//!   closed, and the next job opens a new one.
//! - Every job gets a result, and [`SqliteWriter::close`] waits for the current job.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use rusqlite::{CachedStatement, Connection, OpenFlags};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{Sqlite, SqlitePool};
use sqlx::{Error as SqlxError, Transaction};
use tokio::sync::{OwnedMutexGuard, oneshot};

use crate::error::{Error, Result};

/// The name of the thread.
const THREAD: &str = "sqlite-writer";

/// The maximum number of prepared statements: more than the writer has.
const STATEMENTS: usize = 32;

/// The settings of a connection, as names and values of pragmas.
pub(crate) type Pragmas = &'static [(&'static str, &'static str)];

/// The connections that write to a SQLite file. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct SqliteWriter {
    pool: SqlitePool,
    /// Held while one of the connections is used. The lock is fair.
    turn: Arc<tokio::sync::Mutex<()>>,
    thread: Arc<Thread>,
    /// The time that a caller waits for its turn.
    timeout: Duration,
}

/// The right to use one of the connections.
pub(crate) type Turn = OwnedMutexGuard<()>;

type Job = Box<dyn FnOnce(&mut ThreadConnection) + Send>;

/// The thread. It is started by the first job, so that commands that do not need it do not open its connection.
#[derive(Debug)]
struct Thread {
    file: PathBuf,
    pragmas: Pragmas,
    busy_timeout: Duration,
    state: Mutex<ThreadState>,
}

#[derive(Debug)]
enum ThreadState {
    NotStarted,
    Running {
        jobs: mpsc::Sender<Job>,
        /// Completes when the thread has closed its connection.
        ended: oneshot::Receiver<()>,
    },
    Closed,
}

impl SqliteWriter {
    /// Creates a writer. `pool` must contain at most one connection, to `file`. The thread's connection gets the
    /// settings `pragmas`. `timeout` limits how long a caller waits for its turn and for other processes.
    pub(crate) fn new(pool: SqlitePool, file: &Path, pragmas: Pragmas, timeout: Duration) -> Self {
        let state = Mutex::new(ThreadState::NotStarted);
        let thread = Thread { file: file.to_owned(), pragmas, busy_timeout: timeout, state };
        Self { pool, turn: Arc::default(), thread: Arc::new(thread), timeout }
    }

    /// Begins a transaction on sqlx's connection. It must be dropped before the turn. It acquires the file's write lock
    /// immediately, because acquiring it later can fail after work has been done.
    ///
    /// # Errors
    /// Returns an error if the connection is not available in time or the database is unavailable.
    pub(crate) async fn begin(&self) -> Result<(Turn, Transaction<'static, Sqlite>)> {
        let turn = self.wait_for_turn().await?;
        Ok((turn, Box::pin(self.pool.begin_with("BEGIN IMMEDIATE")).await?))
    }

    /// Acquires sqlx's connection without a transaction.
    ///
    /// # Errors
    /// The same as for [`SqliteWriter::begin`].
    pub(crate) async fn acquire(&self) -> Result<(Turn, PoolConnection<Sqlite>)> {
        let turn = self.wait_for_turn().await?;
        Ok((turn, Box::pin(self.pool.acquire()).await?))
    }

    /// Runs a job on the thread. If the caller stops waiting, the job runs to completion.
    ///
    /// # Errors
    /// Returns the error of `work`, or an error if the database cannot be opened, is closed, or `work` panics.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = self.wait_for_turn().await?;
        let (reply, result) = oneshot::channel();
        let job = move |conn: &mut ThreadConnection| {
            let result = conn.run(work);
            drop(turn);
            // Fails if the caller no longer waits.
            let _ = reply.send(result);
        };
        self.thread.send(Box::new(job))?;
        result.await.unwrap_or_else(|_| Err(SqlxError::WorkerCrashed.into()))
    }

    /// Closes both connections. The one that is closed last runs a checkpoint of the write-ahead log.
    pub(crate) async fn close(&self) {
        let turn = self.turn.lock().await;
        self.thread.close().await;
        drop(turn);
        self.pool.close().await;
    }

    async fn wait_for_turn(&self) -> Result<Turn> {
        if let Ok(turn) = Arc::clone(&self.turn).try_lock_owned() {
            return Ok(turn);
        }
        let turn = tokio::time::timeout(self.timeout, Arc::clone(&self.turn).lock_owned()).await;
        turn.map_err(|_| SqlxError::PoolTimedOut.into())
    }
}

impl Thread {
    /// Starts the thread if necessary, and sends it a job.
    fn send(&self, mut job: Job) -> Result<()> {
        let mut state = self.state();
        if let ThreadState::Running { jobs, .. } = &*state {
            match jobs.send(job) {
                Ok(()) => return Ok(()),
                // The thread has ended unexpectedly.
                Err(mpsc::SendError(unsent)) => job = unsent,
            }
        }
        if matches!(*state, ThreadState::Closed) {
            return Err(SqlxError::PoolClosed.into());
        }
        let (jobs, received) = mpsc::channel::<Job>();
        let (end, ended) = oneshot::channel();
        let mut conn = ThreadConnection {
            file: self.file.clone(),
            pragmas: self.pragmas,
            busy_timeout: self.busy_timeout,
            conn: None,
        };
        let run = move || {
            for job in received {
                job(&mut conn);
            }
            drop(conn);
            let _ = end.send(());
        };
        std::thread::Builder::new().name(THREAD.to_owned()).spawn(run).map_err(SqlxError::Io)?;
        jobs.send(job).map_err(|_| SqlxError::WorkerCrashed)?;
        *state = ThreadState::Running { jobs, ended };
        Ok(())
    }

    async fn close(&self) {
        let state = std::mem::replace(&mut *self.state(), ThreadState::Closed);
        if let ThreadState::Running { jobs, ended } = state {
            drop(jobs);
            let _ = ended.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, ThreadState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection of the thread, opened by the first job that needs it.
struct ThreadConnection {
    file: PathBuf,
    pragmas: Pragmas,
    busy_timeout: Duration,
    conn: Option<Connection>,
}

impl ThreadConnection {
    fn run<T>(&mut self, work: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        let conn = match &mut self.conn {
            Some(conn) => conn,
            None => {
                let conn = self.open()?;
                self.conn.insert(conn)
            }
        };
        let result = catch_unwind(AssertUnwindSafe(|| work(conn)));
        if result.is_err() || !conn.is_autocommit() {
            // Closing the connection rolls the transaction back.
            self.conn = None;
        }
        result.unwrap_or_else(|_| {
            tracing::error!("a job of the SQLite writer panicked");
            Err(SqlxError::WorkerCrashed.into())
        })
    }

    fn open(&self) -> Result<Connection> {
        // The flags of sqlx's connection.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        let conn = Connection::open_with_flags(&self.file, flags)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        conn.busy_timeout(self.busy_timeout)?;
        for (name, value) in self.pragmas {
            conn.execute_batch(&format!("PRAGMA {name} = {value}"))?;
        }
        Ok(conn)
    }
}

/// Prepares a statement, or returns it from the connection's cache, and logs its text as sqlx does.
///
/// # Errors
/// Returns an error if the statement is invalid.
pub(crate) fn prepare<'c>(conn: &'c Connection, sql: &str) -> Result<CachedStatement<'c>> {
    tracing::debug!(statement = sql, "running statement");
    conn.prepare_cached(sql).map_err(Error::from)
}
