//! Database connections: one set of queries for SQLite and PostgreSQL.
//!
//! A query is written once, as the body of [`on!`](crate::on), and compiled for both databases. Placeholders are `$1`,
//! `$2`, which both support. Separate queries exist only where the dialects differ.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{Connection, PgConnection, Postgres, Sqlite, SqliteConnection, Transaction};

use crate::error::{Error, Result};
use crate::sqlite::{Pragmas, SqliteWriter, Turn};

/// The maximum number of read-only connections to SQLite. Several are useful even on one core, because a reader may
/// wait for the disk.
const SQLITE_READERS: u32 = 4;
/// The settings of SQLite connections that write. Readers override some of them.
const SQLITE_PRAGMAS: Pragmas = &[
    ("journal_mode", "wal"),
    // An acknowledged step survives a power cut: the log is synced before the commit returns.
    ("synchronous", "full"),
    ("foreign_keys", "on"),
    ("temp_store", "memory"),
    // The size in bytes to which the write-ahead log is truncated after a checkpoint. It grows while a backup reads.
    ("journal_size_limit", "16777216"),
    // The size of the page cache (negative values are in KiB). It is small, because several connections hold the same
    // pages, and the operating system caches the file as well.
    ("cache_size", "-4096"),
];
const READER_CACHE: &str = "-1024";
/// The maximum number of connections to PostgreSQL.
const POSTGRES_CONNECTIONS: u32 = 16;
/// The time that a call waits for a connection, for another process's write or for PostgreSQL before it fails as
/// `unavailable`.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that has been idle for less than this is reused without a check, which would take as long as most
/// statements.
const MAX_UNCHECKED: Duration = Duration::from_secs(1);
/// The timeout for the check of a connection.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// PostgreSQL terminates a session that is idle in a transaction for this long. Otherwise, if the network is
/// interrupted, it would hold the transaction's locks for two hours.
const IDLE_IN_TRANSACTION: &str = "60s";

/// An open database.
#[derive(Debug, Clone)]
pub enum Db {
    /// SQLite: read-only connections, and a writer, in which writes queue instead of waiting for the file's lock.
    Sqlite {
        /// Read-only connections.
        read: SqlitePool,
        /// The connections that write.
        write: SqliteWriter,
    },
    /// PostgreSQL.
    Postgres(PgPool),
}

tokio::task_local! {
    /// The number of statements and transactions of the task, counted by [`count_statements`].
    static STATEMENTS: Cell<usize>;
}

/// Runs `work` and returns its result with the number of statements and transactions that it sent. Tests use it to
/// check that two requests have the same cost.
pub async fn count_statements<T>(work: impl Future<Output = T>) -> (T, usize) {
    let counting = async {
        let result = work.await;
        (result, STATEMENTS.with(Cell::get))
    };
    STATEMENTS.scope(Cell::new(0), counting).await
}

fn count_statement() {
    // Outside `count_statements` there is no counter.
    let _ = STATEMENTS.try_with(|count| count.set(count.get() + 1));
}

/// The SQL dialect of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

/// A connection, with or without a transaction.
#[derive(Debug)]
pub struct Conn(Inner);

#[derive(Debug)]
enum Inner {
    SqliteRead(PoolConnection<Sqlite>),
    SqliteSnapshot(Transaction<'static, Sqlite>),
    // The transaction is dropped before the turn ends.
    SqliteWrite(Transaction<'static, Sqlite>, Turn),
    PostgresRead(PoolConnection<Postgres>),
    PostgresWrite(Transaction<'static, Postgres>),
}

/// A transaction. It is rolled back if it is dropped without [`Tx::commit`].
#[derive(Debug)]
pub struct Tx(Conn);

/// The driver's connection.
#[derive(Debug)]
pub enum Raw<'a> {
    /// SQLite.
    Sqlite(&'a mut SqliteConnection),
    /// PostgreSQL.
    Postgres(&'a mut PgConnection),
}

/// Runs one body on the database of a [`Conn`].
///
/// `on!(conn, c => sqlx::query("…").bind(x).execute(&mut *c).await)`
#[macro_export]
macro_rules! on {
    ($conn:expr, $raw:ident => $body:expr) => {
        match $crate::db::Conn::raw($conn) {
            $crate::db::Raw::Sqlite($raw) => $body,
            $crate::db::Raw::Postgres($raw) => $body,
        }
    };
}

impl Db {
    /// Opens the database at `url`: `sqlite://PATH` (created if it does not exist) or `postgres://…`.
    ///
    /// # Errors
    /// Returns an error if the URL has another scheme or the database cannot be opened.
    pub async fn open(url: &str) -> Result<Self> {
        if url.starts_with("sqlite:") {
            Self::open_sqlite(url).await
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Self::open_postgres(url).await
        } else {
            Err(Error::InvalidUrl)
        }
    }

    async fn open_sqlite(url: &str) -> Result<Self> {
        let options = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            .busy_timeout(TIMEOUT)
            .statement_cache_capacity(200);
        let options = SQLITE_PRAGMAS.iter().fold(options, |options, (name, value)| options.pragma(*name, *value));
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(TIMEOUT)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_release(|conn, _| Box::pin(is_outside_transactions(conn)))
            // For new files: free pages can be released (crate::space). Setting this requires the write lock, so
            // readers don't.
            .connect_with(options.clone().auto_vacuum(SqliteAutoVacuum::Incremental))
            .await?;
        let write = SqliteWriter::new(write, options.get_filename(), SQLITE_PRAGMAS, TIMEOUT);
        let read = SqlitePoolOptions::new()
            .max_connections(SQLITE_READERS)
            .acquire_timeout(TIMEOUT)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(
                options.create_if_missing(false).pragma("query_only", "on").pragma("cache_size", READER_CACHE),
            );
        Ok(Self::Sqlite { read, write })
    }

    async fn open_postgres(url: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(url)?
            .application_name("waypost")
            .options([("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION)]);
        let pool = PgPoolOptions::new()
            .max_connections(POSTGRES_CONNECTIONS)
            .acquire_timeout(TIMEOUT)
            // A connection that was just released has just been checked.
            .test_before_acquire(false)
            .before_acquire(|conn, usage| {
                let is_recent = usage.idle_for < MAX_UNCHECKED;
                Box::pin(async move { if is_recent { Ok(true) } else { ping(conn).await } })
            })
            // The pool's own check has no timeout: if the network fails, every abandoned connection would keep its slot
            // in the pool for 15 minutes.
            .after_release(|conn, _| Box::pin(ping(conn)))
            .connect_with(options.clone())
            .await;
        match pool {
            Ok(pool) => Ok(Self::Postgres(pool)),
            // The pool retries until the timeout and discards the cause; one more attempt returns it.
            Err(sqlx::Error::PoolTimedOut) => {
                let result = tokio::time::timeout(TIMEOUT, PgConnection::connect_with(&options)).await;
                Err(result.ok().and_then(std::result::Result::err).unwrap_or(sqlx::Error::PoolTimedOut).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the file of a SQLite URL; `None` for PostgreSQL.
    ///
    /// # Errors
    /// Returns an error if the URL is malformed.
    pub fn sqlite_file(url: &str) -> Result<Option<PathBuf>> {
        if !url.starts_with("sqlite:") {
            return Ok(None);
        }
        Ok(Some(SqliteConnectOptions::from_str(url)?.get_filename().to_owned()))
    }

    /// Returns the SQL dialect of this database.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite { .. } => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Acquires a connection for reading.
    ///
    /// # Errors
    /// Returns an error if no connection is available within five seconds or the database is unavailable.
    pub async fn read(&self) -> Result<Conn> {
        Ok(Conn(match self {
            Self::Sqlite { read, .. } => Inner::SqliteRead(Box::pin(read.acquire()).await?),
            Self::Postgres(pool) => Inner::PostgresRead(Box::pin(pool.acquire()).await?),
        }))
    }

    /// Begins a transaction for writing. On SQLite there is one at a time.
    ///
    /// # Errors
    /// The same as for [`Db::read`].
    pub async fn begin(&self) -> Result<Tx> {
        count_statement();
        Ok(Tx(Conn(match self {
            Self::Sqlite { write, .. } => {
                let (turn, tx) = write.begin().await?;
                Inner::SqliteWrite(tx, turn)
            }
            Self::Postgres(pool) => Inner::PostgresWrite(Box::pin(pool.begin()).await?),
        })))
    }

    /// Begins a read-only transaction that sees one consistent state of the database.
    ///
    /// # Errors
    /// The same as for [`Db::read`].
    pub async fn snapshot(&self) -> Result<Tx> {
        Ok(Tx(Conn(match self {
            Self::Sqlite { read, .. } => Inner::SqliteSnapshot(Box::pin(read.begin()).await?),
            Self::Postgres(pool) => {
                let begin = Box::pin(pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"));
                Inner::PostgresWrite(begin.await?)
            }
        })))
    }

    /// Runs `work` with a timeout on PostgreSQL, because the network may lose messages without an error. SQLite needs
    /// no timeout: its file is local, and the wait for the write lock is bounded.
    ///
    /// # Errors
    /// Returns [`Error::Timeout`] if the time is up. The outcome of the work is then unknown.
    pub async fn with_timeout<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self {
            Self::Sqlite { .. } => work.await,
            Self::Postgres(_) => tokio::time::timeout(TIMEOUT, work).await.unwrap_or(Err(Error::Timeout)),
        }
    }

    /// Closes all connections. On SQLite this also runs a checkpoint of the write-ahead log.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { read, write } => {
                read.close().await;
                write.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// Checks a connection that is not in use. Returns `true` if the server answers.
async fn ping(conn: &mut PgConnection) -> sqlx::Result<bool> {
    match tokio::time::timeout(PING_TIMEOUT, conn.ping()).await {
        Ok(pong) => pong.map(|()| true),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

/// Whether a connection that is returned to its pool can be reused. If the disk fails, SQLite rolls back the
/// transaction automatically (<https://www.sqlite.org/lang_transaction.html>, section 3). The driver's ROLLBACK then
/// fails, and the driver still considers the transaction open and refuses to begin another one.
async fn is_outside_transactions(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    if conn.is_in_transaction() {
        // The rollback of a dropped transaction may still be running.
        conn.ping().await?;
    }
    Ok(!conn.is_in_transaction())
}

impl Conn {
    /// Returns the driver's connection, for [`on!`](crate::on).
    pub fn raw(&mut self) -> Raw<'_> {
        count_statement();
        match &mut self.0 {
            Inner::SqliteRead(conn) => Raw::Sqlite(conn),
            Inner::SqliteSnapshot(tx) | Inner::SqliteWrite(tx, _) => Raw::Sqlite(tx),
            Inner::PostgresRead(conn) => Raw::Postgres(conn),
            Inner::PostgresWrite(tx) => Raw::Postgres(tx),
        }
    }

    /// Returns the SQL dialect of this connection.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match &self.0 {
            Inner::SqliteRead(_) | Inner::SqliteSnapshot(_) | Inner::SqliteWrite(..) => Dialect::Sqlite,
            Inner::PostgresRead(_) | Inner::PostgresWrite(_) => Dialect::Postgres,
        }
    }
}

impl Tx {
    /// Commits the transaction.
    ///
    /// # Errors
    /// Returns an error if the database fails or a deferred constraint is violated. Nothing is written in that case.
    pub async fn commit(self) -> Result<()> {
        count_statement();
        match self.0.0 {
            Inner::SqliteSnapshot(tx) => tx.commit().await?,
            Inner::SqliteWrite(tx, turn) => {
                tx.commit().await?;
                drop(turn);
            }
            Inner::PostgresWrite(tx) => tx.commit().await?,
            Inner::SqliteRead(_) | Inner::PostgresRead(_) => {}
        }
        Ok(())
    }
}

impl Deref for Tx {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.0
    }
}
