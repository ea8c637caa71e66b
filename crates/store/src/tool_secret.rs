//! Secrets of tool servers. The values are sealed.

use std::collections::HashMap;

use waypost_core::Timestamp;
use waypost_core::id::{InstanceId, OrganizationId, ToolSecretId};
use waypost_core::tool_secret::{SecretUser, ToolSecret};

use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;
use crate::row::RowRef;

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, organization_id, name, version, created_at, rotated_at FROM tool_secrets
             WHERE organization_id = $1 ",
            $rest
        )
    };
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    name: String,
    version: i64,
    created_at: i64,
    rotated_at: Option<i64>,
}

impl TryFrom<Row> for ToolSecret {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            version: to_version(&row.id, row.version)?,
            id: ToolSecretId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            name: row.name,
            created_at: Timestamp(row.created_at),
            rotated_at: row.rotated_at.map(Timestamp),
            used_by: Vec::new(),
        })
    }
}

fn to_version(id: &str, value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|error| RowRef { table: "tool_secrets", id }.corrupt("version", error))
}

/// Inserts a secret with its sealed value.
///
/// # Errors
/// Returns a unique violation if the name is taken in the organisation, or another error if the database fails.
pub async fn insert(conn: &mut Conn, secret: &ToolSecret, sealed: &str) -> Result<()> {
    const SQL: &str = "INSERT INTO tool_secrets (id, organization_id, name, value, version, created_at, rotated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    on!(conn, c => sqlx::query(SQL)
        .bind(secret.id.as_str()).bind(secret.organization_id.as_str()).bind(&secret.name).bind(sealed)
        .bind(secret.version.cast_signed()).bind(secret.created_at.0).bind(secret.rotated_at.map(|at| at.0))
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the secret with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &ToolSecretId) -> Result<Option<ToolSecret>> {
    const SQL: &str = select!("AND id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(id.as_str()).fetch_optional(c).await?);
    with_users(conn, organization, row).await
}

/// Returns the secret with this name.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_by_name(conn: &mut Conn, organization: &OrganizationId, name: &str) -> Result<Option<ToolSecret>> {
    const SQL: &str = select!("AND name = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(name).fetch_optional(c).await?);
    with_users(conn, organization, row).await
}

async fn with_users(conn: &mut Conn, organization: &OrganizationId, row: Option<Row>) -> Result<Option<ToolSecret>> {
    let Some(row) = row else { return Ok(None) };
    let mut secret = ToolSecret::try_from(row)?;
    secret.used_by = list_users(conn, organization, &secret.id).await?;
    Ok(Some(secret))
}

/// Returns at most `limit` secrets whose name sorts after `after`, ordered by name.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<ToolSecret>> {
    const SQL: &str = select!("AND name > $2 ORDER BY name LIMIT $3");
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(after.unwrap_or_default()).bind(i64::from(limit)).fetch_all(c).await?);
    let mut users: HashMap<ToolSecretId, Vec<SecretUser>> = HashMap::new();
    for (secret, user) in list_uses(conn, organization).await? {
        users.entry(secret).or_default().push(user);
    }
    let secrets = rows.into_iter().map(|row| {
        let secret = ToolSecret::try_from(row)?;
        Ok(ToolSecret { used_by: users.remove(&secret.id).unwrap_or_default(), ..secret })
    });
    secrets.collect()
}

/// Returns the number of secrets of an organisation.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count(conn: &mut Conn, organization: &OrganizationId) -> Result<i64> {
    const SQL: &str = "SELECT count(*) FROM tool_secrets WHERE organization_id = $1";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(organization.as_str()).fetch_one(c).await?))
}

/// Replaces the sealed value and increments the version. Returns `false` if the secret does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn rotate(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &ToolSecretId,
    sealed: &str,
    now: Timestamp,
) -> Result<bool> {
    const SQL: &str = "UPDATE tool_secrets SET value = $3, version = version + 1, rotated_at = $4
        WHERE id = $1 AND organization_id = $2";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(sealed).bind(now.0).execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Deletes a secret. Returns `false` if it does not exist.
///
/// # Errors
/// Returns a foreign key violation if an instance uses it, or another error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, id: &ToolSecretId) -> Result<bool> {
    const SQL: &str = "DELETE FROM tool_secrets WHERE id = $1 AND organization_id = $2";
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(deleted > 0)
}

/// Returns the sealed value of the secret with this name, and its ID.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_value(
    conn: &mut Conn,
    organization: &OrganizationId,
    name: &str,
) -> Result<Option<(ToolSecretId, String)>> {
    const SQL: &str = "SELECT id, value FROM tool_secrets WHERE organization_id = $1 AND name = $2";
    let row: Option<(String, String)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(name).fetch_optional(c).await?);
    Ok(row.map(|(id, value)| (ToolSecretId::from_store(id), value)))
}

/// Returns the instances that use a secret, ordered by slug.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_users(conn: &mut Conn, organization: &OrganizationId, id: &ToolSecretId) -> Result<Vec<SecretUser>> {
    let uses = list_uses(conn, organization).await?;
    Ok(uses.into_iter().filter(|(secret, _)| secret == id).map(|(_, user)| user).collect())
}

/// Returns every use of a secret by an instance, ordered by the slug of the instance: as a secret of the server, as the
/// credentials for the registry of its image, or as the secret of the OAuth client of a remote server.
async fn list_uses(conn: &mut Conn, organization: &OrganizationId) -> Result<Vec<(ToolSecretId, SecretUser)>> {
    macro_rules! sql {
        ($registry_secret:literal) => {
            concat!(
                "SELECT instance_secrets.secret_id, instances.id, instances.slug FROM instance_secrets
                 JOIN instances ON instances.id = instance_secrets.instance_id
                 WHERE instance_secrets.organization_id = $1
                 UNION
                 SELECT tool_secrets.id, instances.id, instances.slug FROM instances
                 JOIN catalog_versions ON catalog_versions.id = instances.catalog_version_id
                 JOIN tool_secrets ON tool_secrets.organization_id = $1 AND tool_secrets.name = ",
                $registry_secret,
                " WHERE instances.organization_id = $1 AND catalog_versions.organization_id = $1
                 UNION
                 SELECT remote_client_secret_id, id, slug FROM instances
                 WHERE organization_id = $1 AND remote_client_secret_id IS NOT NULL ORDER BY 3, 1"
            )
        };
    }
    let sql = match conn.dialect() {
        Dialect::Sqlite => sql!("catalog_versions.definition ->> 'registry_secret'"),
        Dialect::Postgres => sql!("catalog_versions.definition::json ->> 'registry_secret'"),
    };
    let rows: Vec<(String, String, String)> =
        on!(conn, c => sqlx::query_as(sql).bind(organization.as_str()).fetch_all(c).await?);
    let uses = rows.into_iter().map(|(secret, instance, slug)| {
        let user = SecretUser { instance_id: InstanceId::from_store(instance), slug };
        (ToolSecretId::from_store(secret), user)
    });
    Ok(uses.collect())
}
