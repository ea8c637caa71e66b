//! The columns that hold sealed secrets, all of them in one list: for the rotation of the key and for the check-up.

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// A column that holds sealed texts.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its table.
    pub table: &'static str,
    /// Its name.
    pub column: &'static str,
    select: &'static str,
    update: &'static str,
    count: &'static str,
}

macro_rules! column {
    ($table:literal, $column:literal, $key:literal) => {
        Column {
            table: $table,
            column: $column,
            select: concat!(
                "SELECT ",
                $key,
                ", ",
                $column,
                " FROM ",
                $table,
                " WHERE ",
                $column,
                " IS NOT NULL AND ",
                $key,
                " > $1 AND substr(",
                $column,
                ", 1, length($2)) <> $2 ORDER BY ",
                $key,
                " LIMIT $3"
            ),
            update: concat!("UPDATE ", $table, " SET ", $column, " = $3 WHERE ", $key, " = $1 AND ", $column, " = $2"),
            count: concat!(
                "SELECT count(*) FROM ",
                $table,
                " WHERE ",
                $column,
                " IS NOT NULL AND substr(",
                $column,
                ", 1, length($1)) <> $1 AND substr(",
                $column,
                ", 1, length($2)) <> $2"
            ),
        }
    };
}

/// Every column that holds sealed texts.
pub const COLUMNS: &[Column] = &[
    column!("oauth_configs", "client_secret", "id"),
    column!("upstream_tokens", "access_token", "identity_id"),
    column!("upstream_tokens", "refresh_token", "identity_id"),
    column!("upstream_states", "verifier", "state_hash"),
    column!("webhooks", "secret", "id"),
    column!("webhooks", "previous_secret", "id"),
];

/// Key and sealed text of rows, in order of their keys and after the key `after`, whose text does not begin with
/// `prefix`; at most `limit` of them.
///
/// # Errors
/// When the database fails.
pub async fn others(
    conn: &mut Conn,
    column: &Column,
    (after, prefix): (&str, &str),
    limit: i64,
) -> Result<Vec<(String, String)>> {
    Ok(on!(conn, c => sqlx::query_as(column.select).bind(after).bind(prefix).bind(limit).fetch_all(c).await?))
}

/// Puts `new` in the place of `old`; false when somebody else changed the row meanwhile.
///
/// # Errors
/// When the database fails.
pub async fn replace(conn: &mut Conn, column: &Column, row: &str, (old, new): (&str, &str)) -> Result<bool> {
    let changed = on!(conn, c => sqlx::query(column.update)
        .bind(row).bind(old).bind(new).execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// How many rows hold a text that begins with neither of the prefixes.
///
/// # Errors
/// When the database fails.
pub async fn count_others(conn: &mut Conn, column: &Column, prefixes: (&str, &str)) -> Result<i64> {
    Ok(on!(conn, c => sqlx::query_scalar(column.count).bind(prefixes.0).bind(prefixes.1).fetch_one(c).await?))
}
