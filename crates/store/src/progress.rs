//! Attempts of progress, their completions and events: reading one, and writing many at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde::Serialize;
use waypost_core::Timestamp;
use waypost_core::event::EventKind;
use waypost_core::id::{
    EndUserId, EventId, OrganizationId, ProgressId, ServerId, SessionId, StepId, VersionId, WalkthroughId,
};
use waypost_core::progress::{Attempt, AttemptState, Status, StepSet};

use crate::batch::{self, Column, Kind};
use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;
use crate::tool_call::{self, ToolCall};

/// Whose progress in what, where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProgressKey {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The end user.
    pub end_user_id: EndUserId,
    /// The server.
    pub server_id: ServerId,
    /// The walkthrough.
    pub walkthrough_id: WalkthroughId,
}

/// An end user that comes into being with their first progress.
#[derive(Debug, Clone, Serialize)]
pub struct NewEndUser {
    /// The end user.
    pub id: EndUserId,
    /// Whose they are.
    pub organization_id: OrganizationId,
    /// The organisation's own name of them.
    pub tracking_id: Option<String>,
    /// Now.
    pub created_at: Timestamp,
}

/// A client session that comes into being with the first progress.
#[derive(Debug, Clone, Serialize)]
pub struct NewSession {
    /// The session.
    pub id: SessionId,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The only server on which the handle means anything.
    pub server_id: ServerId,
    /// Whom the handle names.
    pub end_user_id: EndUserId,
    /// SHA-256 of the handle, hexadecimal.
    pub handle_hash: String,
    /// What the client calls itself.
    pub client_name: Option<String>,
    /// The client's version.
    pub client_version: Option<String>,
    /// The protocol revision.
    pub protocol_version: Option<String>,
    /// Now.
    pub created_at: Timestamp,
    /// Now.
    pub last_used_at: Timestamp,
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
}

/// Everything that one group of calls writes.
#[derive(Serialize, Default)]
pub(crate) struct Batch {
    end_users: Vec<NewEndUser>,
    sessions: Vec<NewSession>,
    /// Attempts that end.
    closed: Vec<ProgressRow>,
    /// Attempts that begin.
    opened: Vec<ProgressRow>,
    /// Attempts that go on.
    moved: Vec<ProgressRow>,
    completions: Vec<CompletionRow>,
    events: Vec<EventRow>,
    tool_calls: Vec<ToolCall>,
    /// From which attempt to which completions are copied.
    #[serde(skip)]
    copies: Vec<(ProgressId, ProgressId)>,
}

impl Batch {
    /// Takes over a new end user and their session.
    pub(crate) fn newcomers(&mut self, end_user: Option<NewEndUser>, session: Option<NewSession>) {
        self.end_users.extend(end_user);
        self.sessions.extend(session);
    }

    /// Takes over an attempt in its last form within the group.
    pub(crate) fn attempt(&mut self, key: &ProgressKey, attempt: &Attempt, is_new: bool) {
        let (status, completed_at) = match attempt.state {
            AttemptState::InProgress => (Status::InProgress.as_str(), None),
            AttemptState::Completed { at } => (Status::Completed.as_str(), Some(at)),
        };
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
            self.moved.push(row);
        }
    }

    /// Takes over a completed step.
    pub(crate) fn completion(&mut self, attempt: &Attempt, step_id: StepId, at: Timestamp) {
        self.completions.push(CompletionRow {
            progress_id: attempt.id.clone(),
            step_id,
            version_id: attempt.version_id.clone(),
            completed_at: at,
        });
    }

    /// Takes over an event.
    pub(crate) fn event(
        &mut self,
        id: EventId,
        key: &ProgressKey,
        attempt: &Attempt,
        (kind, step_id): (EventKind, Option<StepId>),
        at: Timestamp,
    ) {
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
        });
    }

    /// Lets `to` take over the completions of `from`.
    pub(crate) fn copy(&mut self, from: ProgressId, to: ProgressId) {
        self.copies.push((from, to));
    }

    /// Takes over the record of a call, where there is one.
    pub(crate) fn tool_calls(&mut self, record: Option<ToolCall>) {
        self.tool_calls.extend(record);
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.opened.is_empty() && self.moved.is_empty() && self.tool_calls.is_empty()
    }
}

struct Statements {
    find: String,
    end_users: String,
    sessions: String,
    close: String,
    open: String,
    /// What an advance writes: four statements on SQLite, one with four parts on PostgreSQL, where a round trip
    /// costs more than a longer text.
    advance: Vec<String>,
}

const KEY: &[Column] = &[("end_user_id", Kind::Text), ("server_id", Kind::Text), ("walkthrough_id", Kind::Text)];
const END_USER: &[Column] =
    &[("id", Kind::Text), ("organization_id", Kind::Text), ("tracking_id", Kind::Text), ("created_at", Kind::Integer)];
const SESSION: &[Column] = &[
    ("id", Kind::Text),
    ("organization_id", Kind::Text),
    ("server_id", Kind::Text),
    ("end_user_id", Kind::Text),
    ("handle_hash", Kind::Text),
    ("client_name", Kind::Text),
    ("client_version", Kind::Text),
    ("protocol_version", Kind::Text),
    ("created_at", Kind::Integer),
    ("last_used_at", Kind::Integer),
];
const PROGRESS: &[Column] = &[
    ("id", Kind::Text),
    ("organization_id", Kind::Text),
    ("end_user_id", Kind::Text),
    ("server_id", Kind::Text),
    ("walkthrough_id", Kind::Text),
    ("version_id", Kind::Text),
    ("status", Kind::Text),
    ("completed_steps", Kind::Text),
    ("started_at", Kind::Integer),
    ("completed_at", Kind::Integer),
    ("last_activity_at", Kind::Integer),
    ("closed_at", Kind::Integer),
    ("metadata", Kind::Text),
];
const PROGRESS_CHANGES: &[Column] = &[
    ("id", Kind::Text),
    ("version_id", Kind::Text),
    ("status", Kind::Text),
    ("completed_steps", Kind::Text),
    ("completed_at", Kind::Integer),
    ("last_activity_at", Kind::Integer),
];
const PROGRESS_END: &[Column] = &[
    ("id", Kind::Text),
    // An attempt may have moved to another version earlier in the same group.
    ("version_id", Kind::Text),
    ("status", Kind::Text),
    ("completed_steps", Kind::Text),
    ("completed_at", Kind::Integer),
    ("last_activity_at", Kind::Integer),
    ("closed_at", Kind::Integer),
];
const COMPLETION: &[Column] = &[
    ("progress_id", Kind::Text),
    ("step_id", Kind::Text),
    ("version_id", Kind::Text),
    ("completed_at", Kind::Integer),
];
const EVENT: &[Column] = &[
    ("id", Kind::Text),
    ("organization_id", Kind::Text),
    ("server_id", Kind::Text),
    ("walkthrough_id", Kind::Text),
    ("end_user_id", Kind::Text),
    ("progress_id", Kind::Text),
    ("version_id", Kind::Text),
    ("step_id", Kind::Text),
    ("kind", Kind::Text),
    ("created_at", Kind::Integer),
];

impl Statements {
    fn new(dialect: Dialect) -> Self {
        let keys = batch::rows(dialect, "keys", KEY);
        const COLUMNS: &str = "progress.id, progress.end_user_id, progress.server_id, progress.walkthrough_id,
            progress.version_id, progress.status, progress.completed_steps, progress.started_at, progress.completed_at,
            progress.last_activity_at, progress.closed_at, progress.metadata";
        const MATCH: &str = "progress.end_user_id = batch.end_user_id AND progress.server_id = batch.server_id
            AND progress.walkthrough_id = batch.walkthrough_id AND progress.closed_at IS NULL";
        // Both texts make the database look each key up in the index, whatever it thinks of the size of the batch. On
        // PostgreSQL the rows are locked in the order of the keys, so that two groups cannot wait for each other.
        let find = match dialect {
            Dialect::Sqlite => format!("SELECT {COLUMNS} FROM {keys} AS batch CROSS JOIN progress WHERE {MATCH}"),
            Dialect::Postgres => format!(
                "SELECT found.* FROM {keys},
                    LATERAL (SELECT {COLUMNS} FROM progress WHERE {MATCH} FOR UPDATE) AS found"
            ),
        };
        let parts = [
            batch::update(dialect, "progress", "moved", PROGRESS_CHANGES),
            batch::insert(dialect, "step_completions", "completions", COMPLETION),
            batch::insert(dialect, "walkthrough_events", "events", EVENT),
            tool_call::insert_sql(dialect),
        ];
        let advance = match dialect {
            Dialect::Sqlite => parts.to_vec(),
            Dialect::Postgres => {
                let [progress, completions, events, calls] = parts;
                vec![format!("WITH p AS ({progress}), c AS ({completions}), e AS ({events}) {calls}")]
            }
        };
        Self {
            find,
            end_users: batch::insert(dialect, "end_users", "end_users", END_USER),
            sessions: batch::insert(dialect, "client_sessions", "sessions", SESSION),
            close: batch::update(dialect, "progress", "closed", PROGRESS_END),
            open: batch::insert(dialect, "progress", "opened", PROGRESS),
            advance,
        }
    }

    fn of(dialect: Dialect) -> &'static Self {
        static SQLITE: LazyLock<Statements> = LazyLock::new(|| Statements::new(Dialect::Sqlite));
        static POSTGRES: LazyLock<Statements> = LazyLock::new(|| Statements::new(Dialect::Postgres));
        match dialect {
            Dialect::Sqlite => &SQLITE,
            Dialect::Postgres => &POSTGRES,
        }
    }
}

/// Reads the open attempts of all `keys` in one query; on PostgreSQL their rows are locked until the end of the
/// transaction.
///
/// # Errors
/// When the database fails, or a row cannot be read.
pub(crate) async fn find_open<'k>(
    conn: &mut Conn,
    keys: impl Iterator<Item = &'k ProgressKey>,
) -> Result<HashMap<ProgressKey, Attempt>> {
    // Sorted: the order in which the rows are locked.
    let by_parts: BTreeMap<(&str, &str, &str), &ProgressKey> = keys
        .map(|key| ((key.end_user_id.as_str(), key.server_id.as_str(), key.walkthrough_id.as_str()), key))
        .collect();
    let rows: Vec<_> = by_parts
        .keys()
        .map(|(end_user, server, walkthrough)| {
            serde_json::json!({ "end_user_id": end_user, "server_id": server, "walkthrough_id": walkthrough })
        })
        .collect();
    let batch = serde_json::json!({ "keys": rows }).to_string();
    let sql = Statements::of(conn.dialect()).find.as_str();
    let rows: Vec<AttemptRow> = on!(conn, c => sqlx::query_as(sql).bind(batch).fetch_all(c).await?);
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        let parts = (row.end_user_id.as_str(), row.server_id.as_str(), row.walkthrough_id.as_str());
        if let Some(key) = by_parts.get(&parts) {
            found.insert((*key).clone(), row.try_into()?);
        }
    }
    Ok(found)
}

/// Writes a batch; says with how many statements.
///
/// # Errors
/// When the database fails: the transaction has to be dropped.
pub(crate) async fn write(conn: &mut Conn, batch: &Batch) -> Result<u64> {
    let statements = Statements::of(conn.dialect());
    let mut due: Vec<(&'static str, String)> = Vec::with_capacity(8);
    // An attempt ends before the next one begins: the index on open attempts holds at every statement.
    add(&mut due, &statements.end_users, "end_users", &batch.end_users)?;
    add(&mut due, &statements.sessions, "sessions", &batch.sessions)?;
    add(&mut due, &statements.close, "closed", &batch.closed)?;
    add(&mut due, &statements.open, "opened", &batch.opened)?;
    match statements.advance.as_slice() {
        [progress, completions, events, calls] => {
            add(&mut due, progress, "moved", &batch.moved)?;
            add(&mut due, completions, "completions", &batch.completions)?;
            add(&mut due, events, "events", &batch.events)?;
            add(&mut due, calls, "tool_calls", &batch.tool_calls)?;
        }
        all => {
            for sql in all {
                due.push((sql, serde_json::to_string(batch).map_err(unwritable)?));
            }
        }
    }
    let count = due.len() + batch.copies.len();
    for (sql, json) in due {
        on!(conn, c => sqlx::query(sql).bind(json).execute(c).await?.rows_affected());
    }
    for (from, to) in &batch.copies {
        const COPY: &str = "INSERT INTO step_completions (progress_id, step_id, version_id, completed_at)
            SELECT $1, step_id, version_id, completed_at FROM step_completions WHERE progress_id = $2";
        on!(conn, c => sqlx::query(COPY).bind(to.as_str()).bind(from.as_str()).execute(c).await?.rows_affected());
    }
    Ok(count as u64)
}

/// A statement with the rows that it unfolds and no others, because the database reads the whole document each time.
/// Nothing when there are none.
fn add<T: Serialize>(
    due: &mut Vec<(&'static str, String)>,
    sql: &'static str,
    name: &'static str,
    rows: &[T],
) -> Result<()> {
    if !rows.is_empty() {
        let document = HashMap::from([(name, rows)]);
        due.push((sql, serde_json::to_string(&document).map_err(unwritable)?));
    }
    Ok(())
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::Corrupt { table: "progress", id: String::new(), why: error.to_string() }
}

#[derive(sqlx::FromRow)]
struct AttemptRow {
    id: String,
    end_user_id: String,
    server_id: String,
    walkthrough_id: String,
    version_id: String,
    status: String,
    completed_steps: String,
    started_at: i64,
    completed_at: Option<i64>,
    last_activity_at: i64,
    closed_at: Option<i64>,
    metadata: String,
}

impl TryFrom<AttemptRow> for Attempt {
    type Error = Error;

    fn try_from(row: AttemptRow) -> Result<Self> {
        let corrupt = |why: String| Error::Corrupt { table: "progress", id: row.id.clone(), why };
        let state = match (row.status.as_str(), row.completed_at) {
            ("in_progress", None) => AttemptState::InProgress,
            ("completed", Some(at)) => AttemptState::Completed { at: Timestamp(at) },
            (status, at) => return Err(corrupt(format!("status {status} with completed_at {at:?}"))),
        };
        let completed = StepSet::from_hex(&row.completed_steps)
            .ok_or_else(|| corrupt("completed_steps is not hexadecimal".to_owned()))?;
        let metadata = serde_json::from_str(&row.metadata).map_err(|error| corrupt(error.to_string()))?;
        Ok(Self {
            id: ProgressId::from_store(row.id),
            version_id: VersionId::from_store(row.version_id),
            completed,
            state,
            started_at: Timestamp(row.started_at),
            last_activity_at: Timestamp(row.last_activity_at),
            closed_at: row.closed_at.map(Timestamp),
            metadata,
        })
    }
}

/// The open attempts of one end user on one server, by walkthrough.
///
/// # Errors
/// When the database fails, or a row cannot be read.
pub async fn list_open(
    conn: &mut Conn,
    organization: &OrganizationId,
    end_user: &EndUserId,
    server: &ServerId,
) -> Result<HashMap<WalkthroughId, Attempt>> {
    const SQL: &str = "SELECT id, end_user_id, server_id, walkthrough_id, version_id, status, completed_steps,
               started_at, completed_at, last_activity_at, closed_at, metadata
        FROM progress WHERE end_user_id = $1 AND server_id = $2 AND organization_id = $3 AND closed_at IS NULL";
    let rows: Vec<AttemptRow> = on!(conn, c => sqlx::query_as(SQL)
        .bind(end_user.as_str()).bind(server.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    rows.into_iter().map(|row| Ok((WalkthroughId::from_store(row.walkthrough_id.clone()), row.try_into()?))).collect()
}

/// The steps that an attempt completed, with the times, in the order of the steps' ids.
///
/// # Errors
/// When the database fails.
pub async fn completions(
    conn: &mut Conn,
    organization: &OrganizationId,
    attempt: &ProgressId,
) -> Result<Vec<(StepId, Timestamp)>> {
    const SQL: &str = "SELECT step_completions.step_id, step_completions.completed_at
        FROM step_completions JOIN progress ON progress.id = step_completions.progress_id
        WHERE step_completions.progress_id = $1 AND progress.organization_id = $2 ORDER BY step_completions.step_id";
    let rows: Vec<(String, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(attempt.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    Ok(rows.into_iter().map(|(step, at)| (StepId::from_store(step), Timestamp(at))).collect())
}

/// Every attempt of one end user at one walkthrough on one server, oldest first, closed ones included.
///
/// # Errors
/// When the database fails, or a row cannot be read.
pub async fn history(conn: &mut Conn, key: &ProgressKey) -> Result<Vec<Attempt>> {
    const SQL: &str = "SELECT id, end_user_id, server_id, walkthrough_id, version_id, status, completed_steps,
               started_at, completed_at, last_activity_at, closed_at, metadata
        FROM progress WHERE organization_id = $1 AND end_user_id = $2 AND server_id = $3 AND walkthrough_id = $4
        ORDER BY id";
    let rows: Vec<AttemptRow> = on!(conn, c => sqlx::query_as(SQL)
        .bind(key.organization_id.as_str()).bind(key.end_user_id.as_str())
        .bind(key.server_id.as_str()).bind(key.walkthrough_id.as_str()).fetch_all(c).await?);
    rows.into_iter().map(Attempt::try_from).collect()
}
