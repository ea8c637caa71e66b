//! What can go wrong in the store, and what the user is told of it.

use waypost_core::{Code, Error as ActError};

/// Result of a store function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the user is told when the database is away. It does not say that nothing was changed: when the answer to a
/// commit is lost, nobody knows.
pub const UNAVAILABLE: &str = "The store does not answer at the moment, and this call may not have been saved. \
    Try again in a while.";

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused or is away.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The migrations could not be applied.
    #[error("the database could not be brought up to date: {0}")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The database was written by a newer Waypost.
    #[error("the database has schema version {found}, this program knows versions up to {known}: use a newer waypost")]
    NewerSchema {
        /// The version of the database.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// The database is behind and may not be changed.
    #[error("the database has schema version {found}, this program needs {known}: run `waypost migrate`")]
    OlderSchema {
        /// The version of the database; 0 for an empty one.
        found: i64,
        /// The version that this program needs.
        known: i64,
    },
    /// A row holds what cannot be.
    #[error("the row {id} of {table} cannot be read: {why}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The row.
        id: String,
        /// What is wrong with it.
        why: String,
    },
    /// Another row has a value that must be unique, where no constraint of the database says so.
    #[error("{what} is taken")]
    Taken {
        /// Table and column.
        what: &'static str,
    },
    /// A backup cannot be used.
    #[error("the backup cannot be used: {0}")]
    Backup(String),
    /// A backup may only be restored into a database without content.
    #[error(
        "the database has content already (in {table}): restore into a new one, and name it with --database or --data-dir"
    )]
    NotEmpty {
        /// A table with rows.
        table: String,
    },
    /// The URL names no database that Waypost knows.
    #[error("the database URL must begin with sqlite:// or postgres://")]
    Url,
    /// A file could not be used.
    #[error("{what}: {source}")]
    File {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The group that a call was in failed, for no fault of the call's own.
    #[error(transparent)]
    Group(std::sync::Arc<Error>),
    /// The database did not answer in time.
    #[error("the database did not answer in time")]
    Slow,
    /// The writer has stopped: the program is on its way down.
    #[error("the writer has stopped")]
    Stopped,
}

impl Error {
    /// The database's own code: a SQLSTATE, or a result code of SQLite.
    #[must_use]
    pub fn code(&self) -> Option<String> {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.code().map(std::borrow::Cow::into_owned),
            Self::Group(error) => error.code(),
            _ => None,
        }
    }

    /// Whether a row with the same unique value exists.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.is_unique_violation(),
            Self::Taken { .. } => true,
            _ => false,
        }
    }

    /// Whether a row refers to one that is gone.
    #[must_use]
    pub fn is_foreign_key_violation(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.is_foreign_key_violation())
    }

    /// Whether the database chose this transaction as the victim of a deadlock or of a serialization conflict
    /// (SQLSTATE 40001, 40P01): the same call may succeed when it is made again.
    #[must_use]
    pub fn is_conflict_between_transactions(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error))
            if matches!(error.code().as_deref(), Some("40001" | "40P01")))
    }

    /// Whether the database is away, busy, full or read-only: no call is to blame.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Group(error) => error.is_unavailable(),
            Self::Stopped | Self::Slow => true,
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

/// SQLite's primary result codes stand in the low byte (<https://www.sqlite.org/rescode.html>); PostgreSQL's classes
/// are the first two characters (PostgreSQL manual, appendix A).
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

impl From<Error> for ActError {
    fn from(error: Error) -> Self {
        if error.is_unavailable() {
            return Self::new(Code::Unavailable, UNAVAILABLE).caused_by(error);
        }
        if error.is_unique_violation() || error.is_foreign_key_violation() || error.is_conflict_between_transactions() {
            let message = "Somebody else changed the same thing at the same moment. Try again.";
            return Self::new(Code::Conflict, message).caused_by(error);
        }
        Self::internal(error)
    }
}
