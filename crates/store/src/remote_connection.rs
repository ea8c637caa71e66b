//! Connections to remote servers that require OAuth: one per instance, or one per instance and agent.
//!
//! Invariants:
//! 1. A refresh token is sent only by the process that holds the lease of its revision, and at most one process holds
//!    that lease at a time. A lease lasts 30 seconds longer than a refresh can take, so the clocks of the processes
//!    must not differ by more than 30 seconds.
//! 2. A result is stored only if the connection still has the revision that was leased, so a refresh never overwrites
//!    the tokens of another refresh or of a new connection. Every change of the tokens increases the revision, and the
//!    first revision of a connection is the time in milliseconds, so no revision of a connection is used twice.
//! 3. A connection is looked up only by its instance and its agent or, for the connection of the organisation, by its
//!    instance alone.

use waypost_core::Timestamp;
use waypost_core::agent::AgentKind;
use waypost_core::id::{AgentId, InstanceId, OrganizationId};

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;
use crate::row::RowRef;

macro_rules! columns {
    () => {
        "organization_id, instance_id, agent_id, issuer, credentials, revision, expires_at, refresh_at, failed_at, \
         is_by_admin, connected_by, connected_at, updated_at, required_scope"
    };
}

/// A connection to the server of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteConnection {
    /// The instance.
    pub instance_id: InstanceId,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The agent whose requests it authorizes. `None` for the connection of the organisation.
    pub agent_id: Option<AgentId>,
    /// The issuer of the authorization server.
    pub issuer: String,
    /// The tokens and the data needed to refresh them, sealed to the row.
    pub credentials: String,
    /// The revision of the tokens, which increases with every change.
    pub revision: i64,
    /// The expiry of the access token; `None` if it is unknown.
    pub expires_at: Option<Timestamp>,
    /// The time from which the tokens are refreshed; `None` if they cannot be refreshed or their expiry is unknown.
    pub refresh_at: Option<Timestamp>,
    /// The time at which the authorization server rejected a refresh. Such a connection is no longer used.
    pub failed_at: Option<Timestamp>,
    /// Whether the user who connected the instance was an admin.
    pub is_by_admin: bool,
    /// The ID of the user who connected the instance.
    pub connected_by: String,
    /// The time at which the instance was connected.
    pub connected_at: Timestamp,
    /// The time at which the tokens were stored.
    pub updated_at: Timestamp,
    /// The scope that the server requires and the tokens lack; `None` if no missing scope is known. The next
    /// authorization requests it.
    pub required_scope: Option<String>,
}

/// Identifies a connection: the instance, and the agent, or `None` for the connection of the organisation.
pub type ConnectionKey<'a> = (&'a InstanceId, Option<&'a AgentId>);

impl RemoteConnection {
    /// Returns the key that identifies the connection in its organisation.
    #[must_use]
    pub fn key(&self) -> ConnectionKey<'_> {
        (&self.instance_id, self.agent_id.as_ref())
    }
}

/// Returns the ID of the row of a connection.
#[must_use]
pub fn row_id((instance, agent): ConnectionKey<'_>) -> String {
    match agent {
        Some(agent) => format!("{instance}:{agent}"),
        None => instance.to_string(),
    }
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    organization_id: String,
    instance_id: String,
    agent_id: Option<String>,
    issuer: String,
    credentials: String,
    revision: i64,
    expires_at: Option<i64>,
    refresh_at: Option<i64>,
    failed_at: Option<i64>,
    is_by_admin: bool,
    connected_by: String,
    connected_at: i64,
    updated_at: i64,
    required_scope: Option<String>,
}

impl From<Row> for RemoteConnection {
    fn from(row: Row) -> Self {
        Self {
            instance_id: InstanceId::from_store(row.instance_id),
            organization_id: OrganizationId::from_store(row.organization_id),
            agent_id: row.agent_id.map(AgentId::from_store),
            issuer: row.issuer,
            credentials: row.credentials,
            revision: row.revision,
            expires_at: row.expires_at.map(Timestamp),
            refresh_at: row.refresh_at.map(Timestamp),
            failed_at: row.failed_at.map(Timestamp),
            is_by_admin: row.is_by_admin,
            connected_by: row.connected_by,
            connected_at: Timestamp(row.connected_at),
            updated_at: Timestamp(row.updated_at),
            required_scope: row.required_scope,
        }
    }
}

/// Inserts a connection, or replaces the existing one of the same instance and agent. The new revision is the given one
/// or, if that is not higher than the replaced connection's revision, the next one. A refresh in progress then writes
/// nothing.
///
/// # Errors
/// Returns a foreign key violation if the instance or the agent does not exist, or another error if the database fails.
pub async fn upsert(conn: &mut Conn, connection: &RemoteConnection) -> Result<()> {
    const SQL: &str = concat!(
        "INSERT INTO remote_connections (id, ",
        columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
        ON CONFLICT (id) DO UPDATE SET issuer = excluded.issuer, credentials = excluded.credentials,
            revision = CASE WHEN excluded.revision > remote_connections.revision THEN excluded.revision
                ELSE remote_connections.revision + 1 END,
            expires_at = excluded.expires_at, refresh_at = excluded.refresh_at, leased_until = NULL,
            failed_at = excluded.failed_at, is_by_admin = excluded.is_by_admin,
            connected_by = excluded.connected_by, connected_at = excluded.connected_at,
            updated_at = excluded.updated_at, required_scope = excluded.required_scope"
    );
    on!(conn, c => sqlx::query(SQL)
        .bind(row_id(connection.key())).bind(connection.organization_id.as_str()).bind(connection.instance_id.as_str())
        .bind(connection.agent_id.as_ref().map(AgentId::as_str)).bind(&connection.issuer)
        .bind(&connection.credentials).bind(connection.revision).bind(connection.expires_at.map(|at| at.0))
        .bind(connection.refresh_at.map(|at| at.0)).bind(connection.failed_at.map(|at| at.0))
        .bind(connection.is_by_admin).bind(&connection.connected_by).bind(connection.connected_at.0)
        .bind(connection.updated_at.0).bind(connection.required_scope.as_deref()).execute(c).await?.rows_affected());
    Ok(())
}

/// Stores the scope that the server requires and that the tokens of a connection lack. Returns `false` if the
/// connection no longer has this revision, because its tokens were replaced.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn require_scope(
    conn: &mut Conn,
    (organization, key): (&OrganizationId, ConnectionKey<'_>),
    revision: i64,
    scope: &str,
) -> Result<bool> {
    const SQL: &str = "UPDATE remote_connections SET required_scope = $4
        WHERE id = $1 AND organization_id = $2 AND revision = $3";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(row_id(key)).bind(organization.as_str()).bind(revision).bind(scope)
        .execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Clears the required scope of a connection. Returns `false` if none was stored.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn forget_required_scope(
    conn: &mut Conn,
    organization: &OrganizationId,
    key: ConnectionKey<'_>,
) -> Result<bool> {
    const SQL: &str = "UPDATE remote_connections SET required_scope = NULL
        WHERE id = $1 AND organization_id = $2 AND required_scope IS NOT NULL";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(row_id(key)).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Returns the connection with this key.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(
    conn: &mut Conn,
    organization: &OrganizationId,
    key: ConnectionKey<'_>,
) -> Result<Option<RemoteConnection>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM remote_connections WHERE id = $1 AND organization_id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(row_id(key)).bind(organization.as_str()).fetch_optional(c).await?);
    Ok(row.map(RemoteConnection::from))
}

/// Returns the revision of a connection that has not failed.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_revision(
    conn: &mut Conn,
    organization: &OrganizationId,
    key: ConnectionKey<'_>,
) -> Result<Option<i64>> {
    const SQL: &str = "SELECT revision FROM remote_connections
        WHERE id = $1 AND organization_id = $2 AND failed_at IS NULL";
    Ok(on!(conn, c => sqlx::query_scalar(SQL)
        .bind(row_id(key)).bind(organization.as_str()).fetch_optional(c).await?))
}

/// A connection with the name and the kind of its agent, which are `None` for the connection of the organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedConnection {
    /// The connection.
    pub connection: RemoteConnection,
    /// The name and the kind of the agent.
    pub agent: Option<(String, AgentKind)>,
}

#[derive(sqlx_macros::FromRow)]
struct ListedRow {
    #[sqlx(flatten)]
    row: Row,
    agent_name: Option<String>,
    agent_kind: Option<String>,
}

impl TryFrom<ListedRow> for ListedConnection {
    type Error = Error;

    fn try_from(listed: ListedRow) -> Result<Self> {
        let at = RowRef { table: "agents", id: listed.row.agent_id.as_deref().unwrap_or_default() };
        let agent = match (listed.agent_name, listed.agent_kind) {
            (Some(name), Some(kind)) => Some((name, at.parse("kind", &kind)?)),
            _ => None,
        };
        Ok(Self { agent, connection: listed.row.into() })
    }
}

/// Returns at most `limit` connections of an instance: first the organisation's connection, then those of agents,
/// ordered by agent ID. With `after`, returns only those of later agents.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
    after: Option<&AgentId>,
    limit: u32,
) -> Result<Vec<ListedConnection>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        ", (SELECT name FROM agents WHERE agents.id = remote_connections.agent_id) AS agent_name,
            (SELECT kind FROM agents WHERE agents.id = remote_connections.agent_id) AS agent_kind
        FROM remote_connections WHERE instance_id = $1 AND organization_id = $2 AND id > $3 ORDER BY id LIMIT $4"
    );
    // An ID is never empty, so every ID sorts after the empty string.
    let after = after.map(|agent| row_id((instance, Some(agent)))).unwrap_or_default();
    let rows: Vec<ListedRow> = on!(conn, c => sqlx::query_as(SQL)
        .bind(instance.as_str()).bind(organization.as_str()).bind(after).bind(i64::from(limit)).fetch_all(c).await?);
    rows.into_iter().map(ListedConnection::try_from).collect()
}

/// Returns at most `limit` agents whose connections can be used to read the definitions of an instance, in order of
/// preference: first agents that an admin connected, then the others, each in the order in which they were connected.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_definition_agents(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
    limit: u32,
) -> Result<Vec<AgentId>> {
    const SQL: &str = "SELECT agent_id FROM remote_connections
        WHERE instance_id = $1 AND organization_id = $2 AND agent_id IS NOT NULL AND failed_at IS NULL
        ORDER BY is_by_admin DESC, connected_at, id LIMIT $3";
    let ids: Vec<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(instance.as_str()).bind(organization.as_str()).bind(i64::from(limit)).fetch_all(c).await?);
    Ok(ids.into_iter().map(AgentId::from_store).collect())
}

/// Returns the connections of an agent.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_of_agent(
    conn: &mut Conn,
    organization: &OrganizationId,
    agent: &AgentId,
) -> Result<Vec<RemoteConnection>> {
    const SQL: &str =
        concat!("SELECT ", columns!(), " FROM remote_connections WHERE agent_id = $1 AND organization_id = $2");
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(agent.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    Ok(rows.into_iter().map(RemoteConnection::from).collect())
}

/// Leases at most `limit` connections of any organisation that are due for a refresh at `now`, longest waiting first.
/// No other process leases them before `until`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn lease_due(conn: &mut Conn, now: Timestamp, until: Timestamp, limit: i64) -> Result<Vec<RemoteConnection>> {
    // The conditions are repeated because PostgreSQL re-evaluates only the outer ones after waiting for another process
    // that locked the row. That process may have leased the connection, or already refreshed it.
    const SQL: &str = concat!(
        "UPDATE remote_connections SET leased_until = $2
        WHERE refresh_at <= $1 AND (leased_until IS NULL OR leased_until <= $1) AND id IN
            (SELECT id FROM remote_connections WHERE refresh_at <= $1
                 AND (leased_until IS NULL OR leased_until <= $1) ORDER BY refresh_at LIMIT $3)
        RETURNING ",
        columns!()
    );
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL).bind(now.0).bind(until.0).bind(limit).fetch_all(c).await?);
    Ok(rows.into_iter().map(RemoteConnection::from).collect())
}

/// Leases a connection if it has this revision, has not failed and is not leased. Otherwise, returns `None`. No other
/// process can lease it before `until`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn lease(
    conn: &mut Conn,
    (organization, key): (&OrganizationId, ConnectionKey<'_>),
    revision: i64,
    (now, until): (Timestamp, Timestamp),
) -> Result<Option<RemoteConnection>> {
    const SQL: &str = concat!(
        "UPDATE remote_connections SET leased_until = $5
        WHERE id = $1 AND organization_id = $2 AND revision = $3 AND failed_at IS NULL
            AND (leased_until IS NULL OR leased_until <= $4)
        RETURNING ",
        columns!()
    );
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(row_id(key)).bind(organization.as_str()).bind(revision).bind(now.0).bind(until.0)
        .fetch_optional(c).await?);
    Ok(row.map(RemoteConnection::from))
}

/// Stores the tokens of a refresh with the next revision, and ends the lease. Returns `false` if the connection no
/// longer has the revision of `new`, which is the one that was leased.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn complete_refresh(conn: &mut Conn, new: &RemoteConnection) -> Result<bool> {
    const SQL: &str = "UPDATE remote_connections SET credentials = $4, revision = revision + 1, expires_at = $5,
            refresh_at = $6, updated_at = $7, leased_until = NULL
        WHERE id = $1 AND organization_id = $2 AND revision = $3";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(row_id(new.key())).bind(new.organization_id.as_str()).bind(new.revision).bind(&new.credentials)
        .bind(new.expires_at.map(|at| at.0)).bind(new.refresh_at.map(|at| at.0)).bind(new.updated_at.0)
        .execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Deletes a connection, regardless of its revision. Returns the deleted connection.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(
    conn: &mut Conn,
    organization: &OrganizationId,
    key: ConnectionKey<'_>,
) -> Result<Option<RemoteConnection>> {
    const SQL: &str =
        concat!("DELETE FROM remote_connections WHERE id = $1 AND organization_id = $2 RETURNING ", columns!());
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(row_id(key)).bind(organization.as_str()).fetch_optional(c).await?);
    Ok(row.map(RemoteConnection::from))
}

/// Deletes and returns all connections of an instance.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_all(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
) -> Result<Vec<RemoteConnection>> {
    const SQL: &str = concat!(
        "DELETE FROM remote_connections WHERE instance_id = $1 AND organization_id = $2 RETURNING ",
        columns!()
    );
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(instance.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    Ok(rows.into_iter().map(RemoteConnection::from).collect())
}

/// Deletes a connection whose refresh was rejected. Returns `false` if it no longer has the revision that was leased.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_rejected(conn: &mut Conn, rejected: &RemoteConnection) -> Result<bool> {
    const SQL: &str = "DELETE FROM remote_connections WHERE id = $1 AND organization_id = $2 AND revision = $3";
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(row_id(rejected.key())).bind(rejected.organization_id.as_str()).bind(rejected.revision)
        .execute(c).await?.rows_affected());
    Ok(deleted > 0)
}

/// Marks a connection whose refresh was rejected as failed, with the next revision, so that it is no longer used or
/// refreshed. Returns `false` if it no longer has the revision that was leased.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn fail_rejected(conn: &mut Conn, rejected: &RemoteConnection, now: Timestamp) -> Result<bool> {
    const SQL: &str = "UPDATE remote_connections SET failed_at = $4, revision = revision + 1, refresh_at = NULL,
            leased_until = NULL
        WHERE id = $1 AND organization_id = $2 AND revision = $3";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(row_id(rejected.key())).bind(rejected.organization_id.as_str()).bind(rejected.revision).bind(now.0)
        .execute(c).await?.rows_affected());
    Ok(changed > 0)
}
