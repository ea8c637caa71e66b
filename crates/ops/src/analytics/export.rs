//! Reports as files.

use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_core::{Error, Result};

use super::rejected::RejectedCallList;
use super::report::{AnalyticsFunnel, AnalyticsOverview, AnalyticsTimeline, FlowList, ReportTable, StepDurationList};
use super::usage::{ClientUsageList, ErrorCountList, ToolUsageList};
use super::{AnalyticsQuery, Report, ReportParts, run};
use crate::Ops;

/// A report as a file.
#[derive(Debug)]
pub struct ReportFile {
    /// The name, such as `overview.csv`.
    pub name: String,
    /// The media type.
    pub media_type: &'static str,
    /// The content.
    pub content: Vec<u8>,
}

impl ReportFile {
    fn csv<T: ReportTable>(body: &T) -> Self {
        Self { name: format!("{}.csv", T::NAME), media_type: "text/csv; charset=utf-8", content: body.to_csv() }
    }

    fn json<T: ReportTable>(body: &T) -> Self {
        let content = serde_json::to_vec_pretty(body).unwrap_or_default();
        Self { name: format!("{}.json", T::NAME), media_type: "application/json", content }
    }
}

/// Exports the report with this name, as JSON or as CSV.
///
/// # Errors
/// The same as for [`run`]; `not_found` if there is no such report.
pub async fn export(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    query: &AnalyticsQuery,
    report: &str,
    json: bool,
) -> Result<ReportFile> {
    type Write = fn(&Report, bool) -> ReportFile;
    fn write<T: ReportTable>(body: &T, json: bool) -> ReportFile {
        if json { ReportFile::json(body) } else { ReportFile::csv(body) }
    }
    let before = ReportParts { previous: true, ..ReportParts::EVENTS };
    let (parts, render): (ReportParts, Write) = match report {
        "overview" => (before, |report, json| write(&AnalyticsOverview::new(report), json)),
        "timeline" => (ReportParts::EVENTS, |report, json| write(&AnalyticsTimeline::new(report, 0), json)),
        "funnel" => (ReportParts::EVENTS, |report, json| write(&AnalyticsFunnel::new(report), json)),
        "steps" => (ReportParts::EVENTS, |report, json| write(&StepDurationList::new(report), json)),
        "flows" => (ReportParts::EVENTS, |report, json| write(&FlowList::new(report), json)),
        "tools" => (ReportParts::CALLS, |report, json| write(&ToolUsageList::new(report), json)),
        "errors" => (ReportParts::CALLS, |report, json| write(&ErrorCountList::new(report), json)),
        "rejected-calls" => (ReportParts::CALLS, |report, json| write(&RejectedCallList::new(report), json)),
        "clients" => {
            let parts = ReportParts { calls: true, ..ReportParts::EVENTS };
            (parts, |report, json| write(&ClientUsageList::new(report), json))
        }
        _ => return Err(Error::not_found("export")),
    };
    run(cx, ops, organization, query, parts, move |report| render(report, json)).await
}
