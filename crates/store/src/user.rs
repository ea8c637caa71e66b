//! Users and their memberships.

use waypost_core::Timestamp;
use waypost_core::id::{OrganizationId, UserId};
use waypost_core::organization::{Member, Role, User};

use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;

#[derive(sqlx_macros::FromRow)]
struct MemberRow {
    user_id: String,
    email: String,
    name: Option<String>,
    role: String,
    verified_at: Option<i64>,
    created_at: i64,
}

impl TryFrom<MemberRow> for Member {
    type Error = Error;

    fn try_from(row: MemberRow) -> Result<Self> {
        let role = row.role.parse().map_err(|reason| Error::Corrupt {
            table: "memberships",
            id: row.user_id.clone(),
            reason,
        })?;
        Ok(Self {
            user_id: UserId::from_store(row.user_id),
            email: row.email,
            name: row.name,
            role,
            is_verified: row.verified_at.is_some(),
            created_at: Timestamp(row.created_at),
        })
    }
}

/// The columns of [`Row`].
macro_rules! columns {
    () => {
        "users.id, users.email, users.name, users.verified_at, users.organization_id, users.created_at"
    };
}
pub(crate) use columns;

#[derive(sqlx_macros::FromRow)]
pub(crate) struct Row {
    id: String,
    email: String,
    name: Option<String>,
    verified_at: Option<i64>,
    organization_id: Option<String>,
    created_at: i64,
}

impl From<Row> for User {
    fn from(row: Row) -> Self {
        Self {
            id: UserId::from_store(row.id),
            email: row.email,
            name: row.name,
            verified_at: row.verified_at.map(Timestamp),
            organization_id: row.organization_id.map(OrganizationId::from_store),
            created_at: Timestamp(row.created_at),
        }
    }
}

/// A user with their credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct UserCredentials {
    /// The user.
    pub user: User,
    /// The password hash, if the user has a password.
    pub password_hash: Option<String>,
}

/// Omits the hash.
impl std::fmt::Debug for UserCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserCredentials")
            .field("user", &self.user)
            .field("has_password", &self.password_hash.is_some())
            .finish()
    }
}

#[derive(sqlx_macros::FromRow)]
pub(crate) struct UserCredentialsRow {
    #[sqlx(flatten)]
    user: Row,
    password_hash: Option<String>,
}

impl From<UserCredentialsRow> for UserCredentials {
    fn from(UserCredentialsRow { user, password_hash }: UserCredentialsRow) -> Self {
        Self { user: user.into(), password_hash }
    }
}

/// Inserts a user. `email_key` is [`waypost_core::email::Email::key`].
///
/// # Errors
/// Returns a unique violation if the email address already has an account for the same organisation or, for a user
/// without an organisation, an account for all organisations. Returns another error if the database fails.
pub async fn insert(conn: &mut Conn, user: &User, email_key: &str) -> Result<()> {
    const SQL: &str =
        "INSERT INTO users (id, email, email_key, account_key, organization_id, name, verified_at, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let organization = user.organization_id.as_ref().map(OrganizationId::as_str);
    let account_key = organization.map_or_else(|| email_key.to_owned(), |id| format!("{email_key} {id}"));
    on!(conn, c => sqlx::query(SQL)
        .bind(user.id.as_str()).bind(&user.email).bind(email_key).bind(account_key).bind(organization)
        .bind(user.name.as_deref()).bind(user.verified_at.map(|at| at.0)).bind(user.created_at.0)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the user with this ID.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(conn: &mut Conn, id: &UserId) -> Result<Option<User>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM users WHERE id = $1");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL).bind(id.as_str()).fetch_optional(c).await?);
    Ok(row.map(User::from))
}

/// Returns the user with this ID and their credentials.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_credentials(conn: &mut Conn, id: &UserId) -> Result<Option<UserCredentials>> {
    const SQL: &str = concat!("SELECT ", columns!(), ", users.password_hash FROM users WHERE id = $1");
    let row: Option<UserCredentialsRow> =
        on!(conn, c => sqlx::query_as(SQL).bind(id.as_str()).fetch_optional(c).await?);
    Ok(row.map(UserCredentials::from))
}

/// Sets the name of a user. Returns `false` if the user does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn set_name(conn: &mut Conn, id: &UserId, name: &str) -> Result<bool> {
    const SQL: &str = "UPDATE users SET name = $2 WHERE id = $1";
    Ok(on!(conn, c => sqlx::query(SQL).bind(id.as_str()).bind(name).execute(c).await?.rows_affected()) > 0)
}

/// Marks the email address of a user as verified, which makes the account valid for all organisations. Does nothing if
/// it is already verified.
///
/// # Errors
/// Returns a unique violation if another account of the address is valid for all organisations, or another error if the
/// database fails.
pub async fn mark_verified(conn: &mut Conn, id: &UserId, now: Timestamp) -> Result<()> {
    const SQL: &str = "UPDATE users SET verified_at = $2, organization_id = NULL, account_key = email_key
        WHERE id = $1 AND verified_at IS NULL";
    on!(conn, c => sqlx::query(SQL).bind(id.as_str()).bind(now.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Sets the password hash of a user.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn set_password(conn: &mut Conn, id: &UserId, password_hash: &str) -> Result<()> {
    const SQL: &str = "UPDATE users SET password_hash = $2 WHERE id = $1";
    on!(conn, c => sqlx::query(SQL).bind(id.as_str()).bind(password_hash).execute(c).await?.rows_affected());
    Ok(())
}

/// Removes the password of a user.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn clear_password(conn: &mut Conn, id: &UserId) -> Result<()> {
    const SQL: &str = "UPDATE users SET password_hash = NULL WHERE id = $1";
    on!(conn, c => sqlx::query(SQL).bind(id.as_str()).execute(c).await?.rows_affected());
    Ok(())
}

/// Adds a user to an organisation.
///
/// # Errors
/// Returns a unique violation if the user is already a member, or another error if the database fails.
pub async fn add_member(
    conn: &mut Conn,
    organization: &OrganizationId,
    user: &UserId,
    role: Role,
    now: Timestamp,
) -> Result<()> {
    const SQL: &str = "INSERT INTO memberships (organization_id, user_id, role, created_at) VALUES ($1, $2, $3, $4)";
    on!(conn, c => sqlx::query(SQL)
        .bind(organization.as_str()).bind(user.as_str()).bind(role.as_str()).bind(now.0)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the member with this user ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_member(conn: &mut Conn, organization: &OrganizationId, user: &UserId) -> Result<Option<Member>> {
    const SQL: &str =
        "SELECT memberships.user_id, users.email, users.name, memberships.role, users.verified_at, memberships.created_at
        FROM memberships JOIN users ON users.id = memberships.user_id
        WHERE memberships.organization_id = $1 AND memberships.user_id = $2";
    let row: Option<MemberRow> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(user.as_str()).fetch_optional(c).await?);
    row.map(Member::try_from).transpose()
}

/// Returns the member with this email key.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_member_by_email(
    conn: &mut Conn,
    organization: &OrganizationId,
    email_key: &str,
) -> Result<Option<Member>> {
    const SQL: &str =
        "SELECT memberships.user_id, users.email, users.name, memberships.role, users.verified_at, memberships.created_at
        FROM users JOIN memberships ON memberships.user_id = users.id
        WHERE memberships.organization_id = $1 AND users.email_key = $2";
    let row: Option<MemberRow> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(email_key).fetch_optional(c).await?);
    row.map(Member::try_from).transpose()
}

/// Returns all members, ordered by email key.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_members(conn: &mut Conn, organization: &OrganizationId) -> Result<Vec<Member>> {
    const SQL: &str =
        "SELECT memberships.user_id, users.email, users.name, memberships.role, users.verified_at, memberships.created_at
        FROM memberships JOIN users ON users.id = memberships.user_id
        WHERE memberships.organization_id = $1 ORDER BY users.email_key";
    let rows: Vec<MemberRow> = on!(conn, c => sqlx::query_as(SQL).bind(organization.as_str()).fetch_all(c).await?);
    rows.into_iter().map(Member::try_from).collect()
}

/// Returns the owners, locked until the end of the transaction. Otherwise, two concurrent transactions could each
/// remove one of the last two owners.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn lock_owners(conn: &mut Conn, organization: &OrganizationId) -> Result<Vec<UserId>> {
    // SQLite needs no lock, because it has a single writer.
    let sql = match conn.dialect() {
        Dialect::Sqlite => "SELECT user_id FROM memberships WHERE organization_id = $1 AND role = 'owner'",
        Dialect::Postgres => {
            "SELECT user_id FROM memberships WHERE organization_id = $1 AND role = 'owner' ORDER BY user_id FOR UPDATE"
        }
    };
    let ids: Vec<String> = on!(conn, c => sqlx::query_scalar(sql).bind(organization.as_str()).fetch_all(c).await?);
    Ok(ids.into_iter().map(UserId::from_store).collect())
}

/// Locks a membership until the end of the transaction, so that it cannot be removed before that. Returns `false` if
/// the user is not a member.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn lock_member(conn: &mut Conn, organization: &OrganizationId, user: &UserId) -> Result<bool> {
    // SQLite needs no lock, because it has a single writer.
    let sql = match conn.dialect() {
        Dialect::Sqlite => "SELECT user_id FROM memberships WHERE organization_id = $1 AND user_id = $2",
        Dialect::Postgres => "SELECT user_id FROM memberships WHERE organization_id = $1 AND user_id = $2 FOR UPDATE",
    };
    let found: Option<String> = on!(conn, c => sqlx::query_scalar(sql)
        .bind(organization.as_str()).bind(user.as_str()).fetch_optional(c).await?);
    Ok(found.is_some())
}

/// Sets the role of a member. Returns `false` if the user is not a member.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn set_role(conn: &mut Conn, organization: &OrganizationId, user: &UserId, role: Role) -> Result<bool> {
    const SQL: &str = "UPDATE memberships SET role = $3 WHERE organization_id = $1 AND user_id = $2";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(organization.as_str()).bind(user.as_str()).bind(role.as_str()).execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Removes a member. Returns `false` if the user is not a member.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn remove_member(conn: &mut Conn, organization: &OrganizationId, user: &UserId) -> Result<bool> {
    const SQL: &str = "DELETE FROM memberships WHERE organization_id = $1 AND user_id = $2";
    let removed = on!(conn, c => sqlx::query(SQL)
        .bind(organization.as_str()).bind(user.as_str()).execute(c).await?.rows_affected());
    Ok(removed > 0)
}

/// Deletes a user who has no memberships and whose email address was never verified. Returns `false` if the user has a
/// membership, is verified, or does not exist. Verified users keep their account.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_without_membership(conn: &mut Conn, user: &UserId) -> Result<bool> {
    const LOCK: &str = "SELECT id FROM users WHERE id = $1 FOR UPDATE";
    const SQL: &str = "DELETE FROM users WHERE id = $1 AND verified_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM memberships WHERE memberships.user_id = users.id)";
    // Waits for a concurrent transaction that adds this user to another organisation, and then sees the membership.
    if conn.dialect() == Dialect::Postgres {
        on!(conn, c => sqlx::query(LOCK).bind(user.as_str()).execute(c).await?.rows_affected());
    }
    Ok(on!(conn, c => sqlx::query(SQL).bind(user.as_str()).execute(c).await?.rows_affected()) > 0)
}
