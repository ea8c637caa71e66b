//! Writes changes to attempts without reading the attempts first.
//!
//! The caller has computed the changes to open attempts from states that it remembers. The changes are written if every
//! attempt still has its remembered state; otherwise nothing is written (compare-and-swap). The whole state is compared
//! instead of a revision number, so that every other change to a row is detected, regardless of its origin: joins, a
//! restore, and processes of an earlier version during an upgrade, which would not increment a number. A row that has
//! changed and then returned to the remembered state is harmless, because a decision depends on nothing but the state.
//!
//! The first attempt of a new end user is written with the end user, so it needs no condition. This is done only on
//! PostgreSQL, where a transaction would need six more round trips.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use serde::Serialize;
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, Postgres};
use waypost_core::Timestamp;
use waypost_core::id::{ProgressId, VersionId};
use waypost_core::progress::{Attempt, AttemptState};

use super::{Batch, ProgressKey, sqlite, statements, unserializable};
use crate::db::Db;
use crate::error::Result;

/// In-place changes to open attempts, and first attempts of new end users, with the rows that accompany them.
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
pub(super) struct ChangeRow<'a> {
    pub(super) id: &'a ProgressId,
    pub(super) status: &'static str,
    pub(super) completed_steps: String,
    pub(super) completed_at: Option<Timestamp>,
    pub(super) last_activity_at: Timestamp,
    pub(super) version_id: &'a VersionId,
    pub(super) seen_completed_steps: String,
    pub(super) seen_started_at: Timestamp,
    pub(super) seen_last_activity_at: Timestamp,
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

    /// Returns the rows that accompany the changes.
    pub(super) fn rows(&self) -> &Batch {
        &self.rows
    }

    /// Returns the changes as rows.
    pub(super) fn change_rows(&self) -> impl Iterator<Item = ChangeRow<'_>> {
        self.changes.iter().map(Change::row)
    }
}

/// Writes a batch in its own transaction if all attempts still have their remembered states. Returns the batch and the
/// number of statements, or `None` if an attempt has another state; nothing is written in that case.
///
/// # Errors
/// Returns an error if the database fails or rejects a row. Nothing is written in that case either, unless the
/// connection is lost during the commit ([`crate::Error::is_unavailable`]).
pub(crate) async fn write_unread(
    db: &Db,
    kept: &mut KeptConnection,
    batch: UnreadBatch,
) -> Result<Option<(UnreadBatch, u64)>> {
    if !batch.changes.iter().all(Change::is_comparable) {
        return Ok(None);
    }
    match db {
        Db::Sqlite { write, .. } => {
            let work = |conn: &mut _| {
                let written = sqlite::write_unread(conn, &batch)?;
                Ok(written.map(|statements| (batch, statements)))
            };
            write.run(work).await
        }
        Db::Postgres(pool) => {
            let mut conn = match kept.0.take() {
                Some(conn) => conn,
                None => Box::pin(pool.acquire()).await?,
            };
            let written = write_postgres(&mut conn, &batch).await?;
            kept.0 = Some(conn);
            Ok(written.then_some((batch, 1)))
        }
    }
}

/// A PostgreSQL connection that a writer task reuses for its next group, because the pool checks each returned
/// connection with two round trips. It is dropped if a statement fails.
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

/// Returns whether the batch was written.
async fn write_postgres(conn: &mut PgConnection, batch: &UnreadBatch) -> Result<bool> {
    // Rows are locked in this order.
    let mut changes: Vec<_> = batch.change_rows().collect();
    changes.sort_unstable_by_key(|change| change.id);
    let Batch { end_users, sessions, opened, completions, events, tool_calls, .. } = &batch.rows;
    let statements = statements::postgres();
    let text = if opened.is_empty() { &statements.in_place } else { &statements.unread };
    let mut query = sqlx::query_scalar(text.as_str())
        .bind(to_json(&changes)?)
        .bind(to_json(completions)?)
        .bind(to_json(events)?)
        .bind(to_json(tool_calls)?)
        .bind(i64::try_from(changes.len()).unwrap_or(i64::MAX));
    if !opened.is_empty() {
        query = query.bind(to_json(end_users)?).bind(to_json(sessions)?).bind(to_json(opened)?);
    }
    Ok(query.fetch_one(conn).await?)
}

fn to_json<T: Serialize>(rows: &[T]) -> Result<String> {
    serde_json::to_string(rows).map_err(unserializable)
}
