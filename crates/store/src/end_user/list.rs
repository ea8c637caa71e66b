//! Lists of end users for the console and the API.

use waypost_core::Timestamp;
use waypost_core::id::{EndUserId, OrganizationId, ServerId, WalkthroughId};
use waypost_core::progress::Status;

use crate::db::Conn;
use crate::error::Result;
use crate::on;
use crate::row::like_pattern;

/// An end user with progress counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndUser {
    /// The ID of the end user.
    pub id: EndUserId,
    /// The tracking ID, if any.
    pub tracking_id: Option<String>,
    /// The name, from the identity provider.
    pub name: Option<String>,
    /// The verified email address.
    pub email: Option<String>,
    /// The claimed, unverified email address.
    pub claimed_email: Option<String>,
    /// Whether this is a test user: a console user who tries out a server.
    pub is_test: bool,
    /// The creation time.
    pub created_at: Timestamp,
    /// The number of attempts in progress.
    pub in_progress: u32,
    /// The number of completed attempts.
    pub completed: u32,
    /// The time of the last activity.
    pub last_activity_at: Option<Timestamp>,
}

/// A search for end users.
#[derive(Debug, Clone, Copy, Default)]
pub struct EndUserSearch<'a> {
    /// Part of the name, an email address or the tracking ID, or the whole ID.
    pub text: Option<&'a str>,
    /// Only end users with an attempt on this server.
    pub server: Option<&'a ServerId>,
    /// Only end users with an attempt at this walkthrough.
    pub walkthrough: Option<&'a WalkthroughId>,
    /// Only end users with an attempt in this status that also matches `server` and `walkthrough`.
    pub status: Option<Status>,
    /// Whether to include test users.
    pub include_test: bool,
    /// The last end user of the previous page.
    pub after: Option<&'a EndUserId>,
    /// The maximum number of end users.
    pub limit: i64,
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    tracking_id: Option<String>,
    name: Option<String>,
    email: Option<String>,
    claimed_email: Option<String>,
    is_test: bool,
    created_at: i64,
    in_progress: i64,
    completed: i64,
    last_activity_at: Option<i64>,
}

impl From<Row> for EndUser {
    fn from(row: Row) -> Self {
        Self {
            id: EndUserId::from_store(row.id),
            tracking_id: row.tracking_id,
            name: row.name,
            email: row.email,
            claimed_email: row.claimed_email,
            is_test: row.is_test,
            created_at: Timestamp(row.created_at),
            in_progress: u32::try_from(row.in_progress).unwrap_or(0),
            completed: u32::try_from(row.completed).unwrap_or(0),
            last_activity_at: row.last_activity_at.map(Timestamp),
        }
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, tracking_id, name, email, claimed_email, is_test, created_at,
                (SELECT count(*) FROM progress WHERE progress.end_user_id = end_users.id
                    AND progress.status = 'in_progress' AND progress.closed_at IS NULL) AS in_progress,
                (SELECT count(*) FROM progress WHERE progress.end_user_id = end_users.id
                    AND progress.status = 'completed') AS completed,
                (SELECT max(last_activity_at) FROM progress WHERE progress.end_user_id = end_users.id)
                    AS last_activity_at
             FROM end_users WHERE organization_id = $1 ",
            $rest
        )
    };
}

/// Returns the end user with this ID.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &EndUserId) -> Result<Option<EndUser>> {
    const SQL: &str = select!("AND id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(id.as_str()).fetch_optional(c).await?);
    Ok(row.map(EndUser::from))
}

/// Returns matching end users of an organisation, newest first.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list(conn: &mut Conn, organization: &OrganizationId, search: EndUserSearch<'_>) -> Result<Vec<EndUser>> {
    // SQLite ignores case only for ASCII letters. `LOWER` of the pattern keeps other letters comparable on PostgreSQL.
    const SQL: &str = select!(
        "AND id < $2 AND ($9 OR NOT is_test)
           AND (CAST($3 AS TEXT) IS NULL OR id = $3
                OR LOWER(name) LIKE LOWER($4) ESCAPE '!' OR LOWER(email) LIKE LOWER($4) ESCAPE '!'
                OR LOWER(claimed_email) LIKE LOWER($4) ESCAPE '!' OR LOWER(tracking_id) LIKE LOWER($4) ESCAPE '!')
           AND ((CAST($5 AS TEXT) IS NULL AND CAST($6 AS TEXT) IS NULL AND CAST($7 AS TEXT) IS NULL)
                OR EXISTS (SELECT 1 FROM progress WHERE progress.end_user_id = end_users.id
                    AND (CAST($5 AS TEXT) IS NULL OR progress.server_id = $5)
                    AND (CAST($6 AS TEXT) IS NULL OR progress.walkthrough_id = $6)
                    AND (CAST($7 AS TEXT) IS NULL OR progress.status = $7)
                    AND (progress.closed_at IS NULL OR progress.status = 'completed')))
         ORDER BY id DESC LIMIT $8"
    );
    // Every ID begins with `eu_`, which sorts before this value in any collation.
    let after = search.after.map_or("zz", EndUserId::as_str);
    let pattern = search.text.map(like_pattern);
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(after).bind(search.text).bind(pattern)
        .bind(search.server.map(ServerId::as_str)).bind(search.walkthrough.map(WalkthroughId::as_str))
        .bind(search.status.map(Status::as_str)).bind(search.limit).bind(search.include_test).fetch_all(c).await?);
    Ok(rows.into_iter().map(EndUser::from).collect())
}

/// An attempt of an end user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndUserAttempt {
    /// The ID of the server.
    pub server_id: ServerId,
    /// The name of the server.
    pub server_name: String,
    /// The ID of the walkthrough.
    pub walkthrough_id: WalkthroughId,
    /// The title of the walkthrough.
    pub walkthrough_title: String,
    /// Whether the walkthrough is in the trash.
    pub is_walkthrough_deleted: bool,
    /// The number of the pinned version.
    pub version: u32,
    /// `in_progress` or `completed`.
    pub status: String,
    /// The number of completed steps.
    pub completed_steps: u32,
    /// The number of steps of the version.
    pub step_count: u32,
    /// The time at which the attempt started.
    pub started_at: Timestamp,
    /// The time at which it was completed.
    pub completed_at: Option<Timestamp>,
    /// The time of its last activity.
    pub last_activity_at: Timestamp,
    /// Whether the attempt was reset or replaced by another one.
    pub is_closed: bool,
}

#[derive(sqlx_macros::FromRow)]
struct EndUserAttemptRow {
    server_id: String,
    server_name: String,
    walkthrough_id: String,
    walkthrough_title: String,
    deleted_at: Option<i64>,
    number: i64,
    status: String,
    completed_steps: i64,
    step_count: i64,
    started_at: i64,
    completed_at: Option<i64>,
    last_activity_at: i64,
    closed_at: Option<i64>,
}

/// Returns the attempts of an end user, most recent activity first.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_attempts(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &EndUserId,
) -> Result<Vec<EndUserAttempt>> {
    // Completed steps of earlier versions that are not part of this version do not count.
    const SQL: &str = "SELECT progress.server_id, servers.name AS server_name, progress.walkthrough_id,
            walkthroughs.title AS walkthrough_title, walkthroughs.deleted_at, versions.number, progress.status,
            (SELECT count(*) FROM step_completions JOIN version_steps ON version_steps.version_id = progress.version_id
                AND version_steps.step_id = step_completions.step_id
                WHERE step_completions.progress_id = progress.id) AS completed_steps,
            versions.step_count, progress.started_at, progress.completed_at, progress.last_activity_at,
            progress.closed_at
        FROM progress JOIN servers ON servers.id = progress.server_id
        JOIN walkthroughs ON walkthroughs.id = progress.walkthrough_id
        JOIN versions ON versions.id = progress.version_id
        WHERE progress.end_user_id = $1 AND progress.organization_id = $2
        ORDER BY progress.last_activity_at DESC, progress.id DESC";
    let rows: Vec<EndUserAttemptRow> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    let count = |number: i64| u32::try_from(number).unwrap_or(0);
    let attempt = |row: EndUserAttemptRow| EndUserAttempt {
        server_id: ServerId::from_store(row.server_id),
        server_name: row.server_name,
        walkthrough_id: WalkthroughId::from_store(row.walkthrough_id),
        walkthrough_title: row.walkthrough_title,
        is_walkthrough_deleted: row.deleted_at.is_some(),
        version: count(row.number),
        status: row.status,
        completed_steps: count(row.completed_steps),
        step_count: count(row.step_count),
        started_at: Timestamp(row.started_at),
        completed_at: row.completed_at.map(Timestamp),
        last_activity_at: Timestamp(row.last_activity_at),
        is_closed: row.closed_at.is_some(),
    };
    Ok(rows.into_iter().map(attempt).collect())
}
