//! Converts column values to model types. Invalid values become [`Error::Corrupt`].

use std::fmt::Display;

use serde::de::DeserializeOwned;

use crate::db::Dialect;
use crate::error::{Error, Result};

/// Identifies the row that is being read, for error messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowRef<'a> {
    pub(crate) table: &'static str,
    pub(crate) id: &'a str,
}

impl RowRef<'_> {
    /// Returns the error for an invalid value in `column`.
    pub(crate) fn corrupt(self, column: &str, reason: impl Display) -> Error {
        Error::Corrupt { table: self.table, id: self.id.to_owned(), reason: format!("{column}: {reason}") }
    }

    /// Converts a number that must fit into a `u32`.
    pub(crate) fn to_u32(self, column: &str, value: i64) -> Result<u32> {
        u32::try_from(value).map_err(|error| self.corrupt(column, error))
    }

    /// Converts a number that must not be negative.
    pub(crate) fn to_u64(self, column: &str, value: i64) -> Result<u64> {
        u64::try_from(value).map_err(|error| self.corrupt(column, error))
    }

    /// Parses the name of an enum variant.
    pub(crate) fn parse<T: std::str::FromStr<Err = String>>(self, column: &str, text: &str) -> Result<T> {
        text.parse().map_err(|error| self.corrupt(column, error))
    }

    /// Parses a JSON text.
    pub(crate) fn parse_json<T: DeserializeOwned>(self, column: &str, text: &str) -> Result<T> {
        serde_json::from_str(text).map_err(|error| self.corrupt(column, error))
    }
}

/// Returns the SQL condition that a column is in `$1`, a JSON array of strings.
pub(crate) fn in_list(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "IN (SELECT value FROM json_each($1))",
        // An array makes PostgreSQL use the index; a subquery would be joined with all rows.
        Dialect::Postgres => "= ANY (ARRAY(SELECT json_array_elements_text($1::json)))",
    }
}

/// Returns the JSON text of a list or an object, as stored in a row.
pub(crate) fn to_json(value: impl Into<serde_json::Value>) -> String {
    value.into().to_string()
}

/// Returns the pattern for `LIKE … ESCAPE '!'` that matches values containing `text`.
pub(crate) fn like_pattern(text: &str) -> String {
    let escaped = text.replace('!', "!!").replace('%', "!%").replace('_', "!_");
    format!("%{escaped}%")
}
