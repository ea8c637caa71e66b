//! Multi-row statements with bound values, for SQLite.
//!
//! SQLite needs more time to parse a JSON document than to write its rows, so the statements that every advance needs
//! bind their values individually. The SQL of a statement depends on its number of rows. To keep the number of distinct
//! statements small, there is one for each power of two; missing rows are bound as NULL and match nothing.

use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments};

use crate::error::Result;

/// The number of rows of the longest statement: 2^9.
const LONGEST: usize = 512;
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

/// A statement for each supported number of rows.
pub(crate) struct SizedStatements([String; SIZES]);

impl SizedStatements {
    /// Creates the statements. `text` returns a statement for a table expression with the columns `column1`, `column2`
    /// and so on, `count` in total.
    pub(crate) fn new(count: usize, text: impl Fn(&str) -> String) -> Self {
        let row = format!("({})", vec!["?"; count].join(", "));
        Self(std::array::from_fn(|power| text(&format!("(VALUES {})", vec![row.as_str(); 1 << power].join(", ")))))
    }

    /// Creates a statement without rows: the same text for every number of rows.
    pub(crate) fn fixed(text: &str) -> Self {
        Self(std::array::from_fn(|_| text.to_owned()))
    }

    /// Creates texts of several statements that take the same number of rows.
    pub(crate) fn sequence(parts: &[Self]) -> Self {
        Self(std::array::from_fn(|power| {
            let texts: Vec<_> = parts.iter().map(|part| part.0[power].as_str()).collect();
            texts.join("; ")
        }))
    }

    /// Returns the shortest text for at least `count` rows, and its number of rows; `None` if `count` is too large.
    pub(crate) fn for_rows(&self, count: usize) -> Option<(&str, usize)> {
        let size = count.next_power_of_two();
        self.0.get(size.trailing_zeros() as usize).map(|text| (text.as_str(), size))
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

    /// Returns the queries for `rows` with all values bound: one per 512 rows.
    pub(crate) fn queries<'a, T: Values>(&'static self, rows: &'a [T]) -> impl Iterator<Item = Binding> + 'a {
        rows.chunks(LONGEST).map(|chunk| {
            let size = chunk.len().next_power_of_two();
            bind_rows(sqlx::query(self.0[size.trailing_zeros() as usize].as_str()), chunk, size)
        })
    }

    /// Runs the queries for `rows`. Returns the number of queries.
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

/// Binds the values of `rows`, padded with NULL to `size` rows.
pub(crate) fn bind_rows<T: Values>(mut query: Binding, rows: &[T], size: usize) -> Binding {
    for row in rows {
        query = row.bind(query);
    }
    for _ in 0..size.saturating_sub(rows.len()) * T::COUNT {
        query = query.bind(None::<String>);
    }
    query
}
