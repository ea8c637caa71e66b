//! Agents' values of personal secrets. The values are sealed.

use sqlx::AssertSqlSafe;
use waypost_core::Timestamp;
use waypost_core::agent_secret::AgentSecret;
use waypost_core::id::{AgentId, AgentSecretId, InstanceId, OrganizationId};

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;
use crate::row::{RowRef, in_list, to_json};

macro_rules! select {
    ($columns:literal, $rest:literal) => {
        concat!(
            "SELECT id, organization_id, instance_id, agent_id, name, version, updated_at, ",
            $columns,
            " FROM agent_secrets WHERE organization_id = $1 ",
            $rest
        )
    };
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    instance_id: String,
    agent_id: String,
    name: String,
    version: i64,
    updated_at: i64,
    is_set: bool,
}

impl TryFrom<Row> for AgentSecret {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let version = RowRef { table: "agent_secrets", id: &row.id }.to_u64("version", row.version)?;
        Ok(Self {
            id: AgentSecretId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            instance_id: InstanceId::from_store(row.instance_id),
            agent_id: AgentId::from_store(row.agent_id),
            name: row.name,
            is_set: row.is_set,
            version,
            updated_at: Timestamp(row.updated_at),
        })
    }
}

/// Increments the secret version of an instance and returns it. The row of the instance stays locked until the
/// transaction ends, so versions are assigned in commit order. Returns `None` if the instance does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn next_version(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
) -> Result<Option<u64>> {
    const SQL: &str = "UPDATE instances SET agent_secret_version = agent_secret_version + 1
        WHERE id = $1 AND organization_id = $2 RETURNING agent_secret_version";
    let version: Option<i64> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(instance.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    let at = RowRef { table: "instances", id: instance.as_str() };
    version.map(|version| at.to_u64("agent_secret_version", version)).transpose()
}

/// Inserts a value, or replaces the existing one, including its ID, for the same agent, instance and name. `sealed` is
/// `None` if the value is removed.
///
/// # Errors
/// Returns a foreign key violation if the instance or the agent does not exist, or another error if the database fails.
pub async fn replace(conn: &mut Conn, secret: &AgentSecret, sealed: Option<&str>) -> Result<()> {
    const SQL: &str = "INSERT INTO agent_secrets (id, organization_id, instance_id, agent_id, name, value, version,
            updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (agent_id, instance_id, name) DO UPDATE SET id = excluded.id, value = excluded.value,
            version = excluded.version, updated_at = excluded.updated_at
            WHERE agent_secrets.organization_id = excluded.organization_id";
    on!(conn, c => sqlx::query(SQL)
        .bind(secret.id.as_str()).bind(secret.organization_id.as_str()).bind(secret.instance_id.as_str())
        .bind(secret.agent_id.as_str()).bind(&secret.name).bind(sealed).bind(secret.version.cast_signed())
        .bind(secret.updated_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the secrets of an agent, ordered by instance and name, including removed ones. With `instance`, returns only
/// those of this instance.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    agent: &AgentId,
    instance: Option<&InstanceId>,
) -> Result<Vec<AgentSecret>> {
    const ALL: &str = select!("value IS NOT NULL AS is_set", "AND agent_id = $2 ORDER BY instance_id, name");
    const OF_INSTANCE: &str =
        select!("value IS NOT NULL AS is_set", "AND agent_id = $2 AND instance_id = $3 ORDER BY name");
    let rows: Vec<Row> = match instance {
        None => on!(conn, c => sqlx::query_as(ALL)
            .bind(organization.as_str()).bind(agent.as_str()).fetch_all(c).await?),
        Some(instance) => on!(conn, c => sqlx::query_as(OF_INSTANCE)
            .bind(organization.as_str()).bind(agent.as_str()).bind(instance.as_str()).fetch_all(c).await?),
    };
    rows.into_iter().map(AgentSecret::try_from).collect()
}

/// Returns the secrets of an instance that have a value, ordered by agent and name.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_by_instance(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
) -> Result<Vec<AgentSecret>> {
    const SQL: &str =
        select!("value IS NOT NULL AS is_set", "AND instance_id = $2 AND value IS NOT NULL ORDER BY agent_id, name");
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(instance.as_str()).fetch_all(c).await?);
    rows.into_iter().map(AgentSecret::try_from).collect()
}

/// Returns the active agents that have a value for an instance, with the name of each value. Service agents come first.
/// Personal agents are included only if they have a grant that is valid at `now`, because their accounts must not be
/// used without one.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_agents(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
    now: Timestamp,
) -> Result<Vec<(AgentId, String)>> {
    // Correlated subqueries, so that PostgreSQL looks up each agent by its ID instead of scanning all agents.
    const SQL: &str = "SELECT agent_id, name FROM agent_secrets s
        WHERE organization_id = $1 AND instance_id = $2 AND value IS NOT NULL
            AND (SELECT state FROM agents WHERE agents.id = s.agent_id) = 'active'
            AND ((SELECT kind FROM agents WHERE agents.id = s.agent_id) = 'service'
                OR EXISTS (SELECT 1 FROM grants g WHERE g.agent_id = s.agent_id AND g.instance_id = s.instance_id
                    AND (g.expires_at IS NULL OR g.expires_at > $3)))
        ORDER BY CASE WHEN (SELECT kind FROM agents WHERE agents.id = s.agent_id) = 'service' THEN 0 ELSE 1 END,
            agent_id, name";
    let rows: Vec<(String, String)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(instance.as_str()).bind(now.0).fetch_all(c).await?);
    Ok(rows.into_iter().map(|(agent, name)| (AgentId::from_store(agent), name)).collect())
}

/// Returns the sealed values of an agent for an instance, with their IDs.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_values(
    conn: &mut Conn,
    organization: &OrganizationId,
    agent: &AgentId,
    instance: &InstanceId,
) -> Result<Vec<(AgentSecretId, String)>> {
    const SQL: &str = "SELECT id, value FROM agent_secrets
        WHERE organization_id = $1 AND agent_id = $2 AND instance_id = $3 AND value IS NOT NULL ORDER BY name";
    let rows: Vec<(String, String)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(agent.as_str()).bind(instance.as_str()).fetch_all(c).await?);
    Ok(rows.into_iter().map(|(id, value)| (AgentSecretId::from_store(id), value)).collect())
}

/// Deletes the values of an instance whose names are not in `names`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_others(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
    names: &[&str],
) -> Result<()> {
    let sql = AssertSqlSafe(format!(
        "DELETE FROM agent_secrets WHERE instance_id = $2 AND organization_id = $3 AND NOT (name {})",
        in_list(conn.dialect())
    ));
    on!(conn, c => sqlx::query(sql)
        .bind(to_json(names.to_vec())).bind(instance.as_str()).bind(organization.as_str())
        .execute(c).await?.rows_affected());
    Ok(())
}
