//! Hosted servers and their former slugs.

use waypost_core::Timestamp;
use waypost_core::id::{OauthConfigId, OrganizationId, ServerId};
use waypost_core::server::Server;

use crate::counted_call;
use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;
use crate::row::like_pattern;

/// The columns of [`Row`].
macro_rules! columns {
    () => {
        "servers.id, servers.organization_id, servers.slug, servers.name, servers.product_name, servers.auth_type,
         servers.sign_in, servers.oauth_config_id, servers.walkthrough_tools_enabled, servers.toolset, servers.support,
         servers.allowed_origins, servers.public_page, servers.public_page_indexed, servers.created_at, servers.updated_at"
    };
}
pub(crate) use columns;

#[derive(sqlx_macros::FromRow)]
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
        let corrupt = |reason: String| Error::Corrupt { table: "servers", id: row.id.clone(), reason };
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

/// Rejects a slug that is an unreleased former slug of a server other than `server`.
async fn check_aliases(conn: &mut Conn, server: &Server) -> Result<()> {
    const SQL: &str = "SELECT count(*) FROM server_aliases WHERE slug = $1 AND server_id <> $2";
    let taken: i64 = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(&server.slug).bind(server.id.as_str()).fetch_one(c).await?);
    if taken == 0 { Ok(()) } else { Err(Error::Taken { what: "server_aliases.slug" }) }
}

/// Inserts a server.
///
/// # Errors
/// Returns a unique violation if the slug is a current or former slug of a server, or another error if the database
/// fails.
pub async fn insert(conn: &mut Conn, server: &Server) -> Result<()> {
    const SQL: &str = "INSERT INTO servers (id, organization_id, slug, name, product_name, auth_type, sign_in,
            walkthrough_tools_enabled, toolset, support, allowed_origins, created_at, updated_at, oauth_config_id,
            public_page, public_page_indexed)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";
    // Must come first: it locks a single row, so that concurrent changes of slugs cannot both pass the check of
    // aliases.
    conn.bump_config_version(&server.organization_id).await?;
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

/// Returns the server with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &ServerId) -> Result<Option<Server>> {
    const SQL: &str =
        concat!("SELECT ", columns!(), " FROM servers WHERE servers.id = $1 AND servers.organization_id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    row.map(Server::try_from).transpose()
}

/// Returns all servers of an organisation, ordered by slug.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(conn: &mut Conn, organization: &OrganizationId) -> Result<Vec<Server>> {
    const SQL: &str =
        concat!("SELECT ", columns!(), " FROM servers WHERE servers.organization_id = $1 ORDER BY servers.slug");
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL).bind(organization.as_str()).fetch_all(c).await?);
    rows.into_iter().map(Server::try_from).collect()
}

/// A search for servers of an organisation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerSearch<'a> {
    /// A part of the name, the product name or the slug, case-insensitive (on SQLite, only for ASCII letters).
    pub text: Option<&'a str>,
    /// Only servers whose slug sorts after this one.
    pub after: Option<&'a str>,
    /// The maximum number of servers.
    pub limit: u32,
}

/// Returns the servers of an organisation that match a search, ordered by slug.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn search(conn: &mut Conn, organization: &OrganizationId, query: ServerSearch<'_>) -> Result<Vec<Server>> {
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
        .bind(like_pattern(query.text.unwrap_or_default())).bind(i64::from(query.limit)).fetch_all(c).await?);
    rows.into_iter().map(Server::try_from).collect()
}

/// The usage of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerUsage {
    /// The number of assigned walkthroughs.
    pub walkthroughs: i64,
    /// The number of tool calls in the period, at most [`MAX_CALLS`], to bound the cost of counting.
    pub calls: i64,
    /// The time of the last tool call in the log. This is exact to the minute, because for every call without a row
    /// there are calls with a row in the same minute.
    pub last_call_at: Option<Timestamp>,
}

/// The maximum of [`ServerUsage::calls`].
pub const MAX_CALLS: i64 = 10_000;

/// Returns the usage of a server since `since`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn usage(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &ServerId,
    since: Timestamp,
) -> Result<ServerUsage> {
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
    Ok(ServerUsage { walkthroughs, calls, last_call_at: last.map(Timestamp) })
}

/// The number of objects that depend on a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerContents {
    /// The number of assigned walkthroughs.
    pub walkthroughs: i64,
    /// The number of attempts of end users, including closed ones.
    pub attempts: i64,
    /// The number of end users with attempts.
    pub end_users: i64,
    /// The number of signed-in end users.
    pub signed_in: i64,
}

/// Counts the objects that are deleted with a server, and the end users who must sign in again if its sign-in changes.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count_contents(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &ServerId,
    now: Timestamp,
) -> Result<ServerContents> {
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
    Ok(ServerContents { walkthroughs, attempts, end_users, signed_in })
}

/// Returns the number of end users who are signed in on a server.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count_signed_in(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &ServerId,
    now: Timestamp,
) -> Result<i64> {
    const SQL: &str = "SELECT count(DISTINCT end_user_id) FROM oauth_grants
        WHERE server_id = $1 AND organization_id = $2 AND revoked_at IS NULL AND expires_at > $3";
    Ok(on!(conn, c => sqlx::query_scalar(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(now.0).fetch_one(c).await?))
}

/// Updates all settings and `updated_at`. If the slug changes, the server keeps the former one until [`release_alias`].
/// Changing back to a former slug is not a conflict. Returns `false` if the server does not exist.
///
/// # Errors
/// Returns a unique violation if the slug is a current or former slug of another server, or another error if the
/// database fails.
pub async fn update(conn: &mut Conn, server: &Server) -> Result<bool> {
    const ADD_ALIAS: &str = "INSERT INTO server_aliases (slug, organization_id, server_id, created_at)
        SELECT slug, organization_id, id, $4 FROM servers WHERE id = $1 AND organization_id = $2 AND slug <> $3";
    const REMOVE_ALIAS: &str = "DELETE FROM server_aliases WHERE slug = $1 AND server_id = $2 AND organization_id = $3";
    const SQL: &str = "UPDATE servers SET slug = $3, name = $4, product_name = $5, auth_type = $6, sign_in = $7,
            walkthrough_tools_enabled = $8, toolset = $9, support = $10, allowed_origins = $11, updated_at = $12, oauth_config_id = $13,
            public_page = $14, public_page_indexed = $15
        WHERE id = $1 AND organization_id = $2";
    let (id, organization) = (server.id.as_str(), server.organization_id.as_str());
    // Must come first, as in `insert`.
    conn.bump_config_version(&server.organization_id).await?;
    check_aliases(conn, server).await?;
    on!(conn, c => sqlx::query(REMOVE_ALIAS)
        .bind(&server.slug).bind(id).bind(organization).execute(c).await?.rows_affected());
    on!(conn, c => sqlx::query(ADD_ALIAS)
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

/// Returns the former slugs of a server that are not released, sorted.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_aliases(conn: &mut Conn, organization: &OrganizationId, id: &ServerId) -> Result<Vec<String>> {
    const SQL: &str = "SELECT slug FROM server_aliases WHERE server_id = $1 AND organization_id = $2 ORDER BY slug";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(id.as_str()).bind(organization.as_str()).fetch_all(c).await?))
}

/// Releases a former slug, so that another server can use it. Returns `false` if it is not a former slug of this
/// server.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn release_alias(conn: &mut Conn, organization: &OrganizationId, id: &ServerId, slug: &str) -> Result<bool> {
    const SQL: &str = "DELETE FROM server_aliases WHERE slug = $1 AND server_id = $2 AND organization_id = $3";
    conn.bump_config_version(organization).await?;
    let released = on!(conn, c => sqlx::query(SQL)
        .bind(slug).bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(released > 0)
}

/// Deletes a server with its assignments, progress, sessions and calls. Returns `false` if it does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, id: &ServerId) -> Result<bool> {
    const SQL: &str = "DELETE FROM servers WHERE id = $1 AND organization_id = $2";
    conn.bump_config_version(organization).await?;
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(deleted > 0)
}
