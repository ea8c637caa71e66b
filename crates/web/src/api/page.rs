//! Lists: `{items, next_cursor}`.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use waypost_core::{Error, Result};

/// Items on a page at most.
pub const MAX_LIMIT: u32 = 200;
/// Items on a page when nobody says.
pub const LIMIT: u32 = 50;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// `cursor` of the next page; null on the last one.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A list that fits on one page.
    #[must_use]
    pub fn whole(items: Vec<T>) -> Self {
        Self { items, next_cursor: None }
    }

    /// A page of a list that was read to `limit + 1`; `cursor` names an item for the page after it.
    #[must_use]
    pub fn cut(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Self {
        let limit = limit as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(cursor);
        Self { items, next_cursor }
    }
}

/// Which page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// Items at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl Paging {
    /// The limit.
    ///
    /// # Errors
    /// `invalid_arguments` when it is out of range.
    pub fn limit(&self) -> Result<u32> {
        match self.limit.unwrap_or(LIMIT) {
            limit @ 1..=MAX_LIMIT => Ok(limit),
            _ => Err(Error::invalid("limit", format!("`limit` is a number from 1 to {MAX_LIMIT}."))),
        }
    }

    /// The cursor, where it is the id of the last item of the page before.
    ///
    /// # Errors
    /// `invalid_arguments` when it is none.
    pub fn after<T: FromStr>(&self) -> Result<Option<T>> {
        let cursor = self.cursor.as_deref().map(str::parse).transpose();
        cursor.map_err(|_| Error::invalid("cursor", "`cursor` is not the `next_cursor` of a page of this list."))
    }
}
