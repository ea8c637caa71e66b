//! Schema migrations. They run under a lock and only move forwards.

use sqlx::migrate::Migrator;

use crate::db::{Conn, Db, Dialect};
use crate::error::{Error, Result};
use crate::on;

static SQLITE: Migrator = sqlx_macros::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx_macros::migrate!("migrations/postgres");

fn migrator(dialect: Dialect) -> &'static Migrator {
    match dialect {
        Dialect::Sqlite => &SQLITE,
        Dialect::Postgres => &POSTGRES,
    }
}

/// Returns the newest schema version that this program supports.
#[must_use]
pub fn known_version(dialect: Dialect) -> i64 {
    migrator(dialect).iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Returns the database's schema version; 0 for an empty database.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn current_version(db: &Db) -> Result<i64> {
    version(&mut db.read().await?).await
}

/// Returns the schema version that this connection sees.
pub(crate) async fn version(conn: &mut Conn) -> Result<i64> {
    let sql = match conn.dialect() {
        Dialect::Sqlite => "SELECT count(*) FROM sqlite_master WHERE name = '_sqlx_migrations'",
        Dialect::Postgres => "SELECT count(*) FROM pg_class WHERE oid = to_regclass('_sqlx_migrations')",
    };
    let tables: i64 = on!(conn, c => sqlx::query_scalar(sql).fetch_one(c).await?);
    if tables == 0 {
        return Ok(0);
    }
    let version: Option<i64> =
        on!(conn, c => sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations").fetch_one(c).await?);
    Ok(version.unwrap_or(0))
}

/// Applies pending migrations. Returns the versions before and after.
///
/// Two processes may call this concurrently: on PostgreSQL an advisory lock is held; on SQLite all pending migrations
/// run in one transaction, and the second process finds none left.
///
/// # Errors
/// Returns [`Error::NewerSchema`] if the database is newer than this program, or another error if a migration fails.
pub async fn migrate(db: &Db) -> Result<(i64, i64)> {
    let (found, known) = (current_version(db).await?, known_version(db.dialect()));
    if found > known {
        return Err(Error::NewerSchema { found, known });
    }
    if found < known {
        match db {
            Db::Sqlite { write, .. } => {
                let (_turn, mut tx) = write.begin().await?;
                SQLITE.run_direct(None, &mut *tx, false).await.map_err(Error::Migrate)?;
                tx.commit().await?;
            }
            Db::Postgres(pool) => POSTGRES.run(pool).await.map_err(Error::Migrate)?,
        }
    }
    Ok((found, known))
}

/// Applies pending migrations up to `version`: for restoring older backups, and for tests of migrations.
///
/// # Errors
/// Returns an error if a migration fails or there is no migration with this version.
pub async fn migrate_to(db: &Db, version: i64) -> Result<()> {
    match db {
        Db::Sqlite { write, .. } => {
            let (_turn, mut conn) = write.acquire().await?;
            SQLITE.run_to(version, &mut *conn).await.map_err(Error::Migrate)
        }
        Db::Postgres(pool) => POSTGRES.run_to(version, pool).await.map_err(Error::Migrate),
    }
}

/// Checks that the schema version is the one that this program supports. Changes nothing.
///
/// # Errors
/// Returns [`Error::NewerSchema`] or [`Error::OlderSchema`] if it is not.
pub async fn check(db: &Db) -> Result<()> {
    let (found, known) = (current_version(db).await?, known_version(db.dialect()));
    match found.cmp(&known) {
        std::cmp::Ordering::Greater => Err(Error::NewerSchema { found, known }),
        std::cmp::Ordering::Less => Err(Error::OlderSchema { found, known }),
        std::cmp::Ordering::Equal => Ok(()),
    }
}
