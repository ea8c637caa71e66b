//! Multi-row statements. Most of them bind one JSON document, which the database expands into rows. The text of such a
//! statement does not depend on the number of rows, so the statement is prepared only once.

use crate::db::Dialect;

/// The type of a column in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Integer,
    Boolean,
}

impl Kind {
    /// Returns the name of the type in PostgreSQL. SQLite reads the type from the JSON value.
    fn postgres(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "bigint",
            Self::Boolean => "boolean",
        }
    }
}

/// A column of a batch: its name, which is the same in the table and in the JSON rows, and its type.
pub(crate) type Column = (&'static str, Kind);

/// Returns a table expression for the rows of member `name` of the JSON document `$1`.
pub(crate) fn rows(dialect: Dialect, name: &str, columns: &[Column]) -> String {
    match dialect {
        Dialect::Sqlite => {
            let fields: Vec<_> =
                columns.iter().map(|(column, _)| format!("value ->> '{column}' AS {column}")).collect();
            format!("(SELECT {} FROM json_each($1, '$.{name}'))", fields.join(", "))
        }
        Dialect::Postgres => recordset(&format!("$1::json -> '{name}'"), columns),
    }
}

/// Returns a `WITH` clause that defines the table `batch` with `rows` rows, whose values are bound one by one. On
/// SQLite, the parameters are unnamed: sqlx looks up the name of each parameter, and for a named one, SQLite searches
/// the names of all parameters.
pub(crate) fn bound_rows(dialect: Dialect, rows: usize, columns: &[Column]) -> String {
    let parameter = |row: usize, (at, (_, kind)): (usize, &Column)| match dialect {
        Dialect::Sqlite => "?".to_owned(),
        // The types of the first row apply to the other rows, too.
        Dialect::Postgres if row == 0 => format!("CAST(${} AS {})", at + 1, kind.postgres()),
        Dialect::Postgres => format!("${}", row * columns.len() + at + 1),
    };
    let row = |row| columns.iter().enumerate().map(|column| parameter(row, column)).collect::<Vec<_>>().join(", ");
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    let rows: Vec<_> = (0..rows).map(|number| format!("({})", row(number))).collect();
    format!("WITH batch ({}) AS (VALUES {})", names.join(", "), rows.join(", "))
}

/// Returns the table expression of [`rows`] with the alias `batch`.
pub(crate) fn aliased_rows(dialect: Dialect, name: &str, columns: &[Column]) -> String {
    let rows = rows(dialect, name, columns);
    match dialect {
        Dialect::Sqlite => format!("{rows} AS batch"),
        // [`recordset`] has already added the alias.
        Dialect::Postgres => rows,
    }
}

/// Returns a PostgreSQL table expression for the rows of a JSON document.
pub(crate) fn recordset(document: &str, columns: &[Column]) -> String {
    let fields: Vec<_> = columns.iter().map(|(column, kind)| format!("{column} {}", kind.postgres())).collect();
    format!("json_to_recordset({document}) AS batch({})", fields.join(", "))
}

/// Returns a statement that inserts the rows of member `name` into `table`.
pub(crate) fn insert(dialect: Dialect, table: &str, name: &str, columns: &[Column]) -> String {
    let list: Vec<_> = columns.iter().map(|(column, _)| *column).collect();
    let list = list.join(", ");
    format!("INSERT INTO {table} ({list}) SELECT {list} FROM {} WHERE true", rows(dialect, name, columns))
}

/// Returns a statement that updates `table` from the rows of member `name`, matched by `id`.
pub(crate) fn update(dialect: Dialect, table: &str, name: &str, columns: &[Column]) -> String {
    let assignments: Vec<_> = columns
        .iter()
        .filter(|(column, _)| *column != "id")
        .map(|(column, _)| format!("{column} = source.{column}"))
        .collect();
    let rows = rows(dialect, name, columns);
    format!(
        "UPDATE {table} SET {} FROM (SELECT * FROM {rows}) AS source WHERE {table}.id = source.id",
        assignments.join(", ")
    )
}
