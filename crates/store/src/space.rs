//! The size of a SQLite file. PostgreSQL manages its space itself (autovacuum).
//!
//! New files are created with `auto_vacuum=INCREMENTAL` (<https://www.sqlite.org/pragma.html#pragma_auto_vacuum>):
//! unused pages can be released to the file system incrementally. A file from an older version of Waypost needs
//! [`compact`] once.

use crate::db::Db;
use crate::error::Result;

/// The pages of a SQLite file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageCounts {
    /// The number of pages.
    pub all: i64,
    /// The number of free pages.
    pub free: i64,
    /// Whether free pages can be released incrementally.
    pub is_incremental: bool,
}

/// Counts the pages of a SQLite file; `None` on PostgreSQL.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count_pages(db: &Db) -> Result<Option<PageCounts>> {
    const SQL: &str = "SELECT (SELECT page_count FROM pragma_page_count), (SELECT freelist_count FROM
        pragma_freelist_count), (SELECT auto_vacuum FROM pragma_auto_vacuum)";
    let Db::Sqlite { read, .. } = db else { return Ok(None) };
    let (all, free, mode): (i64, i64, i64) = sqlx::query_as(SQL).fetch_one(read).await?;
    Ok(Some(PageCounts { all, free, is_incremental: mode == 2 }))
}

/// Releases at most `count` free pages of a SQLite file to the file system. The file shrinks at the next checkpoint of
/// the write-ahead log. Does nothing on PostgreSQL, or if the file was created without `auto_vacuum=INCREMENTAL`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn release_pages(db: &Db, count: u32) -> Result<()> {
    let Db::Sqlite { write, .. } = db else { return Ok(()) };
    let (_turn, mut tx) = write.begin().await?;
    // Each step of the statement frees a page, so it must be run to completion.
    let sql = sqlx::AssertSqlSafe(format!("PRAGMA incremental_vacuum({count})"));
    sqlx::query(sql).fetch_all(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Rewrites a SQLite file without free pages and with `auto_vacuum=INCREMENTAL`, so that [`release_pages`] works on it.
/// Needs free disk space of the size of the file, both in the folder for temporary files and next to the file. No other
/// process can use the database in the meantime. After a failure or a power cut the file is unchanged
/// (<https://www.sqlite.org/lang_vacuum.html>). Does nothing on PostgreSQL.
///
/// # Errors
/// Returns an error if the database fails, for example because the disk is full or another process uses the database.
pub async fn compact(db: &Db) -> Result<()> {
    let Db::Sqlite { write, .. } = db else { return Ok(()) };
    let (_turn, mut conn) = write.acquire().await?;
    // The copy must be a file and not in memory. The auto_vacuum mode takes effect with VACUUM.
    for sql in ["PRAGMA temp_store = file", "PRAGMA auto_vacuum = INCREMENTAL", "VACUUM"] {
        sqlx::query(sql).execute(&mut *conn).await?;
    }
    // The copy was written through the write-ahead log, which would otherwise keep the size of the file.
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_all(&mut *conn).await?;
    Ok(())
}
