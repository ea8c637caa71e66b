//! OAuth clients registered dynamically at an issuer (RFC 7591).

use waypost_core::Timestamp;
use waypost_core::id::{OrganizationId, ServerId};
use waypost_core::issuer::IssuerId;
use waypost_core::oauth_client::OauthClient;

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;

#[derive(sqlx_macros::FromRow)]
struct Row {
    server_id: Option<String>,
    client_id: String,
    organization_id: Option<String>,
    name: String,
    redirect_uris: String,
    application_type: String,
    auth_method: String,
    secret_hash: Option<String>,
    created_at: i64,
    last_used_at: i64,
    used_at: Option<i64>,
}

impl TryFrom<Row> for OauthClient {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let corrupt = |reason: String| Error::Corrupt { table: "oauth_clients", id: row.client_id.clone(), reason };
        let server = row.server_id.clone().map(ServerId::from_store);
        let issuer = IssuerId::from_store(row.organization_id.clone().map(OrganizationId::from_store), server);
        Ok(Self {
            issuer_id: issuer.ok_or_else(|| corrupt("server_id and organization_id do not match".to_owned()))?,
            redirect_uris: serde_json::from_str(&row.redirect_uris).map_err(|error| corrupt(error.to_string()))?,
            application_type: row.application_type.parse().map_err(corrupt)?,
            auth_method: row.auth_method.parse().map_err(corrupt)?,
            name: row.name,
            secret_hash: row.secret_hash,
            created_at: Timestamp(row.created_at),
            last_used_at: Timestamp(row.last_used_at),
            used_at: row.used_at.map(Timestamp),
            client_id: row.client_id,
        })
    }
}

/// Inserts a client that registered from `network`. [`row_limits::evict_excess`](crate::row_limits::evict_excess)
/// limits the number of clients.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, client: &OauthClient, network: &str) -> Result<()> {
    const SQL: &str = "INSERT INTO oauth_clients (server_id, client_id, organization_id, name, redirect_uris,
            application_type, auth_method, secret_hash, created_at, last_used_at, used_at, network)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    let redirect_uris = serde_json::Value::from(client.redirect_uris.clone()).to_string();
    on!(conn, c => sqlx::query(SQL)
        .bind(client.issuer_id.server_id().map(ServerId::as_str)).bind(&client.client_id)
        .bind(client.issuer_id.organization_id().map(OrganizationId::as_str))
        .bind(&client.name).bind(redirect_uris).bind(client.application_type.as_str())
        .bind(client.auth_method.as_str()).bind(&client.secret_hash).bind(client.created_at.0)
        .bind(client.last_used_at.0).bind(client.used_at.map(|at| at.0)).bind(network).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the client `client_id` of an issuer. Returns `None` if the client was never used and registered before
/// `unused_before`.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(
    conn: &mut Conn,
    issuer: &IssuerId,
    client_id: &str,
    unused_before: Timestamp,
) -> Result<Option<OauthClient>> {
    const SQL: &str =
        "SELECT server_id, client_id, organization_id, name, redirect_uris, application_type, auth_method,
            secret_hash, created_at, last_used_at, used_at
        FROM oauth_clients WHERE client_id = $2 AND COALESCE(server_id, 'gateway') = $1
            AND (used_at IS NOT NULL OR created_at >= $3)";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(issuer.as_str()).bind(client_id).bind(unused_before.0).fetch_optional(c).await?);
    row.map(OauthClient::try_from).transpose()
}

/// Returns the registration time of the `n`th newest unused client of a server; `None` if there are fewer.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_nth_newest_unused(conn: &mut Conn, server: &ServerId, n: u32) -> Result<Option<Timestamp>> {
    const SQL: &str = "SELECT created_at FROM oauth_clients WHERE server_id = $1 AND used_at IS NULL
        ORDER BY created_at DESC LIMIT 1 OFFSET $2";
    let at: Option<i64> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(server.as_str()).bind(i64::from(n) - 1).fetch_optional(c).await?);
    Ok(at.map(Timestamp))
}

/// Records that a client was used, so that its registration no longer expires after a day. Does nothing if the client
/// does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn record_use(conn: &mut Conn, issuer: &IssuerId, client_id: &str, at: Timestamp) -> Result<()> {
    const SQL: &str = "UPDATE oauth_clients SET last_used_at = $3, used_at = COALESCE(used_at, $3), network = ''
        WHERE client_id = $2 AND COALESCE(server_id, 'gateway') = $1 AND (last_used_at < $3 OR used_at IS NULL)";
    on!(conn, c => sqlx::query(SQL)
        .bind(issuer.as_str()).bind(client_id).bind(at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Deletes at most `limit` clients that were registered before `before` and never used. Returns the number of
/// deleted rows.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_unused(conn: &mut Conn, before: Timestamp, limit: u32) -> Result<u64> {
    const SQL: &str = "DELETE FROM oauth_clients WHERE client_id IN (
            SELECT client_id FROM oauth_clients
            WHERE used_at IS NULL AND created_at < $1 ORDER BY created_at LIMIT $2)";
    Ok(on!(conn, c => sqlx::query(SQL).bind(before.0).bind(i64::from(limit)).execute(c).await?.rows_affected()))
}

/// Deletes at most `limit` clients whose last use was before `before`. Returns the number of deleted rows.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_idle(conn: &mut Conn, before: Timestamp, limit: u32) -> Result<u64> {
    const SQL: &str = "DELETE FROM oauth_clients WHERE client_id IN (
            SELECT client_id FROM oauth_clients WHERE last_used_at < $1 ORDER BY last_used_at LIMIT $2)";
    Ok(on!(conn, c => sqlx::query(SQL).bind(before.0).bind(i64::from(limit)).execute(c).await?.rows_affected()))
}
