//! Analytics computed from the log of events and tool calls. docs/analytics.md defines the metrics.
//!
//! All metrics are computed from individual log records, so they are exact for any range, to the millisecond.
//! [`segment`] packs records without loss and so compactly that a million of them are read in a fraction of a second.
//! All functions are pure.

mod flow;
mod funnel;
mod log;
mod overview;
pub mod segment;
#[cfg(test)]
mod tests;
mod tools;

pub use flow::{FlowPoint, Transition, transitions};
pub use funnel::{Funnel, FunnelStep, funnel, list_stopped_users};
pub use log::{CallRecord, EventRecord, Log, NONE, NameTable};
pub use overview::{ClientRow, Overview, PeriodTotals, clients, overview, timeline, versions};
pub use tools::{CallCount, ErrorRow, ToolRow, errors, tools};

use crate::clock::Timestamp;

/// Milliseconds per day.
pub const DAY_MS: i64 = 86_400_000;
/// Milliseconds per hour.
pub const HOUR_MS: i64 = 3_600_000;
/// The time for which an attempt counts as active after its last event, in milliseconds.
pub const STILL_ACTIVE_MS: i64 = DAY_MS;

/// A time range: `from` inclusive, `to` exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// The first millisecond in the range.
    pub from: Timestamp,
    /// The first millisecond after the range.
    pub to: Timestamp,
}

impl TimeRange {
    /// Whether `at` is in the range.
    #[must_use]
    pub fn contains(self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }

    /// Returns the range of the same length that ends where this one begins.
    #[must_use]
    pub fn previous(self) -> Self {
        Self { from: self.from.plus(-self.to.since(self.from)), to: self.from }
    }
}

/// A filter for events in addition to the range, by numbers in the name table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// The version of the events; `None` for all versions.
    pub version: Option<u32>,
    /// The client of the events; `None` for all clients.
    pub client: Option<u32>,
}

impl Filter {
    /// Whether an event matches the filter.
    #[must_use]
    pub fn matches(self, event: &EventRecord) -> bool {
        self.version.is_none_or(|version| version == event.version)
            && self.client.is_none_or(|client| client == event.client)
    }
}

/// Returns a percentile of `values` by the nearest-rank method. Returns `None` if there are no values. Reorders
/// `values`.
#[must_use]
pub fn percentile(values: &mut [i64], percent: usize) -> Option<i64> {
    let rank = (values.len() * percent).div_ceil(100).max(1);
    if rank > values.len() {
        return None;
    }
    Some(*values.select_nth_unstable(rank - 1).1)
}

/// Returns `part` divided by `whole`. Returns `None` if `whole` is 0.
#[must_use]
pub fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
