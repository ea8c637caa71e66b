//! Instances with their secrets. Changes to an instance are made under the lock of its toolbox
//! ([`crate::toolbox::lock`]); changes to a remote server are made under the lock of its organisation
//! ([`crate::toolbox::lock_organization`]).

use std::collections::BTreeMap;

use sqlx::AssertSqlSafe;
use waypost_core::Timestamp;
use waypost_core::id::{CatalogVersionId, InstanceId, OrganizationId, ToolSecretId, ToolboxId};
use waypost_core::instance::{Backend, ConnectionMode, Container, Instance, RegisteredClient, RemoteServer, SecretUse};
use waypost_toolbox_proto::instance::Health;

use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;
use crate::row::{RowRef, in_list, to_json};

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    slug: String,
    name: String,
    catalog_version_id: Option<String>,
    toolbox_id: Option<String>,
    remote_transport: Option<String>,
    remote_origin: Option<String>,
    remote_url: Option<String>,
    remote_oauth: bool,
    remote_per_agent: bool,
    remote_client_id: Option<String>,
    remote_client_secret_id: Option<String>,
    desired: String,
    state: String,
    generation: i64,
    observed_generation: i64,
    restarts: i64,
    is_removing: bool,
    health: Option<String>,
    config: String,
    personal_secrets: String,
    learn_egress: bool,
    record_contents: bool,
    rejected_egress: String,
    created_at: i64,
    updated_at: i64,
    secrets: String,
}

/// Returns a query for instances. `rest` follows the name of the table.
fn select(dialect: Dialect, rest: &str) -> AssertSqlSafe<String> {
    let secrets = match dialect {
        Dialect::Sqlite => "json_group_array(json_object('name', name, 'secret_id', secret_id, 'version', version))",
        Dialect::Postgres => {
            "coalesce(json_agg(json_build_object('name', name, 'secret_id', secret_id, 'version', version)), '[]')::text"
        }
    };
    AssertSqlSafe(format!(
        "SELECT id, organization_id, slug, name, catalog_version_id, toolbox_id, remote_transport, remote_origin,
            remote_url, remote_oauth, remote_per_agent, remote_client_id, remote_client_secret_id, desired, state, generation, observed_generation, restarts, is_removing, health, config,
            personal_secrets, learn_egress, record_contents, rejected_egress, created_at, updated_at, (SELECT {secrets} FROM instance_secrets WHERE instance_id = instances.id) AS secrets
         FROM instances {rest}"
    ))
}

impl TryFrom<Row> for Instance {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let at = RowRef { table: "instances", id: &row.id };
        let mut secrets: Vec<SecretUse> = at.parse_json("secrets", &row.secrets)?;
        secrets.sort_by(|one, other| one.name.cmp(&other.name));
        let catalog_version_id = row.catalog_version_id.map(CatalogVersionId::from_store);
        let backend = match (row.toolbox_id, catalog_version_id, row.remote_url) {
            (Some(toolbox_id), Some(catalog_version_id), None) => {
                Backend::Container(Container { catalog_version_id, toolbox_id: ToolboxId::from_store(toolbox_id) })
            }
            (None, catalog_version_id, Some(sealed_url)) => Backend::Remote(RemoteServer {
                catalog_version_id,
                transport: at.parse("remote_transport", row.remote_transport.as_deref().unwrap_or_default())?,
                origin: row.remote_origin.unwrap_or_default(),
                sealed_url,
                is_oauth: row.remote_oauth,
                connection: match row.remote_per_agent {
                    true => ConnectionMode::PerAgent,
                    false => ConnectionMode::Shared,
                },
                client: row.remote_client_id.map(|client_id| RegisteredClient {
                    client_id,
                    secret_id: row.remote_client_secret_id.map(ToolSecretId::from_store),
                }),
            }),
            _ => return Err(at.corrupt("toolbox_id", "neither a container nor a remote server")),
        };
        Ok(Self {
            desired: at.parse("desired", &row.desired)?,
            state: at.parse("state", &row.state)?,
            generation: at.to_u64("generation", row.generation)?,
            observed_generation: at.to_u64("observed_generation", row.observed_generation)?,
            restarts: at.to_u64("restarts", row.restarts)?,
            health: row.health.as_deref().map(|text| at.parse_json::<Health>("health", text)).transpose()?,
            config: at.parse_json("config", &row.config)?,
            personal_secrets: at.parse_json("personal_secrets", &row.personal_secrets)?,
            rejected_egress: at.parse_json("rejected_egress", &row.rejected_egress)?,
            secrets,
            id: InstanceId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            slug: row.slug,
            name: row.name,
            backend,
            is_removing: row.is_removing,
            learn_egress: row.learn_egress,
            record_contents: row.record_contents,
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
        })
    }
}

fn health(instance: &Instance) -> Result<Option<String>> {
    let text = instance.health.as_ref().map(serde_json::to_string).transpose();
    text.map_err(|error| Error::Database(sqlx::Error::Encode(error.into())))
}

/// Returns the values of `remote_oauth` and `remote_per_agent`.
fn oauth_flags(remote: Option<&RemoteServer>) -> (bool, bool) {
    let is_per_agent = remote.is_some_and(|remote| remote.connection == ConnectionMode::PerAgent);
    (remote.is_some_and(|remote| remote.is_oauth), is_per_agent)
}

/// Returns the values of `remote_client_id` and `remote_client_secret_id`.
fn client(remote: Option<&RemoteServer>) -> (Option<&str>, Option<&str>) {
    let client = remote.and_then(|remote| remote.client.as_ref());
    let secret = client.and_then(|client| client.secret_id.as_ref());
    (client.map(|client| client.client_id.as_str()), secret.map(ToolSecretId::as_str))
}

fn personal_secrets(instance: &Instance) -> Result<String> {
    serde_json::to_string(&instance.personal_secrets)
        .map_err(|error| Error::Database(sqlx::Error::Encode(error.into())))
}

fn remote(instance: &Instance) -> Option<&RemoteServer> {
    match &instance.backend {
        Backend::Remote(remote) => Some(remote),
        Backend::Container(_) => None,
    }
}

/// Inserts an instance with its secrets. `skeleton` is the skeleton of the slug (UTS 39).
///
/// # Errors
/// Returns a unique violation if the slug or its skeleton is taken, or another error if the database fails.
pub async fn insert(conn: &mut Conn, instance: &Instance, skeleton: &str) -> Result<()> {
    const SQL: &str =
        "INSERT INTO instances (id, organization_id, slug, slug_skeleton, name, catalog_version_id, toolbox_id,
            desired, state, generation, observed_generation, restarts, is_removing, health, config, learn_egress,
            rejected_egress, created_at, updated_at, remote_transport, remote_origin, remote_url,
            remote_check_at, remote_oauth, remote_per_agent, personal_secrets, record_contents, remote_client_id,
            remote_client_secret_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
            $25, $26, $27, $28, $29)";
    let personal = personal_secrets(instance)?;
    let health = health(instance)?;
    let remote = remote(instance);
    let (is_oauth, is_per_agent) = oauth_flags(remote);
    let (client_id, client_secret_id) = client(remote);
    on!(conn, c => sqlx::query(SQL)
        .bind(instance.id.as_str()).bind(instance.organization_id.as_str()).bind(&instance.slug).bind(skeleton)
        .bind(&instance.name).bind(instance.catalog_version_id().map(CatalogVersionId::as_str))
        .bind(instance.toolbox_id().map(ToolboxId::as_str)).bind(instance.desired.as_str()).bind(instance.state.as_str()).bind(instance.generation.cast_signed())
        .bind(instance.observed_generation.cast_signed()).bind(instance.restarts.cast_signed())
        .bind(instance.is_removing).bind(health).bind(to_json(instance.config.clone())).bind(instance.learn_egress)
        .bind(to_json(instance.rejected_egress.clone())).bind(instance.created_at.0).bind(instance.updated_at.0)
        .bind(remote.map(|remote| remote.transport.as_str())).bind(remote.map(|remote| &remote.origin))
        .bind(remote.map(|remote| &remote.sealed_url)).bind(remote.map(|_| 0_i64))
        .bind(is_oauth).bind(is_per_agent).bind(personal).bind(instance.record_contents).bind(client_id)
        .bind(client_secret_id).execute(c).await?.rows_affected());
    insert_secrets(conn, instance, &BTreeMap::new()).await
}

/// Updates everything that can change, except the secrets.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn update(conn: &mut Conn, instance: &Instance) -> Result<()> {
    const SQL: &str =
        "UPDATE instances SET name = $3, catalog_version_id = $4, desired = $5, state = $6, generation = $7,
            observed_generation = $8, restarts = $9, is_removing = $10, health = $11, config = $12, learn_egress = $13,
            rejected_egress = $14, updated_at = $15, remote_transport = $16, remote_origin = $17, remote_url = $18,
            remote_oauth = $19, remote_per_agent = $20, personal_secrets = $21, record_contents = $22,
            remote_client_id = $23, remote_client_secret_id = $24
        WHERE id = $1 AND organization_id = $2";
    let personal = personal_secrets(instance)?;
    let health = health(instance)?;
    let remote = remote(instance);
    let (is_oauth, is_per_agent) = oauth_flags(remote);
    let (client_id, client_secret_id) = client(remote);
    on!(conn, c => sqlx::query(SQL)
        .bind(instance.id.as_str()).bind(instance.organization_id.as_str()).bind(&instance.name)
        .bind(instance.catalog_version_id().map(CatalogVersionId::as_str)).bind(instance.desired.as_str()).bind(instance.state.as_str())
        .bind(instance.generation.cast_signed()).bind(instance.observed_generation.cast_signed())
        .bind(instance.restarts.cast_signed()).bind(instance.is_removing).bind(health)
        .bind(to_json(instance.config.clone())).bind(instance.learn_egress)
        .bind(to_json(instance.rejected_egress.clone())).bind(instance.updated_at.0)
        .bind(remote.map(|remote| remote.transport.as_str())).bind(remote.map(|remote| &remote.origin))
        .bind(remote.map(|remote| &remote.sealed_url)).bind(is_oauth).bind(is_per_agent).bind(personal)
        .bind(instance.record_contents).bind(client_id).bind(client_secret_id).execute(c).await?.rows_affected());
    Ok(())
}

/// Replaces the secrets of an instance. Secrets that the instance already used keep the version that a rotation last
/// attempted.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn replace_secrets(conn: &mut Conn, instance: &Instance) -> Result<()> {
    const OLD: &str = "SELECT secret_id, attempted_version FROM instance_secrets
        WHERE instance_id = $1 AND organization_id = $2";
    const DELETE: &str = "DELETE FROM instance_secrets WHERE instance_id = $1 AND organization_id = $2";
    let (id, organization) = (instance.id.as_str(), instance.organization_id.as_str());
    let old: Vec<(String, i64)> = on!(conn, c => sqlx::query_as(OLD).bind(id).bind(organization).fetch_all(c).await?);
    on!(conn, c => sqlx::query(DELETE).bind(id).bind(organization).execute(c).await?.rows_affected());
    insert_secrets(conn, instance, &old.into_iter().collect()).await
}

async fn insert_secrets(conn: &mut Conn, instance: &Instance, attempted: &BTreeMap<String, i64>) -> Result<()> {
    const SQL: &str = "INSERT INTO instance_secrets (instance_id, name, organization_id, secret_id, version,
            attempted_version) VALUES ($1, $2, $3, $4, $5, $6)";
    for secret in &instance.secrets {
        let attempted = attempted.get(secret.secret_id.as_str()).copied().unwrap_or_default();
        on!(conn, c => sqlx::query(SQL)
            .bind(instance.id.as_str()).bind(&secret.name).bind(instance.organization_id.as_str())
            .bind(secret.secret_id.as_str()).bind(secret.version.cast_signed()).bind(attempted)
            .execute(c).await?.rows_affected());
    }
    Ok(())
}

/// Records that a rotation has attempted to move an instance to the current versions of its secrets, so that it is not
/// repeated if it fails.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn mark_rotation_attempted(conn: &mut Conn, organization: &OrganizationId, id: &InstanceId) -> Result<()> {
    const SQL: &str = "UPDATE instance_secrets SET attempted_version = version
        WHERE instance_id = $1 AND organization_id = $2 AND attempted_version < version";
    on!(conn, c => sqlx::query(SQL).bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the instance with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &InstanceId) -> Result<Option<Instance>> {
    let sql = select(conn.dialect(), "WHERE id = $1 AND organization_id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(sql)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    row.map(Instance::try_from).transpose()
}

/// Returns the instance with this slug.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_by_slug(conn: &mut Conn, organization: &OrganizationId, slug: &str) -> Result<Option<Instance>> {
    let sql = select(conn.dialect(), "WHERE organization_id = $1 AND slug = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(sql)
        .bind(organization.as_str()).bind(slug).fetch_optional(c).await?);
    row.map(Instance::try_from).transpose()
}

/// Returns the slug of the instance whose slug has this skeleton.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_slug_by_skeleton(
    conn: &mut Conn,
    organization: &OrganizationId,
    skeleton: &str,
) -> Result<Option<String>> {
    const SQL: &str = "SELECT slug FROM instances WHERE organization_id = $1 AND slug_skeleton = $2";
    Ok(on!(conn, c => sqlx::query_scalar(SQL)
        .bind(organization.as_str()).bind(skeleton).fetch_optional(c).await?))
}

/// Returns at most `limit` instances of an organisation, ordered by slug. With `after`, returns only those with a later
/// slug.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Instance>> {
    // A slug is never empty, so every slug sorts after the empty string.
    let sql = select(conn.dialect(), "WHERE organization_id = $1 AND slug > $2 ORDER BY slug LIMIT $3");
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(sql)
        .bind(organization.as_str()).bind(after.unwrap_or_default()).bind(limit).fetch_all(c).await?);
    rows.into_iter().map(Instance::try_from).collect()
}

/// Returns all instances of a toolbox, ordered by ID.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_by_toolbox(
    conn: &mut Conn,
    organization: &OrganizationId,
    toolbox: &ToolboxId,
) -> Result<Vec<Instance>> {
    let sql = select(conn.dialect(), "WHERE toolbox_id = $1 AND organization_id = $2 ORDER BY id");
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(sql)
        .bind(toolbox.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    rows.into_iter().map(Instance::try_from).collect()
}

/// Returns the number of instances of an organisation, excluding those that are being removed.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count(conn: &mut Conn, organization: &OrganizationId) -> Result<i64> {
    const SQL: &str = "SELECT count(*) FROM instances WHERE organization_id = $1 AND is_removing = $2";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(organization.as_str()).bind(false).fetch_one(c).await?))
}

/// Returns the IDs in `ids` that identify instances of the organisation that are not being removed, in order.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_existing(
    conn: &mut Conn,
    organization: &OrganizationId,
    ids: &[&InstanceId],
) -> Result<Vec<InstanceId>> {
    let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
    let sql = AssertSqlSafe(format!(
        "SELECT id FROM instances WHERE id {} AND organization_id = $2 AND is_removing = $3 ORDER BY id",
        in_list(conn.dialect())
    ));
    let found: Vec<String> = on!(conn, c => sqlx::query_scalar(sql)
        .bind(to_json(ids)).bind(organization.as_str()).bind(false).fetch_all(c).await?);
    Ok(found.into_iter().map(InstanceId::from_store).collect())
}

/// Deletes an instance with its secrets, deployments, events, grants and memberships in tool sets. Returns `false` if
/// it does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, id: &InstanceId) -> Result<bool> {
    const SQL: &str = "DELETE FROM instances WHERE id = $1 AND organization_id = $2";
    conn.bump_config_version(organization).await?;
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(deleted > 0)
}

/// Deletes all instances of a toolbox, like [`delete`].
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_by_toolbox(conn: &mut Conn, organization: &OrganizationId, toolbox: &ToolboxId) -> Result<()> {
    const SQL: &str = "DELETE FROM instances WHERE toolbox_id = $1 AND organization_id = $2";
    conn.bump_config_version(organization).await?;
    on!(conn, c => sqlx::query(SQL)
        .bind(toolbox.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns at most `limit` secrets with a new value to which some instances have not been moved yet, with their
/// organisations. Considers only instances that should run, and skips those for which a rotation to that value was
/// attempted.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_rotating_secrets(conn: &mut Conn, limit: i64) -> Result<Vec<(OrganizationId, ToolSecretId)>> {
    const SQL: &str = "SELECT DISTINCT u.organization_id, u.secret_id FROM instance_secrets u
        JOIN tool_secrets s ON s.id = u.secret_id
        JOIN instances i ON i.id = u.instance_id
        WHERE u.version < s.version AND u.attempted_version < s.version AND i.desired = 'running' AND i.is_removing = $1
        ORDER BY 1, 2 LIMIT $2";
    let rows: Vec<(String, String)> = on!(conn, c => sqlx::query_as(SQL).bind(false).bind(limit).fetch_all(c).await?);
    let ids = |(organization, secret)| (OrganizationId::from_store(organization), ToolSecretId::from_store(secret));
    Ok(rows.into_iter().map(ids).collect())
}

/// An instance that uses a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretUser {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its toolbox; `None` for a remote server.
    pub toolbox_id: Option<ToolboxId>,
    /// Whether a rotation has to move the instance to the secret's current value.
    pub is_outdated: bool,
    /// Whether a deployment of the instance is running.
    pub is_deploying: bool,
}

/// Returns the instances that should run and use a secret, ordered by ID.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_secret_users(
    conn: &mut Conn,
    organization: &OrganizationId,
    secret: &ToolSecretId,
) -> Result<Vec<SecretUser>> {
    const SQL: &str = "SELECT i.id, i.toolbox_id,
            max(CASE WHEN u.version < s.version AND u.attempted_version < s.version THEN 1 ELSE 0 END),
            max(CASE WHEN d.id IS NULL THEN 0 ELSE 1 END)
        FROM instance_secrets u
        JOIN tool_secrets s ON s.id = u.secret_id
        JOIN instances i ON i.id = u.instance_id
        LEFT JOIN deployments d ON d.instance_id = i.id AND d.generation = i.generation AND d.state = 'running'
        WHERE u.secret_id = $1 AND u.organization_id = $2 AND i.desired = 'running' AND i.is_removing = $3
        GROUP BY i.id, i.toolbox_id ORDER BY i.id";
    let rows: Vec<(String, Option<String>, i32, i32)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(secret.as_str()).bind(organization.as_str()).bind(false).fetch_all(c).await?);
    let user = |(instance, toolbox, is_outdated, is_deploying): (String, Option<String>, i32, i32)| SecretUser {
        instance_id: InstanceId::from_store(instance),
        toolbox_id: toolbox.map(ToolboxId::from_store),
        is_outdated: is_outdated != 0,
        is_deploying: is_deploying != 0,
    };
    Ok(rows.into_iter().map(user).collect())
}
