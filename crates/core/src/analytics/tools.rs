//! Tools and errors.

use std::collections::HashMap;

use super::{Filter, Log, Range, percentile};

/// One tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolRow {
    /// Its name.
    pub tool: String,
    /// Calls in the range.
    pub calls: u64,
    /// Those of them that failed.
    pub errors: u64,
    /// The median of their durations, in microseconds.
    pub median_us: Option<i64>,
    /// The 90th percentile of their durations.
    pub p90_us: Option<i64>,
}

/// One kind of error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorRow {
    /// Its code.
    pub code: String,
    /// The tool.
    pub tool: String,
    /// How often.
    pub count: u64,
}

const OK: &str = "ok";

/// The tools of a range, the most used first. Only the client of `filter` counts: a call is of no version.
#[must_use]
pub fn tools(log: &Log, range: Range, filter: Filter) -> Vec<ToolRow> {
    let ok = log.names.find(OK);
    let mut rows: HashMap<u32, (u64, Vec<i64>)> = HashMap::new();
    for call in log.calls.iter().filter(|call| range.contains(call.at)) {
        if filter.client.is_none_or(|client| client == call.client) {
            let (errors, durations) = rows.entry(call.tool).or_default();
            *errors += u64::from(call.outcome != ok);
            durations.push(call.duration_us);
        }
    }
    let row = |(tool, (errors, mut durations)): (u32, (u64, Vec<i64>))| ToolRow {
        tool: log.names.text(tool).unwrap_or_default().to_owned(),
        calls: durations.len() as u64,
        errors,
        median_us: percentile(&mut durations, 50),
        p90_us: percentile(&mut durations, 90),
    };
    let mut rows: Vec<ToolRow> = rows.into_iter().map(row).collect();
    rows.sort_by(|a, b| b.calls.cmp(&a.calls).then_with(|| a.tool.cmp(&b.tool)));
    rows
}

/// The errors of a range, the most frequent first.
#[must_use]
pub fn errors(log: &Log, range: Range, filter: Filter) -> Vec<ErrorRow> {
    let ok = log.names.find(OK);
    let mut rows: HashMap<(u32, u32), u64> = HashMap::new();
    for call in log.calls.iter().filter(|call| range.contains(call.at) && call.outcome != ok) {
        if filter.client.is_none_or(|client| client == call.client) {
            *rows.entry((call.outcome, call.tool)).or_default() += 1;
        }
    }
    let text = |number| log.names.text(number).unwrap_or_default().to_owned();
    let row = |((code, tool), count)| ErrorRow { code: text(code), tool: text(tool), count };
    let mut rows: Vec<ErrorRow> = rows.into_iter().map(row).collect();
    rows.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (&a.code, &a.tool).cmp(&(&b.code, &b.tool))));
    rows
}
