//! The space that a SQLite file takes. PostgreSQL manages its own (autovacuum).
//!
//! A new file is made with `auto_vacuum=INCREMENTAL` (<https://www.sqlite.org/pragma.html#pragma_auto_vacuum>): pages that
//! are no longer used can be given back to the file system a few at a time. A file from an older Waypost needs
//! [`compact`] once.

use crate::db::Db;
use crate::error::Result;

/// What [`pages`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pages {
    /// Pages of the file.
    pub all: i64,
    /// Pages that hold nothing.
    pub free: i64,
    /// Whether free pages can be given back a few at a time.
    pub is_incremental: bool,
}

/// Counts the pages of a SQLite file; `None` on PostgreSQL.
///
/// # Errors
/// When the database fails.
pub async fn pages(db: &Db) -> Result<Option<Pages>> {
    const SQL: &str = "SELECT (SELECT page_count FROM pragma_page_count), (SELECT freelist_count FROM
        pragma_freelist_count), (SELECT auto_vacuum FROM pragma_auto_vacuum)";
    let Db::Sqlite { read, .. } = db else { return Ok(None) };
    let (all, free, mode): (i64, i64, i64) = sqlx::query_as(SQL).fetch_one(read).await?;
    Ok(Some(Pages { all, free, is_incremental: mode == 2 }))
}

/// Gives at most `count` free pages of a SQLite file back to the file system. The file becomes shorter at the next
/// checkpoint of the write-ahead log. Does nothing on PostgreSQL, and on a file that was made without
/// `auto_vacuum=INCREMENTAL`.
///
/// # Errors
/// When the database fails.
pub async fn release(db: &Db, count: u32) -> Result<()> {
    let Db::Sqlite { write, .. } = db else { return Ok(()) };
    let mut tx = write.begin_with("BEGIN IMMEDIATE").await?;
    // Each step of the statement frees a page, so it has to be run to its end.
    let sql = sqlx::AssertSqlSafe(format!("PRAGMA incremental_vacuum({count})"));
    sqlx::query(sql).fetch_all(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Rewrites a SQLite file without its free pages, and so that [`release`] works on it from now on. Needs free disk space
/// of the size of the file, in the folder for temporary files and beside the file. Nobody else can use the database
/// meanwhile. If it fails, or the power does, the file is as it was
/// (<https://www.sqlite.org/lang_vacuum.html>). Does nothing on PostgreSQL.
///
/// # Errors
/// When the database fails: the disk is full, or another process uses the database.
pub async fn compact(db: &Db) -> Result<()> {
    let Db::Sqlite { write, .. } = db else { return Ok(()) };
    let mut conn = write.acquire().await?;
    // The copy must not be made in memory. The mode takes effect with VACUUM.
    for sql in ["PRAGMA temp_store = file", "PRAGMA auto_vacuum = INCREMENTAL", "VACUUM"] {
        sqlx::query(sql).execute(&mut *conn).await?;
    }
    // The copy has gone through the log, which would stay as long as the file.
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_all(&mut *conn).await?;
    Ok(())
}
