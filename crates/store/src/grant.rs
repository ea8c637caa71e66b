//! Grants of agents.

use sqlx::AssertSqlSafe;
use waypost_core::Timestamp;
use waypost_core::grant::{Grant, GrantedNames};
use waypost_core::id::{AgentId, GrantId, InstanceId, OrganizationId};

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;
use crate::row::{RowRef, to_json};

macro_rules! columns {
    () => {
        "id, organization_id, agent_id, instance_id, access, tools, prompts, resources, rules, expires_at, created_at, \
         created_by"
    };
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    agent_id: String,
    instance_id: String,
    access: String,
    tools: String,
    prompts: String,
    resources: String,
    rules: String,
    expires_at: Option<i64>,
    created_at: i64,
    created_by: String,
}

impl TryFrom<Row> for Grant {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let row_ref = RowRef { table: "grants", id: &row.id };
        Ok(Self {
            access: row_ref.parse("access", &row.access)?,
            names: GrantedNames {
                tools: row_ref.parse_json("tools", &row.tools)?,
                prompts: row_ref.parse_json("prompts", &row.prompts)?,
                resources: row_ref.parse_json("resources", &row.resources)?,
            },
            rules: row_ref.parse_json("rules", &row.rules)?,
            id: GrantId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            agent_id: AgentId::from_store(row.agent_id),
            instance_id: InstanceId::from_store(row.instance_id),
            expires_at: row.expires_at.map(Timestamp),
            created_at: Timestamp(row.created_at),
            created_by: row.created_by,
        })
    }
}

fn rules_to_json(grant: &Grant) -> Result<String> {
    serde_json::to_string(&grant.rules).map_err(|error| Error::Database(sqlx::Error::Encode(error.into())))
}

/// Inserts a grant.
///
/// # Errors
/// Returns a foreign key violation if the agent or the instance does not exist, or another error if the database fails.
pub async fn insert(conn: &mut Conn, grant: &Grant) -> Result<()> {
    const SQL: &str =
        concat!("INSERT INTO grants (", columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)");
    let (rules, names) = (rules_to_json(grant)?, grant.names.clone());
    conn.bump_config_version(&grant.organization_id).await?;
    on!(conn, c => sqlx::query(SQL)
        .bind(grant.id.as_str()).bind(grant.organization_id.as_str()).bind(grant.agent_id.as_str())
        .bind(grant.instance_id.as_str()).bind(grant.access.as_str()).bind(to_json(names.tools))
        .bind(to_json(names.prompts)).bind(to_json(names.resources)).bind(rules)
        .bind(grant.expires_at.map(|at| at.0)).bind(grant.created_at.0).bind(&grant.created_by)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the grant with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &GrantId) -> Result<Option<Grant>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM grants WHERE id = $1 AND organization_id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    row.map(Grant::try_from).transpose()
}

/// A filter for grants. Fields that are `None` match any value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GrantFilter<'a> {
    /// The agent.
    pub agent: Option<&'a AgentId>,
    /// The instance.
    pub instance: Option<&'a InstanceId>,
}

/// Returns at most `limit` grants, newest first. With `before`, returns only older ones.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    filter: GrantFilter<'_>,
    before: Option<&GrantId>,
    limit: u32,
) -> Result<Vec<Grant>> {
    let conditions = [
        ("agent_id =", filter.agent.map(AgentId::as_str)),
        ("instance_id =", filter.instance.map(InstanceId::as_str)),
        ("id <", before.map(GrantId::as_str)),
    ];
    let mut sql = concat!("SELECT ", columns!(), " FROM grants WHERE organization_id = $1").to_owned();
    let mut values = Vec::new();
    for (condition, value) in conditions.into_iter().filter_map(|(condition, value)| Some((condition, value?))) {
        values.push(value);
        sql.push_str(&format!(" AND {condition} ${}", values.len() + 1));
    }
    sql.push_str(&format!(" ORDER BY id DESC LIMIT ${}", values.len() + 2));
    let rows: Vec<Row> = on!(conn, c => {
        let query = sqlx::query_as(AssertSqlSafe(sql)).bind(organization.as_str());
        let query = values.into_iter().fold(query, |query, value| query.bind(value));
        query.bind(i64::from(limit)).fetch_all(c).await?
    });
    rows.into_iter().map(Grant::try_from).collect()
}

/// Returns the number of grants of an agent, including expired ones.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count(conn: &mut Conn, organization: &OrganizationId, agent: &AgentId) -> Result<i64> {
    const SQL: &str = "SELECT count(*) FROM grants WHERE agent_id = $1 AND organization_id = $2";
    Ok(on!(conn, c => sqlx::query_scalar(SQL)
        .bind(agent.as_str()).bind(organization.as_str()).fetch_one(c).await?))
}

/// Updates the access level, names, rules and expiry of a grant. Returns `false` if it does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn update(conn: &mut Conn, grant: &Grant) -> Result<bool> {
    const SQL: &str = "UPDATE grants
        SET access = $3, tools = $4, prompts = $5, resources = $6, rules = $7, expires_at = $8
        WHERE id = $1 AND organization_id = $2";
    let (rules, names) = (rules_to_json(grant)?, grant.names.clone());
    conn.bump_config_version(&grant.organization_id).await?;
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(grant.id.as_str()).bind(grant.organization_id.as_str()).bind(grant.access.as_str())
        .bind(to_json(names.tools)).bind(to_json(names.prompts)).bind(to_json(names.resources)).bind(rules)
        .bind(grant.expires_at.map(|at| at.0)).execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Deletes a grant. Returns `false` if it does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, id: &GrantId) -> Result<bool> {
    const SQL: &str = "DELETE FROM grants WHERE id = $1 AND organization_id = $2";
    conn.bump_config_version(organization).await?;
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(deleted > 0)
}
