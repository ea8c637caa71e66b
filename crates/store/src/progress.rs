//! Attempts of progress, their completions and events: reading one, and writing many at once.

mod statements;

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use sqlx::FromRow;
use waypost_core::Timestamp;
use waypost_core::event::EventKind;
use waypost_core::id::{EndUserId, EventId, OrganizationId, ProgressId, ServerId, StepId, VersionId, WalkthroughId};
use waypost_core::progress::{Attempt, AttemptState, AttemptSummary, Status, StepSet};
use waypost_core::webhook::NewDelivery;

use crate::db::{Conn, Dialect, Raw};
use crate::error::{Error, Result};
use crate::on;
use crate::session::NewSession;
use crate::tool_call::ToolCall;
use crate::values::{Binding, Values};

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
    /// The address that they claim to have. It proves nothing, and nobody is found by it.
    pub claimed_email: Option<String>,
    /// Whether this is a console user who tries a server: such end users are not counted.
    pub is_test: bool,
    /// Now.
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

/// What happened to an attempt, and how.
#[derive(Debug, Clone)]
pub(crate) struct Happened {
    pub(crate) kind: EventKind,
    pub(crate) step_id: Option<StepId>,
    /// What the client calls itself.
    pub(crate) client_name: Option<String>,
    /// Since the attempt was worked on before; none for its first event.
    pub(crate) elapsed_ms: Option<i64>,
    /// For a completion, since the attempt began.
    pub(crate) took_ms: Option<i64>,
}

/// A key as it is bound.
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

/// In the order of `statements::PROGRESS_CHANGES`.
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

/// In the order of `statements::COMPLETION`.
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

/// In the order of `statements::EVENT`.
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
    #[serde(skip)]
    deliveries: Vec<NewDelivery>,
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
        happened: Happened,
        at: Timestamp,
    ) {
        let Happened { kind, step_id, client_name, elapsed_ms, took_ms } = happened;
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

    /// Lets `to` take over the completions of `from`.
    pub(crate) fn copy(&mut self, from: ProgressId, to: ProgressId) {
        self.copies.push((from, to));
    }

    /// Takes over the record of a call, where there is one.
    pub(crate) fn tool_calls(&mut self, record: Option<ToolCall>) {
        self.tool_calls.extend(record);
    }

    /// Takes over messages to receivers of webhooks.
    pub(crate) fn deliveries(&mut self, deliveries: Vec<NewDelivery>) {
        self.deliveries.extend(deliveries);
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.opened.is_empty() && self.moved.is_empty() && self.tool_calls.is_empty()
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

/// Writes a batch; says with how many statements.
///
/// # Errors
/// When the database fails: the transaction has to be dropped.
pub(crate) async fn write(conn: &mut Conn, batch: &Batch) -> Result<u64> {
    let mut count = batch.copies.len() as u64;
    let rare = match conn.dialect() {
        Dialect::Sqlite => &statements::sqlite().rare,
        Dialect::Postgres => &statements::postgres().rare,
    };
    // An attempt ends before the next one begins: the index on open attempts holds at every statement.
    count += json_rows(conn, &rare.end_users, "end_users", &batch.end_users).await?;
    count += json_rows(conn, &rare.sessions, "sessions", &batch.sessions).await?;
    count += json_rows(conn, &rare.close, "closed", &batch.closed).await?;
    count += json_rows(conn, &rare.open, "opened", &batch.opened).await?;
    match conn.raw() {
        Raw::Sqlite(c) => {
            let statements = statements::sqlite();
            count += statements.progress.run(c, &batch.moved).await?;
            count += statements.completions.run(c, &batch.completions).await?;
            count += statements.events.run(c, &batch.events).await?;
            count += statements.tool_calls.run(c, &batch.tool_calls).await?;
        }
        Raw::Postgres(c) => {
            let document = serde_json::to_string(batch).map_err(unwritable)?;
            sqlx::query(statements::postgres().advance.as_str()).bind(document).execute(c).await?;
            count += 1;
        }
    }
    count += json_rows(conn, &rare.deliveries, "deliveries", &batch.deliveries).await?;
    for (from, to) in &batch.copies {
        const COPY: &str = "INSERT INTO step_completions (progress_id, step_id, version_id, completed_at)
            SELECT $1, step_id, version_id, completed_at FROM step_completions WHERE progress_id = $2";
        on!(conn, c => sqlx::query(COPY).bind(to.as_str()).bind(from.as_str()).execute(c).await?.rows_affected());
    }
    Ok(count)
}

/// Runs a statement over the rows of one JSON document; says how many statements that were: none without rows.
async fn json_rows<T: Serialize>(conn: &mut Conn, sql: &'static str, name: &'static str, rows: &[T]) -> Result<u64> {
    if rows.is_empty() {
        return Ok(0);
    }
    let document = serde_json::to_string(&HashMap::from([(name, rows)])).map_err(unwritable)?;
    on!(conn, c => sqlx::query(sql).bind(document).execute(c).await?.rows_affected());
    Ok(1)
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::Corrupt { table: "progress", id: String::new(), why: error.to_string() }
}

#[derive(FromRow)]
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

/// An open attempt in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenAttempt {
    /// The pinned version.
    pub version_id: VersionId,
    /// What its progress is computed from.
    pub summary: AttemptSummary,
}

/// Returns the open attempts of one end user on one server, by walkthrough, with the steps of their pinned versions. Reads
/// no content: one query, a few dozen bytes per attempt.
///
/// # Errors
/// When the database fails, or a row cannot be read.
pub async fn summarize_open(
    conn: &mut Conn,
    organization: &OrganizationId,
    end_user: &EndUserId,
    server: &ServerId,
) -> Result<HashMap<WalkthroughId, OpenAttempt>> {
    const SQL: &str = "SELECT progress.walkthrough_id, progress.version_id, progress.status, progress.completed_steps,
               versions.step_set
        FROM progress JOIN versions ON versions.id = progress.version_id
        WHERE progress.end_user_id = $1 AND progress.server_id = $2 AND progress.organization_id = $3
          AND progress.closed_at IS NULL";
    let rows: Vec<(String, String, String, String, String)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(end_user.as_str()).bind(server.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    let attempt = |(walkthrough, version, status, completed, steps): (String, String, String, String, String)| {
        let set = |column: &str, text: &str| {
            StepSet::from_hex(text).ok_or_else(|| {
                let why = format!("{column} of the attempt at {walkthrough} is not hexadecimal");
                Error::Corrupt { table: "progress", id: end_user.to_string(), why }
            })
        };
        let summary = AttemptSummary {
            is_completed: status == Status::Completed.as_str(),
            completed: set("completed_steps", &completed)?,
            steps: set("step_set", &steps)?,
        };
        let version_id = VersionId::from_store(version);
        Ok((WalkthroughId::from_store(walkthrough), OpenAttempt { version_id, summary }))
    };
    rows.into_iter().map(attempt).collect()
}

/// Returns the walkthrough whose open attempt is pinned to a version with `step`. Reads no content.
///
/// # Errors
/// When the database fails.
pub async fn find_open_with_step(
    conn: &mut Conn,
    (organization, end_user, server): (&OrganizationId, &EndUserId, &ServerId),
    step: &StepId,
) -> Result<Option<WalkthroughId>> {
    const SQL: &str = "SELECT progress.walkthrough_id
        FROM progress JOIN version_steps ON version_steps.version_id = progress.version_id
        WHERE progress.end_user_id = $1 AND progress.server_id = $2 AND progress.organization_id = $3
          AND progress.closed_at IS NULL AND version_steps.step_id = $4
        LIMIT 1";
    let found: Option<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(end_user.as_str()).bind(server.as_str()).bind(organization.as_str()).bind(step.as_str())
        .fetch_optional(c).await?);
    Ok(found.map(WalkthroughId::from_store))
}

/// Returns the open attempt of one end user at one walkthrough on one server.
///
/// # Errors
/// When the database fails, or the row cannot be read.
pub async fn get_open(conn: &mut Conn, key: &ProgressKey) -> Result<Option<Attempt>> {
    const SQL: &str = "SELECT id, end_user_id, server_id, walkthrough_id, version_id, status, completed_steps,
               started_at, completed_at, last_activity_at, closed_at, metadata
        FROM progress WHERE end_user_id = $1 AND server_id = $2 AND walkthrough_id = $3 AND organization_id = $4
          AND closed_at IS NULL";
    let row: Option<AttemptRow> = on!(conn, c => sqlx::query_as(SQL)
        .bind(key.end_user_id.as_str()).bind(key.server_id.as_str()).bind(key.walkthrough_id.as_str())
        .bind(key.organization_id.as_str()).fetch_optional(c).await?);
    row.map(Attempt::try_from).transpose()
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
