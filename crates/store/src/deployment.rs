//! Deployments of instances.

use sqlx::AssertSqlSafe;
use waypost_core::Timestamp;
use waypost_core::deployment::Deployment;
use waypost_core::id::{CatalogVersionId, DeploymentId, InstanceId, OrganizationId, ToolboxId};
use waypost_toolbox_proto::deployment::DeploymentError;

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;
use crate::row::{RowRef, in_list, to_json};

/// The columns of [`Row`].
macro_rules! columns {
    () => {
        "d.id, d.organization_id, d.instance_id, d.generation, d.catalog_version_id, d.config, d.secrets, d.personal_secrets, d.learn_egress,
            d.state, d.step, d.error, d.started_at, d.ended_at"
    };
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    instance_id: String,
    generation: i64,
    catalog_version_id: String,
    config: String,
    secrets: String,
    personal_secrets: String,
    learn_egress: bool,
    state: String,
    step: String,
    error: Option<String>,
    started_at: i64,
    ended_at: Option<i64>,
}

impl TryFrom<Row> for Deployment {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let at = RowRef { table: "deployments", id: &row.id };
        Ok(Self {
            generation: at.to_u64("generation", row.generation)?,
            config: at.parse_json("config", &row.config)?,
            secrets: at.parse_json("secrets", &row.secrets)?,
            personal_secrets: at.parse_json("personal_secrets", &row.personal_secrets)?,
            state: at.parse("state", &row.state)?,
            step: at.parse("step", &row.step)?,
            error: row.error.as_deref().map(|text| at.parse_json::<DeploymentError>("error", text)).transpose()?,
            id: DeploymentId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            instance_id: InstanceId::from_store(row.instance_id),
            catalog_version_id: CatalogVersionId::from_store(row.catalog_version_id),
            learn_egress: row.learn_egress,
            started_at: Timestamp(row.started_at),
            ended_at: row.ended_at.map(Timestamp),
        })
    }
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Database(sqlx::Error::Encode(error.into())))
}

/// Inserts a deployment.
///
/// # Errors
/// Returns a unique violation if the generation already has a deployment, or another error if the database fails.
pub async fn insert(conn: &mut Conn, deployment: &Deployment) -> Result<()> {
    const SQL: &str =
        "INSERT INTO deployments (id, organization_id, instance_id, generation, catalog_version_id, config,
            secrets, learn_egress, state, step, error, started_at, ended_at, personal_secrets)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
    let personal = json(&deployment.personal_secrets)?;
    let (secrets, error) = (json(&deployment.secrets)?, deployment.error.as_ref().map(json).transpose()?);
    on!(conn, c => sqlx::query(SQL)
        .bind(deployment.id.as_str()).bind(deployment.organization_id.as_str()).bind(deployment.instance_id.as_str())
        .bind(deployment.generation.cast_signed()).bind(deployment.catalog_version_id.as_str())
        .bind(to_json(deployment.config.clone())).bind(secrets).bind(deployment.learn_egress)
        .bind(deployment.state.as_str()).bind(deployment.step.as_str()).bind(error).bind(deployment.started_at.0)
        .bind(deployment.ended_at.map(|at| at.0)).bind(personal).execute(c).await?.rows_affected());
    Ok(())
}

/// Updates the state, step, error and end time of a deployment.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn update(conn: &mut Conn, deployment: &Deployment) -> Result<()> {
    const SQL: &str = "UPDATE deployments SET state = $3, step = $4, error = $5, ended_at = $6
        WHERE id = $1 AND organization_id = $2";
    let error = deployment.error.as_ref().map(json).transpose()?;
    on!(conn, c => sqlx::query(SQL)
        .bind(deployment.id.as_str()).bind(deployment.organization_id.as_str()).bind(deployment.state.as_str())
        .bind(deployment.step.as_str()).bind(error).bind(deployment.ended_at.map(|at| at.0))
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the deployment of an instance with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
    id: &DeploymentId,
) -> Result<Option<Deployment>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM deployments d WHERE d.id = $1 AND d.organization_id = $2 AND d.instance_id = $3"
    );
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(instance.as_str()).fetch_optional(c).await?);
    row.map(Deployment::try_from).transpose()
}

/// Returns the deployment of a generation of an instance.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_by_generation(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
    generation: u64,
) -> Result<Option<Deployment>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM deployments d WHERE d.instance_id = $1 AND d.organization_id = $2 AND d.generation = $3"
    );
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(instance.as_str()).bind(organization.as_str()).bind(generation.cast_signed()).fetch_optional(c).await?);
    row.map(Deployment::try_from).transpose()
}

/// Returns at most `limit` deployments of an instance, newest first. With `before`, returns only those of earlier
/// generations.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
    before: Option<u64>,
    limit: i64,
) -> Result<Vec<Deployment>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM deployments d WHERE d.instance_id = $1 AND d.organization_id = $2 AND d.generation < $3
          ORDER BY d.generation DESC LIMIT $4"
    );
    let before = before.and_then(|generation| i64::try_from(generation).ok()).unwrap_or(i64::MAX);
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(instance.as_str()).bind(organization.as_str()).bind(before).bind(limit).fetch_all(c).await?);
    rows.into_iter().map(Deployment::try_from).collect()
}

/// Returns the deployments of the current generations of instances.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_current(
    conn: &mut Conn,
    organization: &OrganizationId,
    instances: &[&InstanceId],
) -> Result<Vec<Deployment>> {
    let listed = in_list(conn.dialect());
    let sql = format!(
        "SELECT {} FROM instances i JOIN deployments d ON d.instance_id = i.id AND d.generation = i.generation
         WHERE i.id {listed} AND i.organization_id = $2",
        columns!()
    );
    let list = to_json(instances.iter().map(|id| id.as_str()).collect::<Vec<_>>());
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(AssertSqlSafe(sql))
        .bind(list).bind(organization.as_str()).fetch_all(c).await?);
    rows.into_iter().map(Deployment::try_from).collect()
}

/// A running deployment on a toolbox that is offline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineDeployment {
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The toolbox.
    pub toolbox_id: ToolboxId,
    /// The instance.
    pub instance_id: InstanceId,
    /// The deployment.
    pub id: DeploymentId,
}

/// Returns at most `limit` running deployments that started before `before`, on toolboxes that have not been seen
/// since.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_offline(conn: &mut Conn, before: Timestamp, limit: i64) -> Result<Vec<OfflineDeployment>> {
    const SQL: &str = "SELECT d.organization_id, i.toolbox_id, d.instance_id, d.id FROM deployments d
        JOIN instances i ON i.id = d.instance_id
        JOIN toolboxes t ON t.id = i.toolbox_id
        WHERE d.state = 'running' AND d.started_at < $1 AND coalesce(t.last_seen_at, t.created_at) < $1
        ORDER BY d.started_at LIMIT $2";
    let rows: Vec<(String, String, String, String)> =
        on!(conn, c => sqlx::query_as(SQL).bind(before.0).bind(limit).fetch_all(c).await?);
    let offline = |(organization, toolbox, instance, id)| OfflineDeployment {
        organization_id: OrganizationId::from_store(organization),
        toolbox_id: ToolboxId::from_store(toolbox),
        instance_id: InstanceId::from_store(instance),
        id: DeploymentId::from_store(id),
    };
    Ok(rows.into_iter().map(offline).collect())
}

/// Deletes all but the newest `keep` deployments of an instance. Also keeps the deployment of the generation
/// `observed`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn prune(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
    observed: u64,
    keep: i64,
) -> Result<()> {
    const SQL: &str = "DELETE FROM deployments WHERE instance_id = $1 AND organization_id = $2 AND generation <> $3
        AND generation <= (SELECT generation FROM deployments WHERE instance_id = $1
                           ORDER BY generation DESC LIMIT 1 OFFSET $4)";
    on!(conn, c => sqlx::query(SQL)
        .bind(instance.as_str()).bind(organization.as_str()).bind(observed.cast_signed()).bind(keep)
        .execute(c).await?.rows_affected());
    Ok(())
}
