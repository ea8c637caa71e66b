//! Authorization requests. A request can be found only by the browser that made it, and can be completed only once.

use waypost_core::Timestamp;
use waypost_core::authorization::{AuthorizationRequest, ProgressClaim};
use waypost_core::id::{AuthorizationRequestId, OrganizationId, ServerId};
use waypost_core::issuer::IssuerId;

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: Option<String>,
    server_id: Option<String>,
    issuer: String,
    client_id: String,
    client_name: String,
    redirect_uri: String,
    state: Option<String>,
    scope: String,
    resource: String,
    tracking_id: Option<String>,
    code_challenge: String,
    prompt: Option<String>,
    login_hint: Option<String>,
    created_at: i64,
    expires_at: i64,
    consented_at: Option<i64>,
    claim_issued_at: Option<i64>,
}

impl TryFrom<Row> for AuthorizationRequest {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let organization = row.organization_id.map(OrganizationId::from_store);
        let issuer = IssuerId::from_store(organization, row.server_id.map(ServerId::from_store));
        let corrupt = || Error::Corrupt {
            table: "authorization_requests",
            id: row.id.clone(),
            reason: "server_id and organization_id do not match".to_owned(),
        };
        let issued_at = row.claim_issued_at.map(Timestamp);
        Ok(Self {
            issuer_id: issuer.ok_or_else(corrupt)?,
            id: AuthorizationRequestId::from_store(row.id),
            issuer: row.issuer,
            client_id: row.client_id,
            client_name: row.client_name,
            redirect_uri: row.redirect_uri,
            state: row.state,
            scope: row.scope,
            resource: row.resource,
            claim: row.tracking_id.map(|tracking_id| ProgressClaim { tracking_id, issued_at }),
            code_challenge: row.code_challenge,
            prompt: row.prompt,
            login_hint: row.login_hint,
            created_at: Timestamp(row.created_at),
            expires_at: Timestamp(row.expires_at),
            consented_at: row.consented_at.map(Timestamp),
        })
    }
}

/// Identifies an authorization request and the browser that made it.
#[derive(Debug, Clone, Copy)]
pub struct AuthorizationRequestKey<'a> {
    /// The issuer that received it.
    pub issuer: &'a IssuerId,
    /// The request.
    pub id: &'a AuthorizationRequestId,
    /// The hexadecimal SHA-256 of the browser's cookie.
    pub browser_hash: &'a str,
}

/// Inserts a request that the browser with `browser_hash` sent from `network`.
/// [`row_limits::evict_excess`](crate::row_limits::evict_excess) limits the number of requests.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, request: &AuthorizationRequest, browser_hash: &str, network: &str) -> Result<()> {
    const SQL: &str = "INSERT INTO authorization_requests (id, organization_id, server_id, browser_hash, issuer,
            client_id, client_name, redirect_uri, state, scope, resource, tracking_id, code_challenge, prompt,
            login_hint, created_at, expires_at, consented_at, network, claim_issued_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)";
    let claim = request.claim.as_ref();
    on!(conn, c => sqlx::query(SQL)
        .bind(request.id.as_str()).bind(request.issuer_id.organization_id().map(OrganizationId::as_str))
        .bind(request.issuer_id.server_id().map(ServerId::as_str))
        .bind(browser_hash).bind(&request.issuer).bind(&request.client_id).bind(&request.client_name)
        .bind(&request.redirect_uri).bind(&request.state).bind(&request.scope).bind(&request.resource)
        .bind(claim.map(|claim| &claim.tracking_id)).bind(&request.code_challenge).bind(&request.prompt).bind(&request.login_hint)
        .bind(request.created_at.0).bind(request.expires_at.0).bind(request.consented_at.map(|at| at.0))
        .bind(network).bind(claim.and_then(|claim| claim.issued_at).map(|at| at.0))
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the request if it is neither completed nor expired.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(
    conn: &mut Conn,
    key: AuthorizationRequestKey<'_>,
    now: Timestamp,
) -> Result<Option<AuthorizationRequest>> {
    const SQL: &str =
        "SELECT id, organization_id, server_id, issuer, client_id, client_name, redirect_uri, state, scope,
            resource, tracking_id, code_challenge, prompt, login_hint, created_at, expires_at, consented_at,
            claim_issued_at
        FROM authorization_requests
        WHERE id = $1 AND COALESCE(server_id, 'gateway') = $2 AND browser_hash = $3
            AND completed_at IS NULL AND expires_at > $4";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(key.id.as_str()).bind(key.issuer.as_str()).bind(key.browser_hash)
        .bind(now.0).fetch_optional(c).await?);
    row.map(AuthorizationRequest::try_from).transpose()
}

/// Records the user's consent. Returns `false` if the request does not exist, or is completed or expired.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn record_consent(conn: &mut Conn, key: AuthorizationRequestKey<'_>, now: Timestamp) -> Result<bool> {
    const SQL: &str = "UPDATE authorization_requests SET consented_at = $4
        WHERE id = $1 AND COALESCE(server_id, 'gateway') = $2 AND browser_hash = $3
            AND completed_at IS NULL AND expires_at > $4";
    Ok(change(conn, SQL, key, now).await? > 0)
}

/// Completes the request. Returns `false` if it does not exist, has expired, or is already completed.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn complete(conn: &mut Conn, key: AuthorizationRequestKey<'_>, now: Timestamp) -> Result<bool> {
    const SQL: &str = "UPDATE authorization_requests SET completed_at = $4, network = NULL
        WHERE id = $1 AND COALESCE(server_id, 'gateway') = $2 AND browser_hash = $3
            AND completed_at IS NULL AND expires_at > $4";
    Ok(change(conn, SQL, key, now).await? > 0)
}

/// Exempts a request from eviction by newer ones, because a code was sent for it. Evicting the request would also
/// delete the code.
///
/// # Errors
/// Returns an error if the database fails.
pub(crate) async fn exempt_from_eviction(conn: &mut Conn, id: &AuthorizationRequestId) -> Result<()> {
    const SQL: &str = "UPDATE authorization_requests SET network = NULL WHERE id = $1";
    on!(conn, c => sqlx::query(SQL).bind(id.as_str()).execute(c).await?.rows_affected());
    Ok(())
}

async fn change(conn: &mut Conn, sql: &'static str, key: AuthorizationRequestKey<'_>, now: Timestamp) -> Result<u64> {
    Ok(on!(conn, c => sqlx::query(sql)
        .bind(key.id.as_str()).bind(key.issuer.as_str()).bind(key.browser_hash)
        .bind(now.0).execute(c).await?.rows_affected()))
}
