//! Multi-row statements with bound values, for SQLite.
//!
//! SQLite needs more time to parse a JSON document than to write its rows, so the statements that every advance needs
//! bind their values individually. The text of a statement depends on its number of rows. To keep the number of texts
//! small, there is one for each power of two; missing rows are bound as NULL and match nothing.

use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments};

use crate::error::Result;

/// The number of rows of the longest statement: 2^8.
const LONGEST: usize = 256;
const SIZES: usize = LONGEST.trailing_zeros() as usize + 1;

/// A query whose values are being bound.
pub(crate) type Binding = Query<'static, Sqlite, SqliteArguments>;

/// A row whose values can be bound. The first value is never NULL, which distinguishes rows from padding.
pub(crate) trait Values {
    /// The number of values of a row.
    const COUNT: usize;

    /// Binds the values in order.
    fn bind(&self, query: Binding) -> Binding;
}

/// A statement in each supported number of rows.
pub(crate) struct SizedStatements([String; SIZES]);

impl SizedStatements {
    /// Creates the statements. `text` returns a statement for a table expression with the columns `column1`, `column2`
    /// …
    pub(crate) fn new(count: usize, text: impl Fn(&str) -> String) -> Self {
        let row = format!("({})", vec!["?"; count].join(", "));
        Self(std::array::from_fn(|power| text(&format!("(VALUES {})", vec![row.as_str(); 1 << power].join(", ")))))
    }

    /// Creates statements that insert rows into `columns` of `table`.
    pub(crate) fn insert(table: &str, columns: &[&str]) -> Self {
        let list = columns.join(", ");
        Self::new(columns.len(), |values| {
            format!("INSERT INTO {table} ({list}) SELECT * FROM {values} WHERE column1 IS NOT NULL")
        })
    }

    /// Creates statements that update `columns[1..]` of the rows of `table`, matched by `columns[0]`.
    pub(crate) fn update(table: &str, columns: &[&str]) -> Self {
        let assignments: Vec<_> = columns
            .iter()
            .enumerate()
            .skip(1)
            .map(|(at, column)| format!("{column} = source.column{}", at + 1))
            .collect();
        let (assignments, key) = (assignments.join(", "), columns[0]);
        Self::new(columns.len(), |values| {
            format!("UPDATE {table} SET {assignments} FROM {values} AS source WHERE {table}.{key} = source.column1")
        })
    }

    /// Returns the queries for `rows` with all values bound: one per 256 rows.
    pub(crate) fn queries<'a, T: Values>(&'static self, rows: &'a [T]) -> impl Iterator<Item = Binding> + 'a {
        rows.chunks(LONGEST).map(|chunk| {
            let size = chunk.len().next_power_of_two();
            let text = self.0[size.trailing_zeros() as usize].as_str();
            let mut query = sqlx::query(text);
            for row in chunk {
                query = row.bind(query);
            }
            for _ in 0..(size - chunk.len()) * T::COUNT {
                query = query.bind(None::<String>);
            }
            query
        })
    }

    /// Runs the queries for `rows`. Returns their number.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub(crate) async fn run<T: Values>(&'static self, conn: &mut sqlx::SqliteConnection, rows: &[T]) -> Result<u64> {
        let queries: Vec<Binding> = self.queries(rows).collect();
        let count = queries.len() as u64;
        for query in queries {
            query.execute(&mut *conn).await?;
        }
        Ok(count)
    }
}
