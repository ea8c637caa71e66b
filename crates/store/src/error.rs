//! Errors of the store, and the messages that users see.

use rusqlite::ffi;
use waypost_core::{Code, Error as CoreError};

/// The result of a store function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The message for users if the database is unavailable. It does not claim that nothing was changed: if the response to
/// a commit is lost, the outcome is unknown.
pub const UNAVAILABLE: &str =
    "The database is temporarily unavailable, and this call may not have been saved. Try again later.";

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database rejected a statement or is unavailable.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// SQLite rejected a statement of the writer's thread or is unavailable.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The migrations could not be applied.
    #[error("failed to migrate the database: {0}")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The database was migrated by a newer version of Waypost.
    #[error(
        "the database has schema version {found}, but this program supports versions up to {known}: use a newer version of Waypost"
    )]
    NewerSchema {
        /// The version of the database.
        found: i64,
        /// The newest version that this program supports.
        known: i64,
    },
    /// The database has pending migrations.
    #[error("the database has schema version {found}, but this program requires {known}: run `waypost migrate`")]
    OlderSchema {
        /// The version of the database; 0 if it is empty.
        found: i64,
        /// The version that this program requires.
        known: i64,
    },
    /// A row contains an invalid value.
    #[error("the row {id} of {table} cannot be read: {reason}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The ID of the row.
        id: String,
        /// The reason.
        reason: String,
    },
    /// A value that must be unique is taken, in a case that no database constraint covers.
    #[error("{what} is taken")]
    Taken {
        /// Table and column.
        what: &'static str,
    },
    /// A backup cannot be used.
    #[error("the backup cannot be used: {0}")]
    Backup(String),
    /// A backup cannot be restored into this database, because it is not empty.
    #[error("the database is not empty (table {table} has rows): restore into a new one with --database or --data-dir")]
    NotEmpty {
        /// A table that has rows.
        table: String,
    },
    /// The database URL has an unknown scheme.
    #[error("the database URL must begin with sqlite:// or postgres://")]
    InvalidUrl,
    /// A file operation failed.
    #[error("{what}: {source}")]
    File {
        /// The operation.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The group that contained a call failed. The call itself is not the cause.
    #[error(transparent)]
    Group(std::sync::Arc<Error>),
    /// The database did not respond in time.
    #[error("the database did not respond in time")]
    Timeout,
    /// The writer has stopped, because the process is shutting down.
    #[error("the writer has stopped")]
    WriterStopped,
}

impl Error {
    /// Returns the database's error code: a SQLSTATE or a SQLite result code.
    #[must_use]
    pub fn code(&self) -> Option<String> {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.code().map(std::borrow::Cow::into_owned),
            Self::Sqlite(error) => error.sqlite_error().map(|error| error.extended_code.to_string()),
            Self::Group(error) => error.code(),
            _ => None,
        }
    }

    /// Whether a row with the same unique value already exists.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.is_unique_violation(),
            Self::Sqlite(error) => error.sqlite_error().is_some_and(|error| {
                matches!(error.extended_code, ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY)
            }),
            Self::Taken { .. } => true,
            _ => false,
        }
    }

    /// Whether a row references a row that does not exist, or a deleted row is still referenced.
    #[must_use]
    pub fn is_foreign_key_violation(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.is_foreign_key_violation(),
            Self::Sqlite(error) => {
                error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_CONSTRAINT_FOREIGNKEY)
            }
            _ => false,
        }
    }

    /// Whether the database aborted this transaction because of a deadlock or a serialization conflict (SQLSTATE 40001,
    /// 40P01). A retry may succeed.
    #[must_use]
    pub fn is_conflict_between_transactions(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error))
            if matches!(error.code().as_deref(), Some("40001" | "40P01")))
    }

    /// Whether the database is unavailable, busy, full or read-only, so that the call itself is not the cause.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Group(error) => error.is_unavailable(),
            Self::Sqlite(_) => self.code().is_some_and(|code| is_unavailable_code(&code)),
            Self::WriterStopped | Self::Timeout => true,
            Self::Database(error) => match error {
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed => true,
                sqlx::Error::Database(error) => error.code().is_some_and(|code| is_unavailable_code(&code)),
                _ => false,
            },
            _ => false,
        }
    }
}

/// SQLite's primary result codes are in the low byte (<https://www.sqlite.org/rescode.html>). PostgreSQL's error
/// classes are the first two characters (PostgreSQL manual, appendix A).
fn is_unavailable_code(code: &str) -> bool {
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    const READ_ONLY: u32 = 8;
    const IO_ERROR: u32 = 10;
    const FULL: u32 = 13;
    const CANNOT_OPEN: u32 = 14;
    // A SQLSTATE has five characters; SQLite's extended codes have at most four digits.
    if code.len() == 5 {
        return ["08", "25", "53", "57", "58"].contains(&&code[..2]);
    }
    code.parse::<u32>()
        .is_ok_and(|code| [BUSY, LOCKED, READ_ONLY, IO_ERROR, FULL, CANNOT_OPEN].contains(&(code & 0xff)))
}

impl From<Error> for CoreError {
    fn from(error: Error) -> Self {
        if error.is_unavailable() {
            return Self::new(Code::Unavailable, UNAVAILABLE).caused_by(error);
        }
        if error.is_unique_violation() || error.is_foreign_key_violation() || error.is_conflict_between_transactions() {
            let message = "Another request changed the same object at the same time. Try again.";
            return Self::new(Code::Conflict, message).caused_by(error);
        }
        Self::internal(error)
    }
}
