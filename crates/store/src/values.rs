//! Rows that are bound to prepared statements, for SQLite.
//!
//! SQLite needs more time to parse a JSON document than to write its rows, so each row is written by a statement of its
//! own, which is prepared once.

use rusqlite::{Connection, Statement, ToSql};

use crate::batch::Column;
use crate::error::Result;
use crate::sqlite;

/// A row whose values can be bound.
pub(crate) trait Values {
    /// The columns of the values, in the order in which they are bound.
    const COLUMNS: &'static [Column];

    /// Binds the values.
    ///
    /// # Errors
    /// Returns an error if there are more values than parameters, or a value is too large.
    fn bind(&self, parameters: &mut Parameters<'_, '_>) -> rusqlite::Result<()>;
}

/// The parameters of a statement, which are bound in order.
pub(crate) struct Parameters<'a, 'c> {
    statement: &'a mut Statement<'c>,
    bound: usize,
}

impl Parameters<'_, '_> {
    /// Binds the next parameter.
    pub(crate) fn add(&mut self, value: impl ToSql) -> rusqlite::Result<&mut Self> {
        self.bound += 1;
        self.statement.raw_bind_parameter(self.bound, value)?;
        Ok(self)
    }
}

/// Returns a statement that inserts a row into `table`.
pub(crate) fn insert<T: Values>(table: &str) -> String {
    let names: Vec<_> = T::COLUMNS.iter().map(|(name, _)| *name).collect();
    format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), vec!["?"; names.len()].join(", "))
}

/// Returns a statement that updates the row of `table` whose first column has the first value.
pub(crate) fn update<T: Values>(table: &str) -> String {
    let parameter = |(at, (name, _)): (usize, &Column)| format!("{name} = ?{}", at + 1);
    let mut parameters = T::COLUMNS.iter().enumerate().map(parameter);
    let condition = parameters.next().unwrap_or_default();
    format!("UPDATE {table} SET {} WHERE {condition}", parameters.collect::<Vec<_>>().join(", "))
}

/// Runs a statement for each row. Stops at the first row for which it changes nothing. Returns the number of rows for
/// which it made a change.
///
/// # Errors
/// Returns an error if the database fails or rejects a row.
pub(crate) fn execute<'r, T: Values + 'r>(
    conn: &Connection,
    sql: &str,
    rows: impl IntoIterator<Item = &'r T>,
) -> Result<u64> {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return Ok(0);
    }
    let mut statement = sqlite::prepare(conn, sql)?;
    let mut count = 0;
    for row in rows {
        row.bind(&mut Parameters { statement: &mut statement, bound: 0 })?;
        if statement.raw_execute()? == 0 {
            break;
        }
        count += 1;
    }
    Ok(count)
}
