//! Leases on the links to toolboxes: which replica holds a link, and until when. Not scoped to an organisation, because
//! links belong to processes.

use waypost_core::Timestamp;
use waypost_core::id::ToolboxId;

use crate::db::Conn;
use crate::error::Result;
use crate::on;
use crate::row::{in_list, to_json};

/// A replica that holds links.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// The random name of the process.
    pub replica: &'a str,
    /// The URL at which other replicas reach it.
    pub internal_url: &'a str,
}

/// Records that a replica holds the link to a toolbox until `expires_at`. Replaces any other holder. Does nothing if
/// the toolbox does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn claim(conn: &mut Conn, toolbox: &ToolboxId, holder: Holder<'_>, expires_at: Timestamp) -> Result<()> {
    const SQL: &str = "INSERT INTO toolbox_links (toolbox_id, replica, internal_url, expires_at)
        SELECT id, $2, $3, $4 FROM toolboxes WHERE id = $1
        ON CONFLICT (toolbox_id) DO UPDATE SET replica = excluded.replica, internal_url = excluded.internal_url,
            expires_at = excluded.expires_at";
    on!(conn, c => sqlx::query(SQL).bind(toolbox.as_str()).bind(holder.replica).bind(holder.internal_url)
        .bind(expires_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Extends the leases that a replica holds on the links to `toolboxes`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn renew(conn: &mut Conn, replica: &str, toolboxes: &[&ToolboxId], expires_at: Timestamp) -> Result<()> {
    let listed = in_list(conn.dialect());
    let sql = format!("UPDATE toolbox_links SET expires_at = $3 WHERE toolbox_id {listed} AND replica = $2");
    on!(conn, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(list(toolboxes)).bind(replica).bind(expires_at.0)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Records that a replica no longer holds the link to a toolbox. Does nothing if another replica holds it.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn release(conn: &mut Conn, toolbox: &ToolboxId, replica: &str) -> Result<()> {
    const SQL: &str = "DELETE FROM toolbox_links WHERE toolbox_id = $1 AND replica = $2";
    on!(conn, c => sqlx::query(SQL).bind(toolbox.as_str()).bind(replica).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the URL of the replica that holds the link to a toolbox at `now`, unless it is `replica` itself.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_other(conn: &mut Conn, toolbox: &ToolboxId, replica: &str, now: Timestamp) -> Result<Option<String>> {
    const SQL: &str = "SELECT internal_url FROM toolbox_links
        WHERE toolbox_id = $1 AND replica <> $2 AND expires_at > $3";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(toolbox.as_str()).bind(replica).bind(now.0)
        .fetch_optional(c).await?))
}

/// Returns the toolboxes in `toolboxes` whose link another replica has claimed.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_claimed_by_others(
    conn: &mut Conn,
    replica: &str,
    toolboxes: &[&ToolboxId],
) -> Result<Vec<ToolboxId>> {
    let listed = in_list(conn.dialect());
    let sql = format!("SELECT toolbox_id FROM toolbox_links WHERE toolbox_id {listed} AND replica <> $2");
    let ids: Vec<String> = on!(conn, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(list(toolboxes))
        .bind(replica).fetch_all(c).await?);
    Ok(ids.into_iter().map(ToolboxId::from_store).collect())
}

fn list(toolboxes: &[&ToolboxId]) -> String {
    to_json(toolboxes.iter().map(|id| id.as_str()).collect::<Vec<_>>())
}
