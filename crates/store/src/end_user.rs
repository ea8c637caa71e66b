//! End users: found by the organisation's own name of them, and deleted. The writer makes the anonymous ones, a sign-in
//! the others.

mod data;
mod list;

pub use data::{Extent, export, extent};
pub use list::{EndUser, Search, Standing, get, list, standings};
use waypost_core::Timestamp;
use waypost_core::id::{EndUserId, OrganizationId};

use crate::analytics;
use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// The end user whom the organisation calls `tracking_id`, when there is one.
///
/// # Errors
/// When the database fails.
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

/// What a provider says of an end user; what is absent is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// Their name.
    pub name: Option<String>,
    /// Where a picture of them is.
    pub picture_url: Option<String>,
    /// Their verified e-mail address.
    pub email: Option<String>,
}

/// Inserts an end user without a tracking id.
///
/// # Errors
/// When the database fails.
pub async fn insert(conn: &mut Conn, organization: &OrganizationId, id: &EndUserId, now: Timestamp) -> Result<()> {
    const SQL: &str = "INSERT INTO end_users (id, organization_id, created_at) VALUES ($1, $2, $3)";
    on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(now.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Inserts an end user whom the organisation calls `tracking_id`, unless there is one already.
///
/// # Errors
/// When the database fails.
pub async fn insert_tracked(
    conn: &mut Conn,
    organization: &OrganizationId,
    (id, tracking_id): (&EndUserId, &str),
    now: Timestamp,
) -> Result<()> {
    const SQL: &str = "INSERT INTO end_users (id, organization_id, tracking_id, created_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING";
    on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(tracking_id).bind(now.0)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// What is known of an end user; none when they are not there.
///
/// # Errors
/// When the database fails.
pub async fn profile(conn: &mut Conn, organization: &OrganizationId, id: &EndUserId) -> Result<Option<Profile>> {
    const SQL: &str = "SELECT name, picture_url, email FROM end_users WHERE id = $1 AND organization_id = $2";
    let row: Option<(Option<String>, Option<String>, Option<String>)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    Ok(row.map(|(name, picture_url, email)| Profile { name, picture_url, email }))
}

/// Writes what `profile` knows; what it does not know stays.
///
/// # Errors
/// When the database fails.
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

/// Whether the organisation has this end user.
///
/// # Errors
/// When the database fails.
pub async fn exists(conn: &mut Conn, organization: &OrganizationId, id: &EndUserId) -> Result<bool> {
    const SQL: &str = "SELECT count(*) FROM end_users WHERE id = $1 AND organization_id = $2";
    let count: i64 = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_one(c).await?);
    Ok(count > 0)
}

/// The address that an end user claims to have; none when they were not asked, or are not there.
///
/// # Errors
/// When the database fails.
pub async fn claimed_email(conn: &mut Conn, organization: &OrganizationId, id: &EndUserId) -> Result<Option<String>> {
    const SQL: &str = "SELECT claimed_email FROM end_users WHERE id = $1 AND organization_id = $2";
    let row: Option<Option<String>> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    Ok(row.flatten())
}

/// Writes the address that an end user claims to have.
///
/// # Errors
/// When the database fails.
pub async fn set_claimed_email(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &EndUserId,
    address: &str,
) -> Result<()> {
    const SQL: &str = "UPDATE end_users SET claimed_email = $3 WHERE id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(address).execute(c).await?.rows_affected());
    Ok(())
}

/// Deletes an end user with their progress, sessions, events and calls; false when they are not there. Whom they were
/// before they had signed in goes with them, as far as nobody but their own client knew it: not a tracking id.
///
/// # Errors
/// When the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, id: &EndUserId) -> Result<bool> {
    const BEFORE: &str = "SELECT from_end_user_id FROM joins WHERE to_end_user_id = $1 AND organization_id = $2
        AND undone_at IS NULL AND kind <> 'tracking' AND from_end_user_id <> $1";
    const SQL: &str = "DELETE FROM end_users WHERE id = $1 AND organization_id = $2";
    let before: Vec<String> = on!(conn, c => sqlx::query_scalar(BEFORE)
        .bind(id.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    for id in before {
        let before = EndUserId::from_store(id.clone());
        analytics::forget(conn, organization, &before).await?;
        data::delete_loose(conn, organization, &before).await?;
        on!(conn, c => sqlx::query(SQL).bind(id).bind(organization.as_str()).execute(c).await?.rows_affected());
    }
    analytics::forget(conn, organization, id).await?;
    data::delete_loose(conn, organization, id).await?;
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(deleted > 0)
}
