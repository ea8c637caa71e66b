//! Joins of anonymous progress to signed-in end users, and the changes to progress that they make.

use waypost_core::Timestamp;
use waypost_core::event::EventKind;
use waypost_core::id::{EndUserId, EventId, JoinId, OrganizationId, ProgressId, ServerId, StepId, WalkthroughId};
use waypost_core::join::{Join, JoinUndo};
use waypost_core::progress::{Attempt, AttemptState, Status};

use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;
use crate::progress::{self, ProgressKey};

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    server_id: String,
    from_end_user_id: String,
    to_end_user_id: String,
    kind: String,
    created_at: i64,
    undone_at: Option<i64>,
}

impl TryFrom<Row> for Join {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let kind = row.kind.parse().map_err(|reason| Error::Corrupt { table: "joins", id: row.id.clone(), reason })?;
        Ok(Self {
            id: JoinId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            server_id: ServerId::from_store(row.server_id),
            from_end_user_id: EndUserId::from_store(row.from_end_user_id),
            to_end_user_id: EndUserId::from_store(row.to_end_user_id),
            kind,
            created_at: Timestamp(row.created_at),
            undone_at: row.undone_at.map(Timestamp),
        })
    }
}

/// Inserts a join.
///
/// # Errors
/// Returns a unique violation if the anonymous end user is already joined on this server, or another error if the
/// database fails.
pub async fn insert(conn: &mut Conn, join: &Join, undo: &JoinUndo) -> Result<()> {
    const SQL: &str = "INSERT INTO joins (id, organization_id, server_id, from_end_user_id, to_end_user_id, kind, undo,
            created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let undo = serde_json::to_string(undo).map_err(|error| corrupt(&join.id, &error))?;
    on!(conn, c => sqlx::query(SQL)
        .bind(join.id.as_str()).bind(join.organization_id.as_str()).bind(join.server_id.as_str())
        .bind(join.from_end_user_id.as_str()).bind(join.to_end_user_id.as_str()).bind(join.kind.as_str())
        .bind(undo).bind(join.created_at.0).execute(c).await?.rows_affected());
    Ok(())
}

fn corrupt(id: &JoinId, error: &serde_json::Error) -> Error {
    Error::Corrupt { table: "joins", id: id.to_string(), reason: error.to_string() }
}

/// Returns the joins of an organisation, newest first, including undone ones.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(conn: &mut Conn, organization: &OrganizationId) -> Result<Vec<Join>> {
    const SQL: &str = "SELECT id, organization_id, server_id, from_end_user_id, to_end_user_id, kind, created_at,
            undone_at FROM joins WHERE organization_id = $1 ORDER BY id DESC";
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL).bind(organization.as_str()).fetch_all(c).await?);
    rows.into_iter().map(Join::try_from).collect()
}

/// A join with the names of its two end users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinSummary {
    /// The join.
    pub join: Join,
    /// The tracking ID of the anonymous end user, in its stored form; `None` if a handle or a session was joined.
    pub tracking_id: Option<String>,
    /// The name of the signed-in end user, as stated by a provider.
    pub name: Option<String>,
    /// The verified email address of the signed-in end user.
    pub email: Option<String>,
}

#[derive(sqlx_macros::FromRow)]
struct JoinSummaryRow {
    #[sqlx(flatten)]
    join: Row,
    tracking_id: Option<String>,
    name: Option<String>,
    email: Option<String>,
}

/// Returns at most `limit` joins of an organisation, newest first, including undone ones. With `before`, returns only
/// older ones.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_page(
    conn: &mut Conn,
    organization: &OrganizationId,
    before: Option<&JoinId>,
    limit: i64,
) -> Result<Vec<JoinSummary>> {
    macro_rules! select {
        ($rest:literal) => {
            concat!(
                "SELECT joins.id, joins.organization_id, joins.server_id, joins.from_end_user_id, joins.to_end_user_id,
                    joins.kind, joins.created_at, joins.undone_at,
                    (SELECT tracking_id FROM end_users WHERE end_users.id = joins.from_end_user_id) AS tracking_id,
                    (SELECT name FROM end_users WHERE end_users.id = joins.to_end_user_id) AS name,
                    (SELECT email FROM end_users WHERE end_users.id = joins.to_end_user_id) AS email
                FROM joins WHERE joins.organization_id = $1",
                $rest
            )
        };
    }
    const NEWEST: &str = select!(" ORDER BY joins.id DESC LIMIT $2");
    const OLDER: &str = select!(" AND joins.id < $3 ORDER BY joins.id DESC LIMIT $2");
    let rows: Vec<JoinSummaryRow> = match before {
        None => on!(conn, c => sqlx::query_as(NEWEST).bind(organization.as_str()).bind(limit).fetch_all(c).await?),
        Some(before) => on!(conn, c => sqlx::query_as(OLDER)
            .bind(organization.as_str()).bind(limit).bind(before.as_str()).fetch_all(c).await?),
    };
    let summary = |row: JoinSummaryRow| {
        let JoinSummaryRow { join, tracking_id, name, email } = row;
        Ok(JoinSummary { join: join.try_into()?, tracking_id, name, email })
    };
    rows.into_iter().map(summary).collect()
}

/// Returns the number of claims of tracking IDs in an organisation that were made at or after `since` and are not
/// undone.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count_claims(conn: &mut Conn, organization: &OrganizationId, since: Timestamp) -> Result<i64> {
    const SQL: &str = "SELECT count(*) FROM joins WHERE organization_id = $1 AND created_at >= $2
        AND kind = 'tracking' AND undone_at IS NULL";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(organization.as_str()).bind(since.0).fetch_one(c).await?))
}

/// Returns the join with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &JoinId) -> Result<Option<Join>> {
    const SQL: &str = "SELECT id, organization_id, server_id, from_end_user_id, to_end_user_id, kind, created_at,
            undone_at FROM joins WHERE id = $1 AND organization_id = $2";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    row.map(Join::try_from).transpose()
}

/// Marks a join as undone and returns the data to undo it. Returns `None` if it does not exist or is already undone.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn mark_undone(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &JoinId,
    at: Timestamp,
) -> Result<Option<JoinUndo>> {
    const SQL: &str = "UPDATE joins SET undone_at = $3
        WHERE id = $1 AND organization_id = $2 AND undone_at IS NULL RETURNING undo";
    let undo: Option<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(at.0).fetch_optional(c).await?);
    undo.map(|undo| serde_json::from_str(&undo).map_err(|error| corrupt(id, &error))).transpose()
}

/// Whether nothing can be joined from `from` to `to` on `server`: `from` is already joined there, or was joined to `to`
/// and an admin undid it.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn is_settled(
    conn: &mut Conn,
    organization: &OrganizationId,
    server: &ServerId,
    from: &EndUserId,
    to: &EndUserId,
) -> Result<bool> {
    const SQL: &str = "SELECT count(*) FROM joins WHERE from_end_user_id = $1 AND server_id = $2
        AND organization_id = $3 AND (undone_at IS NULL OR to_end_user_id = $4)";
    let count: i64 = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(from.as_str()).bind(server.as_str()).bind(organization.as_str()).bind(to.as_str())
        .fetch_one(c).await?);
    Ok(count > 0)
}

/// Whether a claim link that was signed at `issued_at` can no longer claim the progress of `from` on `server`: the
/// progress is already joined there, or an admin has undone a claim of it, on any server, at or after that time.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn is_claim_link_spent(
    conn: &mut Conn,
    organization: &OrganizationId,
    server: &ServerId,
    from: &EndUserId,
    issued_at: Timestamp,
) -> Result<bool> {
    const SQL: &str = "SELECT count(*) FROM joins WHERE from_end_user_id = $1 AND organization_id = $3
        AND ((server_id = $2 AND undone_at IS NULL) OR undone_at >= $4)";
    let count: i64 = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(from.as_str()).bind(server.as_str()).bind(organization.as_str()).bind(issued_at.0)
        .fetch_one(c).await?);
    Ok(count > 0)
}

/// Returns the end user who claimed the tracking ID of `from` on any server of the organisation.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_claimant(
    conn: &mut Conn,
    organization: &OrganizationId,
    from: &EndUserId,
) -> Result<Option<EndUserId>> {
    const SQL: &str = "SELECT to_end_user_id FROM joins WHERE from_end_user_id = $1 AND organization_id = $2
        AND kind = 'tracking' AND undone_at IS NULL ORDER BY id LIMIT 1";
    let id: Option<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(from.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    Ok(id.map(EndUserId::from_store))
}

/// Locks two end users until the end of the transaction, in the same order in every process, and returns the IDs of
/// those that exist. Rows that reference them can still be written; other joins of either wait.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn lock_end_users(
    conn: &mut Conn,
    organization: &OrganizationId,
    one: &EndUserId,
    other: &EndUserId,
) -> Result<Vec<EndUserId>> {
    // SQLite needs no lock, because it has a single writer.
    const SQLITE: &str = "SELECT id FROM end_users WHERE id IN ($1, $2) AND organization_id = $3 ORDER BY id";
    const POSTGRES: &str = "SELECT id FROM end_users WHERE id IN ($1, $2) AND organization_id = $3 ORDER BY id
        FOR NO KEY UPDATE";
    let sql = if conn.dialect() == Dialect::Sqlite { SQLITE } else { POSTGRES };
    let ids: Vec<String> = on!(conn, c => sqlx::query_scalar(sql)
        .bind(one.as_str()).bind(other.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    Ok(ids.into_iter().map(EndUserId::from_store).collect())
}

/// Locks and returns the open attempts of `from` on `server`, each with the open attempt of `to` at the same
/// walkthrough. Rows are locked in the same order as in the writer.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn lock_open_attempts(
    conn: &mut Conn,
    organization: &OrganizationId,
    server: &ServerId,
    from: &EndUserId,
    to: &EndUserId,
) -> Result<Vec<(WalkthroughId, Attempt, Option<Attempt>)>> {
    let walkthroughs = progress::list_open(conn, organization, from, server).await?;
    let key = |end_user: &EndUserId, walkthrough: &WalkthroughId| ProgressKey {
        organization_id: organization.clone(),
        end_user_id: end_user.clone(),
        server_id: server.clone(),
        walkthrough_id: walkthrough.clone(),
    };
    let keys: Vec<_> = walkthroughs.keys().flat_map(|id| [key(from, id), key(to, id)]).collect();
    // Reads the attempts again under the lock, to include what the writer has committed in the meantime.
    let mut open = progress::lock_open(conn, keys.iter()).await?;
    let mut walkthroughs: Vec<_> = walkthroughs.into_keys().collect();
    walkthroughs.sort();
    let pairs = walkthroughs.into_iter().filter_map(|id| {
        let anonymous = open.remove(&key(from, &id))?;
        let own = open.remove(&key(to, &id));
        Some((id, anonymous, own))
    });
    Ok(pairs.collect())
}

/// Locks and returns the open attempt of an end user.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn lock_open_attempt(conn: &mut Conn, key: &ProgressKey) -> Result<Option<Attempt>> {
    Ok(progress::lock_open(conn, std::iter::once(key)).await?.remove(key))
}

/// The values of an attempt that are bound to statements.
struct AttemptValues {
    status: &'static str,
    completed: String,
    completed_at: Option<i64>,
}

fn attempt_values(attempt: &Attempt) -> AttemptValues {
    let (status, completed_at) = match attempt.state {
        AttemptState::InProgress => (Status::InProgress, None),
        AttemptState::Completed { at } => (Status::Completed, Some(at.0)),
    };
    AttemptValues { status: status.as_str(), completed: attempt.completed.to_hex(), completed_at }
}

/// Updates an attempt.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn update_attempt(conn: &mut Conn, organization: &OrganizationId, attempt: &Attempt) -> Result<()> {
    const SQL: &str = "UPDATE progress SET version_id = $3, status = $4, completed_steps = $5, started_at = $6,
            completed_at = $7, last_activity_at = $8, closed_at = $9 WHERE id = $1 AND organization_id = $2";
    let row = attempt_values(attempt);
    on!(conn, c => sqlx::query(SQL)
        .bind(attempt.id.as_str()).bind(organization.as_str()).bind(attempt.version_id.as_str()).bind(row.status)
        .bind(row.completed).bind(attempt.started_at.0).bind(row.completed_at).bind(attempt.last_activity_at.0)
        .bind(attempt.closed_at.map(|at| at.0)).execute(c).await?.rows_affected());
    Ok(())
}

/// Inserts an attempt.
///
/// # Errors
/// Returns a unique violation if the end user already has an open attempt, or another error if the database fails.
pub async fn insert_attempt(conn: &mut Conn, key: &ProgressKey, attempt: &Attempt) -> Result<()> {
    const SQL: &str = "INSERT INTO progress (id, organization_id, end_user_id, server_id, walkthrough_id, version_id,
            status, completed_steps, started_at, completed_at, last_activity_at, metadata)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    let (row, metadata) = (attempt_values(attempt), serde_json::Value::Object(attempt.metadata.clone()).to_string());
    on!(conn, c => sqlx::query(SQL)
        .bind(attempt.id.as_str()).bind(key.organization_id.as_str()).bind(key.end_user_id.as_str())
        .bind(key.server_id.as_str()).bind(key.walkthrough_id.as_str()).bind(attempt.version_id.as_str())
        .bind(row.status).bind(row.completed).bind(attempt.started_at.0).bind(row.completed_at)
        .bind(attempt.last_activity_at.0).bind(metadata).execute(c).await?.rows_affected());
    Ok(())
}

/// Reopens an attempt that a join closed, unless its end user has started another one in the meantime.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn reopen_attempt(conn: &mut Conn, organization: &OrganizationId, attempt: &ProgressId) -> Result<()> {
    const SQL: &str = "UPDATE progress SET closed_at = NULL WHERE id = $1 AND organization_id = $2
        AND NOT EXISTS (SELECT 1 FROM progress AS other WHERE other.end_user_id = progress.end_user_id
            AND other.server_id = progress.server_id AND other.walkthrough_id = progress.walkthrough_id
            AND other.closed_at IS NULL)";
    on!(conn, c => sqlx::query(SQL)
        .bind(attempt.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(())
}

/// Copies the completions of `from` that `to` does not have.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn copy_completions(
    conn: &mut Conn,
    organization: &OrganizationId,
    from: &ProgressId,
    to: &ProgressId,
) -> Result<()> {
    const SQL: &str = "INSERT INTO step_completions (progress_id, step_id, version_id, completed_at)
        SELECT $1, theirs.step_id, theirs.version_id, theirs.completed_at FROM step_completions AS theirs
        JOIN progress ON progress.id = theirs.progress_id
        WHERE theirs.progress_id = $2 AND progress.organization_id = $3 AND NOT EXISTS (
            SELECT 1 FROM step_completions AS own WHERE own.progress_id = $1 AND own.step_id = theirs.step_id)";
    on!(conn, c => sqlx::query(SQL)
        .bind(to.as_str()).bind(from.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the step and ordinal of each completion that `to` took over from `from`: the same step, completed at the
/// same time.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_shared_completions(
    conn: &mut Conn,
    organization: &OrganizationId,
    from: &ProgressId,
    to: &ProgressId,
) -> Result<Vec<(StepId, u32)>> {
    const SQL: &str = "SELECT own.step_id, version_steps.ordinal FROM step_completions AS own
        JOIN step_completions AS theirs ON theirs.progress_id = $2 AND theirs.step_id = own.step_id
            AND theirs.completed_at = own.completed_at
        JOIN version_steps ON version_steps.version_id = own.version_id AND version_steps.step_id = own.step_id
        JOIN progress ON progress.id = own.progress_id
        WHERE own.progress_id = $1 AND progress.organization_id = $3";
    let rows: Vec<(String, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(to.as_str()).bind(from.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    rows.into_iter()
        .map(|(step, ordinal)| match u32::try_from(ordinal) {
            Ok(ordinal) => Ok((StepId::from_store(step), ordinal)),
            Err(error) => Err(Error::Corrupt { table: "version_steps", id: step, reason: error.to_string() }),
        })
        .collect()
}

/// Deletes a completion of an attempt.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_completion(
    conn: &mut Conn,
    organization: &OrganizationId,
    attempt: &ProgressId,
    step: &StepId,
) -> Result<()> {
    const SQL: &str = "DELETE FROM step_completions WHERE progress_id = $1 AND step_id = $2
        AND EXISTS (SELECT 1 FROM progress WHERE id = $1 AND organization_id = $3)";
    on!(conn, c => sqlx::query(SQL)
        .bind(attempt.as_str()).bind(step.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(())
}

/// Records the event that progress was joined to an attempt, with its time and the time since the attempt's previous
/// event.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert_event(
    conn: &mut Conn,
    id: &EventId,
    key: &ProgressKey,
    attempt: &Attempt,
    at: Timestamp,
    elapsed_ms: Option<i64>,
) -> Result<()> {
    const SQL: &str = "INSERT INTO walkthrough_events (id, organization_id, server_id, walkthrough_id, end_user_id,
            progress_id, version_id, kind, created_at, elapsed_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(key.organization_id.as_str()).bind(key.server_id.as_str())
        .bind(key.walkthrough_id.as_str()).bind(key.end_user_id.as_str()).bind(attempt.id.as_str())
        .bind(attempt.version_id.as_str()).bind(EventKind::Joined.as_str()).bind(at.0).bind(elapsed_ms)
        .execute(c).await?.rows_affected());
    Ok(())
}
