//! Numbers from the log of events and calls: what they mean stands in docs/analytics.md, and here in code.
//!
//! Everything is computed from the log's own rows, so a number is exact for any range, to the millisecond. [`segment`]
//! packs rows of the log so densely that a million of them are read in a fraction of a second; what comes out of it is
//! what went in. Everything here is pure.

mod flow;
mod funnel;
mod log;
mod overview;
pub mod segment;
#[cfg(test)]
mod tests;
mod tools;

pub use flow::{FlowPoint, Transition, transitions};
pub use funnel::{Funnel, FunnelStep, funnel};
pub use log::{CallRecord, EventRecord, Log, NONE, NameTable};
pub use overview::{ClientRow, DayTotals, Overview, clients, overview, timeline, versions};
pub use tools::{CallCount, ErrorRow, ToolRow, errors, tools};

use crate::clock::Timestamp;

/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;

/// A range of time: from `from` on, before `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// The first millisecond in it.
    pub from: Timestamp,
    /// The first millisecond after it.
    pub to: Timestamp,
}

impl TimeRange {
    /// Whether `at` is in it.
    #[must_use]
    pub fn contains(self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }

    /// The range of the same length that ends where this one begins.
    #[must_use]
    pub fn previous(self) -> Self {
        Self { from: self.from.plus(-self.to.since(self.from)), to: self.from }
    }
}

/// Which events count, beside the range; by the numbers of their names in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// The version that an event happened on.
    pub version: Option<u32>,
    /// The client that an event came from.
    pub client: Option<u32>,
}

impl Filter {
    /// Whether an event counts.
    #[must_use]
    pub fn matches(self, event: &EventRecord) -> bool {
        self.version.is_none_or(|version| version == event.version)
            && self.client.is_none_or(|client| client == event.client)
    }
}

/// The value that `percent` of `values` do not exceed, by the nearest rank: one of the values themselves; none of nothing.
/// The order of `values` changes.
#[must_use]
pub fn percentile(values: &mut [i64], percent: usize) -> Option<i64> {
    let rank = (values.len() * percent).div_ceil(100).max(1);
    if rank > values.len() {
        return None;
    }
    Some(*values.select_nth_unstable(rank - 1).1)
}

/// `part` of `whole`, from 0 to 1; none of nothing.
#[must_use]
pub fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
