//! OAuth grants with their codes and tokens. Consuming a code and rotating a refresh token are each a single atomic
//! UPDATE.

use waypost_core::Timestamp;
use waypost_core::id::{AgentId, EndUserId, OauthConfigId, OauthGrantId, OrganizationId, ServerId};
use waypost_core::issuer::IssuerId;
use waypost_core::oauth_grant::{GRACE_MS, GrantOwner, OauthGrant};

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;

/// The columns of [`Row`].
macro_rules! columns {
    () => {
        "oauth_grants.id, oauth_grants.organization_id, oauth_grants.server_id, oauth_grants.end_user_id,
         oauth_grants.agent_id, oauth_grants.client_id, oauth_grants.client_name, oauth_grants.scope, oauth_grants.resource,
         oauth_grants.created_at, oauth_grants.expires_at"
    };
}

pub(crate) use columns;

#[derive(sqlx_macros::FromRow)]
pub(crate) struct Row {
    id: String,
    organization_id: String,
    server_id: Option<String>,
    end_user_id: Option<String>,
    agent_id: Option<String>,
    client_id: String,
    client_name: String,
    scope: String,
    resource: String,
    created_at: i64,
    expires_at: i64,
}

impl TryFrom<Row> for OauthGrant {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let owner = match (row.server_id, row.end_user_id, row.agent_id) {
            (Some(server), Some(end_user), None) => GrantOwner::EndUser {
                server_id: ServerId::from_store(server),
                end_user_id: EndUserId::from_store(end_user),
            },
            (None, None, Some(agent)) => GrantOwner::Agent(AgentId::from_store(agent)),
            _ => {
                let reason = "the grant belongs neither to an end user nor to an agent".to_owned();
                return Err(Error::Corrupt { table: "oauth_grants", id: row.id, reason });
            }
        };
        Ok(Self {
            id: OauthGrantId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            owner,
            client_id: row.client_id,
            client_name: row.client_name,
            scope: row.scope,
            resource: row.resource,
            created_at: Timestamp(row.created_at),
            expires_at: Timestamp(row.expires_at),
        })
    }
}

/// Returns the column values that identify an owner: the server, the end user and the agent.
fn columns_of(owner: &GrantOwner) -> (Option<&str>, Option<&str>, Option<&str>) {
    match owner {
        GrantOwner::EndUser { server_id, end_user_id } => (Some(server_id.as_str()), Some(end_user_id.as_str()), None),
        GrantOwner::Agent(agent) => (None, None, Some(agent.as_str())),
    }
}

/// An authorization code as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationCode {
    /// The hexadecimal SHA-256 of the code.
    pub code_hash: String,
    /// The redirect URI that it is sent to.
    pub redirect_uri: String,
    /// The PKCE challenge, S256.
    pub code_challenge: String,
    /// The time at which the code expires.
    pub expires_at: Timestamp,
}

/// Inserts a grant with its authorization code, without tokens.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, grant: &OauthGrant, code: &AuthorizationCode) -> Result<()> {
    const GRANT: &str = "INSERT INTO oauth_grants (id, organization_id, server_id, end_user_id, agent_id, client_id,
            client_name, scope, resource, generation, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, $10, $11)";
    const CODE: &str = "INSERT INTO authorization_codes (code_hash, grant_id, client_id, redirect_uri, code_challenge,
            created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let (server, end_user, agent) = columns_of(&grant.owner);
    on!(conn, c => sqlx::query(GRANT)
        .bind(grant.id.as_str()).bind(grant.organization_id.as_str()).bind(server).bind(end_user).bind(agent)
        .bind(&grant.client_id).bind(&grant.client_name).bind(&grant.scope)
        .bind(&grant.resource).bind(grant.created_at.0).bind(grant.expires_at.0).execute(c).await?.rows_affected());
    on!(conn, c => sqlx::query(CODE)
        .bind(&code.code_hash).bind(grant.id.as_str()).bind(&grant.client_id).bind(&code.redirect_uri)
        .bind(&code.code_challenge).bind(grant.created_at.0).bind(code.expires_at.0)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the creation time of the `n`th newest grant of an owner; `None` if there are fewer.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_nth_newest(
    conn: &mut Conn,
    organization: &OrganizationId,
    owner: &GrantOwner,
    n: u32,
) -> Result<Option<Timestamp>> {
    const END_USER: &str = "SELECT created_at FROM oauth_grants
        WHERE end_user_id = $1 AND server_id = $2 AND organization_id = $3 ORDER BY created_at DESC LIMIT 1 OFFSET $4";
    const AGENT: &str = "SELECT created_at FROM oauth_grants
        WHERE agent_id = $1 AND organization_id = $2 ORDER BY created_at DESC LIMIT 1 OFFSET $3";
    let offset = i64::from(n) - 1;
    let at: Option<i64> = match owner {
        GrantOwner::EndUser { server_id, end_user_id } => on!(conn, c => sqlx::query_scalar(END_USER)
            .bind(end_user_id.as_str()).bind(server_id.as_str()).bind(organization.as_str()).bind(offset)
            .fetch_optional(c).await?),
        GrantOwner::Agent(agent) => on!(conn, c => sqlx::query_scalar(AGENT)
            .bind(agent.as_str()).bind(organization.as_str()).bind(offset).fetch_optional(c).await?),
    };
    Ok(at.map(Timestamp))
}

/// Deletes the grants of an owner that were created at or before `until`, with their codes and tokens. Returns the
/// number of deleted grants.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_created_until(
    conn: &mut Conn,
    organization: &OrganizationId,
    owner: &GrantOwner,
    until: Timestamp,
) -> Result<u64> {
    const END_USER: &str = "DELETE FROM oauth_grants
        WHERE end_user_id = $1 AND server_id = $2 AND organization_id = $3 AND created_at <= $4";
    const AGENT: &str = "DELETE FROM oauth_grants WHERE agent_id = $1 AND organization_id = $2 AND created_at <= $3";
    Ok(match owner {
        GrantOwner::EndUser { server_id, end_user_id } => on!(conn, c => sqlx::query(END_USER)
            .bind(end_user_id.as_str()).bind(server_id.as_str()).bind(organization.as_str()).bind(until.0)
            .execute(c).await?.rows_affected()),
        GrantOwner::Agent(agent) => on!(conn, c => sqlx::query(AGENT)
            .bind(agent.as_str()).bind(organization.as_str()).bind(until.0).execute(c).await?.rows_affected()),
    })
}

/// The result of consuming an authorization code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodeOutcome {
    /// The code was valid and is now consumed.
    Valid {
        /// The grant that the code belongs to.
        grant: Box<OauthGrant>,
        /// The redirect URI that it was sent to.
        redirect_uri: String,
        /// The PKCE challenge.
        code_challenge: String,
    },
    /// The code was used before, so it may have been stolen.
    Reused(Box<OauthGrant>),
    /// The code does not exist, has expired, belongs to another client, or its grant is revoked.
    Invalid,
}

/// Consumes an authorization code of `client_id` at `issuer`.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn consume_code(
    conn: &mut Conn,
    issuer: &IssuerId,
    client_id: &str,
    code_hash: &str,
    now: Timestamp,
) -> Result<CodeOutcome> {
    const CONSUME: &str = "UPDATE authorization_codes SET consumed_at = $3
        WHERE code_hash = $1 AND client_id = $2 AND consumed_at IS NULL AND expires_at > $3
            AND EXISTS (SELECT 1 FROM oauth_grants WHERE id = authorization_codes.grant_id
                AND COALESCE(server_id, 'gateway') = $4 AND revoked_at IS NULL)
        RETURNING grant_id, redirect_uri, code_challenge";
    let consumed: Option<(String, String, String)> = on!(conn, c => sqlx::query_as(CONSUME)
        .bind(code_hash).bind(client_id).bind(now.0).bind(issuer.as_str()).fetch_optional(c).await?);
    if let Some((id, redirect_uri, code_challenge)) = consumed {
        const GRANT: &str = concat!("SELECT ", columns!(), " FROM oauth_grants WHERE id = $1 AND revoked_at IS NULL");
        let row: Option<Row> = on!(conn, c => sqlx::query_as(GRANT).bind(&id).fetch_optional(c).await?);
        return Ok(match row.map(OauthGrant::try_from).transpose()? {
            Some(grant) => CodeOutcome::Valid { grant: Box::new(grant), redirect_uri, code_challenge },
            None => CodeOutcome::Invalid,
        });
    }
    const REUSED: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM authorization_codes
        JOIN oauth_grants ON oauth_grants.id = authorization_codes.grant_id
        WHERE authorization_codes.code_hash = $1 AND authorization_codes.consumed_at IS NOT NULL
            AND COALESCE(oauth_grants.server_id, 'gateway') = $2"
    );
    let reused: Option<Row> = on!(conn, c => sqlx::query_as(REUSED)
        .bind(code_hash).bind(issuer.as_str()).fetch_optional(c).await?);
    let reused = reused.map(OauthGrant::try_from).transpose()?;
    Ok(reused.map_or(CodeOutcome::Invalid, |grant| CodeOutcome::Reused(Box::new(grant))))
}

/// Returns the grant with this ID, unless it is revoked.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &OauthGrantId) -> Result<Option<OauthGrant>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM oauth_grants WHERE id = $1 AND organization_id = $2 AND revoked_at IS NULL"
    );
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    row.map(OauthGrant::try_from).transpose()
}

/// Revokes a grant with all its tokens. Returns `false` if it is already revoked.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn revoke(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &OauthGrantId,
    reason: &str,
    now: Timestamp,
) -> Result<bool> {
    const SQL: &str = "UPDATE oauth_grants SET revoked_at = $3, revoked_reason = $4
        WHERE id = $1 AND organization_id = $2 AND revoked_at IS NULL";
    Ok(on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(now.0).bind(reason).execute(c).await?.rows_affected())
        > 0)
}

/// Revokes every grant of an end user. Returns the number of revoked grants.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn revoke_for_end_user(
    conn: &mut Conn,
    organization: &OrganizationId,
    end_user: &EndUserId,
    reason: &str,
    now: Timestamp,
) -> Result<u64> {
    const SQL: &str = "UPDATE oauth_grants SET revoked_at = $3, revoked_reason = $4
        WHERE end_user_id = $1 AND organization_id = $2 AND revoked_at IS NULL";
    Ok(on!(conn, c => sqlx::query(SQL)
        .bind(end_user.as_str()).bind(organization.as_str()).bind(now.0).bind(reason)
        .execute(c).await?.rows_affected()))
}

/// Revokes every grant on a server. Returns the number of revoked grants.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn revoke_for_server(
    conn: &mut Conn,
    organization: &OrganizationId,
    server: &ServerId,
    reason: &str,
    now: Timestamp,
) -> Result<u64> {
    const SQL: &str = "UPDATE oauth_grants SET revoked_at = $3, revoked_reason = $4
        WHERE server_id = $1 AND organization_id = $2 AND revoked_at IS NULL";
    Ok(on!(conn, c => sqlx::query(SQL)
        .bind(server.as_str()).bind(organization.as_str()).bind(now.0).bind(reason)
        .execute(c).await?.rows_affected()))
}

/// Revokes every grant on the servers that use a provider. Returns the number of revoked grants.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn revoke_for_provider(
    conn: &mut Conn,
    organization: &OrganizationId,
    provider: &OauthConfigId,
    reason: &str,
    now: Timestamp,
) -> Result<u64> {
    const SQL: &str = "UPDATE oauth_grants SET revoked_at = $3, revoked_reason = $4
        WHERE server_id IN (SELECT id FROM servers WHERE oauth_config_id = $1) AND organization_id = $2
            AND revoked_at IS NULL";
    Ok(on!(conn, c => sqlx::query(SQL)
        .bind(provider.as_str()).bind(organization.as_str()).bind(now.0).bind(reason)
        .execute(c).await?.rows_affected()))
}

/// A pair of tokens as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPair {
    /// The hexadecimal SHA-256 of the access token.
    pub access_hash: String,
    /// The access token's scopes, separated by spaces.
    pub scope: String,
    /// The time at which the access token expires.
    pub access_expires_at: Timestamp,
    /// The hexadecimal SHA-256 of the refresh token.
    pub refresh_hash: String,
    /// The refresh token's generation.
    pub generation: i64,
}

/// Inserts a pair of tokens of a grant.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert_token_pair(conn: &mut Conn, grant: &OauthGrantId, pair: &TokenPair, now: Timestamp) -> Result<()> {
    const ACCESS: &str = "INSERT INTO access_tokens (token_hash, grant_id, scope, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5)";
    const REFRESH: &str =
        "INSERT INTO refresh_tokens (token_hash, grant_id, generation, created_at) VALUES ($1, $2, $3, $4)";
    on!(conn, c => sqlx::query(ACCESS)
        .bind(&pair.access_hash).bind(grant.as_str()).bind(&pair.scope).bind(now.0).bind(pair.access_expires_at.0)
        .execute(c).await?.rows_affected());
    on!(conn, c => sqlx::query(REFRESH)
        .bind(&pair.refresh_hash).bind(grant.as_str()).bind(pair.generation).bind(now.0)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Deletes the refresh tokens of a grant before generation `first`, and its access tokens except the `access_tokens`
/// newest. Returns the number of deleted tokens.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn prune_tokens(conn: &mut Conn, grant: &OauthGrantId, first: i64, access_tokens: u32) -> Result<u64> {
    const REFRESH: &str = "DELETE FROM refresh_tokens WHERE grant_id = $1 AND generation < $2";
    const ACCESS: &str = "DELETE FROM access_tokens WHERE grant_id = $1 AND created_at <=
        (SELECT created_at FROM access_tokens WHERE grant_id = $1 ORDER BY created_at DESC LIMIT 1 OFFSET $2)";
    let refresh =
        on!(conn, c => sqlx::query(REFRESH).bind(grant.as_str()).bind(first).execute(c).await?.rows_affected());
    let access = on!(conn, c => sqlx::query(ACCESS)
        .bind(grant.as_str()).bind(i64::from(access_tokens)).execute(c).await?.rows_affected());
    Ok(refresh + access)
}

/// The result of presenting a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// The token is valid: a new pair with `generation` may be issued.
    Valid {
        /// The grant.
        grant: Box<OauthGrant>,
        /// The generation of the new pair.
        generation: i64,
    },
    /// The token was rotated longer ago than the grace period, or the next one was already used, so it may have been
    /// stolen.
    Reused(Box<OauthGrant>),
    /// The token does not exist, belongs to another client, or its grant is revoked or expired.
    Invalid,
}

/// Rotates a refresh token of `client_id` at `issuer` and extends the grant to `expires_at`. A token of the newest
/// generation produces the next generation. A token of the previous generation remains valid for [`GRACE_MS`] after
/// that, as long as the next one is unused.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn refresh(
    conn: &mut Conn,
    issuer: &IssuerId,
    client_id: &str,
    token_hash: &str,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<RefreshOutcome> {
    const FIND: &str = "SELECT oauth_grants.id, refresh_tokens.generation
        FROM refresh_tokens JOIN oauth_grants ON oauth_grants.id = refresh_tokens.grant_id
        WHERE refresh_tokens.token_hash = $1 AND oauth_grants.client_id = $2
            AND COALESCE(oauth_grants.server_id, 'gateway') = $3 AND oauth_grants.revoked_at IS NULL
            AND oauth_grants.expires_at > $4";
    const GRANT: &str = concat!("SELECT ", columns!(), " FROM oauth_grants WHERE id = $1");
    const ROTATE: &str = concat!(
        "UPDATE oauth_grants SET
            rotated_at = CASE WHEN generation = $2 THEN $3 ELSE rotated_at END,
            generation = $2 + 1,
            expires_at = $5
         WHERE id = $1 AND revoked_at IS NULL AND expires_at > $3
            AND (generation = $2 OR (generation = $2 + 1 AND rotated_at >= $4))
         RETURNING ",
        columns!()
    );
    let found: Option<(String, i64)> = on!(conn, c => sqlx::query_as(FIND)
        .bind(token_hash).bind(client_id).bind(issuer.as_str()).bind(now.0).fetch_optional(c).await?);
    let Some((id, generation)) = found else { return Ok(RefreshOutcome::Invalid) };
    let row: Option<Row> = on!(conn, c => sqlx::query_as(ROTATE)
        .bind(&id).bind(generation).bind(now.0).bind(now.plus(-GRACE_MS).0).bind(expires_at.0)
        .fetch_optional(c).await?);
    if let Some(row) = row {
        return Ok(RefreshOutcome::Valid { grant: Box::new(row.try_into()?), generation: generation + 1 });
    }
    let row: Option<Row> = on!(conn, c => sqlx::query_as(GRANT).bind(&id).fetch_optional(c).await?);
    let reused = row.map(OauthGrant::try_from).transpose()?;
    Ok(reused.map_or(RefreshOutcome::Invalid, |grant| RefreshOutcome::Reused(Box::new(grant))))
}

/// A valid access token of a hosted server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// The end user.
    pub end_user_id: EndUserId,
    /// The grant that it was issued for.
    pub grant_id: OauthGrantId,
    /// Its scopes, separated by spaces.
    pub scope: String,
    /// The time at which it expires.
    pub expires_at: Timestamp,
}

/// Returns the access token with this hash on a server if it is valid.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_access_token(
    conn: &mut Conn,
    organization: &OrganizationId,
    server: &ServerId,
    token_hash: &str,
    now: Timestamp,
) -> Result<Option<AccessToken>> {
    const SQL: &str = "SELECT oauth_grants.end_user_id, oauth_grants.id, access_tokens.scope, access_tokens.expires_at
        FROM access_tokens JOIN oauth_grants ON oauth_grants.id = access_tokens.grant_id
        WHERE access_tokens.token_hash = $1 AND oauth_grants.server_id = $2 AND oauth_grants.organization_id = $3
            AND access_tokens.expires_at > $4 AND access_tokens.revoked_at IS NULL AND oauth_grants.revoked_at IS NULL";
    let row: Option<(String, String, String, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(token_hash).bind(server.as_str()).bind(organization.as_str()).bind(now.0).fetch_optional(c).await?);
    Ok(row.map(|(end_user, grant, scope, expires_at)| AccessToken {
        end_user_id: EndUserId::from_store(end_user),
        grant_id: OauthGrantId::from_store(grant),
        scope,
        expires_at: Timestamp(expires_at),
    }))
}

/// Returns the grant of an access or refresh token of `client_id` at `issuer`, valid or not, and whether it is a
/// refresh token.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_by_token(
    conn: &mut Conn,
    issuer: &IssuerId,
    client_id: &str,
    token_hash: &str,
) -> Result<Option<(OauthGrant, bool)>> {
    const ACCESS: &str = "SELECT grant_id FROM access_tokens WHERE token_hash = $1";
    const REFRESH: &str = "SELECT grant_id FROM refresh_tokens WHERE token_hash = $1";
    const GRANT: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM oauth_grants WHERE id = $1 AND client_id = $2 AND COALESCE(server_id, 'gateway') = $3"
    );
    for (sql, is_refresh) in [(ACCESS, false), (REFRESH, true)] {
        let id: Option<String> = on!(conn, c => sqlx::query_scalar(sql).bind(token_hash).fetch_optional(c).await?);
        let Some(id) = id else { continue };
        let row: Option<Row> = on!(conn, c => sqlx::query_as(GRANT)
            .bind(&id).bind(client_id).bind(issuer.as_str()).fetch_optional(c).await?);
        return Ok(row.map(OauthGrant::try_from).transpose()?.map(|grant| (grant, is_refresh)));
    }
    Ok(None)
}

/// Revokes an access token. Returns whether it was active.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn revoke_access_token(conn: &mut Conn, token_hash: &str, now: Timestamp) -> Result<bool> {
    const SQL: &str = "UPDATE access_tokens SET revoked_at = $2
        WHERE token_hash = $1 AND revoked_at IS NULL AND expires_at > $2";
    let revoked = on!(conn, c => sqlx::query(SQL)
        .bind(token_hash).bind(now.0).execute(c).await?.rows_affected());
    Ok(revoked > 0)
}

/// Records that an audit event is written for a revoked access token of a grant. Returns `false` and changes nothing if
/// one was recorded after `since`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn mark_revocation_recorded(
    conn: &mut Conn,
    grant: &OauthGrantId,
    now: Timestamp,
    since: Timestamp,
) -> Result<bool> {
    const SQL: &str = "UPDATE oauth_grants SET revocation_recorded_at = $2
        WHERE id = $1 AND (revocation_recorded_at IS NULL OR revocation_recorded_at <= $3)";
    let marked = on!(conn, c => sqlx::query(SQL)
        .bind(grant.as_str()).bind(now.0).bind(since.0).execute(c).await?.rows_affected());
    Ok(marked > 0)
}
