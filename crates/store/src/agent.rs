//! Agents.

use waypost_core::Timestamp;
use waypost_core::agent::Agent;
use waypost_core::id::{AgentId, OrganizationId, UserId};

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;
use crate::row::RowRef;

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, organization_id, name, kind, user_id, state, created_at, created_by, last_seen_at FROM agents ",
            $rest
        )
    };
}

#[derive(sqlx_macros::FromRow)]
pub(crate) struct Row {
    id: String,
    organization_id: String,
    name: String,
    kind: String,
    user_id: Option<String>,
    state: String,
    created_at: i64,
    created_by: String,
    last_seen_at: Option<i64>,
}

impl TryFrom<Row> for Agent {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let at = RowRef { table: "agents", id: &row.id };
        Ok(Self {
            kind: at.parse("kind", &row.kind)?,
            state: at.parse("state", &row.state)?,
            id: AgentId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            name: row.name,
            user_id: row.user_id.map(UserId::from_store),
            created_at: Timestamp(row.created_at),
            created_by: row.created_by,
            last_seen_at: row.last_seen_at.map(Timestamp),
        })
    }
}

/// Inserts an agent.
///
/// # Errors
/// Returns a unique violation if the name is taken in the organisation or the user already has an agent there, or
/// another error if the database fails.
pub async fn insert(conn: &mut Conn, agent: &Agent) -> Result<()> {
    const SQL: &str = "INSERT INTO agents (id, organization_id, name, kind, user_id, state, created_at, created_by,
            last_seen_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    conn.bump_config_version(&agent.organization_id).await?;
    on!(conn, c => sqlx::query(SQL)
        .bind(agent.id.as_str()).bind(agent.organization_id.as_str()).bind(&agent.name).bind(agent.kind.as_str())
        .bind(agent.user_id.as_ref().map(UserId::as_str)).bind(agent.state.as_str()).bind(agent.created_at.0)
        .bind(&agent.created_by).bind(agent.last_seen_at.map(|at| at.0)).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the agent with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &AgentId) -> Result<Option<Agent>> {
    const SQL: &str = select!("WHERE id = $1 AND organization_id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    row.map(Agent::try_from).transpose()
}

/// Returns the agent with this name.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_by_name(conn: &mut Conn, organization: &OrganizationId, name: &str) -> Result<Option<Agent>> {
    const SQL: &str = select!("WHERE organization_id = $1 AND name = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(name).fetch_optional(c).await?);
    row.map(Agent::try_from).transpose()
}

/// Returns the agent as which a user acts in an organisation.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_by_user(conn: &mut Conn, organization: &OrganizationId, user: &UserId) -> Result<Option<Agent>> {
    const SQL: &str = select!("WHERE organization_id = $1 AND user_id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(user.as_str()).fetch_optional(c).await?);
    row.map(Agent::try_from).transpose()
}

/// Returns at most `limit` agents whose name sorts after `after`, ordered by name.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<Agent>> {
    // A name is never empty, so every name sorts after the empty string.
    const SQL: &str = select!("WHERE organization_id = $1 AND name > $2 ORDER BY name LIMIT $3");
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(after.unwrap_or_default()).bind(i64::from(limit)).fetch_all(c).await?);
    rows.into_iter().map(Agent::try_from).collect()
}

/// Returns the number of agents of an organisation.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count(conn: &mut Conn, organization: &OrganizationId) -> Result<i64> {
    const SQL: &str = "SELECT count(*) FROM agents WHERE organization_id = $1";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(organization.as_str()).fetch_one(c).await?))
}

/// Updates the name and the state of an agent. Returns `false` if it does not exist.
///
/// # Errors
/// Returns a unique violation if the name is taken in the organisation, or another error if the database fails.
pub async fn update(conn: &mut Conn, agent: &Agent) -> Result<bool> {
    const SQL: &str = "UPDATE agents SET name = $3, state = $4 WHERE id = $1 AND organization_id = $2";
    conn.bump_config_version(&agent.organization_id).await?;
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(agent.id.as_str()).bind(agent.organization_id.as_str()).bind(&agent.name).bind(agent.state.as_str())
        .execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Deletes an agent with its tokens and grants. Returns `false` if it does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, id: &AgentId) -> Result<bool> {
    const SQL: &str = "DELETE FROM agents WHERE id = $1 AND organization_id = $2";
    conn.bump_config_version(organization).await?;
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(deleted > 0)
}
