//! Identity providers of organisations. The client secret is sealed.

use waypost_core::Timestamp;
use waypost_core::id::{OauthConfigId, OrganizationId};
use waypost_core::oauth_config::OauthConfig;

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;
use crate::row::RowRef;

/// The columns of [`Row`].
macro_rules! columns {
    () => {
        "id, organization_id, name, kind, issuer, authorization_endpoint, token_endpoint, userinfo_endpoint, jwks_uri,
         client_id, client_secret, token_auth_method, scopes, subject_claim, link_verified_email, created_at,
         updated_at"
    };
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    name: String,
    kind: String,
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    userinfo_endpoint: Option<String>,
    jwks_uri: Option<String>,
    client_id: String,
    client_secret: Option<String>,
    token_auth_method: String,
    scopes: String,
    subject_claim: String,
    link_verified_email: bool,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for OauthConfig {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let row_ref = RowRef { table: "oauth_configs", id: &row.id };
        Ok(Self {
            kind: row_ref.parse("kind", &row.kind)?,
            token_auth_method: row_ref.parse("token_auth_method", &row.token_auth_method)?,
            scopes: row.scopes.split_ascii_whitespace().map(str::to_owned).collect(),
            organization_id: OrganizationId::from_store(row.organization_id),
            name: row.name,
            issuer: row.issuer,
            authorization_endpoint: row.authorization_endpoint,
            token_endpoint: row.token_endpoint,
            userinfo_endpoint: row.userinfo_endpoint,
            jwks_uri: row.jwks_uri,
            client_id: row.client_id,
            client_secret: row.client_secret,
            subject_claim: row.subject_claim,
            link_verified_email: row.link_verified_email,
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
            id: OauthConfigId::from_store(row.id),
        })
    }
}

/// Inserts a provider.
///
/// # Errors
/// Returns a unique violation if the name is taken in the organisation, or another error if the database fails.
pub async fn insert(conn: &mut Conn, config: &OauthConfig) -> Result<()> {
    const SQL: &str = concat!(
        "INSERT INTO oauth_configs (",
        columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"
    );
    on!(conn, c => sqlx::query(SQL)
        .bind(config.id.as_str()).bind(config.organization_id.as_str()).bind(&config.name).bind(config.kind.as_str())
        .bind(&config.issuer).bind(&config.authorization_endpoint).bind(&config.token_endpoint)
        .bind(config.userinfo_endpoint.as_deref()).bind(config.jwks_uri.as_deref()).bind(&config.client_id)
        .bind(config.client_secret.as_deref()).bind(config.token_auth_method.as_str())
        .bind(config.scopes.join(" ")).bind(&config.subject_claim).bind(config.link_verified_email)
        .bind(config.created_at.0).bind(config.updated_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the provider with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &OauthConfigId) -> Result<Option<OauthConfig>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM oauth_configs WHERE id = $1 AND organization_id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    row.map(OauthConfig::try_from).transpose()
}

/// Returns the provider with this name.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_by_name(conn: &mut Conn, organization: &OrganizationId, name: &str) -> Result<Option<OauthConfig>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM oauth_configs WHERE organization_id = $1 AND name = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(name).fetch_optional(c).await?);
    row.map(OauthConfig::try_from).transpose()
}

/// Returns all providers of an organisation, ordered by name.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(conn: &mut Conn, organization: &OrganizationId) -> Result<Vec<OauthConfig>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM oauth_configs WHERE organization_id = $1 ORDER BY name");
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL).bind(organization.as_str()).fetch_all(c).await?);
    rows.into_iter().map(OauthConfig::try_from).collect()
}

/// Updates everything except `id` and `created_at`. Returns `false` if the provider does not exist.
///
/// # Errors
/// Returns a unique violation if the name is taken in the organisation, or another error if the database fails.
pub async fn update(conn: &mut Conn, config: &OauthConfig) -> Result<bool> {
    const SQL: &str = "UPDATE oauth_configs SET name = $3, kind = $4, issuer = $5, authorization_endpoint = $6,
            token_endpoint = $7, userinfo_endpoint = $8, jwks_uri = $9, client_id = $10, client_secret = $11,
            token_auth_method = $12, scopes = $13, subject_claim = $14, link_verified_email = $15, updated_at = $16
        WHERE id = $1 AND organization_id = $2";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(config.id.as_str()).bind(config.organization_id.as_str()).bind(&config.name).bind(config.kind.as_str())
        .bind(&config.issuer).bind(&config.authorization_endpoint).bind(&config.token_endpoint)
        .bind(config.userinfo_endpoint.as_deref()).bind(config.jwks_uri.as_deref()).bind(&config.client_id)
        .bind(config.client_secret.as_deref()).bind(config.token_auth_method.as_str())
        .bind(config.scopes.join(" ")).bind(&config.subject_claim).bind(config.link_verified_email)
        .bind(config.updated_at.0).execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Returns the slugs of the servers that use a provider, sorted.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_server_slugs(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &OauthConfigId,
) -> Result<Vec<String>> {
    const SQL: &str = "SELECT slug FROM servers WHERE oauth_config_id = $1 AND organization_id = $2 ORDER BY slug";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(id.as_str()).bind(organization.as_str()).fetch_all(c).await?))
}

/// Deletes a provider with the tokens that it issued. Returns `false` if it does not exist.
///
/// # Errors
/// Returns a foreign key violation if a server uses it, or another error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, id: &OauthConfigId) -> Result<bool> {
    const SQL: &str = "DELETE FROM oauth_configs WHERE id = $1 AND organization_id = $2";
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(deleted > 0)
}
