//! Overrides of the names and descriptions of tools for agents.

use waypost_core::id::{InstanceId, OrganizationId};
use waypost_core::tool_override::ToolOverride;

use crate::db::Conn;
use crate::error::Result;
use crate::on;

#[derive(sqlx_macros::FromRow)]
struct Row {
    organization_id: String,
    instance_id: String,
    tool: String,
    name: Option<String>,
    description: Option<String>,
}

impl From<Row> for ToolOverride {
    fn from(row: Row) -> Self {
        Self {
            organization_id: OrganizationId::from_store(row.organization_id),
            instance_id: InstanceId::from_store(row.instance_id),
            tool: row.tool,
            name: row.name,
            description: row.description,
        }
    }
}

/// Returns the overrides of an organisation, ordered by instance and tool. With `instance`, returns only those of this
/// instance.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: Option<&InstanceId>,
) -> Result<Vec<ToolOverride>> {
    const ALL: &str = "SELECT organization_id, instance_id, tool, name, description FROM tool_overrides
        WHERE organization_id = $1 ORDER BY instance_id, tool";
    const OF_INSTANCE: &str = "SELECT organization_id, instance_id, tool, name, description FROM tool_overrides
        WHERE organization_id = $1 AND instance_id = $2 ORDER BY tool";
    let rows: Vec<Row> = match instance {
        None => on!(conn, c => sqlx::query_as(ALL).bind(organization.as_str()).fetch_all(c).await?),
        Some(instance) => on!(conn, c => sqlx::query_as(OF_INSTANCE)
            .bind(organization.as_str()).bind(instance.as_str()).fetch_all(c).await?),
    };
    Ok(rows.into_iter().map(ToolOverride::from).collect())
}

/// Inserts an override, or replaces the existing one of the same tool.
///
/// # Errors
/// Returns a unique violation if another tool of the instance has the name, a foreign key violation if the instance
/// does not exist, or another error if the database fails.
pub async fn replace(conn: &mut Conn, new: &ToolOverride) -> Result<()> {
    const SQL: &str = "INSERT INTO tool_overrides (instance_id, tool, organization_id, name, description)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (instance_id, tool) DO UPDATE SET name = excluded.name, description = excluded.description
            WHERE tool_overrides.organization_id = excluded.organization_id";
    conn.bump_config_version(&new.organization_id).await?;
    on!(conn, c => sqlx::query(SQL)
        .bind(new.instance_id.as_str()).bind(&new.tool).bind(new.organization_id.as_str()).bind(&new.name)
        .bind(&new.description).execute(c).await?.rows_affected());
    Ok(())
}

/// Deletes the override of a tool. Returns `false` if it has none.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, instance: &InstanceId, tool: &str) -> Result<bool> {
    const SQL: &str = "DELETE FROM tool_overrides WHERE instance_id = $1 AND tool = $2 AND organization_id = $3";
    conn.bump_config_version(organization).await?;
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(instance.as_str()).bind(tool).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(deleted > 0)
}
