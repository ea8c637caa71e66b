//! Replaced values of the secrets of tool servers. A value is kept while a deployment uses it, so that containers are
//! restarted with the values that their generation was deployed with. It is also kept for some time after it was
//! replaced, because the contents of calls that used it are masked later. The values are sealed.

use sqlx::AssertSqlSafe;
use waypost_core::Timestamp;
use waypost_core::id::{OrganizationId, ToolSecretId};

use crate::db::{Conn, Dialect};
use crate::error::Result;
use crate::on;
use crate::row::{in_list, to_json};

/// A replaced value of a secret.
#[derive(Debug, Clone, PartialEq, Eq, sqlx_macros::FromRow)]
pub struct ReplacedSecret {
    /// The key of the row, to which the value is sealed; see [`key`].
    pub id: String,
    /// The ID of the secret.
    pub secret_id: String,
    /// The version of the secret that had this value.
    pub version: i64,
    /// The sealed value.
    pub value: String,
}

/// Returns the key of the row of a version of a secret.
#[must_use]
pub fn key(secret: &ToolSecretId, version: i64) -> String {
    format!("{secret}.{version}")
}

/// Inserts the value of a version of a secret, which is replaced at `now`, sealed to its [`key`].
///
/// # Errors
/// Returns a unique violation if the version already has a value, or another error if the database fails.
pub async fn insert(
    conn: &mut Conn,
    organization: &OrganizationId,
    secret: &ToolSecretId,
    (version, sealed): (i64, &str),
    now: Timestamp,
) -> Result<()> {
    const SQL: &str = "INSERT INTO replaced_secrets (id, organization_id, secret_id, version, value, replaced_at)
        VALUES ($1, $2, $3, $4, $5, $6)";
    on!(conn, c => sqlx::query(SQL)
        .bind(key(secret, version)).bind(organization.as_str()).bind(secret.as_str()).bind(version).bind(sealed)
        .bind(now.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the replaced values of the secrets with these IDs.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    secrets: &[&ToolSecretId],
) -> Result<Vec<ReplacedSecret>> {
    let listed = in_list(conn.dialect());
    let sql = format!(
        "SELECT id, secret_id, version, value FROM replaced_secrets WHERE secret_id {listed} AND organization_id = $2"
    );
    let list = to_json(secrets.iter().map(|id| id.as_str()).collect::<Vec<_>>());
    Ok(on!(conn, c => sqlx::query_as(AssertSqlSafe(sql)).bind(list).bind(organization.as_str()).fetch_all(c).await?))
}

/// Returns the organisations that have replaced values.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_organizations(conn: &mut Conn) -> Result<Vec<OrganizationId>> {
    const SQL: &str = "SELECT DISTINCT organization_id FROM replaced_secrets ORDER BY organization_id";
    let ids: Vec<String> = on!(conn, c => sqlx::query_scalar(SQL).fetch_all(c).await?);
    Ok(ids.into_iter().map(OrganizationId::from_store).collect())
}

/// Deletes the values of an organisation that were replaced before `before` and that are used neither by the deployment
/// of an instance's current generation nor by the deployment of the generation that serves calls. Returns the number of
/// deleted values.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_unused(conn: &mut Conn, organization: &OrganizationId, before: Timestamp) -> Result<u64> {
    macro_rules! sql {
        ($uses:literal, $version:literal) => {
            concat!(
                "DELETE FROM replaced_secrets WHERE organization_id = $1 AND replaced_at < $2 AND NOT EXISTS (
                    SELECT 1 FROM instances JOIN deployments ON deployments.instance_id = instances.id
                        AND deployments.generation IN (instances.generation, instances.observed_generation)
                    CROSS JOIN ",
                $uses,
                " WHERE instances.organization_id = $1 AND json_each.value ->> 'secret_id' = replaced_secrets.secret_id
                    AND ",
                $version,
                " = replaced_secrets.version)"
            )
        };
    }
    let sql = match conn.dialect() {
        Dialect::Sqlite => sql!("json_each(deployments.secrets)", "json_each.value ->> 'version'"),
        Dialect::Postgres => sql!(
            "json_array_elements(deployments.secrets::json) AS json_each (value)",
            "CAST(json_each.value ->> 'version' AS BIGINT)"
        ),
    };
    Ok(on!(conn, c => sqlx::query(sql).bind(organization.as_str()).bind(before.0).execute(c).await?.rows_affected()))
}
