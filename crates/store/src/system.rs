//! Lookups that run before the organisation is known.
//!
//! Callers must check what the requester may access in the returned organisation.

use std::collections::HashMap;

use waypost_core::Timestamp;
use waypost_core::agent::{Agent, AgentToken};
use waypost_core::id::{OauthGrantId, OrganizationId, ServerId, ToolboxId, UserId};
use waypost_core::oauth_grant::OauthGrant;
use waypost_core::organization::{ApiKey, Organization, User};
use waypost_core::server::Server;
use waypost_core::toolbox::Toolbox;

use crate::db::{Conn, Dialect, Tx};
use crate::error::Result;
use crate::invitation_accept::{self, OpenInvitation};
use crate::on;
use crate::row::{in_list, to_json};
use crate::{agent, agent_token, api_key, oauth_grant, organization, server, toolbox, user};

/// Returns the organisation with this slug.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_organization_by_slug(conn: &mut Conn, slug: &str) -> Result<Option<Organization>> {
    const SQL: &str =
        "SELECT id, slug, name, toolboxes_enabled, gateway_enabled, created_at FROM organizations WHERE slug = $1";
    let row: Option<organization::Row> = on!(conn, c => sqlx::query_as(SQL).bind(slug).fetch_optional(c).await?);
    Ok(row.map(Organization::from))
}

/// Returns all organisations, ordered by slug.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_organizations(conn: &mut Conn) -> Result<Vec<Organization>> {
    const SQL: &str =
        "SELECT id, slug, name, toolboxes_enabled, gateway_enabled, created_at FROM organizations ORDER BY slug";
    let rows: Vec<organization::Row> = on!(conn, c => sqlx::query_as(SQL).fetch_all(c).await?);
    Ok(rows.into_iter().map(Organization::from).collect())
}

#[derive(sqlx_macros::FromRow)]
struct FoundRow {
    #[sqlx(flatten)]
    server: server::Row,
    is_alias: i64,
}

/// Returns the server with this current or former, unreleased slug, and whether the slug is a former one.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_server_by_slug(conn: &mut Conn, slug: &str) -> Result<Option<(Server, bool)>> {
    // One statement, so that a slug that moves between the two tables in the meantime is not missed.
    const SQL: &str = concat!(
        "SELECT ",
        server::columns!(),
        ", CAST(0 AS BIGINT) AS is_alias FROM servers WHERE servers.slug = $1 UNION ALL SELECT ",
        server::columns!(),
        ", CAST(1 AS BIGINT) AS is_alias FROM server_aliases JOIN servers ON servers.id = server_aliases.server_id
           WHERE server_aliases.slug = $1"
    );
    let row: Option<FoundRow> = on!(conn, c => sqlx::query_as(SQL).bind(slug).fetch_optional(c).await?);
    row.map(|row| Ok((row.server.try_into()?, row.is_alias != 0))).transpose()
}

/// Returns the server with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_server_by_id(conn: &mut Conn, id: &ServerId) -> Result<Option<Server>> {
    const SQL: &str = concat!("SELECT ", server::columns!(), " FROM servers WHERE servers.id = $1");
    let row: Option<server::Row> = on!(conn, c => sqlx::query_as(SQL).bind(id.as_str()).fetch_optional(c).await?);
    row.map(Server::try_from).transpose()
}

/// Returns the API key whose secret has this hexadecimal SHA-256.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_api_key(conn: &mut Conn, secret_hash: &str) -> Result<Option<ApiKey>> {
    const SQL: &str = "SELECT id, organization_id, name, scope, created_at, expires_at, last_used_at FROM api_keys
        WHERE secret_hash = $1";
    let row: Option<api_key::Row> = on!(conn, c => sqlx::query_as(SQL).bind(secret_hash).fetch_optional(c).await?);
    row.map(ApiKey::try_from).transpose()
}

/// Returns the token of an agent whose secret has this hexadecimal SHA-256, with its agent, regardless of their state.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn find_agent_token(conn: &mut Conn, secret_hash: &str) -> Result<Option<(AgentToken, Agent)>> {
    const TOKEN: &str = "SELECT id, agent_id, name, created_at, expires_at, last_used_at, revoked_at FROM agent_tokens
        WHERE secret_hash = $1";
    const AGENT: &str = "SELECT id, organization_id, name, kind, user_id, state, created_at, created_by, last_seen_at
        FROM agents WHERE id = $1";
    let token: Option<agent_token::Row> =
        on!(conn, c => sqlx::query_as(TOKEN).bind(secret_hash).fetch_optional(c).await?);
    let Some(token) = token.map(AgentToken::from) else { return Ok(None) };
    // If the agent was deleted in the meantime, so was the token.
    let agent: Option<agent::Row> =
        on!(conn, c => sqlx::query_as(AGENT).bind(token.agent_id.as_str()).fetch_optional(c).await?);
    Ok(agent.map(Agent::try_from).transpose()?.map(|agent| (token, agent)))
}

/// A valid access token of a person at the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonToken {
    /// The grant that it was issued for.
    pub grant_id: OauthGrantId,
    /// The only resource for which it is valid.
    pub resource: String,
    /// The time at which it expires.
    pub expires_at: Timestamp,
}

/// Returns the access token of the gateway with this hexadecimal SHA-256, with the agent of its person, regardless of
/// the agent's state; `None` if the token is not valid, or the person is not a member of the agent's organisation.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn find_person_token(
    conn: &mut Conn,
    token_hash: &str,
    now: Timestamp,
) -> Result<Option<(PersonToken, Agent)>> {
    const TOKEN: &str = "SELECT oauth_grants.id, oauth_grants.resource, access_tokens.expires_at, oauth_grants.agent_id
        FROM access_tokens JOIN oauth_grants ON oauth_grants.id = access_tokens.grant_id
        WHERE access_tokens.token_hash = $1 AND access_tokens.expires_at > $2 AND access_tokens.revoked_at IS NULL
            AND oauth_grants.revoked_at IS NULL AND oauth_grants.agent_id IS NOT NULL";
    const AGENT: &str =
        "SELECT agents.id, agents.organization_id, agents.name, agents.kind, agents.user_id, agents.state,
            agents.created_at, agents.created_by, agents.last_seen_at
        FROM agents JOIN memberships
            ON memberships.organization_id = agents.organization_id AND memberships.user_id = agents.user_id
        WHERE agents.id = $1";
    let token: Option<(String, String, i64, String)> =
        on!(conn, c => sqlx::query_as(TOKEN).bind(token_hash).bind(now.0).fetch_optional(c).await?);
    let Some((grant, resource, expires_at, agent)) = token else { return Ok(None) };
    let agent: Option<agent::Row> = on!(conn, c => sqlx::query_as(AGENT).bind(&agent).fetch_optional(c).await?);
    let token = PersonToken { grant_id: OauthGrantId::from_store(grant), resource, expires_at: Timestamp(expires_at) };
    Ok(agent.map(Agent::try_from).transpose()?.map(|agent| (token, agent)))
}

/// Returns the valid grants of a user at the gateway, in all organisations, newest first, each with the name of its
/// organisation.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_person_grants(conn: &mut Conn, user: &UserId, now: Timestamp) -> Result<Vec<(OauthGrant, String)>> {
    const GRANTS: &str = concat!(
        "SELECT ",
        oauth_grant::columns!(),
        " FROM oauth_grants JOIN agents ON agents.id = oauth_grants.agent_id
         WHERE agents.user_id = $1 AND oauth_grants.revoked_at IS NULL AND oauth_grants.expires_at > $2
         ORDER BY oauth_grants.created_at DESC, oauth_grants.id"
    );
    const NAMES: &str = "SELECT organizations.id, organizations.name FROM organizations
        JOIN agents ON agents.organization_id = organizations.id WHERE agents.user_id = $1";
    let rows: Vec<oauth_grant::Row> =
        on!(conn, c => sqlx::query_as(GRANTS).bind(user.as_str()).bind(now.0).fetch_all(c).await?);
    let names: Vec<(String, String)> = on!(conn, c => sqlx::query_as(NAMES).bind(user.as_str()).fetch_all(c).await?);
    let names: HashMap<String, String> = names.into_iter().collect();
    rows.into_iter()
        .map(|row| {
            let grant = OauthGrant::try_from(row)?;
            let name = names.get(grant.organization_id.as_str()).cloned().unwrap_or_default();
            Ok((grant, name))
        })
        .collect()
}

/// Returns the verified account of an email address, which is valid for all organisations; `None` if the address is not
/// verified.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_verified_user(conn: &mut Conn, email_key: &str) -> Result<Option<User>> {
    const SQL: &str =
        concat!("SELECT ", user::columns!(), " FROM users WHERE account_key = $1 AND verified_at IS NOT NULL");
    let row: Option<user::Row> = on!(conn, c => sqlx::query_as(SQL).bind(email_key).fetch_optional(c).await?);
    Ok(row.map(User::from))
}

/// Whether any user can sign in. If not, the installation is not set up.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn has_account(conn: &mut Conn) -> Result<bool> {
    const VERIFIED: &str = "SELECT id FROM users WHERE verified_at > 0 LIMIT 1";
    const PASSWORD: &str = "SELECT id FROM users WHERE password_hash > '' LIMIT 1";
    for sql in [VERIFIED, PASSWORD] {
        let id: Option<String> = on!(conn, c => sqlx::query_scalar(sql).fetch_optional(c).await?);
        if id.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Locks the setup of the installation until the end of the transaction.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn lock_set_up(conn: &mut Conn) -> Result<()> {
    // SQLite needs no lock, because it has a single writer.
    if conn.dialect() == Dialect::Postgres {
        const SQL: &str = "SELECT pg_advisory_xact_lock(5716093215)";
        on!(conn, c => sqlx::query(SQL).execute(c).await?.rows_affected());
    }
    Ok(())
}

/// Returns the organisations without an owner: those created on the command line or by the demo.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_organizations_without_owner(conn: &mut Conn) -> Result<Vec<OrganizationId>> {
    const SQL: &str = "SELECT id FROM organizations WHERE NOT EXISTS (SELECT 1 FROM memberships
        WHERE memberships.organization_id = organizations.id AND memberships.role = 'owner') ORDER BY id";
    let ids: Vec<String> = on!(conn, c => sqlx::query_scalar(SQL).fetch_all(c).await?);
    Ok(ids.into_iter().map(OrganizationId::from_store).collect())
}

/// The maximum number of accounts that are read per email address.
const ACCOUNTS: i64 = 100;

/// Returns all accounts of an email address with their credentials: first the verified one, then the one that is not
/// limited to an organisation, then the oldest.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_accounts(conn: &mut Conn, email_key: &str) -> Result<Vec<user::UserCredentials>> {
    const SQL: &str = concat!(
        "SELECT ",
        user::columns!(),
        ", users.password_hash FROM users WHERE email_key = $1
           ORDER BY verified_at IS NULL, organization_id IS NOT NULL, created_at, id LIMIT $2"
    );
    let rows: Vec<user::UserCredentialsRow> =
        on!(conn, c => sqlx::query_as(SQL).bind(email_key).bind(ACCOUNTS).fetch_all(c).await?);
    Ok(rows.into_iter().map(user::UserCredentials::from).collect())
}

/// Returns the organisation of which an account of an email address has been a member for the longest time, preferring
/// a verified account; `None` if there is none.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_organization_by_email(conn: &mut Conn, email_key: &str) -> Result<Option<OrganizationId>> {
    const SQL: &str = "SELECT memberships.organization_id FROM users
        JOIN memberships ON memberships.user_id = users.id WHERE users.email_key = $1
        ORDER BY users.verified_at IS NULL, memberships.created_at, memberships.organization_id LIMIT 1";
    let id: Option<String> = on!(conn, c => sqlx::query_scalar(SQL).bind(email_key).fetch_optional(c).await?);
    Ok(id.map(OrganizationId::from_store))
}

/// Returns the number of tickets that were opened from a network since `since`, in all organisations. Concurrent calls
/// for the same network wait until the end of the transaction.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn lock_and_count_tickets_from_network(tx: &mut Tx, client: &str, since: Timestamp) -> Result<i64> {
    // SQLite needs no lock, because it has a single writer.
    if tx.dialect() == Dialect::Postgres {
        const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1, 8316740952))";
        on!(tx, c => sqlx::query(LOCK).bind(client).execute(c).await?.rows_affected());
    }
    count_tickets_from_network(tx, client, since).await
}

/// The same as [`lock_and_count_tickets_from_network`], without a lock.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count_tickets_from_network(conn: &mut Conn, client: &str, since: Timestamp) -> Result<i64> {
    const SQL: &str = "SELECT count(*) FROM tickets WHERE client = $1 AND created_at > $2";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(client).bind(since.0).fetch_one(c).await?))
}

/// The same as [`list_accounts`], with a lock until the end of the transaction: the email address cannot be verified
/// concurrently.
///
/// # Errors
/// The same as for [`list_accounts`].
pub async fn lock_accounts(conn: &mut Conn, email_key: &str) -> Result<Vec<user::UserCredentials>> {
    // SQLite needs no lock, because it has a single writer.
    if conn.dialect() == Dialect::Postgres {
        const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1, 5716093216))";
        on!(conn, c => sqlx::query(LOCK).bind(email_key).execute(c).await?.rows_affected());
    }
    list_accounts(conn, email_key).await
}

/// Records a failed sign-in for each account of an email address, and returns each account's number of failures within
/// an hour.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn record_failed_sign_in(conn: &mut Conn, email_key: &str, now: Timestamp) -> Result<Vec<(UserId, i64)>> {
    const SQL: &str = "UPDATE users
        SET failed_sign_ins = CASE WHEN failed_since > $2 THEN failed_sign_ins + 1 ELSE 1 END,
            failed_since = CASE WHEN failed_since > $2 THEN failed_since ELSE CAST($3 AS BIGINT) END
        WHERE email_key = $1 RETURNING id, failed_sign_ins";
    const HOUR_MS: i64 = 60 * 60 * 1_000;
    let rows: Vec<(String, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(email_key).bind(now.0 - HOUR_MS).bind(now.0).fetch_all(c).await?);
    Ok(rows.into_iter().map(|(id, count)| (UserId::from_store(id), count)).collect())
}

/// Returns the organisations that each account of an email address can access.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_organizations_by_email(conn: &mut Conn, email_key: &str) -> Result<Vec<(UserId, OrganizationId)>> {
    const SQL: &str = "SELECT memberships.user_id, memberships.organization_id
        FROM users JOIN memberships ON memberships.user_id = users.id
        WHERE users.email_key = $1 ORDER BY memberships.organization_id, memberships.user_id";
    let rows: Vec<(String, String)> = on!(conn, c => sqlx::query_as(SQL).bind(email_key).fetch_all(c).await?);
    let ids = |(user, organization)| (UserId::from_store(user), OrganizationId::from_store(organization));
    Ok(rows.into_iter().map(ids).collect())
}

/// Returns the pending invitation whose token has this hexadecimal SHA-256.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_invitation(conn: &mut Conn, token_hash: &str, now: Timestamp) -> Result<Option<OpenInvitation>> {
    const SQL: &str =
        "SELECT invitations.id AS invitation_id, organizations.id, organizations.slug, organizations.name,
            organizations.toolboxes_enabled, organizations.gateway_enabled, organizations.created_at,
            invitations.email, invitations.email_key, invitations.role, invitations.invited_by,
            invitations.expires_at, invitations.emailed_at
        FROM invitations JOIN organizations ON organizations.id = invitations.organization_id
        WHERE invitations.token_hash = $1 AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > $2";
    let row: Option<invitation_accept::Row> =
        on!(conn, c => sqlx::query_as(SQL).bind(token_hash).bind(now.0).fetch_optional(c).await?);
    row.map(OpenInvitation::try_from).transpose()
}

/// Returns the toolbox with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_toolbox(conn: &mut Conn, id: &ToolboxId) -> Result<Option<Toolbox>> {
    const SQL: &str = concat!("SELECT ", toolbox::columns!(), " FROM toolboxes WHERE id = $1");
    let row: Option<toolbox::Row> = on!(conn, c => sqlx::query_as(SQL).bind(id.as_str()).fetch_optional(c).await?);
    row.map(Toolbox::try_from).transpose()
}

/// Returns the toolbox whose join token has this hash.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_toolbox_by_token(conn: &mut Conn, token_hash: &str) -> Result<Option<Toolbox>> {
    const SQL: &str = concat!("SELECT ", toolbox::columns!(), " FROM toolboxes WHERE join_token_hash = $1");
    let row: Option<toolbox::Row> = on!(conn, c => sqlx::query_as(SQL).bind(token_hash).fetch_optional(c).await?);
    row.map(Toolbox::try_from).transpose()
}

/// Returns the revisions of the desired states of toolboxes in `ids`. Skips toolboxes that no machine has joined, that
/// are revoked, or whose organisation has switched toolboxes off.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_toolbox_revisions(conn: &mut Conn, ids: &[&ToolboxId]) -> Result<Vec<(ToolboxId, i64)>> {
    let listed = in_list(conn.dialect());
    let sql = format!(
        "SELECT id, desired_revision FROM toolboxes WHERE id {listed} AND revoked_at IS NULL AND public_key IS NOT NULL
            AND (SELECT toolboxes_enabled FROM organizations WHERE organizations.id = toolboxes.organization_id)"
    );
    let list = to_json(ids.iter().map(|id| id.as_str()).collect::<Vec<_>>());
    let rows: Vec<(String, i64)> =
        on!(conn, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(list).fetch_all(c).await?);
    Ok(rows.into_iter().map(|(id, revision)| (ToolboxId::from_store(id), revision)).collect())
}

/// Returns the number of toolboxes in each state: pending, online, unresponsive and revoked. A toolbox is unresponsive
/// if it was last seen before `before`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count_toolboxes(conn: &mut Conn, before: Timestamp) -> Result<Vec<(String, i64)>> {
    const SQL: &str = "SELECT state, count(*) FROM (SELECT CASE
                WHEN revoked_at IS NOT NULL THEN 'revoked'
                WHEN last_seen_at IS NULL THEN 'pending'
                WHEN last_seen_at >= $1 THEN 'online'
                ELSE 'unresponsive' END AS state
            FROM toolboxes) AS states
        GROUP BY state";
    Ok(on!(conn, c => sqlx::query_as(SQL).bind(before.0).fetch_all(c).await?))
}

/// Returns the number of instances in each stored state; `removing` for those that are being removed.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count_instances(conn: &mut Conn) -> Result<Vec<(String, i64)>> {
    const SQL: &str =
        "SELECT state, count(*) FROM (SELECT CASE WHEN is_removing THEN 'removing' ELSE state END AS state
            FROM instances) AS states
        GROUP BY state";
    Ok(on!(conn, c => sqlx::query_as(SQL).fetch_all(c).await?))
}
