//! Writes changes to attempts without reading the attempts first.
//!
//! The caller has decided the changes to open attempts on states that it remembers. The changes are written if every
//! attempt still has its remembered state; otherwise nothing is written (compare-and-swap). The whole state is compared
//! instead of a revision number, so that every other change to a row is detected, regardless of its origin: joins, a
//! restore, and processes of an earlier version during an upgrade, which would not increment a number. A row that has
//! changed and then returned to the remembered state is no problem, because a decision depends on nothing but the
//! state.
//!
//! The first attempt of a new end user is written with the end user, so it needs no condition. This is done only on
//! PostgreSQL, where a transaction would need six more round trips.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use serde::Serialize;
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, Postgres, Sqlite};
use waypost_core::Timestamp;
use waypost_core::id::{ProgressId, VersionId};
use waypost_core::progress::{Attempt, AttemptState};

use super::{Batch, ProgressKey, statements, unserializable};
use crate::db::{Autocommit, Db};
use crate::error::Result;
use crate::values::{Binding, Values, bind_rows};

/// The number of statements of the SQLite transaction: BEGIN, four writes, the check and COMMIT.
const SQLITE_STATEMENTS: u64 = 7;

/// Changes of open attempts in place, and first attempts of new end users, with the rows that accompany them.
#[derive(Default)]
pub(crate) struct UnreadBatch {
    changes: Vec<Change>,
    /// The position of each attempt in `changes`.
    positions: HashMap<ProgressKey, usize>,
    opened: Vec<(ProgressKey, Arc<Attempt>)>,
    rows: Batch,
}

struct Change {
    seen: Arc<Attempt>,
    after: Arc<Attempt>,
}

#[derive(Serialize)]
struct ChangeRow<'a> {
    id: &'a ProgressId,
    status: &'static str,
    completed_steps: String,
    completed_at: Option<Timestamp>,
    last_activity_at: Timestamp,
    version_id: &'a VersionId,
    seen_completed_steps: String,
    seen_started_at: Timestamp,
    seen_last_activity_at: Timestamp,
}

impl Change {
    /// Whether the statements can compare the remembered state: they match only open attempts in progress.
    fn is_comparable(&self) -> bool {
        self.seen.state == AttemptState::InProgress && self.seen.closed_at.is_none()
    }

    fn row(&self) -> ChangeRow<'_> {
        let Self { seen, after } = self;
        let (status, completed_at) = super::status_and_completed_at(after);
        ChangeRow {
            id: &after.id,
            status,
            completed_steps: after.completed.to_hex(),
            completed_at,
            last_activity_at: after.last_activity_at,
            version_id: &seen.version_id,
            seen_completed_steps: seen.completed.to_hex(),
            seen_started_at: seen.started_at,
            seen_last_activity_at: seen.last_activity_at,
        }
    }
}

/// Binds values in the order of `statements::IN_PLACE`.
impl Values for ChangeRow<'_> {
    const COUNT: usize = 9;

    fn bind(&self, query: Binding) -> Binding {
        query
            .bind(self.id.to_string())
            .bind(self.status)
            .bind(self.completed_steps.clone())
            .bind(self.completed_at.map(|at| at.0))
            .bind(self.last_activity_at.0)
            .bind(self.version_id.to_string())
            .bind(self.seen_completed_steps.clone())
            .bind(self.seen_started_at.0)
            .bind(self.seen_last_activity_at.0)
    }
}

impl UnreadBatch {
    /// Adds a change from the state `seen` to `after`. A further change to the same attempt replaces `after`.
    pub(crate) fn add_change(&mut self, key: &ProgressKey, seen: &Arc<Attempt>, after: Arc<Attempt>) {
        match self.positions.entry(key.clone()) {
            Entry::Occupied(position) => self.changes[*position.get()].after = after,
            Entry::Vacant(position) => {
                position.insert(self.changes.len());
                self.changes.push(Change { seen: Arc::clone(seen), after });
            }
        }
    }

    /// Adds the first attempt of a new end user.
    pub(crate) fn add_first_attempt(&mut self, key: &ProgressKey, attempt: Arc<Attempt>) {
        self.rows.add_attempt(key, &attempt, true);
        self.opened.push((key.clone(), attempt));
    }

    /// Returns the rows that accompany the changes.
    pub(crate) fn rows_mut(&mut self) -> &mut Batch {
        &mut self.rows
    }

    /// Returns the new states of the attempts.
    pub(crate) fn into_attempts(self) -> impl Iterator<Item = (ProgressKey, Arc<Attempt>)> {
        let Self { changes, positions, opened, .. } = self;
        positions.into_iter().map(move |(key, position)| (key, Arc::clone(&changes[position].after))).chain(opened)
    }

    /// Returns the number of rows for the table that gets the most.
    fn len(&self) -> usize {
        let Batch { completions, events, tool_calls, .. } = &self.rows;
        self.changes.len().max(completions.len()).max(events.len()).max(tool_calls.len())
    }
}

/// Writes a batch in its own transaction if all attempts still have their remembered states. Returns the number of
/// statements, or `None` if an attempt has another state; nothing is written in that case.
///
/// # Errors
/// Returns an error if the database fails or rejects a row. Nothing is written in that case either, unless the
/// connection is lost during the commit ([`crate::Error::is_unavailable`]).
pub(crate) async fn write_unread(db: &Db, kept: &mut KeptConnection, batch: &UnreadBatch) -> Result<Option<u64>> {
    if !batch.changes.iter().all(Change::is_comparable) {
        return Ok(None);
    }
    // Rows are locked in this order.
    let mut changes: Vec<_> = batch.changes.iter().map(Change::row).collect();
    changes.sort_unstable_by_key(|change| change.id);
    let conn = match kept.0.take() {
        Some(conn) => Autocommit::Postgres(conn),
        None => db.autocommit().await?,
    };
    match conn {
        Autocommit::Sqlite(conn) => write_sqlite(conn, &changes, batch).await,
        Autocommit::Postgres(mut conn) => {
            let written = write_postgres(&mut conn, &changes, batch).await?;
            kept.0 = Some(conn);
            Ok(written)
        }
    }
}

/// A PostgreSQL connection that a writer task reuses for its next group, because the pool checks each returned
/// connection with two round trips. It is dropped if a statement fails. SQLite's only writing connection is not kept.
#[derive(Debug, Default)]
pub(crate) struct KeptConnection(Option<PoolConnection<Postgres>>);

impl KeptConnection {
    /// Whether there is a connection.
    pub(crate) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the connection to the pool.
    pub(crate) fn release(&mut self) {
        self.0 = None;
    }
}

/// Runs the whole transaction as one text: each separately sent statement costs two context switches, because the
/// driver runs SQLite on its own thread.
async fn write_sqlite(
    conn: PoolConnection<Sqlite>,
    changes: &[ChangeRow<'_>],
    batch: &UnreadBatch,
) -> Result<Option<u64>> {
    let Some((text, size)) = statements::sqlite().in_place.for_rows(batch.len()) else { return Ok(None) };
    let Batch { completions, events, tool_calls, .. } = &batch.rows;
    let mut query = bind_rows(sqlx::query(text), changes, size);
    query = query.bind(i64::try_from(changes.len()).unwrap_or(i64::MAX));
    query = bind_rows(query, completions, size);
    query = bind_rows(query, events, size);
    query = bind_rows(query, tool_calls, size);
    let mut conn = TransactionText { conn, is_finished: false };
    let result = query.execute(&mut *conn.conn).await;
    // A failed statement leaves the transaction open.
    conn.is_finished = result.is_ok() || sqlx::raw_sql("ROLLBACK").execute(&mut *conn.conn).await.is_ok();
    match result {
        Ok(_) => Ok(Some(SQLITE_STATEMENTS)),
        Err(sqlx::Error::Database(error)) if error.message() == statements::OUTDATED => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A connection that runs a text with BEGIN and COMMIT, which the driver does not recognise as a transaction. If this
/// is dropped before the transaction has ended, the connection is closed, so that the next user does not continue it.
struct TransactionText {
    conn: PoolConnection<Sqlite>,
    is_finished: bool,
}

impl Drop for TransactionText {
    fn drop(&mut self) {
        if !self.is_finished {
            self.conn.close_on_drop();
        }
    }
}

async fn write_postgres(
    conn: &mut PgConnection,
    changes: &[ChangeRow<'_>],
    batch: &UnreadBatch,
) -> Result<Option<u64>> {
    let Batch { end_users, sessions, opened, completions, events, tool_calls, .. } = &batch.rows;
    let statements = statements::postgres();
    let text = if opened.is_empty() { &statements.in_place } else { &statements.unread };
    let mut query = sqlx::query_scalar(text.as_str())
        .bind(to_json(changes)?)
        .bind(to_json(completions)?)
        .bind(to_json(events)?)
        .bind(to_json(tool_calls)?)
        .bind(i64::try_from(changes.len()).unwrap_or(i64::MAX));
    if !opened.is_empty() {
        query = query.bind(to_json(end_users)?).bind(to_json(sessions)?).bind(to_json(opened)?);
    }
    let is_written: bool = query.fetch_one(conn).await?;
    Ok(is_written.then_some(1))
}

fn to_json<T: Serialize>(rows: &[T]) -> Result<String> {
    serde_json::to_string(rows).map_err(unserializable)
}
