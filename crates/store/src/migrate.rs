//! Bringing the schema up to date, under a lock, and never backwards.

use sqlx::migrate::Migrator;

use crate::db::{Conn, Db, Dialect};
use crate::error::{Error, Result};
use crate::on;

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

fn migrator(dialect: Dialect) -> &'static Migrator {
    match dialect {
        Dialect::Sqlite => &SQLITE,
        Dialect::Postgres => &POSTGRES,
    }
}

/// The newest schema version that this program knows.
#[must_use]
pub fn known_version(dialect: Dialect) -> i64 {
    migrator(dialect).iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// The database's schema version; 0 for an empty database.
///
/// # Errors
/// When the database fails.
pub async fn current_version(db: &Db) -> Result<i64> {
    version(&mut db.read().await?).await
}

/// The schema version as this connection sees it.
pub(crate) async fn version(conn: &mut Conn) -> Result<i64> {
    let there = match conn.dialect() {
        Dialect::Sqlite => "SELECT count(*) FROM sqlite_master WHERE name = '_sqlx_migrations'",
        Dialect::Postgres => "SELECT count(*) FROM pg_class WHERE oid = to_regclass('_sqlx_migrations')",
    };
    let there: i64 = on!(conn, c => sqlx::query_scalar(there).fetch_one(c).await?);
    if there == 0 {
        return Ok(0);
    }
    let version: Option<i64> =
        on!(conn, c => sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations").fetch_one(c).await?);
    Ok(version.unwrap_or(0))
}

/// Applies what is pending; says from which version to which.
///
/// Two processes may call this at once: PostgreSQL holds an advisory lock meanwhile; on SQLite everything that is
/// pending is one transaction, and the second process finds nothing left to do.
///
/// # Errors
/// [`Error::NewerSchema`] when the database is ahead of this program; otherwise when a migration fails.
pub async fn migrate(db: &Db) -> Result<(i64, i64)> {
    let (found, known) = (current_version(db).await?, known_version(db.dialect()));
    if found > known {
        return Err(Error::NewerSchema { found, known });
    }
    if found < known {
        match db {
            Db::Sqlite { write, .. } => {
                let mut tx = write.begin_with("BEGIN IMMEDIATE").await?;
                SQLITE.run_direct(None, &mut *tx, false).await.map_err(Error::Migrate)?;
                tx.commit().await?;
            }
            Db::Postgres(pool) => POSTGRES.run(pool).await.map_err(Error::Migrate)?,
        }
    }
    Ok((found, known))
}

/// Applies what is pending up to `version`, for a backup that is older than this program, and for tests of migrations.
///
/// # Errors
/// When a migration fails, or there is no migration of this version.
pub async fn migrate_to(db: &Db, version: i64) -> Result<()> {
    match db {
        Db::Sqlite { write, .. } => SQLITE.run_to(version, write).await.map_err(Error::Migrate),
        Db::Postgres(pool) => POSTGRES.run_to(version, pool).await.map_err(Error::Migrate),
    }
}

/// Checks that the schema is the one that this program knows, and changes nothing.
///
/// # Errors
/// [`Error::NewerSchema`] or [`Error::OlderSchema`] when it is not.
pub async fn check(db: &Db) -> Result<()> {
    let (found, known) = (current_version(db).await?, known_version(db.dialect()));
    match found.cmp(&known) {
        std::cmp::Ordering::Greater => Err(Error::NewerSchema { found, known }),
        std::cmp::Ordering::Less => Err(Error::OlderSchema { found, known }),
        std::cmp::Ordering::Equal => Ok(()),
    }
}
