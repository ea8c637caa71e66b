//! Information about the database for `waypost doctor`.

use waypost_core::Timestamp;

use crate::db::{Db, Dialect};
use crate::error::Result;
use crate::{on, space};

/// The state of a database. Fields that do not apply to the dialect are `None`.
#[derive(Debug, Clone)]
pub struct Health {
    /// The database's version for display.
    pub version: String,
    /// PostgreSQL: the version as a number, such as 150004.
    pub postgres_version: Option<i64>,
    /// The current time of the database's clock.
    pub now: Timestamp,
    /// SQLite: the journal mode, expected to be `wal`.
    pub journal_mode: Option<String>,
    /// SQLite: whether free pages can be released incrementally.
    pub can_release: Option<bool>,
    /// SQLite: the problems found by the integrity check; empty if there are none.
    pub damage: Vec<String>,
    /// PostgreSQL: the setting `fsync`.
    pub fsync: Option<String>,
    /// PostgreSQL: the setting `synchronous_commit`.
    pub synchronous_commit: Option<String>,
    /// SQLite: the number of rows that violate a foreign key. PostgreSQL does not allow such rows.
    pub orphans: Option<i64>,
}

/// Examines the database. On SQLite this reads the whole file.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn examine(db: &Db) -> Result<Health> {
    let mut conn = db.read().await?;
    if conn.dialect() == Dialect::Sqlite {
        // In milliseconds. `julianday` is not precise enough; `subsec` returns fractional seconds.
        let sql = "SELECT sqlite_version(), CAST(round(unixepoch('subsec') * 1000) AS INTEGER)";
        let (version, now): (String, i64) = on!(&mut conn, c => sqlx::query_as(sql).fetch_one(c).await?);
        let sql = "PRAGMA journal_mode";
        let journal_mode: String = on!(&mut conn, c => sqlx::query_scalar(sql).fetch_one(c).await?);
        let pages = space::count_pages(db).await?;
        let sql = "PRAGMA integrity_check(10)";
        let damage: Vec<String> = on!(&mut conn, c => sqlx::query_scalar(sql).fetch_all(c).await?);
        let sql = "SELECT count(*) FROM pragma_foreign_key_check";
        let orphans: i64 = on!(&mut conn, c => sqlx::query_scalar(sql).fetch_one(c).await?);
        return Ok(Health {
            version: format!("SQLite {version}"),
            postgres_version: None,
            now: Timestamp(now),
            journal_mode: Some(journal_mode),
            can_release: pages.map(|pages| pages.is_incremental),
            damage: damage.into_iter().filter(|line| line != "ok").collect(),
            fsync: None,
            synchronous_commit: None,
            orphans: Some(orphans),
        });
    }
    let sql = "SELECT current_setting('server_version'), current_setting('server_version_num')::bigint,
                      (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
                      current_setting('fsync'), current_setting('synchronous_commit')";
    let (version, number, now, fsync, synchronous_commit): (String, i64, i64, String, String) =
        on!(&mut conn, c => sqlx::query_as(sql).fetch_one(c).await?);
    Ok(Health {
        version: format!("PostgreSQL {version}"),
        postgres_version: Some(number),
        now: Timestamp(now),
        journal_mode: None,
        can_release: None,
        damage: Vec::new(),
        fsync: Some(fsync),
        synchronous_commit: Some(synchronous_commit),
        orphans: None,
    })
}
