//! Hosted servers, and the slugs that they had before.

use waypost_core::Timestamp;
use waypost_core::id::{OauthConfigId, OrganizationId, ServerId};
use waypost_core::server::Server;

use crate::counted_call;
use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;
use crate::row::containing;

/// The columns of [`Row`], for every query that reads servers.
macro_rules! columns {
    () => {
        "servers.id, servers.organization_id, servers.slug, servers.name, servers.product_name, servers.auth_type,
         servers.sign_in, servers.oauth_config_id, servers.walkthrough_tools_enabled, servers.toolset, servers.support,
         servers.allowed_origins, servers.public_page, servers.public_page_indexed, servers.created_at, servers.updated_at"
    };
}
pub(crate) use columns;

#[derive(sqlx::FromRow)]
pub(crate) struct Row {
    id: String,
    organization_id: String,
    slug: String,
    name: String,
    product_name: String,
    auth_type: String,
    sign_in: String,
    oauth_config_id: Option<String>,
    walkthrough_tools_enabled: bool,
    toolset: String,
    support: String,
    allowed_origins: String,
    public_page: bool,
    public_page_indexed: bool,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for Server {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let corrupt = |why: String| Error::Corrupt { table: "servers", id: row.id.clone(), why };
        Ok(Self {
            auth_type: row.auth_type.parse().map_err(corrupt)?,
            sign_in: row.sign_in.parse().map_err(corrupt)?,
            toolset: row.toolset.parse().map_err(corrupt)?,
            support: row.support.parse().map_err(corrupt)?,
            allowed_origins: serde_json::from_str(&row.allowed_origins).map_err(|error| corrupt(error.to_string()))?,
            organization_id: OrganizationId::from_store(row.organization_id),
            oauth_config_id: row.oauth_config_id.map(OauthConfigId::from_store),
            slug: row.slug,
            name: row.name,
            product_name: row.product_name,
            walkthrough_tools_enabled: row.walkthrough_tools_enabled,
            public_page: row.public_page,
            public_page_indexed: row.public_page_indexed,
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
            id: ServerId::from_store(row.id),
        })
    }
}

fn origins(server: &Server) -> String {
    serde_json::Value::from(server.allowed_origins.clone()).to_string()
}

fn provider(server: &Server) -> Option<&str> {
    server.oauth_config_id.as_ref().map(OauthConfigId::as_str)
}

/// Refuses a slug that a server other than `server` had before and still answers to.
async fn check_aliases(conn: &mut Conn, server: &Server) -> Result<()> {
    const SQL: &str = "SELECT count(*) FROM server_aliases WHERE slug = $1 AND server_id <> $2";
    let taken: i64 = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(&server.slug).bind(server.id.as_str()).fetch_one(c).await?);
    if taken == 0 { Ok(()) } else { Err(Error::Taken { what: "server_aliases.slug" }) }
}

/// Inserts a server.
///
/// # Errors
/// A unique violation when the slug is taken, by a server or as the former slug of one; otherwise when the database
/// fails.
pub async fn insert(conn: &mut Conn, server: &Server) -> Result<()> {
    const SQL: &str = "INSERT INTO servers (id, organization_id, slug, name, product_name, auth_type, sign_in,
            walkthrough_tools_enabled, toolset, support, allowed_origins, created_at, updated_at, oauth_config_id,
            public_page, public_page_indexed)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";
    // First of all: this locks the one row, so that two changes of slugs cannot pass each other's look at the aliases.
    conn.touch_config().await?;
    check_aliases(conn, server).await?;
    on!(conn, c => sqlx::query(SQL)
        .bind(server.id.as_str()).bind(server.organization_id.as_str()).bind(&server.slug).bind(&server.name)
        .bind(&server.product_name).bind(server.auth_type.as_str()).bind(server.sign_in.as_str())
        .bind(server.walkthrough_tools_enabled).bind(server.toolset.as_str()).bind(server.support.as_str())
        .bind(origins(server)).bind(server.created_at.0).bind(server.updated_at.0).bind(provider(server))
        .bind(server.public_page).bind(server.public_page_indexed)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// A server by id.
///
/// # Errors
/// When the database fails, or the row cannot be read.
pub async fn get(conn: &mut Conn, organization: &OrganizationId, id: &ServerId) -> Result<Option<Server>> {
    const SQL: &str =
        concat!("SELECT ", columns!(), " FROM servers WHERE servers.id = $1 AND servers.organization_id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    row.map(Server::try_from).transpose()
}

/// All servers of an organisation, by slug.
///
/// # Errors
/// When the database fails, or a row cannot be read.
pub async fn list(conn: &mut Conn, organization: &OrganizationId) -> Result<Vec<Server>> {
    const SQL: &str =
        concat!("SELECT ", columns!(), " FROM servers WHERE servers.organization_id = $1 ORDER BY servers.slug");
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL).bind(organization.as_str()).fetch_all(c).await?);
    rows.into_iter().map(Server::try_from).collect()
}

/// Which servers of an organisation to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Query<'a> {
    /// A part of the name, the product's name or the slug; large and small letters are the same (on SQLite those of
    /// ASCII).
    pub text: Option<&'a str>,
    /// Those whose slug comes after this one.
    pub after: Option<&'a str>,
    /// So many at most.
    pub limit: u32,
}

/// Some of the servers of an organisation, by slug.
///
/// # Errors
/// When the database fails, or a row cannot be read.
pub async fn search(conn: &mut Conn, organization: &OrganizationId, query: Query<'_>) -> Result<Vec<Server>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM servers WHERE servers.organization_id = $1 AND servers.slug > $2
            AND (lower(servers.name) LIKE lower($3) ESCAPE '!' OR lower(servers.product_name) LIKE lower($3) ESCAPE '!'
                OR servers.slug LIKE lower($3) ESCAPE '!')
          ORDER BY servers.slug LIMIT $4"
    );
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(query.after.unwrap_or_default())
        .bind(containing(query.text.unwrap_or_default())).bind(i64::from(query.limit)).fetch_all(c).await?);
    rows.into_iter().map(Server::try_from).collect()
}

/// How much a server is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Walkthroughs that are placed on it.
    pub walkthroughs: i64,
    /// Tool calls since then, [`MAX_CALLS`] at most: nobody waits for the rest to be counted.
    pub calls: i64,
    /// The last tool call in the log. Of the calls that are only counted, each has one with a row in the same minute.
    pub last_call_at: Option<Timestamp>,
}

/// What [`Usage::calls`] counts to.
pub const MAX_CALLS: i64 = 10_000;

/// How much a server was used since `since`.
///
/// # Errors
/// When the database fails.
pub async fn usage(conn: &mut Conn, organization: &OrganizationId, id: &ServerId, since: Timestamp) -> Result<Usage> {
    const SQL: &str = "SELECT
            (SELECT count(*) FROM assignments WHERE assignments.server_id = servers.id),
            (SELECT count(*) FROM (SELECT 1 AS one FROM tool_calls
                WHERE tool_calls.server_id = $1 AND tool_calls.created_at >= $3 AND NOT tool_calls.is_test LIMIT $4)
                AS source),
            (SELECT CAST(COALESCE(sum(source.count), 0) AS BIGINT) FROM (SELECT counted_calls.count FROM counted_calls
                WHERE counted_calls.server_id = $1 AND counted_calls.minute >= $5 LIMIT $4) AS source),
            (SELECT tool_calls.created_at FROM tool_calls WHERE tool_calls.server_id = $1 AND NOT tool_calls.is_test
                ORDER BY tool_calls.created_at DESC LIMIT 1)
        FROM servers WHERE servers.id = $1 AND servers.organization_id = $2";
    let row: Option<(i64, i64, i64, Option<i64>)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(since.0).bind(MAX_CALLS)
        .bind(counted_call::first_minute(since)).fetch_optional(c).await?);
    let (walkthroughs, rows, counted, last) = row.unwrap_or_default();
    let calls = rows.saturating_add(counted).min(MAX_CALLS);
    Ok(Usage { walkthroughs, calls, last_call_at: last.map(Timestamp) })
}

/// What hangs on a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Walkthroughs that are placed on it.
    pub walkthroughs: i64,
    /// Attempts of end users, closed ones included.
    pub attempts: i64,
    /// End users who made them.
    pub end_users: i64,
    /// End users who are signed in.
    pub signed_in: i64,
}

/// What hangs on a server: what goes when it is deleted, and who has to sign in again when its sign-in changes.
///
/// # Errors
/// When the database fails.
pub async fn holdings(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &ServerId,
    now: Timestamp,
) -> Result<Holdings> {
    const SQL: &str = "SELECT
            (SELECT count(*) FROM assignments WHERE assignments.server_id = servers.id),
            (SELECT count(*) FROM progress WHERE progress.server_id = $1),
            (SELECT count(DISTINCT progress.end_user_id) FROM progress WHERE progress.server_id = $1),
            (SELECT count(DISTINCT oauth_grants.end_user_id) FROM oauth_grants
                WHERE oauth_grants.server_id = $1 AND oauth_grants.revoked_at IS NULL AND oauth_grants.expires_at > $3)
        FROM servers WHERE servers.id = $1 AND servers.organization_id = $2";
    let row: Option<(i64, i64, i64, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(now.0).fetch_optional(c).await?);
    let (walkthroughs, attempts, end_users, signed_in) = row.unwrap_or_default();
    Ok(Holdings { walkthroughs, attempts, end_users, signed_in })
}

/// How many end users are signed in on a server.
///
/// # Errors
/// When the database fails.
pub async fn signed_in(conn: &mut Conn, organization: &OrganizationId, id: &ServerId, now: Timestamp) -> Result<i64> {
    const SQL: &str = "SELECT count(DISTINCT end_user_id) FROM oauth_grants
        WHERE server_id = $1 AND organization_id = $2 AND revoked_at IS NULL AND expires_at > $3";
    Ok(on!(conn, c => sqlx::query_scalar(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(now.0).fetch_one(c).await?))
}

/// Writes every setting, and `updated_at`. When the slug changes, the former one stays the server's until
/// [`release_alias`]; going back to a former slug is no conflict. False when the server is not there.
///
/// # Errors
/// A unique violation when the slug is taken, by a server or as the former slug of another one; otherwise when the
/// database fails.
pub async fn update(conn: &mut Conn, server: &Server) -> Result<bool> {
    const KEEP: &str = "INSERT INTO server_aliases (slug, organization_id, server_id, created_at)
        SELECT slug, organization_id, id, $4 FROM servers WHERE id = $1 AND organization_id = $2 AND slug <> $3";
    const TAKE_BACK: &str = "DELETE FROM server_aliases WHERE slug = $1 AND server_id = $2 AND organization_id = $3";
    const SQL: &str = "UPDATE servers SET slug = $3, name = $4, product_name = $5, auth_type = $6, sign_in = $7,
            walkthrough_tools_enabled = $8, toolset = $9, support = $10, allowed_origins = $11, updated_at = $12, oauth_config_id = $13,
            public_page = $14, public_page_indexed = $15
        WHERE id = $1 AND organization_id = $2";
    let (id, organization) = (server.id.as_str(), server.organization_id.as_str());
    // First of all, as in `insert`.
    conn.touch_config().await?;
    check_aliases(conn, server).await?;
    on!(conn, c => sqlx::query(TAKE_BACK)
        .bind(&server.slug).bind(id).bind(organization).execute(c).await?.rows_affected());
    on!(conn, c => sqlx::query(KEEP)
        .bind(id).bind(organization).bind(&server.slug).bind(server.updated_at.0)
        .execute(c).await?.rows_affected());
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(id).bind(organization).bind(&server.slug).bind(&server.name).bind(&server.product_name)
        .bind(server.auth_type.as_str()).bind(server.sign_in.as_str()).bind(server.walkthrough_tools_enabled)
        .bind(server.toolset.as_str()).bind(server.support.as_str()).bind(origins(server))
        .bind(server.updated_at.0).bind(provider(server))
        .bind(server.public_page).bind(server.public_page_indexed).execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// The slugs that a server had before and still answers to, by name.
///
/// # Errors
/// When the database fails.
pub async fn aliases(conn: &mut Conn, organization: &OrganizationId, id: &ServerId) -> Result<Vec<String>> {
    const SQL: &str = "SELECT slug FROM server_aliases WHERE server_id = $1 AND organization_id = $2 ORDER BY slug";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(id.as_str()).bind(organization.as_str()).fetch_all(c).await?))
}

/// Gives a former slug up, so that another server may have it; false when it is not one of this server's.
///
/// # Errors
/// When the database fails.
pub async fn release_alias(conn: &mut Conn, organization: &OrganizationId, id: &ServerId, slug: &str) -> Result<bool> {
    const SQL: &str = "DELETE FROM server_aliases WHERE slug = $1 AND server_id = $2 AND organization_id = $3";
    conn.touch_config().await?;
    let released = on!(conn, c => sqlx::query(SQL)
        .bind(slug).bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(released > 0)
}

/// Deletes a server with its assignments, progress, sessions and calls; false when it is not there.
///
/// # Errors
/// When the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, id: &ServerId) -> Result<bool> {
    const SQL: &str = "DELETE FROM servers WHERE id = $1 AND organization_id = $2";
    conn.touch_config().await?;
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(deleted > 0)
}
