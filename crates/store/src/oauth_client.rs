//! OAuth clients that registered themselves at a server (RFC 7591).

use waypost_core::Timestamp;
use waypost_core::id::{OrganizationId, ServerId};
use waypost_core::oauth_client::OauthClient;

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;

#[derive(sqlx::FromRow)]
struct Row {
    server_id: String,
    client_id: String,
    organization_id: String,
    name: String,
    redirect_uris: String,
    application_type: String,
    auth_method: String,
    secret_hash: Option<String>,
    created_at: i64,
    last_used_at: i64,
}

impl TryFrom<Row> for OauthClient {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let corrupt = |why: String| Error::Corrupt { table: "oauth_clients", id: row.client_id.clone(), why };
        Ok(Self {
            redirect_uris: serde_json::from_str(&row.redirect_uris).map_err(|error| corrupt(error.to_string()))?,
            application_type: row.application_type.parse().map_err(corrupt)?,
            auth_method: row.auth_method.parse().map_err(corrupt)?,
            server_id: ServerId::from_store(row.server_id),
            organization_id: OrganizationId::from_store(row.organization_id),
            name: row.name,
            secret_hash: row.secret_hash,
            created_at: Timestamp(row.created_at),
            last_used_at: Timestamp(row.last_used_at),
            client_id: row.client_id,
        })
    }
}

/// Inserts a client.
///
/// # Errors
/// When the database fails.
pub async fn insert(conn: &mut Conn, client: &OauthClient) -> Result<()> {
    const SQL: &str = "INSERT INTO oauth_clients (server_id, client_id, organization_id, name, redirect_uris,
            application_type, auth_method, secret_hash, created_at, last_used_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let redirect_uris = serde_json::Value::from(client.redirect_uris.clone()).to_string();
    on!(conn, c => sqlx::query(SQL)
        .bind(client.server_id.as_str()).bind(&client.client_id).bind(client.organization_id.as_str())
        .bind(&client.name).bind(redirect_uris).bind(client.application_type.as_str())
        .bind(client.auth_method.as_str()).bind(&client.secret_hash).bind(client.created_at.0)
        .bind(client.last_used_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// The client `client_id` of a server.
///
/// # Errors
/// When the database fails, or the row cannot be read.
pub async fn find(
    conn: &mut Conn,
    organization: &OrganizationId,
    server: &ServerId,
    client_id: &str,
) -> Result<Option<OauthClient>> {
    const SQL: &str =
        "SELECT server_id, client_id, organization_id, name, redirect_uris, application_type, auth_method,
            secret_hash, created_at, last_used_at
        FROM oauth_clients WHERE server_id = $1 AND client_id = $2 AND organization_id = $3";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(server.as_str()).bind(client_id).bind(organization.as_str()).fetch_optional(c).await?);
    row.map(OauthClient::try_from).transpose()
}

/// Notes that a client was used; nothing happens to one that is not there.
///
/// # Errors
/// When the database fails.
pub async fn used(conn: &mut Conn, server: &ServerId, client_id: &str, at: Timestamp) -> Result<()> {
    const SQL: &str =
        "UPDATE oauth_clients SET last_used_at = $3 WHERE server_id = $1 AND client_id = $2 AND last_used_at < $3";
    on!(conn, c => sqlx::query(SQL)
        .bind(server.as_str()).bind(client_id).bind(at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Deletes clients that nobody needs: those that never got a grant and are older than `unused_before`, and those with a
/// last use before `idle_before`, which is the earlier time; at most `limit` of them. Says how many.
///
/// # Errors
/// When the database fails.
pub async fn delete_unused(
    conn: &mut Conn,
    unused_before: Timestamp,
    idle_before: Timestamp,
    limit: i64,
) -> Result<u64> {
    const SQL: &str = "DELETE FROM oauth_clients WHERE (server_id, client_id) IN (
            SELECT server_id, client_id FROM oauth_clients
            WHERE last_used_at < $1 AND (last_used_at < $2 OR last_used_at = created_at)
            ORDER BY last_used_at LIMIT $3)";
    Ok(on!(conn, c => sqlx::query(SQL)
        .bind(unused_before.0).bind(idle_before.0).bind(limit).execute(c).await?.rows_affected()))
}
