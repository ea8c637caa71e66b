//! Reports on the usage of tools and clients.

use serde::Serialize;
use utoipa::ToSchema;
use waypost_core::analytics::{ClientRow, ErrorRow, ToolRow};

use super::Report;
use super::report::{ReportTable, number};

/// The calls of a tool.
#[derive(Debug, Serialize, ToSchema)]
struct ToolUsage {
    /// The name of the tool.
    tool: String,
    /// The number of calls.
    calls: u64,
    /// The number of calls that failed.
    errors: u64,
    /// The median duration of individually recorded calls, in microseconds.
    median_us: Option<i64>,
    /// The 90th percentile of the duration, in microseconds.
    p90_us: Option<i64>,
}

/// The calls of each tool in a range.
#[derive(Debug, Serialize, ToSchema)]
pub struct ToolUsageList {
    items: Vec<ToolUsage>,
}

impl ToolUsageList {
    /// Creates the body from a report.
    #[must_use]
    pub fn new(report: &Report) -> Self {
        let row = |row: ToolRow| ToolUsage {
            tool: row.tool,
            calls: row.calls,
            errors: row.errors,
            median_us: row.median_us,
            p90_us: row.p90_us,
        };
        Self { items: report.tools().into_iter().map(row).collect() }
    }
}

impl ReportTable for ToolUsageList {
    const NAME: &'static str = "tools";

    fn header() -> Vec<&'static str> {
        vec!["tool", "calls", "errors", "median_us", "p90_us"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |tool: &ToolUsage| {
            vec![
                tool.tool.clone(),
                tool.calls.to_string(),
                tool.errors.to_string(),
                number(tool.median_us),
                number(tool.p90_us),
            ]
        };
        self.items.iter().map(row).collect()
    }
}

/// The number of errors of one tool with one code.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorCount {
    /// The error code.
    code: String,
    /// The name of the tool.
    tool: String,
    /// The number of errors.
    count: u64,
}

/// The errors in a range, by code and tool.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorCountList {
    items: Vec<ErrorCount>,
}

impl ErrorCountList {
    /// Creates the body from a report.
    #[must_use]
    pub fn new(report: &Report) -> Self {
        let row = |row: ErrorRow| ErrorCount { code: row.code, tool: row.tool, count: row.count };
        Self { items: report.errors().into_iter().map(row).collect() }
    }
}

impl ReportTable for ErrorCountList {
    const NAME: &'static str = "errors";

    fn header() -> Vec<&'static str> {
        vec!["code", "tool", "count"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        self.items.iter().map(|error| vec![error.code.clone(), error.tool.clone(), error.count.to_string()]).collect()
    }
}

/// The usage of a client.
#[derive(Debug, Serialize, ToSchema)]
struct ClientUsage {
    /// The name that the client reports. Null if it reports none.
    name: Option<String>,
    /// The number of attempts that started.
    started: u64,
    /// The number of attempts that were completed.
    completed: u64,
    /// The number of end users with any event.
    active: u64,
    /// The number of tool calls.
    calls: u64,
}

/// The usage of each client in a range.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClientUsageList {
    items: Vec<ClientUsage>,
}

impl ClientUsageList {
    /// Creates the body from a report.
    #[must_use]
    pub fn new(report: &Report) -> Self {
        let row = |row: ClientRow| ClientUsage {
            name: row.name,
            started: row.started,
            completed: row.completed,
            active: row.active,
            calls: row.calls,
        };
        Self { items: report.clients().into_iter().map(row).collect() }
    }
}

impl ReportTable for ClientUsageList {
    const NAME: &'static str = "clients";

    fn header() -> Vec<&'static str> {
        vec!["client", "started", "completed", "active", "calls"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |usage: &ClientUsage| {
            vec![
                usage.name.clone().unwrap_or_default(),
                usage.started.to_string(),
                usage.completed.to_string(),
                usage.active.to_string(),
                usage.calls.to_string(),
            ]
        };
        self.items.iter().map(row).collect()
    }
}
