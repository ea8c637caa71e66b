//! What an organisation has, in numbers.

use waypost_core::Timestamp;
use waypost_core::id::OrganizationId;

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// What goes with an organisation when it is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Contents {
    /// Its hosted servers.
    pub servers: i64,
    /// Its walkthroughs.
    pub walkthroughs: i64,
    /// Its end users.
    pub end_users: i64,
    /// Its members.
    pub members: i64,
    /// Its API keys.
    pub api_keys: i64,
}

/// Counts what an organisation owns.
///
/// # Errors
/// When the database fails.
pub async fn contents(conn: &mut Conn, organization: &OrganizationId) -> Result<Contents> {
    const SQL: &str = "SELECT
        (SELECT count(*) FROM servers WHERE organization_id = $1) AS servers,
        (SELECT count(*) FROM walkthroughs WHERE organization_id = $1) AS walkthroughs,
        (SELECT count(*) FROM end_users WHERE organization_id = $1) AS end_users,
        (SELECT count(*) FROM memberships WHERE organization_id = $1) AS members,
        (SELECT count(*) FROM api_keys WHERE organization_id = $1) AS api_keys";
    Ok(on!(conn, c => sqlx::query_as(SQL).bind(organization.as_str()).fetch_one(c).await?))
}

/// How far an organisation is, and what goes on there.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct State {
    /// Its hosted servers.
    pub servers: i64,
    /// The server that was made first.
    pub first_server: Option<String>,
    /// Its walkthroughs, archived ones too.
    pub walkthroughs: i64,
    /// The walkthrough that was made first.
    pub first_walkthrough: Option<String>,
    /// Those that are published.
    pub published: i64,
    /// Assignments that are switched on, of published walkthroughs.
    pub offered: i64,
    /// The first server that offers something.
    pub offering_server: Option<String>,
    /// Whether a client has ever called a tool: 1 or 0.
    pub called: i64,
}

/// Reads how far an organisation is. None of its parts grows with what end users do.
///
/// # Errors
/// When the database fails.
pub async fn state(conn: &mut Conn, organization: &OrganizationId) -> Result<State> {
    const SQL: &str = "SELECT
        (SELECT count(*) FROM servers WHERE organization_id = $1) AS servers,
        (SELECT id FROM servers WHERE organization_id = $1 ORDER BY created_at, id LIMIT 1) AS first_server,
        (SELECT count(*) FROM walkthroughs WHERE organization_id = $1 AND deleted_at IS NULL) AS walkthroughs,
        (SELECT id FROM walkthroughs WHERE organization_id = $1 AND state <> 'archived'
            ORDER BY created_at, id LIMIT 1) AS first_walkthrough,
        (SELECT count(*) FROM walkthroughs WHERE organization_id = $1 AND state = 'published') AS published,
        (SELECT count(*) FROM assignments JOIN walkthroughs ON walkthroughs.id = assignments.walkthrough_id
            WHERE assignments.organization_id = $1 AND assignments.enabled AND walkthroughs.state = 'published')
            AS offered,
        (SELECT assignments.server_id FROM assignments
            JOIN walkthroughs ON walkthroughs.id = assignments.walkthrough_id
            WHERE assignments.organization_id = $1 AND assignments.enabled AND walkthroughs.state = 'published'
            ORDER BY assignments.created_at, assignments.id LIMIT 1) AS offering_server,
        CAST(CASE WHEN EXISTS (SELECT 1 FROM servers JOIN tool_calls ON tool_calls.server_id = servers.id
            WHERE servers.organization_id = $1 AND NOT tool_calls.is_test) THEN 1 ELSE 0 END AS BIGINT) AS called";
    Ok(on!(conn, c => sqlx::query_as(SQL).bind(organization.as_str()).fetch_one(c).await?))
}

/// How many people did something in a walkthrough of an organisation at `since` or later.
///
/// # Errors
/// When the database fails.
pub async fn active(conn: &mut Conn, organization: &OrganizationId, since: Timestamp) -> Result<i64> {
    // The events have an index by server and time: how long it takes depends on what happened since, and on nothing else.
    const SQL: &str = "SELECT count(DISTINCT walkthrough_events.end_user_id)
        FROM servers JOIN walkthrough_events ON walkthrough_events.server_id = servers.id
        WHERE servers.organization_id = $1 AND walkthrough_events.created_at >= $2
          AND NOT (SELECT end_users.is_test FROM end_users WHERE end_users.id = walkthrough_events.end_user_id)";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(organization.as_str()).bind(since.0).fetch_one(c).await?))
}
