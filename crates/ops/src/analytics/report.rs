//! The analytics reports that the API returns and the console exports, as JSON or as tables.

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
    fn header() -> Vec<&'static str>;

    /// Returns the rows.
    fn rows(&self) -> Vec<Vec<String>>;

    /// Formats the report as CSV.
    fn to_csv(&self) -> Vec<u8> {
        let mut content = spreadsheet::row(Self::header());
        for row in self.rows() {
            content.extend(spreadsheet::row(row.iter().map(String::as_str)));
        }
        content
    }
}

/// Formats a number as a cell. `None` is an empty cell.
pub(super) fn number(value: Option<i64>) -> String {
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
    fn new(range: TimeRange, overview: &Overview) -> Self {
        Self {
            from: range.from.rfc3339(),
            to: range.to.rfc3339(),
            started: overview.started,
            active: overview.active,
            completed: overview.completed,
            started_and_completed: overview.started_and_completed,
            completion_rate: overview.completion_rate(),
            started_and_resumed: overview.started_and_resumed,
            resume_rate: overview.resume_rate(),
            median_time_to_complete_ms: overview.median_ms,
            p90_time_to_complete_ms: overview.p90_ms,
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
            previous: AnalyticsTotals::new(range.previous(), &report.previous_overview()),
        }
    }
}

impl ReportTable for AnalyticsOverview {
    const NAME: &'static str = "overview";

    fn header() -> Vec<&'static str> {
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
        let row = |totals: &AnalyticsTotals| {
            vec![
                totals.from.clone(),
                totals.to.clone(),
                totals.started.to_string(),
                totals.active.to_string(),
                totals.completed.to_string(),
                totals.started_and_completed.to_string(),
                share(totals.completion_rate),
                totals.started_and_resumed.to_string(),
                share(totals.resume_rate),
                number(totals.median_time_to_complete_ms),
                number(totals.p90_time_to_complete_ms),
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

    fn header() -> Vec<&'static str> {
        vec!["day", "started", "completed", "active"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |day: &AnalyticsDay| {
            vec![day.at.clone(), day.started.to_string(), day.completed.to_string(), day.active.to_string()]
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
    /// The number of attempts that reached the step, completed neither it nor any later step, and had no event in the
    /// last 24 hours before the end of the range.
    dropped_off: u64,
    /// The number of attempts that reached the step, completed neither it nor any later step, and had an event in the
    /// last 24 hours before the end of the range.
    active: u64,
    /// The median time on the step of the attempts that completed it, measured from their previous activity.
    median_time_ms: Option<i64>,
}

/// The funnel of one version. If no walkthrough is selected or it has no versions, `version` is null and there are no
/// steps.
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
        let row = |(index, stage): (usize, crate::analytics::FunnelStage)| FunnelStep {
            step_id: stage.step_id.to_string(),
            position: index + 1,
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

    fn header() -> Vec<&'static str> {
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
        let row = |step: &FunnelStep| {
            vec![
                version.clone(),
                step.position.to_string(),
                step.step_id.clone(),
                step.title.clone(),
                step.reached.to_string(),
                step.completed.to_string(),
                step.dropped_off.to_string(),
                step.active.to_string(),
                number(step.median_time_ms),
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
    /// The number of the version. Null if no walkthrough is selected or it has no versions.
    version: Option<u32>,
    items: Vec<StepDuration>,
}

impl StepDurationList {
    /// Creates the body from a report.
    #[must_use]
    pub fn new(report: &Report) -> Self {
        let Some(funnel) = report.funnel() else { return Self { version: None, items: Vec::new() } };
        let row = |(index, stage): (usize, crate::analytics::FunnelStage)| StepDuration {
            step_id: stage.step_id.to_string(),
            position: index + 1,
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

    fn header() -> Vec<&'static str> {
        vec!["position", "step_id", "title", "completed", "median_time_ms", "p90_time_ms"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |step: &StepDuration| {
            vec![
                step.position.to_string(),
                step.step_id.clone(),
                step.title.clone(),
                step.completed.to_string(),
                number(step.median_time_ms),
                number(step.p90_time_ms),
            ]
        };
        self.items.iter().map(row).collect()
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
            FlowNode::DropOff => plain("left"),
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
        let row =
            |edge: crate::analytics::FlowEdge| Flow { from: edge.from.into(), to: edge.to.into(), count: edge.count };
        Self { items: report.flows().into_iter().map(row).collect() }
    }
}

impl ReportTable for FlowList {
    const NAME: &'static str = "flows";

    fn header() -> Vec<&'static str> {
        vec!["from", "from_step_id", "from_title", "to", "to_step_id", "to_title", "count"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |flow: &Flow| {
            flow.from.cells().into_iter().chain(flow.to.cells()).chain([flow.count.to_string()]).collect()
        };
        self.items.iter().map(row).collect()
    }
}
