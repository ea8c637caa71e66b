//! End users as the console lists them.

use waypost_core::Timestamp;
use waypost_core::id::{EndUserId, OrganizationId, ServerId, WalkthroughId};
use waypost_core::progress::Status;

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// An end user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndUser {
    /// The end user.
    pub id: EndUserId,
    /// The organisation's own name of them.
    pub tracking_id: Option<String>,
    /// Their name, as a provider says.
    pub name: Option<String>,
    /// Their verified e-mail address.
    pub email: Option<String>,
    /// The address that they claim to have.
    pub claimed_email: Option<String>,
    /// Whether this is a console user who tries a server.
    pub is_test: bool,
    /// When they came first.
    pub created_at: Timestamp,
    /// Attempts that are in progress.
    pub in_progress: u32,
    /// Attempts that were completed.
    pub completed: u32,
    /// When they last did something.
    pub last_activity_at: Option<Timestamp>,
}

/// Which end users are looked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Search<'a> {
    /// A part of the name, of an address or of the tracking id, or the id.
    pub text: Option<&'a str>,
    /// With an attempt on this server.
    pub server: Option<&'a ServerId>,
    /// With an attempt at this walkthrough.
    pub walkthrough: Option<&'a WalkthroughId>,
    /// With such an attempt in progress, or completed.
    pub status: Option<Status>,
    /// Whether test users are listed, too.
    pub include_test: bool,
    /// Behind this one.
    pub after: Option<&'a EndUserId>,
    /// At most so many.
    pub limit: i64,
}

#[derive(sqlx::FromRow)]
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

/// An end user; none when they are not there.
///
/// # Errors
/// When the database fails.
pub async fn get(conn: &mut Conn, organization: &OrganizationId, id: &EndUserId) -> Result<Option<EndUser>> {
    const SQL: &str = select!("AND id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(id.as_str()).fetch_optional(c).await?);
    Ok(row.map(EndUser::from))
}

/// End users of an organisation, those who came last first.
///
/// # Errors
/// When the database fails.
pub async fn list(conn: &mut Conn, organization: &OrganizationId, search: Search<'_>) -> Result<Vec<EndUser>> {
    // Letters of the alphabet without regard to case, other characters as they are: SQLite knows no more.
    const SQL: &str = select!(
        "AND id < $2 AND ($9 OR NOT is_test)
           AND (CAST($3 AS TEXT) IS NULL OR id = $3
                OR LOWER(name) LIKE $4 ESCAPE '\\' OR LOWER(email) LIKE $4 ESCAPE '\\'
                OR LOWER(claimed_email) LIKE $4 ESCAPE '\\' OR LOWER(tracking_id) LIKE $4 ESCAPE '\\')
           AND ((CAST($5 AS TEXT) IS NULL AND CAST($6 AS TEXT) IS NULL AND CAST($7 AS TEXT) IS NULL)
                OR EXISTS (SELECT 1 FROM progress WHERE progress.end_user_id = end_users.id
                    AND (CAST($5 AS TEXT) IS NULL OR progress.server_id = $5)
                    AND (CAST($6 AS TEXT) IS NULL OR progress.walkthrough_id = $6)
                    AND (CAST($7 AS TEXT) IS NULL OR progress.status = $7)
                    AND (progress.closed_at IS NULL OR progress.status = 'completed')))
         ORDER BY id DESC LIMIT $8"
    );
    // Every id begins with `eu_`, which sorts before this in any collation.
    let after = search.after.map_or("zz", EndUserId::as_str);
    let pattern = search.text.map(|text| {
        let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        format!("%{}%", escaped.to_ascii_lowercase())
    });
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(after).bind(search.text).bind(pattern)
        .bind(search.server.map(ServerId::as_str)).bind(search.walkthrough.map(WalkthroughId::as_str))
        .bind(search.status.map(Status::as_str)).bind(search.limit).bind(search.include_test).fetch_all(c).await?);
    Ok(rows.into_iter().map(EndUser::from).collect())
}

/// Where an end user stands in one walkthrough on one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The server.
    pub server_id: ServerId,
    /// Its name.
    pub server_name: String,
    /// The walkthrough.
    pub walkthrough_id: WalkthroughId,
    /// Its title.
    pub walkthrough_title: String,
    /// Whether it is in the trash, where it can only be restored.
    pub is_walkthrough_deleted: bool,
    /// The version's number.
    pub version: u32,
    /// `in_progress` or `completed`.
    pub status: String,
    /// Steps of this attempt that are completed.
    pub completed_steps: u32,
    /// Steps of the version.
    pub step_count: u32,
    /// When the attempt began.
    pub started_at: Timestamp,
    /// When it was completed.
    pub completed_at: Option<Timestamp>,
    /// When it last changed.
    pub last_activity_at: Timestamp,
    /// Whether it was given up for another one, or reset.
    pub is_closed: bool,
}

#[derive(sqlx::FromRow)]
struct StandingRow {
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

/// The attempts of an end user, those that changed last first.
///
/// # Errors
/// When the database fails.
pub async fn standings(conn: &mut Conn, organization: &OrganizationId, id: &EndUserId) -> Result<Vec<Standing>> {
    // Steps of earlier versions that this one has not are done, too, and do not count.
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
    let rows: Vec<StandingRow> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    let count = |number: i64| u32::try_from(number).unwrap_or(0);
    let standing = |row: StandingRow| Standing {
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
    Ok(rows.into_iter().map(standing).collect())
}
