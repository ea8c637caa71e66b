//! Attempts with their completions and events: batched writes and reads.

mod attempts;
pub(crate) mod sqlite;
mod statements;
mod unread;

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use sqlx::PgConnection;
use waypost_core::Timestamp;
use waypost_core::event::EventKind;
use waypost_core::id::{EndUserId, EventId, OrganizationId, ProgressId, ServerId, StepId, VersionId, WalkthroughId};
use waypost_core::progress::{Attempt, AttemptState, Status};
use waypost_core::webhook::NewDelivery;

use self::attempts::AttemptRow;
pub use self::attempts::{
    OpenAttempt, find_open, find_open_with_step, list_attempts, list_completions, list_open, summarize_open,
};
pub(crate) use self::unread::{KeptConnection, UnreadBatch, write_unread};
use crate::db::{Conn, Raw};
use crate::error::{Error, Result};
use crate::session::NewSession;
use crate::tool_call::ToolCall;

/// Identifies an end user's progress in a walkthrough on a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProgressKey {
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The end user.
    pub end_user_id: EndUserId,
    /// The server.
    pub server_id: ServerId,
    /// The walkthrough.
    pub walkthrough_id: WalkthroughId,
}

/// An end user who is created with their first progress.
#[derive(Debug, Clone, Serialize)]
pub struct NewEndUser {
    /// The ID.
    pub id: EndUserId,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The tracking ID, if any.
    pub tracking_id: Option<String>,
    /// The claimed, unverified email address. It is never used to identify an end user.
    pub claimed_email: Option<String>,
    /// Whether this is a console user who tries a server. Such end users are not counted.
    pub is_test: bool,
    /// The creation time.
    pub created_at: Timestamp,
}

#[derive(Serialize)]
struct ProgressRow {
    id: ProgressId,
    organization_id: OrganizationId,
    end_user_id: EndUserId,
    server_id: ServerId,
    walkthrough_id: WalkthroughId,
    version_id: VersionId,
    status: &'static str,
    completed_steps: String,
    started_at: Timestamp,
    completed_at: Option<Timestamp>,
    last_activity_at: Timestamp,
    closed_at: Option<Timestamp>,
    metadata: String,
}

#[derive(Serialize)]
struct CompletionRow {
    progress_id: ProgressId,
    step_id: StepId,
    version_id: VersionId,
    completed_at: Timestamp,
}

#[derive(Serialize)]
struct EventRow {
    id: EventId,
    organization_id: OrganizationId,
    server_id: ServerId,
    walkthrough_id: WalkthroughId,
    end_user_id: EndUserId,
    progress_id: ProgressId,
    version_id: VersionId,
    step_id: Option<StepId>,
    kind: &'static str,
    created_at: Timestamp,
    client_name: Option<String>,
    elapsed_ms: Option<i64>,
    took_ms: Option<i64>,
}

/// The details of an event of an attempt.
#[derive(Debug, Clone)]
pub(crate) struct EventDetails {
    pub(crate) kind: EventKind,
    pub(crate) step_id: Option<StepId>,
    /// The client's name, as stated by the client.
    pub(crate) client_name: Option<String>,
    /// The time since the attempt's previous activity; `None` for its first event.
    pub(crate) elapsed_ms: Option<i64>,
    /// For a completion, the time since the start of the attempt.
    pub(crate) took_ms: Option<i64>,
}

/// A key in a JSON document.
#[derive(Serialize)]
struct Key<'a> {
    end_user_id: &'a str,
    server_id: &'a str,
    walkthrough_id: &'a str,
}

/// Everything that a group of calls writes.
#[derive(Serialize, Default)]
pub(crate) struct Batch {
    end_users: Vec<NewEndUser>,
    sessions: Vec<NewSession>,
    /// Attempts to close.
    closed: Vec<ProgressRow>,
    /// Attempts to open.
    opened: Vec<ProgressRow>,
    /// Open attempts to update.
    updated: Vec<ProgressRow>,
    completions: Vec<CompletionRow>,
    events: Vec<EventRow>,
    tool_calls: Vec<ToolCall>,
    #[serde(skip)]
    deliveries: Vec<NewDelivery>,
    /// Pairs of attempts: completions are copied from the first to the second.
    #[serde(skip)]
    copies: Vec<(ProgressId, ProgressId)>,
}

impl Batch {
    /// Adds a new end user and their session, if any.
    pub(crate) fn add_end_user(&mut self, end_user: Option<NewEndUser>, session: Option<NewSession>) {
        self.end_users.extend(end_user);
        self.sessions.extend(session);
    }

    /// Adds an attempt in its final state within the group.
    pub(crate) fn add_attempt(&mut self, key: &ProgressKey, attempt: &Attempt, is_new: bool) {
        let (status, completed_at) = status_and_completed_at(attempt);
        let row = ProgressRow {
            id: attempt.id.clone(),
            organization_id: key.organization_id.clone(),
            end_user_id: key.end_user_id.clone(),
            server_id: key.server_id.clone(),
            walkthrough_id: key.walkthrough_id.clone(),
            version_id: attempt.version_id.clone(),
            status,
            completed_steps: attempt.completed.to_hex(),
            started_at: attempt.started_at,
            completed_at,
            last_activity_at: attempt.last_activity_at,
            closed_at: attempt.closed_at,
            metadata: serde_json::Value::Object(attempt.metadata.clone()).to_string(),
        };
        if is_new {
            self.opened.push(row);
        } else if attempt.closed_at.is_some() {
            self.closed.push(row);
        } else {
            self.updated.push(row);
        }
    }

    /// Adds a completed step.
    pub(crate) fn add_completion(&mut self, attempt: &Attempt, step_id: StepId, at: Timestamp) {
        self.completions.push(CompletionRow {
            progress_id: attempt.id.clone(),
            step_id,
            version_id: attempt.version_id.clone(),
            completed_at: at,
        });
    }

    /// Adds an event.
    pub(crate) fn add_event(
        &mut self,
        id: EventId,
        key: &ProgressKey,
        attempt: &Attempt,
        details: EventDetails,
        at: Timestamp,
    ) {
        let EventDetails { kind, step_id, client_name, elapsed_ms, took_ms } = details;
        self.events.push(EventRow {
            id,
            organization_id: key.organization_id.clone(),
            server_id: key.server_id.clone(),
            walkthrough_id: key.walkthrough_id.clone(),
            end_user_id: key.end_user_id.clone(),
            progress_id: attempt.id.clone(),
            version_id: attempt.version_id.clone(),
            step_id,
            kind: kind.as_str(),
            created_at: at,
            client_name,
            elapsed_ms,
            took_ms,
        });
    }

    /// Copies the completions of `from` to `to`.
    pub(crate) fn copy_completions(&mut self, from: ProgressId, to: ProgressId) {
        self.copies.push((from, to));
    }

    /// Adds the record of a call, if any.
    pub(crate) fn add_tool_call(&mut self, record: Option<ToolCall>) {
        self.tool_calls.extend(record);
    }

    /// Adds webhook deliveries.
    pub(crate) fn add_deliveries(&mut self, deliveries: Vec<NewDelivery>) {
        self.deliveries.extend(deliveries);
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.opened.is_empty() && self.updated.is_empty() && self.tool_calls.is_empty()
    }
}

/// Returns the open attempts of all `keys`. On PostgreSQL, locks their rows until the end of the transaction.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub(crate) async fn lock_open<'k>(
    conn: &mut Conn,
    keys: impl Iterator<Item = &'k ProgressKey>,
) -> Result<HashMap<ProgressKey, Attempt>> {
    match conn.raw() {
        Raw::Sqlite(c) => {
            let mut found = HashMap::new();
            for key in keys {
                let query = sqlx::query_as(statements::sqlite().find.as_str())
                    .bind(key.end_user_id.as_str())
                    .bind(key.server_id.as_str())
                    .bind(key.walkthrough_id.as_str());
                let row: Option<AttemptRow> = query.fetch_optional(&mut *c).await?;
                if let Some(row) = row {
                    found.insert(key.clone(), row.try_into()?);
                }
            }
            Ok(found)
        }
        Raw::Postgres(c) => lock_open_postgres(c, keys).await,
    }
}

/// Returns the open attempts of all `keys` with one query, and locks their rows until the end of the transaction.
///
/// # Errors
/// The same as for [`lock_open`].
pub(crate) async fn lock_open_postgres<'k>(
    conn: &mut PgConnection,
    keys: impl Iterator<Item = &'k ProgressKey>,
) -> Result<HashMap<ProgressKey, Attempt>> {
    // Rows are locked in this sorted order.
    let by_parts: BTreeMap<(&str, &str, &str), &ProgressKey> = keys
        .map(|key| ((key.end_user_id.as_str(), key.server_id.as_str(), key.walkthrough_id.as_str()), key))
        .collect();
    let keys: Vec<Key<'_>> = by_parts
        .keys()
        .map(|&(end_user_id, server_id, walkthrough_id)| Key { end_user_id, server_id, walkthrough_id })
        .collect();
    let document = serde_json::json!({ "keys": keys }).to_string();
    let rows: Vec<AttemptRow> =
        sqlx::query_as(statements::postgres().find.as_str()).bind(document).fetch_all(conn).await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        let parts = (row.end_user_id.as_str(), row.server_id.as_str(), row.walkthrough_id.as_str());
        if let Some(key) = by_parts.get(&parts) {
            found.insert((*key).clone(), row.try_into()?);
        }
    }
    Ok(found)
}

/// Writes a batch on PostgreSQL. Returns the number of statements.
///
/// # Errors
/// Returns an error if the database fails. The transaction must then be dropped.
pub(crate) async fn write_postgres(conn: &mut PgConnection, batch: &Batch) -> Result<u64> {
    let statements = statements::postgres();
    // Attempts are closed before others are opened, so that the unique index on open attempts holds after every
    // statement.
    let mut count = execute_json(conn, &statements.end_users, "end_users", &batch.end_users).await?;
    count += execute_json(conn, &statements.sessions, "sessions", &batch.sessions).await?;
    count += execute_json(conn, &statements.close, "closed", &batch.closed).await?;
    count += execute_json(conn, &statements.open, "opened", &batch.opened).await?;
    let document = serde_json::to_string(batch).map_err(unserializable)?;
    sqlx::query(statements.advance.as_str()).bind(document).execute(&mut *conn).await?;
    count += execute_json(conn, &statements.deliveries, "deliveries", &batch.deliveries).await?;
    for (from, to) in &batch.copies {
        sqlx::query(statements::COPY).bind(to.as_str()).bind(from.as_str()).execute(&mut *conn).await?;
    }
    Ok(count + 1 + batch.copies.len() as u64)
}

/// Runs a statement with the rows as one JSON document. Returns the number of statements: 0 if there are no rows.
async fn execute_json<T: Serialize>(
    conn: &mut PgConnection,
    sql: &'static str,
    name: &'static str,
    rows: &[T],
) -> Result<u64> {
    if rows.is_empty() {
        return Ok(0);
    }
    let document = serde_json::to_string(&HashMap::from([(name, rows)])).map_err(unserializable)?;
    sqlx::query(sql).bind(document).execute(conn).await?;
    Ok(1)
}

fn status_and_completed_at(attempt: &Attempt) -> (&'static str, Option<Timestamp>) {
    match attempt.state {
        AttemptState::InProgress => (Status::InProgress.as_str(), None),
        AttemptState::Completed { at } => (Status::Completed.as_str(), Some(at)),
    }
}

fn unserializable(error: serde_json::Error) -> Error {
    Error::Corrupt { table: "progress", id: String::new(), reason: error.to_string() }
}
