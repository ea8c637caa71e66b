//! Paginated lists: `{items, next_cursor}`.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use waypost_core::{Error, Result};

/// The maximum number of items per page.
pub const MAX_LIMIT: u32 = 200;
/// The default number of items per page.
pub const DEFAULT_LIMIT: u32 = 50;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// The `cursor` of the next page. Null on the last page.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Creates a page that contains the complete list.
    #[must_use]
    pub fn complete(items: Vec<T>) -> Self {
        Self { items, next_cursor: None }
    }

    /// Creates a page from up to `limit + 1` items. `cursor` returns the cursor for the page that follows an item.
    #[must_use]
    pub fn paginate(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Self {
        let limit = limit as usize;
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| has_more).map(cursor);
        Self { items, next_cursor }
    }
}

/// The page parameters of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// The maximum number of items to return.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the previous page.
    pub cursor: Option<String>,
}

impl Paging {
    /// Returns the page size: `limit`, or the default.
    ///
    /// # Errors
    /// `invalid_arguments` if `limit` is out of range.
    pub fn limit(&self) -> Result<u32> {
        match self.limit.unwrap_or(DEFAULT_LIMIT) {
            limit @ 1..=MAX_LIMIT => Ok(limit),
            _ => Err(Error::invalid("limit", format!("`limit` must be a number from 1 to {MAX_LIMIT}."))),
        }
    }

    /// Parses a cursor that is the ID of the last item of the previous page.
    ///
    /// # Errors
    /// `invalid_arguments` if the cursor is malformed.
    pub fn parse_cursor<T: FromStr>(&self) -> Result<Option<T>> {
        self.cursor.as_deref().map(str::parse).transpose().map_err(|_| invalid_cursor())
    }

    /// Returns a cursor that is the name or the slug of the last item of the previous page.
    ///
    /// # Errors
    /// `invalid_arguments` if the cursor contains control characters, which no name contains and PostgreSQL may reject.
    pub fn text_cursor(&self) -> Result<Option<&str>> {
        match self.cursor.as_deref() {
            Some(cursor) if cursor.chars().any(char::is_control) => Err(invalid_cursor()),
            cursor => Ok(cursor),
        }
    }
}

fn invalid_cursor() -> Error {
    Error::invalid("cursor", "`cursor` is invalid. Use the `next_cursor` of a page of this list.")
}
