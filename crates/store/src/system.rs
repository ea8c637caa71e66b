//! Finders that cannot know the organisation yet: what they find is what tells it.
//!
//! Whoever calls one has to check what the caller may know of the organisation that comes out.

use waypost_core::Timestamp;
use waypost_core::id::{OrganizationId, ServerId, UserId};
use waypost_core::organization::{ApiKey, Organization, User};
use waypost_core::server::Server;

use crate::db::{Conn, Dialect, Tx};
use crate::error::Result;
use crate::invitation_accept::{self, OpenInvitation};
use crate::on;
use crate::{api_key, organization, server, user};

/// An organisation by slug.
///
/// # Errors
/// When the database fails.
pub async fn find_organization(conn: &mut Conn, slug: &str) -> Result<Option<Organization>> {
    const SQL: &str = "SELECT id, slug, name, created_at FROM organizations WHERE slug = $1";
    let row: Option<organization::Row> = on!(conn, c => sqlx::query_as(SQL).bind(slug).fetch_optional(c).await?);
    Ok(row.map(Organization::from))
}

/// All organisations, by slug.
///
/// # Errors
/// When the database fails.
pub async fn list_organizations(conn: &mut Conn) -> Result<Vec<Organization>> {
    const SQL: &str = "SELECT id, slug, name, created_at FROM organizations ORDER BY slug";
    let rows: Vec<organization::Row> = on!(conn, c => sqlx::query_as(SQL).fetch_all(c).await?);
    Ok(rows.into_iter().map(Organization::from).collect())
}

#[derive(sqlx::FromRow)]
struct FoundRow {
    #[sqlx(flatten)]
    server: server::Row,
    is_alias: i64,
}

/// A server by the slug that it has, or had before and has not released; and whether it was the latter.
///
/// # Errors
/// When the database fails, or the row cannot be read.
pub async fn find_server(conn: &mut Conn, slug: &str) -> Result<Option<(Server, bool)>> {
    // One statement, so that a slug that changes hands between the two tables meanwhile is not missed.
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

/// A server by id.
///
/// # Errors
/// When the database fails, or the row cannot be read.
pub async fn get_server(conn: &mut Conn, id: &ServerId) -> Result<Option<Server>> {
    const SQL: &str = concat!("SELECT ", server::columns!(), " FROM servers WHERE servers.id = $1");
    let row: Option<server::Row> = on!(conn, c => sqlx::query_as(SQL).bind(id.as_str()).fetch_optional(c).await?);
    row.map(Server::try_from).transpose()
}

/// A key by the SHA-256 of its secret, hexadecimal.
///
/// # Errors
/// When the database fails, or the row cannot be read.
pub async fn find_api_key(conn: &mut Conn, secret_hash: &str) -> Result<Option<ApiKey>> {
    const SQL: &str = "SELECT id, organization_id, name, scope, created_at, expires_at, last_used_at FROM api_keys
        WHERE secret_hash = $1";
    let row: Option<api_key::Row> = on!(conn, c => sqlx::query_as(SQL).bind(secret_hash).fetch_optional(c).await?);
    row.map(ApiKey::try_from).transpose()
}

/// The account with which the owner of an address signs in everywhere; `None` if the address is not verified.
///
/// # Errors
/// When the database fails.
pub async fn find_verified_user(conn: &mut Conn, email_key: &str) -> Result<Option<User>> {
    const SQL: &str =
        concat!("SELECT ", user::columns!(), " FROM users WHERE account_key = $1 AND verified_at IS NOT NULL");
    let row: Option<user::Row> = on!(conn, c => sqlx::query_as(SQL).bind(email_key).fetch_optional(c).await?);
    Ok(row.map(User::from))
}

/// Whether any user can sign in: until then the installation is not set up.
///
/// # Errors
/// When the database fails.
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

/// Lets one transaction at a time set the installation up.
///
/// # Errors
/// When the database fails.
pub async fn lock_set_up(conn: &mut Conn) -> Result<()> {
    // A transaction that writes to SQLite is alone anyway.
    if conn.dialect() == Dialect::Postgres {
        const SQL: &str = "SELECT pg_advisory_xact_lock(5716093215)";
        on!(conn, c => sqlx::query(SQL).execute(c).await?.rows_affected());
    }
    Ok(())
}

/// The organisations without an owner: made on the command line, or by the demo.
///
/// # Errors
/// When the database fails.
pub async fn organizations_without_owner(conn: &mut Conn) -> Result<Vec<OrganizationId>> {
    const SQL: &str = "SELECT id FROM organizations WHERE NOT EXISTS (SELECT 1 FROM memberships
        WHERE memberships.organization_id = organizations.id AND memberships.role = 'owner') ORDER BY id";
    let ids: Vec<String> = on!(conn, c => sqlx::query_scalar(SQL).fetch_all(c).await?);
    Ok(ids.into_iter().map(OrganizationId::from_store).collect())
}

/// At most this many accounts of one address are looked at.
const ACCOUNTS: i64 = 100;

/// All accounts of an address with what their sign-ins are checked with: the verified one, then the one without an
/// organisation of its own, then the oldest.
///
/// # Errors
/// When the database fails.
pub async fn find_accounts(conn: &mut Conn, email_key: &str) -> Result<Vec<user::Credentials>> {
    const SQL: &str = concat!(
        "SELECT ",
        user::columns!(),
        ", users.password_hash FROM users WHERE email_key = $1
           ORDER BY verified_at IS NULL, organization_id IS NOT NULL, created_at, id LIMIT $2"
    );
    let rows: Vec<user::CredentialsRow> =
        on!(conn, c => sqlx::query_as(SQL).bind(email_key).bind(ACCOUNTS).fetch_all(c).await?);
    Ok(rows.into_iter().map(user::Credentials::from).collect())
}

/// The organisation of an address that has been a member of one for longest, a verified account before others; `None` if there
/// is none.
///
/// # Errors
/// When the database fails.
pub async fn find_organization_of_address(conn: &mut Conn, email_key: &str) -> Result<Option<OrganizationId>> {
    const SQL: &str = "SELECT memberships.organization_id FROM users
        JOIN memberships ON memberships.user_id = users.id WHERE users.email_key = $1
        ORDER BY users.verified_at IS NULL, memberships.created_at, memberships.organization_id LIMIT 1";
    let id: Option<String> = on!(conn, c => sqlx::query_scalar(SQL).bind(email_key).fetch_optional(c).await?);
    Ok(id.map(OrganizationId::from_store))
}

/// Returns the number of tickets that were opened from a network since a time, in every organisation. In a transaction, others
/// that count for the same network wait until it ends.
///
/// # Errors
/// When the database fails.
pub async fn count_tickets_of_client(tx: &mut Tx, client: &str, since: Timestamp) -> Result<i64> {
    // A transaction that writes to SQLite is alone anyway.
    if tx.dialect() == Dialect::Postgres {
        const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1, 8316740952))";
        on!(tx, c => sqlx::query(LOCK).bind(client).execute(c).await?.rows_affected());
    }
    peek_tickets_of_client(tx, client, since).await
}

/// As [`count_tickets_of_client`], without waiting for anybody.
///
/// # Errors
/// When the database fails.
pub async fn peek_tickets_of_client(conn: &mut Conn, client: &str, since: Timestamp) -> Result<i64> {
    const SQL: &str = "SELECT count(*) FROM tickets WHERE client = $1 AND created_at > $2";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(client).bind(since.0).fetch_one(c).await?))
}

/// As [`find_accounts`], locked until the end of the transaction: nobody else verifies the address meanwhile.
///
/// # Errors
/// As [`find_accounts`].
pub async fn lock_accounts(conn: &mut Conn, email_key: &str) -> Result<Vec<user::Credentials>> {
    // A transaction that writes to SQLite is alone anyway.
    if conn.dialect() == Dialect::Postgres {
        const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1, 5716093216))";
        on!(conn, c => sqlx::query(LOCK).bind(email_key).execute(c).await?.rows_affected());
    }
    find_accounts(conn, email_key).await
}

/// Counts a failed sign-in for each account of an address, and returns for each the number of those within an hour.
///
/// # Errors
/// When the database fails.
pub async fn count_failed_sign_ins(conn: &mut Conn, email_key: &str, now: Timestamp) -> Result<Vec<(UserId, i64)>> {
    const SQL: &str = "UPDATE users
        SET failed_sign_ins = CASE WHEN failed_since > $2 THEN failed_sign_ins + 1 ELSE 1 END,
            failed_since = CASE WHEN failed_since > $2 THEN failed_since ELSE CAST($3 AS BIGINT) END
        WHERE email_key = $1 RETURNING id, failed_sign_ins";
    const HOUR_MS: i64 = 60 * 60 * 1_000;
    let rows: Vec<(String, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(email_key).bind(now.0 - HOUR_MS).bind(now.0).fetch_all(c).await?);
    Ok(rows.into_iter().map(|(id, count)| (UserId::from_store(id), count)).collect())
}

/// The organisations that each account of an address can access.
///
/// # Errors
/// When the database fails.
pub async fn organizations_of_address(conn: &mut Conn, email_key: &str) -> Result<Vec<(UserId, OrganizationId)>> {
    const SQL: &str = "SELECT memberships.user_id, memberships.organization_id
        FROM users JOIN memberships ON memberships.user_id = users.id
        WHERE users.email_key = $1 ORDER BY memberships.organization_id, memberships.user_id";
    let rows: Vec<(String, String)> = on!(conn, c => sqlx::query_as(SQL).bind(email_key).fetch_all(c).await?);
    let ids = |(user, organization)| (UserId::from_store(user), OrganizationId::from_store(organization));
    Ok(rows.into_iter().map(ids).collect())
}

/// An invitation that can still be accepted, by the SHA-256 of its token, hexadecimal.
///
/// # Errors
/// When the database fails, or the row cannot be read.
pub async fn find_invitation(conn: &mut Conn, token_hash: &str, now: Timestamp) -> Result<Option<OpenInvitation>> {
    const SQL: &str =
        "SELECT invitations.id AS invitation_id, organizations.id, organizations.slug, organizations.name,
            organizations.created_at, invitations.email, invitations.email_key, invitations.role,
            invitations.invited_by, invitations.expires_at, invitations.emailed_at
        FROM invitations JOIN organizations ON organizations.id = invitations.organization_id
        WHERE invitations.token_hash = $1 AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > $2";
    let row: Option<invitation_accept::Row> =
        on!(conn, c => sqlx::query_as(SQL).bind(token_hash).bind(now.0).fetch_optional(c).await?);
    row.map(OpenInvitation::try_from).transpose()
}
