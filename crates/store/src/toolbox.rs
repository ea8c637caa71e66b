//! Toolboxes. Only the SHA-256 of a join token is stored.

use waypost_core::Timestamp;
use waypost_core::id::{OrganizationId, ToolboxId};
use waypost_core::toolbox::Toolbox;
use waypost_toolbox_proto::entry::ResourceClass;
use waypost_toolbox_proto::message::{Capacity, Engine};

use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;
use crate::row::RowRef;

/// The columns of [`Row`].
macro_rules! columns {
    () => {
        "id, organization_id, name, join_token_hash, join_expires_at, public_key, key_rotation_requested_at,
            joined_at, revoked_at, version, engine, capacity, last_seen_at, unresponsive_at, desired_revision, last_event,
            created_at, updated_at"
    };
}
pub(crate) use columns;

#[derive(sqlx_macros::FromRow)]
pub(crate) struct Row {
    id: String,
    organization_id: String,
    name: String,
    join_token_hash: Option<String>,
    join_expires_at: Option<i64>,
    public_key: Option<String>,
    key_rotation_requested_at: Option<i64>,
    joined_at: Option<i64>,
    revoked_at: Option<i64>,
    version: Option<String>,
    engine: Option<String>,
    capacity: Option<String>,
    last_seen_at: Option<i64>,
    unresponsive_at: Option<i64>,
    desired_revision: i64,
    last_event: i64,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for Toolbox {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let at = RowRef { table: "toolboxes", id: &row.id };
        Ok(Self {
            engine: row.engine.as_deref().map(|text| at.parse_json::<Engine>("engine", text)).transpose()?,
            capacity: row.capacity.as_deref().map(|text| at.parse_json::<Capacity>("capacity", text)).transpose()?,
            desired_revision: at.to_u64("desired_revision", row.desired_revision)?,
            last_event: at.to_u64("last_event", row.last_event)?,
            id: ToolboxId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            name: row.name,
            join_token_hash: row.join_token_hash,
            join_expires_at: row.join_expires_at.map(Timestamp),
            public_key: row.public_key,
            key_rotation_requested_at: row.key_rotation_requested_at.map(Timestamp),
            joined_at: row.joined_at.map(Timestamp),
            revoked_at: row.revoked_at.map(Timestamp),
            version: row.version,
            last_seen_at: row.last_seen_at.map(Timestamp),
            unresponsive_at: row.unresponsive_at.map(Timestamp),
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
        })
    }
}

/// Locks an organisation until the end of the transaction. Returns `false` if it does not exist. The limits of
/// toolboxes and instances, and the placement of instances, are checked under this lock. It is acquired before the
/// locks of toolboxes and instances.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn lock_organization(conn: &mut Conn, organization: &OrganizationId) -> Result<bool> {
    // SQLite needs no lock, because it has a single writer.
    let sql = match conn.dialect() {
        Dialect::Sqlite => "SELECT id FROM organizations WHERE id = $1",
        Dialect::Postgres => "SELECT id FROM organizations WHERE id = $1 FOR NO KEY UPDATE",
    };
    let found: Option<String> =
        on!(conn, c => sqlx::query_scalar(sql).bind(organization.as_str()).fetch_optional(c).await?);
    Ok(found.is_some())
}

/// Inserts a toolbox without a machine.
///
/// # Errors
/// Returns a unique violation if the name is taken, or another error if the database fails.
pub async fn insert(conn: &mut Conn, toolbox: &Toolbox) -> Result<()> {
    const SQL: &str = "INSERT INTO toolboxes (id, organization_id, name, join_token_hash, join_expires_at,
            desired_revision, last_event, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8)";
    on!(conn, c => sqlx::query(SQL)
        .bind(toolbox.id.as_str()).bind(toolbox.organization_id.as_str()).bind(&toolbox.name)
        .bind(toolbox.join_token_hash.as_deref()).bind(toolbox.join_expires_at.map(|at| at.0))
        .bind(toolbox.desired_revision.cast_signed())
        .bind(toolbox.created_at.0).bind(toolbox.updated_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the toolbox with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &ToolboxId) -> Result<Option<Toolbox>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM toolboxes WHERE id = $1 AND organization_id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    row.map(Toolbox::try_from).transpose()
}

/// Like [`find`], and locks the toolbox until the end of the transaction. The instances of a toolbox are changed under
/// this lock.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn lock(conn: &mut Conn, organization: &OrganizationId, id: &ToolboxId) -> Result<Option<Toolbox>> {
    const PLAIN: &str = concat!("SELECT ", columns!(), " FROM toolboxes WHERE id = $1 AND organization_id = $2");
    const LOCKING: &str =
        concat!("SELECT ", columns!(), " FROM toolboxes WHERE id = $1 AND organization_id = $2 FOR NO KEY UPDATE");
    let sql = if conn.dialect() == Dialect::Sqlite { PLAIN } else { LOCKING };
    let row: Option<Row> = on!(conn, c => sqlx::query_as(sql)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    row.map(Toolbox::try_from).transpose()
}

/// Returns the toolbox with this name.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_by_name(conn: &mut Conn, organization: &OrganizationId, name: &str) -> Result<Option<Toolbox>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM toolboxes WHERE organization_id = $1 AND name = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(name).fetch_optional(c).await?);
    row.map(Toolbox::try_from).transpose()
}

/// Returns at most `limit` toolboxes of an organisation, ordered by name. With `after`, returns only those with a later
/// name.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Toolbox>> {
    // A name is never empty, so every name sorts after the empty string.
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM toolboxes WHERE organization_id = $1 AND name > $2 ORDER BY name LIMIT $3"
    );
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(after.unwrap_or_default()).bind(limit).fetch_all(c).await?);
    rows.into_iter().map(Toolbox::try_from).collect()
}

/// Returns the number of toolboxes of an organisation.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count(conn: &mut Conn, organization: &OrganizationId) -> Result<i64> {
    const SQL: &str = "SELECT count(*) FROM toolboxes WHERE organization_id = $1";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(organization.as_str()).fetch_one(c).await?))
}

/// Instances of one resource class on a toolbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassUse {
    /// The resource class.
    pub class: ResourceClass,
    /// The number of instances, including those that are being removed.
    pub instances: u64,
}

/// Returns the numbers of instances on the toolboxes of an organisation, by toolbox and resource class. With `toolbox`,
/// returns only those of this toolbox.
///
/// # Errors
/// Returns an error if the database fails or a version has an unknown resource class.
pub async fn list_use(
    conn: &mut Conn,
    organization: &OrganizationId,
    toolbox: Option<&ToolboxId>,
) -> Result<Vec<(ToolboxId, ClassUse)>> {
    let class = match conn.dialect() {
        Dialect::Sqlite => "v.definition ->> 'resources'",
        Dialect::Postgres => "v.definition::json ->> 'resources'",
    };
    let condition = if toolbox.is_some() { "i.toolbox_id = $2" } else { "$2 = ''" };
    let sql = format!(
        "SELECT i.toolbox_id, coalesce({class}, 'medium') AS class, count(*) FROM instances i
         JOIN catalog_versions v ON v.id = i.catalog_version_id
         WHERE i.organization_id = $1 AND {condition} GROUP BY 1, 2 ORDER BY 1, 2"
    );
    let rows: Vec<(String, String, i64)> = on!(conn, c => sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(organization.as_str()).bind(toolbox.map_or("", |id| id.as_str())).fetch_all(c).await?);
    let mut uses = Vec::with_capacity(rows.len());
    for (toolbox, class, instances) in rows {
        let at = RowRef { table: "catalog_versions", id: &toolbox };
        let class_use = ClassUse { class: at.parse("definition", &class)?, instances: at.to_u64("count", instances)? };
        uses.push((ToolboxId::from_store(toolbox), class_use));
    }
    Ok(uses)
}

/// Renames a toolbox. Returns `false` if it does not exist.
///
/// # Errors
/// Returns a unique violation if the name is taken, or another error if the database fails.
pub async fn rename(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &ToolboxId,
    name: &str,
    now: Timestamp,
) -> Result<bool> {
    const SQL: &str = "UPDATE toolboxes SET name = $3, updated_at = $4 WHERE id = $1 AND organization_id = $2";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(name).bind(now.0).execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// A machine that joins a toolbox.
#[derive(Debug, Clone, Copy)]
pub struct Joining<'a> {
    /// The SHA-256 of the token.
    pub token_hash: &'a str,
    /// The public key.
    pub public_key: &'a str,
    /// The version of the daemon.
    pub version: &'a str,
    /// The current time.
    pub now: Timestamp,
}

/// Registers the machine of a toolbox, if the token is still valid and no machine has joined with it. The hash of the
/// token is kept until [`update_link`] or [`delete_expired_tokens`] removes it, so that the same machine can repeat its
/// request. Returns `false` if the token has been used or has expired.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn join(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &ToolboxId,
    joining: Joining<'_>,
) -> Result<bool> {
    const SQL: &str = "UPDATE toolboxes SET public_key = $4, version = $5, joined_at = $6, updated_at = $6
        WHERE id = $1 AND organization_id = $2 AND join_token_hash = $3 AND join_expires_at > $6
          AND public_key IS NULL AND revoked_at IS NULL";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(joining.token_hash).bind(joining.public_key)
        .bind(joining.version).bind(joining.now.0).execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// A new join token.
#[derive(Debug, Clone, Copy)]
pub struct NewToken<'a> {
    /// The SHA-256 of the token.
    pub hash: &'a str,
    /// The time at which the token expires.
    pub expires_at: Timestamp,
    /// The current time.
    pub now: Timestamp,
}

/// Replaces the join token of a toolbox whose daemon has never sent a heartbeat, and removes the key of a machine that
/// has joined with the previous token. Returns `false` if there was a heartbeat, or the toolbox is revoked or does not
/// exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn renew_token(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &ToolboxId,
    token: NewToken<'_>,
) -> Result<bool> {
    const SQL: &str = "UPDATE toolboxes SET join_token_hash = $3, join_expires_at = $4, public_key = NULL,
            key_rotation_requested_at = NULL, joined_at = NULL, version = NULL, updated_at = $5
        WHERE id = $1 AND organization_id = $2 AND last_seen_at IS NULL AND revoked_at IS NULL";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(token.hash).bind(token.expires_at.0).bind(token.now.0)
        .execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Deletes the hashes of at most `limit` join tokens that have expired. Returns their number.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_expired_tokens(conn: &mut Conn, now: Timestamp, limit: i64) -> Result<u64> {
    // `> ''` is true for every hash, so the index on hashes is used: few toolboxes have one. The outer condition is
    // re-evaluated after waiting for the row's lock.
    const SQL: &str = "UPDATE toolboxes SET join_token_hash = NULL, join_expires_at = NULL
        WHERE join_expires_at <= $1
          AND id IN (SELECT id FROM toolboxes WHERE join_token_hash > '' AND join_expires_at <= $1 LIMIT $2)";
    Ok(on!(conn, c => sqlx::query(SQL).bind(now.0).bind(limit).execute(c).await?.rows_affected()))
}

/// Revokes a toolbox and its join token. Returns `false` if it is already revoked or does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn revoke(conn: &mut Conn, organization: &OrganizationId, id: &ToolboxId, now: Timestamp) -> Result<bool> {
    const SQL: &str = "UPDATE toolboxes SET revoked_at = $3, join_token_hash = NULL, join_expires_at = NULL,
            key_rotation_requested_at = NULL, updated_at = $3
        WHERE id = $1 AND organization_id = $2 AND revoked_at IS NULL";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(now.0).execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Records that the daemon must create a new key.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn request_key_rotation(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &ToolboxId,
    now: Timestamp,
) -> Result<()> {
    const SQL: &str = "UPDATE toolboxes SET key_rotation_requested_at = $3, updated_at = $3
        WHERE id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(now.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Records that the link of a toolbox was opened: its version, its key, and a pending request for a new key. Removes
/// the join token, which is no longer needed.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn update_link(conn: &mut Conn, toolbox: &Toolbox) -> Result<()> {
    const SQL: &str = "UPDATE toolboxes SET version = $3, public_key = $4, key_rotation_requested_at = $5,
            join_token_hash = NULL, join_expires_at = NULL
        WHERE id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(toolbox.id.as_str()).bind(toolbox.organization_id.as_str()).bind(toolbox.version.as_deref())
        .bind(toolbox.public_key.as_deref()).bind(toolbox.key_rotation_requested_at.map(|at| at.0))
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Records a heartbeat: version, engine, capacity, time and desired revision. The toolbox is no longer unresponsive.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn update_heartbeat(conn: &mut Conn, toolbox: &Toolbox) -> Result<()> {
    const SQL: &str = "UPDATE toolboxes SET version = $3, engine = $4, capacity = $5, last_seen_at = $6,
            unresponsive_at = NULL, desired_revision = $7
        WHERE id = $1 AND organization_id = $2";
    let engine = toolbox.engine.as_ref().map(serde_json::to_string).transpose().map_err(unserializable)?;
    let capacity = toolbox.capacity.as_ref().map(serde_json::to_string).transpose().map_err(unserializable)?;
    on!(conn, c => sqlx::query(SQL)
        .bind(toolbox.id.as_str()).bind(toolbox.organization_id.as_str()).bind(toolbox.version.as_deref())
        .bind(engine).bind(capacity).bind(toolbox.last_seen_at.map(|at| at.0))
        .bind(toolbox.desired_revision.cast_signed()).execute(c).await?.rows_affected());
    Ok(())
}

fn unserializable(error: serde_json::Error) -> Error {
    Error::Database(sqlx::Error::Encode(error.into()))
}

/// Increments the revision of the desired state. Must be called in every transaction that changes the toolbox's
/// instances.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn increment_revision(conn: &mut Conn, organization: &OrganizationId, id: &ToolboxId) -> Result<()> {
    const SQL: &str =
        "UPDATE toolboxes SET desired_revision = desired_revision + 1 WHERE id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL).bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(())
}

/// Sets the sequence number of the last stored event.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn set_last_event(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &ToolboxId,
    sequence: u64,
) -> Result<()> {
    const SQL: &str = "UPDATE toolboxes SET last_event = $3 WHERE id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(sequence.cast_signed()).execute(c).await?.rows_affected());
    Ok(())
}

/// Marks at most `limit` toolboxes that were last seen before `before` as unresponsive and returns them. Each outage is
/// returned once.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn mark_unresponsive(conn: &mut Conn, before: Timestamp, now: Timestamp, limit: i64) -> Result<Vec<Toolbox>> {
    // The outer conditions are re-evaluated after waiting for the row's lock.
    const SQL: &str = concat!(
        "UPDATE toolboxes SET unresponsive_at = $2
         WHERE last_seen_at < $1 AND revoked_at IS NULL AND unresponsive_at IS NULL
           AND id IN (SELECT id FROM toolboxes WHERE last_seen_at < $1 AND revoked_at IS NULL AND unresponsive_at IS NULL
                      ORDER BY last_seen_at LIMIT $3)
         RETURNING ",
        columns!()
    );
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(before.0).bind(now.0).bind(limit).fetch_all(c).await?);
    rows.into_iter().map(Toolbox::try_from).collect()
}

/// Deletes a toolbox, which must not have instances. Returns `false` if it does not exist.
///
/// # Errors
/// Returns a foreign key violation if the toolbox has instances, or another error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, id: &ToolboxId) -> Result<bool> {
    const SQL: &str = "DELETE FROM toolboxes WHERE id = $1 AND organization_id = $2";
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(deleted > 0)
}
