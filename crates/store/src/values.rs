//! Multi-row statements of SQLite with bound values.
//!
//! SQLite takes longer to read a JSON document than to write the rows in it, so the statements that every advance needs
//! bind their values one by one. A statement's text depends on the number of its rows; to keep the number of texts small
//! there is one for each power of two, and rows that are not there are bound as NULL and match nothing.

use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments};

use crate::error::Result;

/// Rows of the longest statement: 2^8.
const LONGEST: usize = 256;
const SIZES: usize = LONGEST.trailing_zeros() as usize + 1;

/// A query while its values are bound.
pub(crate) type Binding = Query<'static, Sqlite, SqliteArguments>;

/// A row whose values can be bound. The first is never NULL: by that rows are told from padding.
pub(crate) trait Values {
    /// How many values a row has.
    const COUNT: usize;

    /// Binds them in order.
    fn bind(&self, query: Binding) -> Binding;
}

/// One statement in every length.
pub(crate) struct Sized([String; SIZES]);

impl Sized {
    /// The statement that `text` makes of a table expression with the columns `column1`, `column2` …
    pub(crate) fn new(count: usize, text: impl Fn(&str) -> String) -> Self {
        let row = format!("({})", vec!["?"; count].join(", "));
        Self(std::array::from_fn(|power| text(&format!("(VALUES {})", vec![row.as_str(); 1 << power].join(", ")))))
    }

    /// An insert of the rows into `columns` of `table`.
    pub(crate) fn insert(table: &str, columns: &[&str]) -> Self {
        let list = columns.join(", ");
        Self::new(columns.len(), |values| {
            format!("INSERT INTO {table} ({list}) SELECT * FROM {values} WHERE column1 IS NOT NULL")
        })
    }

    /// An update of `columns[1..]` of `table`, of the rows whose `columns[0]` is given.
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

    /// The statements for all of `rows`, ready to run: one for every 256.
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

    /// Runs the statement for all of `rows`; says how many statements that were.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn run<T: Values>(&'static self, conn: &mut sqlx::SqliteConnection, rows: &[T]) -> Result<u64> {
        let queries: Vec<Binding> = self.queries(rows).collect();
        let count = queries.len() as u64;
        for query in queries {
            query.execute(&mut *conn).await?;
        }
        Ok(count)
    }
}
