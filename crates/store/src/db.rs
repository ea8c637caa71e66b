//! The two databases behind one set of queries.
//!
//! A query is written once, as the body of [`on!`], and compiled for both. Placeholders are `$1`, `$2`, which both
//! understand. Where the dialects truly differ, the text differs, and only there.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, PgConnection, Postgres, Sqlite, SqliteConnection, Transaction};

use crate::error::{Error, Result};

/// Read-only connections of SQLite: more than there are cores, because a reader may wait for the disk.
const SQLITE_READERS: u32 = 4;
/// Page caches of SQLite, in KiB when negative: one that writes and a few that read would otherwise hold the same pages
/// several times over; beyond them is the operating system's cache.
const WRITER_CACHE: &str = "-4096";
const READER_CACHE: &str = "-1024";
/// Bytes that the write-ahead log of SQLite keeps after it was folded back into the file: it grows while a backup reads.
const LOG_BYTES: &str = "16777216";
/// Connections to PostgreSQL.
const POSTGRES_CONNECTIONS: u32 = 16;
/// How long a call waits for a connection or for another process's write before it is told `unavailable`.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection that comes back to the pool may take to show that it works.
const RELEASE: Duration = Duration::from_secs(2);
/// After so long without a word in the middle of a transaction PostgreSQL takes its locks away from this program: it is
/// cut off, and nobody tells PostgreSQL for two hours otherwise.
const IDLE_IN_TRANSACTION: &str = "60s";

/// An open database.
#[derive(Debug, Clone)]
pub enum Db {
    /// SQLite: readers that cannot write, and one writer, so that writes queue in memory and not for a file lock.
    Sqlite {
        /// Read-only connections.
        read: SqlitePool,
        /// The one connection that writes.
        write: SqlitePool,
    },
    /// PostgreSQL.
    Postgres(PgPool),
}

tokio::task_local! {
    /// Statements and transactions of the task, while [`count_statements`] counts them.
    static STATEMENTS: Cell<usize>;
}

/// Does `work` and returns with its result how many statements and transactions it sent to the database itself: a test can
/// show with it that two requests cost the same.
pub async fn count_statements<T>(work: impl Future<Output = T>) -> (T, usize) {
    let counting = async {
        let done = work.await;
        (done, STATEMENTS.with(Cell::get))
    };
    STATEMENTS.scope(Cell::new(0), counting).await
}

fn counted() {
    // Nobody counts outside of `count_statements`.
    let _ = STATEMENTS.try_with(|count| count.set(count.get() + 1));
}

/// Which SQL is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

/// A connection, inside of a transaction or not.
#[derive(Debug)]
pub struct Conn(Inner);

#[derive(Debug)]
enum Inner {
    SqliteRead(PoolConnection<Sqlite>),
    SqliteWrite(Transaction<'static, Sqlite>),
    PostgresRead(PoolConnection<Postgres>),
    PostgresWrite(Transaction<'static, Postgres>),
}

/// A transaction that is rolled back when it is dropped without [`Tx::commit`].
#[derive(Debug)]
pub struct Tx(Conn);

/// A connection as the driver wants it.
#[derive(Debug)]
pub enum Raw<'a> {
    /// SQLite.
    Sqlite(&'a mut SqliteConnection),
    /// PostgreSQL.
    Postgres(&'a mut PgConnection),
}

/// Runs one body on whichever database a [`Conn`] belongs to.
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
    /// Opens the database at `url`, `sqlite://PATH` (made when it is not there) or `postgres://…`.
    ///
    /// # Errors
    /// When the URL is of neither kind, or the database cannot be opened.
    pub async fn open(url: &str) -> Result<Self> {
        if url.starts_with("sqlite:") {
            Self::open_sqlite(url).await
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Self::open_postgres(url).await
        } else {
            Err(Error::Url)
        }
    }

    async fn open_sqlite(url: &str) -> Result<Self> {
        let options = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An acknowledged step survives a power cut: the log is synced before the commit returns.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE)
            .pragma("temp_store", "memory")
            .pragma("journal_size_limit", LOG_BYTES)
            .pragma("cache_size", WRITER_CACHE)
            .statement_cache_capacity(200);
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(PATIENCE)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_release(|conn, _| Box::pin(is_outside_of_transactions(conn)))
            // Of a new file: free pages can be given back (crate::space). Setting it takes the write lock, for which a reader would
            // have to wait.
            .connect_with(options.clone().auto_vacuum(SqliteAutoVacuum::Incremental))
            .await?;
        let read = SqlitePoolOptions::new()
            .max_connections(SQLITE_READERS)
            .acquire_timeout(PATIENCE)
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
            .acquire_timeout(PATIENCE)
            // The pool itself asks without a limit of time: on a dead network each connection that was given up on
            // would keep its place in the pool for a quarter of an hour.
            .after_release(|conn, _| {
                Box::pin(async move {
                    match tokio::time::timeout(RELEASE, conn.ping()).await {
                        Ok(answered) => answered.map(|()| true),
                        Err(_) => Err(sqlx::Error::PoolTimedOut),
                    }
                })
            })
            .connect_with(options.clone())
            .await;
        match pool {
            Ok(pool) => Ok(Self::Postgres(pool)),
            // The pool tries until its time is up and forgets why it had to; one more try tells.
            Err(sqlx::Error::PoolTimedOut) => {
                let once = tokio::time::timeout(PATIENCE, PgConnection::connect_with(&options)).await;
                Err(once.ok().and_then(std::result::Result::err).unwrap_or(sqlx::Error::PoolTimedOut).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The file that a SQLite URL names; none for PostgreSQL.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn sqlite_file(url: &str) -> Result<Option<PathBuf>> {
        if !url.starts_with("sqlite:") {
            return Ok(None);
        }
        Ok(Some(SqliteConnectOptions::from_str(url)?.get_filename().to_owned()))
    }

    /// Which SQL this database speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite { .. } => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// A connection to read with.
    ///
    /// # Errors
    /// When none is free within five seconds, or the database is away.
    pub async fn read(&self) -> Result<Conn> {
        Ok(Conn(match self {
            Self::Sqlite { read, .. } => Inner::SqliteRead(read.acquire().await?),
            Self::Postgres(pool) => Inner::PostgresRead(pool.acquire().await?),
        }))
    }

    /// A transaction to write in. On SQLite there is one at a time; it takes the file's write lock at once, because
    /// one that is taken later can fail after work was done.
    ///
    /// # Errors
    /// As [`Db::read`].
    pub async fn begin(&self) -> Result<Tx> {
        counted();
        Ok(Tx(Conn(match self {
            Self::Sqlite { write, .. } => Inner::SqliteWrite(write.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres(pool) => Inner::PostgresWrite(pool.begin().await?),
        })))
    }

    /// A transaction that only reads, and sees one state of the database from its first query on.
    ///
    /// # Errors
    /// As [`Db::read`].
    pub async fn snapshot(&self) -> Result<Tx> {
        Ok(Tx(Conn(match self {
            Self::Sqlite { read, .. } => Inner::SqliteWrite(read.begin().await?),
            Self::Postgres(pool) => {
                Inner::PostgresWrite(pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
            }
        })))
    }

    /// Does `work`, which asks the database, and gives up when PostgreSQL does not answer: a network may lose what is
    /// sent without a word. SQLite's file is here, and its worst case is bounded by the wait for the write lock.
    ///
    /// # Errors
    /// [`Error::Slow`] when the time is up: what became of the work is not known then.
    pub async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self {
            Self::Sqlite { .. } => work.await,
            Self::Postgres(_) => tokio::time::timeout(PATIENCE, work).await.unwrap_or(Err(Error::Slow)),
        }
    }

    /// Closes every connection; on SQLite this also folds the log back into the file.
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

/// Whether a connection that comes back to its pool may be used again. When the disk fails, SQLite ends a transaction by
/// itself (<https://www.sqlite.org/lang_transaction.html>, section 3); the driver's ROLLBACK fails then, and it goes on
/// to believe that the transaction is open and refuses to begin another one.
async fn is_outside_of_transactions(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    if conn.is_in_transaction() {
        // The rollback of what was dropped may still be under way.
        conn.ping().await?;
    }
    Ok(!conn.is_in_transaction())
}

impl Conn {
    /// The driver's connection, for [`on!`].
    pub fn raw(&mut self) -> Raw<'_> {
        counted();
        match &mut self.0 {
            Inner::SqliteRead(conn) => Raw::Sqlite(conn),
            Inner::SqliteWrite(tx) => Raw::Sqlite(tx),
            Inner::PostgresRead(conn) => Raw::Postgres(conn),
            Inner::PostgresWrite(tx) => Raw::Postgres(tx),
        }
    }

    /// Which SQL this connection speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match &self.0 {
            Inner::SqliteRead(_) | Inner::SqliteWrite(_) => Dialect::Sqlite,
            Inner::PostgresRead(_) | Inner::PostgresWrite(_) => Dialect::Postgres,
        }
    }

    /// Tells every process that servers, walkthroughs or assignments changed, as of this transaction.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn touch_config(&mut self) -> Result<()> {
        on!(self, c => sqlx::query("UPDATE config_version SET version = version + 1 WHERE id = 1").execute(c).await?.rows_affected());
        Ok(())
    }

    /// The number that [`Conn::touch_config`] counts up.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn config_version(&mut self) -> Result<i64> {
        Ok(on!(self, c => sqlx::query_scalar("SELECT version FROM config_version WHERE id = 1").fetch_one(c).await?))
    }
}

impl Tx {
    /// Makes everything in this transaction lasting.
    ///
    /// # Errors
    /// When the database fails, or a deferred constraint does not hold: then nothing was written.
    pub async fn commit(self) -> Result<()> {
        counted();
        match self.0.0 {
            Inner::SqliteWrite(tx) => tx.commit().await?,
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
