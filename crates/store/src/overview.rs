//! Counts of the objects that an organisation owns, and its onboarding state.

use waypost_core::Timestamp;
use waypost_core::id::OrganizationId;

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// The numbers of objects that are deleted together with an organisation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx_macros::FromRow)]
pub struct OrganizationContents {
    /// The number of hosted servers.
    pub servers: i64,
    /// The number of walkthroughs, including those in the trash.
    pub walkthroughs: i64,
    /// The number of end users.
    pub end_users: i64,
    /// The number of memberships.
    pub members: i64,
    /// The number of API keys.
    pub api_keys: i64,
}

/// Counts the objects that an organisation owns.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count_contents(conn: &mut Conn, organization: &OrganizationId) -> Result<OrganizationContents> {
    const SQL: &str = "SELECT
        (SELECT count(*) FROM servers WHERE organization_id = $1) AS servers,
        (SELECT count(*) FROM walkthroughs WHERE organization_id = $1) AS walkthroughs,
        (SELECT count(*) FROM end_users WHERE organization_id = $1) AS end_users,
        (SELECT count(*) FROM memberships WHERE organization_id = $1) AS members,
        (SELECT count(*) FROM api_keys WHERE organization_id = $1) AS api_keys";
    Ok(on!(conn, c => sqlx::query_as(SQL).bind(organization.as_str()).fetch_one(c).await?))
}

/// The onboarding state of an organisation.
#[derive(Debug, Clone, PartialEq, Eq, sqlx_macros::FromRow)]
pub struct OnboardingState {
    /// The number of hosted servers.
    pub servers: i64,
    /// The ID of the server that was created first.
    pub first_server: Option<String>,
    /// The number of walkthroughs, including archived ones but not those in the trash.
    pub walkthroughs: i64,
    /// The ID of the oldest walkthrough that is not archived.
    pub first_walkthrough: Option<String>,
    /// The number of published walkthroughs.
    pub published: i64,
    /// The number of enabled assignments of published walkthroughs.
    pub offered: i64,
    /// The ID of the server with the oldest enabled assignment of a published walkthrough.
    pub offering_server: Option<String>,
    /// 1 if the log contains a tool call other than test calls, otherwise 0.
    pub called: i64,
}

/// Returns the onboarding state of an organisation. The cost does not grow with the activity of end users.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_onboarding_state(conn: &mut Conn, organization: &OrganizationId) -> Result<OnboardingState> {
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

/// Returns the number of end users with activity in a walkthrough of an organisation at or after `since`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count_active_end_users(conn: &mut Conn, organization: &OrganizationId, since: Timestamp) -> Result<i64> {
    // The events are indexed by server and time, so the cost depends only on the activity since then.
    const SQL: &str = "SELECT count(DISTINCT walkthrough_events.end_user_id)
        FROM servers JOIN walkthrough_events ON walkthrough_events.server_id = servers.id
        WHERE servers.organization_id = $1 AND walkthrough_events.created_at >= $2
          AND NOT (SELECT end_users.is_test FROM end_users WHERE end_users.id = walkthrough_events.end_user_id)";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(organization.as_str()).bind(since.0).fetch_one(c).await?))
}
