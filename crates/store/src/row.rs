//! From what stands in a row to what the models hold; what cannot be becomes [`Error::Corrupt`].

use std::fmt::Display;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// The row that is being read, for the error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) table: &'static str,
    pub(crate) id: &'a str,
}

impl Place<'_> {
    /// The error that says why the row cannot be.
    pub(crate) fn corrupt(self, column: &str, why: impl Display) -> Error {
        Error::Corrupt { table: self.table, id: self.id.to_owned(), why: format!("{column}: {why}") }
    }

    /// A number that is not negative and not astronomical.
    pub(crate) fn count(self, column: &str, value: i64) -> Result<u32> {
        u32::try_from(value).map_err(|error| self.corrupt(column, error))
    }

    /// One of the names of an enum.
    pub(crate) fn name<T: std::str::FromStr<Err = String>>(self, column: &str, text: &str) -> Result<T> {
        text.parse().map_err(|error| self.corrupt(column, error))
    }

    /// A JSON text.
    pub(crate) fn json<T: DeserializeOwned>(self, column: &str, text: &str) -> Result<T> {
        serde_json::from_str(text).map_err(|error| self.corrupt(column, error))
    }
}

/// A list or an object as it stands in a row.
pub(crate) fn to_json(value: impl Into<serde_json::Value>) -> String {
    value.into().to_string()
}

/// The pattern of `LIKE … ESCAPE '!'` for what contains `text`.
pub(crate) fn containing(text: &str) -> String {
    let escaped = text.replace('!', "!!").replace('%', "!%").replace('_', "!_");
    format!("%{escaped}%")
}
