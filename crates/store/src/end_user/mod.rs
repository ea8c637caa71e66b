//! End users. The writer creates an end user with their first progress. Sign-ins and support tickets also create end
//! users.

mod data;
mod list;

pub use data::{EndUserDataCounts, count_data, export};
pub use list::{EndUser, EndUserAttempt, EndUserSearch, find, list, list_attempts};
use waypost_core::Timestamp;
use waypost_core::id::{EndUserId, OrganizationId};

use crate::analytics;
use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// Returns the end user with this tracking ID.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_by_tracking_id(
    conn: &mut Conn,
    organization: &OrganizationId,
    tracking_id: &str,
) -> Result<Option<EndUserId>> {
    const SQL: &str = "SELECT id FROM end_users WHERE organization_id = $1 AND tracking_id = $2";
    let id: Option<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(organization.as_str()).bind(tracking_id).fetch_optional(c).await?);
    Ok(id.map(EndUserId::from_store))
}

/// The profile of an end user, as stated by an identity provider. Absent fields are unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// The name.
    pub name: Option<String>,
    /// The URL of a picture.
    pub picture_url: Option<String>,
    /// The verified email address.
    pub email: Option<String>,
}

/// Inserts an end user without a tracking ID.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, organization: &OrganizationId, id: &EndUserId, now: Timestamp) -> Result<()> {
    const SQL: &str = "INSERT INTO end_users (id, organization_id, created_at) VALUES ($1, $2, $3)";
    on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(now.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Inserts an end user with this tracking ID, unless one exists already.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert_tracked(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &EndUserId,
    tracking_id: &str,
    now: Timestamp,
) -> Result<()> {
    const SQL: &str = "INSERT INTO end_users (id, organization_id, tracking_id, created_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING";
    on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(tracking_id).bind(now.0)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the profile of an end user; `None` if the end user does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_profile(conn: &mut Conn, organization: &OrganizationId, id: &EndUserId) -> Result<Option<Profile>> {
    const SQL: &str = "SELECT name, picture_url, email FROM end_users WHERE id = $1 AND organization_id = $2";
    let row: Option<(Option<String>, Option<String>, Option<String>)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    Ok(row.map(|(name, picture_url, email)| Profile { name, picture_url, email }))
}

/// Updates the profile of an end user. Absent fields of `profile` are kept.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn update_profile(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &EndUserId,
    profile: &Profile,
) -> Result<()> {
    const SQL: &str = "UPDATE end_users SET name = COALESCE($3, name), picture_url = COALESCE($4, picture_url),
        email = COALESCE($5, email) WHERE id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(profile.name.as_deref())
        .bind(profile.picture_url.as_deref()).bind(profile.email.as_deref()).execute(c).await?.rows_affected());
    Ok(())
}

/// Whether the organisation has an end user with this ID.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn exists(conn: &mut Conn, organization: &OrganizationId, id: &EndUserId) -> Result<bool> {
    const SQL: &str = "SELECT count(*) FROM end_users WHERE id = $1 AND organization_id = $2";
    let count: i64 = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_one(c).await?);
    Ok(count > 0)
}

/// Returns the claimed email address of an end user; `None` if there is none, or the end user does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_claimed_email(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &EndUserId,
) -> Result<Option<String>> {
    const SQL: &str = "SELECT claimed_email FROM end_users WHERE id = $1 AND organization_id = $2";
    let row: Option<Option<String>> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    Ok(row.flatten())
}

/// Sets the claimed email address of an end user.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn set_claimed_email(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &EndUserId,
    email: &str,
) -> Result<()> {
    const SQL: &str = "UPDATE end_users SET claimed_email = $3 WHERE id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(email).execute(c).await?.rows_affected());
    Ok(())
}

/// Deletes an end user with their progress, sessions, events and calls. Returns `false` if the end user does not exist.
/// Also deletes the anonymous end users that were joined to this one, except those with a tracking ID.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, id: &EndUserId) -> Result<bool> {
    const JOINED: &str = "SELECT from_end_user_id FROM joins WHERE to_end_user_id = $1 AND organization_id = $2
        AND undone_at IS NULL AND kind <> 'tracking' AND from_end_user_id <> $1";
    const SQL: &str = "DELETE FROM end_users WHERE id = $1 AND organization_id = $2";
    let joined: Vec<String> = on!(conn, c => sqlx::query_scalar(JOINED)
        .bind(id.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    for id in joined {
        let joined = EndUserId::from_store(id.clone());
        analytics::erase_end_user(conn, organization, &joined).await?;
        data::delete_unreferenced(conn, organization, &joined).await?;
        on!(conn, c => sqlx::query(SQL).bind(id).bind(organization.as_str()).execute(c).await?.rows_affected());
    }
    analytics::erase_end_user(conn, organization, id).await?;
    data::delete_unreferenced(conn, organization, id).await?;
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(deleted > 0)
}
