//! The reports of analytics as they are returned by the API and exported from the console, as JSON or as tables.

use serde::Serialize;
use utoipa::ToSchema;
use waypost_core::analytics::{Overview, TimeRange};

use super::{FlowNode, Report};
use crate::spreadsheet;

/// A report that can also be formatted as a table.
pub trait ReportTable: Serialize {
    /// The name of the file.
    const NAME: &'static str;

    /// Returns the column headings.
    fn head() -> Vec<&'static str>;

    /// Returns the rows.
    fn rows(&self) -> Vec<Vec<String>>;

    /// Formats the report as CSV.
    fn to_csv(&self) -> Vec<u8> {
        let mut content = spreadsheet::row(Self::head());
        for row in self.rows() {
            content.extend(spreadsheet::row(row.iter().map(String::as_str)));
        }
        content
    }
}

fn number(value: Option<i64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn share(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.6}"))
}

/// The totals of a range.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnalyticsTotals {
    /// The start of the range, inclusive.
    #[schema(format = DateTime)]
    from: String,
    /// The end of the range, exclusive.
    #[schema(format = DateTime)]
    to: String,
    /// The number of attempts that started in the range.
    started: u64,
    /// The number of end users with any event in the range.
    active: u64,
    /// The number of attempts that were completed in the range, regardless of when they started.
    completed: u64,
    /// The number of attempts that started in the range and were completed before its end.
    started_and_completed: u64,
    /// `started_and_completed` divided by `started`. Null if `started` is 0.
    completion_rate: Option<f64>,
    /// The number of attempts that started in the range and were resumed before its end.
    started_and_resumed: u64,
    /// `started_and_resumed` divided by `started`. Null if `started` is 0.
    resume_rate: Option<f64>,
    /// The median time from start to completion of the attempts completed in the range (nearest-rank method), in
    /// milliseconds.
    median_time_to_complete_ms: Option<i64>,
    /// The 90th percentile of the time from start to completion, in milliseconds.
    p90_time_to_complete_ms: Option<i64>,
}

impl AnalyticsTotals {
    fn new(range: TimeRange, it: &Overview) -> Self {
        Self {
            from: range.from.rfc3339(),
            to: range.to.rfc3339(),
            started: it.started,
            active: it.active,
            completed: it.completed,
            started_and_completed: it.started_and_completed,
            completion_rate: it.completion_rate(),
            started_and_resumed: it.started_and_resumed,
            resume_rate: it.resume_rate(),
            median_time_to_complete_ms: it.median_ms,
            p90_time_to_complete_ms: it.p90_ms,
        }
    }
}

/// The totals of a range and of the previous range of the same length.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnalyticsOverview {
    current: AnalyticsTotals,
    previous: AnalyticsTotals,
}

impl AnalyticsOverview {
    /// Creates the body from a report.
    #[must_use]
    pub fn new(report: &Report) -> Self {
        let range = report.range();
        Self {
            current: AnalyticsTotals::new(range, &report.overview()),
            previous: AnalyticsTotals::new(range.previous(), &report.before()),
        }
    }
}

impl ReportTable for AnalyticsOverview {
    const NAME: &'static str = "overview";

    fn head() -> Vec<&'static str> {
        vec![
            "from",
            "to",
            "started",
            "active",
            "completed",
            "started_and_completed",
            "completion_rate",
            "started_and_resumed",
            "resume_rate",
            "median_time_to_complete_ms",
            "p90_time_to_complete_ms",
        ]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |it: &AnalyticsTotals| {
            vec![
                it.from.clone(),
                it.to.clone(),
                it.started.to_string(),
                it.active.to_string(),
                it.completed.to_string(),
                it.started_and_completed.to_string(),
                share(it.completion_rate),
                it.started_and_resumed.to_string(),
                share(it.resume_rate),
                number(it.median_time_to_complete_ms),
                number(it.p90_time_to_complete_ms),
            ]
        };
        vec![row(&self.current), row(&self.previous)]
    }
}

/// The numbers of one day.
#[derive(Debug, Serialize, ToSchema)]
struct AnalyticsDay {
    /// The start of the day.
    #[schema(format = DateTime)]
    at: String,
    /// The number of attempts that started.
    started: u64,
    /// The number of attempts that were completed.
    completed: u64,
    /// The number of end users with any event.
    active: u64,
}

/// The numbers of each day of a range.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnalyticsTimeline {
    items: Vec<AnalyticsDay>,
}

impl AnalyticsTimeline {
    /// Creates the body from a report.
    #[must_use]
    pub fn new(report: &Report, offset_ms: i64) -> Self {
        let row = |day: waypost_core::analytics::PeriodTotals| AnalyticsDay {
            at: day.at.rfc3339(),
            started: day.started,
            completed: day.completed,
            active: day.active,
        };
        Self { items: report.timeline(offset_ms).into_iter().map(row).collect() }
    }
}

impl ReportTable for AnalyticsTimeline {
    const NAME: &'static str = "timeline";

    fn head() -> Vec<&'static str> {
        vec!["day", "started", "completed", "active"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |it: &AnalyticsDay| {
            vec![it.at.clone(), it.started.to_string(), it.completed.to_string(), it.active.to_string()]
        };
        self.items.iter().map(row).collect()
    }
}

/// A step of a funnel.
#[derive(Debug, Serialize, ToSchema)]
struct FunnelStep {
    step_id: String,
    /// The position, starting at 1.
    position: usize,
    title: String,
    /// The number of attempts that completed the step, or all steps before it.
    reached: u64,
    /// The number of attempts that completed the step.
    completed: u64,
    /// The number of attempts that reached the step, completed neither it nor any later step, and had no event in the last
    /// 24 hours before the end of the range.
    dropped_off: u64,
    /// The number of attempts at the step, as in `dropped_off`, that had an event in these 24 hours.
    active: u64,
    /// The median time on the step of the attempts that completed it, measured from their previous activity.
    median_time_ms: Option<i64>,
}

/// The funnel of one version. If there are no attempts, `version` is null and there are no steps.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnalyticsFunnel {
    /// The number of the version.
    version: Option<u32>,
    /// The number of attempts that started at this version in the range.
    started: u64,
    /// The number of these attempts that were completed before the end of the range.
    completed: u64,
    steps: Vec<FunnelStep>,
}

impl AnalyticsFunnel {
    /// Creates the body from a report.
    #[must_use]
    pub fn new(report: &Report) -> Self {
        let Some(funnel) = report.funnel() else {
            return Self { version: None, started: 0, completed: 0, steps: Vec::new() };
        };
        let row = |(at, stage): (usize, crate::analytics::FunnelStage)| FunnelStep {
            step_id: stage.step_id.to_string(),
            position: at + 1,
            title: stage.title,
            reached: stage.counts.reached,
            completed: stage.counts.completed,
            dropped_off: stage.counts.dropped,
            active: stage.counts.active,
            median_time_ms: stage.counts.median_ms,
        };
        let steps = funnel.stages.into_iter().enumerate().map(row).collect();
        Self { version: Some(funnel.version), started: funnel.started, completed: funnel.completed, steps }
    }
}

impl ReportTable for AnalyticsFunnel {
    const NAME: &'static str = "funnel";

    fn head() -> Vec<&'static str> {
        vec![
            "version",
            "position",
            "step_id",
            "title",
            "reached",
            "completed",
            "dropped_off",
            "active",
            "median_time_ms",
        ]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let version = self.version.map_or_else(String::new, |version| version.to_string());
        let row = |it: &FunnelStep| {
            vec![
                version.clone(),
                it.position.to_string(),
                it.step_id.clone(),
                it.title.clone(),
                it.reached.to_string(),
                it.completed.to_string(),
                it.dropped_off.to_string(),
                it.active.to_string(),
                number(it.median_time_ms),
            ]
        };
        self.steps.iter().map(row).collect()
    }
}

/// The time spent on a step.
#[derive(Debug, Serialize, ToSchema)]
struct StepDuration {
    step_id: String,
    /// The position, starting at 1.
    position: usize,
    title: String,
    /// The number of attempts that completed the step.
    completed: u64,
    /// The median time on the step.
    median_time_ms: Option<i64>,
    /// The 90th percentile of the time on the step.
    p90_time_ms: Option<i64>,
}

/// The time spent on each step of a version.
#[derive(Debug, Serialize, ToSchema)]
pub struct StepDurationList {
    /// The number of the version. Null if there are no attempts.
    version: Option<u32>,
    items: Vec<StepDuration>,
}

impl StepDurationList {
    /// Creates the body from a report.
    #[must_use]
    pub fn new(report: &Report) -> Self {
        let Some(funnel) = report.funnel() else { return Self { version: None, items: Vec::new() } };
        let row = |(at, stage): (usize, crate::analytics::FunnelStage)| StepDuration {
            step_id: stage.step_id.to_string(),
            position: at + 1,
            title: stage.title,
            completed: stage.counts.completed,
            median_time_ms: stage.counts.median_ms,
            p90_time_ms: stage.counts.p90_ms,
        };
        Self { version: Some(funnel.version), items: funnel.stages.into_iter().enumerate().map(row).collect() }
    }
}

impl ReportTable for StepDurationList {
    const NAME: &'static str = "steps";

    fn head() -> Vec<&'static str> {
        vec!["position", "step_id", "title", "completed", "median_time_ms", "p90_time_ms"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |it: &StepDuration| {
            vec![
                it.position.to_string(),
                it.step_id.clone(),
                it.title.clone(),
                it.completed.to_string(),
                number(it.median_time_ms),
                number(it.p90_time_ms),
            ]
        };
        self.items.iter().map(row).collect()
    }
}

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
        let row = |it: waypost_core::analytics::ToolRow| ToolUsage {
            tool: it.tool,
            calls: it.calls,
            errors: it.errors,
            median_us: it.median_us,
            p90_us: it.p90_us,
        };
        Self { items: report.tools().into_iter().map(row).collect() }
    }
}

impl ReportTable for ToolUsageList {
    const NAME: &'static str = "tools";

    fn head() -> Vec<&'static str> {
        vec!["tool", "calls", "errors", "median_us", "p90_us"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |it: &ToolUsage| {
            vec![it.tool.clone(), it.calls.to_string(), it.errors.to_string(), number(it.median_us), number(it.p90_us)]
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

/// The errors of a range.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorCountList {
    items: Vec<ErrorCount>,
}

impl ErrorCountList {
    /// Creates the body from a report.
    #[must_use]
    pub fn new(report: &Report) -> Self {
        let row = |it: waypost_core::analytics::ErrorRow| ErrorCount { code: it.code, tool: it.tool, count: it.count };
        Self { items: report.errors().into_iter().map(row).collect() }
    }
}

impl ReportTable for ErrorCountList {
    const NAME: &'static str = "errors";

    fn head() -> Vec<&'static str> {
        vec!["code", "tool", "count"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        self.items.iter().map(|it| vec![it.code.clone(), it.tool.clone(), it.count.to_string()]).collect()
    }
}

/// The start or end of a transition.
#[derive(Debug, Serialize, ToSchema)]
struct FlowPoint {
    /// `start`, `step`, `end` (the attempt was completed) or `left` (no further event before the end of the range).
    kind: &'static str,
    /// The ID of the step. Null if `kind` is not `step`.
    step_id: Option<String>,
    /// The title of the step. Null if `kind` is not `step`.
    title: Option<String>,
}

impl From<FlowNode> for FlowPoint {
    fn from(place: FlowNode) -> Self {
        let plain = |kind| Self { kind, step_id: None, title: None };
        match place {
            FlowNode::Start => plain("start"),
            FlowNode::End => plain("end"),
            FlowNode::Left => plain("left"),
            FlowNode::Step(id, title) => Self { kind: "step", step_id: Some(id.to_string()), title: Some(title) },
        }
    }
}

impl FlowPoint {
    fn cells(&self) -> [String; 3] {
        [self.kind.to_owned(), self.step_id.clone().unwrap_or_default(), self.title.clone().unwrap_or_default()]
    }
}

/// The number of attempts that went from one point to another.
#[derive(Debug, Serialize, ToSchema)]
struct Flow {
    from: FlowPoint,
    to: FlowPoint,
    /// The number of attempts.
    count: u64,
}

/// The transitions in the attempts of a funnel.
#[derive(Debug, Serialize, ToSchema)]
pub struct FlowList {
    items: Vec<Flow>,
}

impl FlowList {
    /// Creates the body from a report.
    #[must_use]
    pub fn new(report: &Report) -> Self {
        let row = |it: crate::analytics::FlowEdge| Flow { from: it.from.into(), to: it.to.into(), count: it.count };
        Self { items: report.flows().into_iter().map(row).collect() }
    }
}

impl ReportTable for FlowList {
    const NAME: &'static str = "flows";

    fn head() -> Vec<&'static str> {
        vec!["from", "from_step_id", "from_title", "to", "to_step_id", "to_title", "count"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |it: &Flow| it.from.cells().into_iter().chain(it.to.cells()).chain([it.count.to_string()]).collect();
        self.items.iter().map(row).collect()
    }
}

/// The use of a client.
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

/// The use of each client in a range.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClientUsageList {
    items: Vec<ClientUsage>,
}

impl ClientUsageList {
    /// Creates the body from a report.
    #[must_use]
    pub fn new(report: &Report) -> Self {
        let row = |it: waypost_core::analytics::ClientRow| ClientUsage {
            name: it.name,
            started: it.started,
            completed: it.completed,
            active: it.active,
            calls: it.calls,
        };
        Self { items: report.clients().into_iter().map(row).collect() }
    }
}

impl ReportTable for ClientUsageList {
    const NAME: &'static str = "clients";

    fn head() -> Vec<&'static str> {
        vec!["client", "started", "completed", "active", "calls"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |it: &ClientUsage| {
            vec![
                it.name.clone().unwrap_or_default(),
                it.started.to_string(),
                it.completed.to_string(),
                it.active.to_string(),
                it.calls.to_string(),
            ]
        };
        self.items.iter().map(row).collect()
    }
}
