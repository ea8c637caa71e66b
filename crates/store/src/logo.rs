//! Logos of organisations: PNG images, stored as Base64.

use data_encoding::BASE64;
use waypost_core::Timestamp;
use waypost_core::id::OrganizationId;

use crate::db::Conn;
use crate::error::Result;
use crate::on;
use crate::row::RowRef;

/// Sets the logo of an organisation.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn set(conn: &mut Conn, organization: &OrganizationId, png: &[u8], now: Timestamp) -> Result<()> {
    const SQL: &str = "INSERT INTO organization_logos (organization_id, png, updated_at) VALUES ($1, $2, $3)
        ON CONFLICT (organization_id) DO UPDATE SET png = excluded.png, updated_at = excluded.updated_at";
    on!(conn, c => sqlx::query(SQL)
        .bind(organization.as_str()).bind(BASE64.encode(png)).bind(now.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the logo of an organisation.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId) -> Result<Option<Vec<u8>>> {
    const SQL: &str = "SELECT png FROM organization_logos WHERE organization_id = $1";
    let text: Option<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(organization.as_str()).fetch_optional(c).await?);
    let row_ref = RowRef { table: "organization_logos", id: organization.as_str() };
    text.map(|text| BASE64.decode(text.as_bytes()).map_err(|error| row_ref.corrupt("png", error))).transpose()
}

/// Returns the time at which the logo of an organisation was set; `None` if it has no logo.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_updated_at(conn: &mut Conn, organization: &OrganizationId) -> Result<Option<Timestamp>> {
    const SQL: &str = "SELECT updated_at FROM organization_logos WHERE organization_id = $1";
    let at: Option<i64> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(organization.as_str()).fetch_optional(c).await?);
    Ok(at.map(Timestamp))
}

/// Deletes the logo. Returns `false` if there is none.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId) -> Result<bool> {
    const SQL: &str = "DELETE FROM organization_logos WHERE organization_id = $1";
    Ok(on!(conn, c => sqlx::query(SQL).bind(organization.as_str()).execute(c).await?.rows_affected()) > 0)
}
