//! Metrics of tools and errors.

use std::collections::HashMap;

use super::{Filter, Log, TimeRange, percentile};

/// The metrics of one tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolRow {
    /// The tool's name.
    pub tool: String,
    /// Calls in the range.
    pub calls: u64,
    /// Failed calls in the range.
    pub errors: u64,
    /// The median duration in microseconds.
    pub median_us: Option<i64>,
    /// The 90th percentile of the durations in microseconds.
    pub p90_us: Option<i64>,
}

/// The number of errors with one code from one tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorRow {
    /// The error code.
    pub code: String,
    /// The tool.
    pub tool: String,
    /// Number of errors.
    pub count: u64,
}

/// The number of calls in a range that are not logged individually (docs/analytics.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallCount {
    /// The tool.
    pub tool: String,
    /// `ok`, or the error code.
    pub outcome: String,
    /// Number of calls.
    pub count: u64,
}

const OK: &str = "ok";

/// Returns the tools of a range, most used first. Only the client of `filter` applies, because calls have no version.
/// `counted` are calls in the range without a duration or a client.
#[must_use]
pub fn tools(log: &Log, counted: &[CallCount], range: TimeRange, filter: Filter) -> Vec<ToolRow> {
    let ok = log.names.lookup(OK);
    // Calls, errors, durations.
    let mut rows: HashMap<&str, (u64, u64, Vec<i64>)> = HashMap::new();
    for call in log.calls.iter().filter(|call| range.contains(call.at)) {
        if filter.client.is_none_or(|client| client == call.client) {
            let (calls, errors, durations) = rows.entry(log.names.text(call.tool).unwrap_or_default()).or_default();
            *calls += 1;
            *errors += u64::from(call.outcome != ok);
            durations.push(call.duration_us);
        }
    }
    for call in counted.iter().filter(|_| filter.client.is_none()) {
        let (calls, errors, _) = rows.entry(&call.tool).or_default();
        *calls += call.count;
        *errors += if call.outcome == OK { 0 } else { call.count };
    }
    let row = |(tool, (calls, errors, mut durations)): (&str, (u64, u64, Vec<i64>))| ToolRow {
        tool: tool.to_owned(),
        calls,
        errors,
        median_us: percentile(&mut durations, 50),
        p90_us: percentile(&mut durations, 90),
    };
    let mut rows: Vec<ToolRow> = rows.into_iter().map(row).collect();
    rows.sort_by(|a, b| b.calls.cmp(&a.calls).then_with(|| a.tool.cmp(&b.tool)));
    rows
}

/// Returns the errors of a range, most frequent first. `counted` is the same as for [`tools`].
#[must_use]
pub fn errors(log: &Log, counted: &[CallCount], range: TimeRange, filter: Filter) -> Vec<ErrorRow> {
    let ok = log.names.lookup(OK);
    let text = |number| log.names.text(number).unwrap_or_default();
    let mut rows: HashMap<(&str, &str), u64> = HashMap::new();
    for call in log.calls.iter().filter(|call| range.contains(call.at) && call.outcome != ok) {
        if filter.client.is_none_or(|client| client == call.client) {
            *rows.entry((text(call.outcome), text(call.tool))).or_default() += 1;
        }
    }
    for call in counted.iter().filter(|call| filter.client.is_none() && call.outcome != OK) {
        *rows.entry((&call.outcome, &call.tool)).or_default() += call.count;
    }
    let row =
        |((code, tool), count): ((&str, &str), _)| ErrorRow { code: code.to_owned(), tool: tool.to_owned(), count };
    let mut rows: Vec<ErrorRow> = rows.into_iter().map(row).collect();
    rows.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (&a.code, &a.tool).cmp(&(&b.code, &b.tool))));
    rows
}
