//! Attempts with their completions and events: batched writes and reads.

mod attempts;
mod statements;
mod unread;

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use sqlx::FromRow;
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
use crate::db::{Conn, Dialect, Raw};
use crate::error::{Error, Result};
use crate::on;
use crate::session::NewSession;
use crate::tool_call::ToolCall;
use crate::values::{Binding, Values};

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

/// The bound values of a key.
#[derive(Serialize)]
struct Key<'a> {
    end_user_id: &'a str,
    server_id: &'a str,
    walkthrough_id: &'a str,
}

impl Values for Key<'_> {
    const COUNT: usize = 3;

    fn bind(&self, query: Binding) -> Binding {
        query.bind(self.end_user_id.to_owned()).bind(self.server_id.to_owned()).bind(self.walkthrough_id.to_owned())
    }
}

/// Binds values in the order of `statements::PROGRESS_CHANGES`.
impl Values for ProgressRow {
    const COUNT: usize = 6;

    fn bind(&self, query: Binding) -> Binding {
        query
            .bind(self.id.to_string())
            .bind(self.version_id.to_string())
            .bind(self.status)
            .bind(self.completed_steps.clone())
            .bind(self.completed_at.map(|at| at.0))
            .bind(self.last_activity_at.0)
    }
}

/// Binds values in the order of `statements::COMPLETION`.
impl Values for CompletionRow {
    const COUNT: usize = 4;

    fn bind(&self, query: Binding) -> Binding {
        query
            .bind(self.progress_id.to_string())
            .bind(self.step_id.to_string())
            .bind(self.version_id.to_string())
            .bind(self.completed_at.0)
    }
}

/// Binds values in the order of `statements::EVENT`.
impl Values for EventRow {
    const COUNT: usize = 13;

    fn bind(&self, query: Binding) -> Binding {
        query
            .bind(self.id.to_string())
            .bind(self.organization_id.to_string())
            .bind(self.server_id.to_string())
            .bind(self.walkthrough_id.to_string())
            .bind(self.end_user_id.to_string())
            .bind(self.progress_id.to_string())
            .bind(self.version_id.to_string())
            .bind(self.step_id.as_ref().map(ToString::to_string))
            .bind(self.kind)
            .bind(self.created_at.0)
            .bind(self.client_name.clone())
            .bind(self.elapsed_ms)
            .bind(self.took_ms)
    }
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

/// Returns the open attempts of all `keys` with one query. On PostgreSQL, locks their rows until the end of the
/// transaction.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub(crate) async fn lock_open<'k>(
    conn: &mut Conn,
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
    let rows: Vec<AttemptRow> = match conn.raw() {
        Raw::Sqlite(c) => {
            let mut rows = Vec::with_capacity(keys.len());
            for query in statements::sqlite().find.queries(&keys).collect::<Vec<_>>() {
                for row in query.fetch_all(&mut *c).await? {
                    rows.push(AttemptRow::from_row(&row)?);
                }
            }
            rows
        }
        Raw::Postgres(c) => {
            let batch = serde_json::json!({ "keys": keys }).to_string();
            sqlx::query_as(statements::postgres().find.as_str()).bind(batch).fetch_all(c).await?
        }
    };
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        let parts = (row.end_user_id.as_str(), row.server_id.as_str(), row.walkthrough_id.as_str());
        if let Some(key) = by_parts.get(&parts) {
            found.insert((*key).clone(), row.try_into()?);
        }
    }
    Ok(found)
}

/// Writes a batch. Returns the number of statements.
///
/// # Errors
/// Returns an error if the database fails. The transaction must then be dropped.
pub(crate) async fn write(conn: &mut Conn, batch: &Batch) -> Result<u64> {
    let mut count = batch.copies.len() as u64;
    let json = match conn.dialect() {
        Dialect::Sqlite => &statements::sqlite().json,
        Dialect::Postgres => &statements::postgres().json,
    };
    // Attempts are closed before others are opened, so that the unique index on open attempts holds after every
    // statement.
    count += execute_json(conn, &json.end_users, "end_users", &batch.end_users).await?;
    count += execute_json(conn, &json.sessions, "sessions", &batch.sessions).await?;
    count += execute_json(conn, &json.close, "closed", &batch.closed).await?;
    count += execute_json(conn, &json.open, "opened", &batch.opened).await?;
    match conn.raw() {
        Raw::Sqlite(c) => {
            let statements = statements::sqlite();
            count += statements.progress.run(c, &batch.updated).await?;
            count += statements.completions.run(c, &batch.completions).await?;
            count += statements.events.run(c, &batch.events).await?;
            count += statements.tool_calls.run(c, &batch.tool_calls).await?;
        }
        Raw::Postgres(c) => {
            let document = serde_json::to_string(batch).map_err(unserializable)?;
            sqlx::query(statements::postgres().advance.as_str()).bind(document).execute(c).await?;
            count += 1;
        }
    }
    count += execute_json(conn, &json.deliveries, "deliveries", &batch.deliveries).await?;
    for (from, to) in &batch.copies {
        const COPY: &str = "INSERT INTO step_completions (progress_id, step_id, version_id, completed_at)
            SELECT $1, step_id, version_id, completed_at FROM step_completions WHERE progress_id = $2";
        on!(conn, c => sqlx::query(COPY).bind(to.as_str()).bind(from.as_str()).execute(c).await?.rows_affected());
    }
    Ok(count)
}

/// Runs a statement with the rows as one JSON document. Returns the number of statements: 0 if there are no rows.
async fn execute_json<T: Serialize>(conn: &mut Conn, sql: &'static str, name: &'static str, rows: &[T]) -> Result<u64> {
    if rows.is_empty() {
        return Ok(0);
    }
    let document = serde_json::to_string(&HashMap::from([(name, rows)])).map_err(unserializable)?;
    on!(conn, c => sqlx::query(sql).bind(document).execute(c).await?.rows_affected());
    Ok(1)
}

fn status_and_completed_at(attempt: &Attempt) -> (&'static str, Option<Timestamp>) {
    match attempt.state {
        AttemptState::InProgress => (Status::InProgress.as_str(), None),
        AttemptState::Completed { at } => (Status::Completed.as_str(), Some(at)),
    }
}

fn unserializable(error: serde_json::Error) -> Error {
    Error::Corrupt { table: "progress", id: String::new(), why: error.to_string() }
}
