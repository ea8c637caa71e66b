//! `/analytics`: each number of the page, as JSON and as CSV. docs/analytics.md says what they mean.

mod body;
mod rejected;
mod xapi;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::analytics::TimeRange;
use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_core::{Error, Result, Timestamp};
use waypost_ops::Ops;
use waypost_ops::analytics::{self, AnalyticsQuery, MAX_OFFSET_MS, Report, ReportParts};

use self::body::{
    AnalyticsFunnel, AnalyticsOverview, AnalyticsTimeline, ClientUsageList, ErrorCountList, FlowList, StepDurationList,
    ToolUsageList,
};
use self::rejected::RejectedCallList;
use super::extract::{Query, Scope, id};
use crate::problem::{ApiResult, Problems};
use crate::{Web, spreadsheet};

/// The operations on analytics.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new()
        .routes(routes!(overview))
        .routes(routes!(timeline))
        .routes(routes!(funnel))
        .routes(routes!(steps))
        .routes(routes!(tools))
        .routes(routes!(errors))
        .routes(routes!(rejected_calls))
        .routes(routes!(flows))
        .routes(routes!(clients))
        .merge(xapi::routes())
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum AnalyticsFormat {
    #[default]
    Json,
    Csv,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ReportQuery {
    /// From this time on, RFC 3339. 30 days before `to` when absent. At most 3,660 days before `to`.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Before this time, RFC 3339. Now when absent.
    #[param(format = DateTime)]
    to: Option<String>,
    /// On this server only.
    server_id: Option<String>,
    /// Of this walkthrough only. Tool calls are of none, and count anyway.
    walkthrough_id: Option<String>,
    /// In this version of the walkthrough only, by number.
    #[param(minimum = 1, maximum = 4294967295_i64)]
    version: Option<u32>,
    /// By this client only: the name that it gives itself.
    #[param(max_length = 1000)]
    client: Option<String>,
    /// Minutes by which days begin before those of UTC, such as 120 in central European summers.
    #[param(minimum = -840, maximum = 840)]
    tz_offset_minutes: Option<i64>,
    /// `json` or `csv`.
    #[param(inline)]
    format: Option<AnalyticsFormat>,
}

/// A time in a query.
///
/// # Errors
/// `invalid_arguments` when it is none by RFC 3339.
pub(super) fn time(field: &str, text: &str) -> Result<Timestamp> {
    Timestamp::from_rfc3339(text).ok_or_else(|| {
        Error::invalid(field, format!("`{field}` is a time by RFC 3339, such as `2026-01-31T00:00:00Z`."))
    })
}

impl ReportQuery {
    fn to_query(&self, now: Timestamp) -> Result<AnalyticsQuery> {
        let to = self.to.as_deref().map_or(Ok(now), |text| time("to", text))?;
        let from =
            self.from.as_deref().map_or_else(|| Ok(analytics::last_days(to, 30).from), |text| time("from", text))?;
        if self.version == Some(0) {
            return Err(Error::invalid("version", "Versions are numbered from 1."));
        }
        Ok(AnalyticsQuery {
            range: TimeRange { from, to },
            server_id: self.server_id.as_deref().map(|text| id(text, "server")).transpose()?,
            walkthrough_id: self.walkthrough_id.as_deref().map(|text| id(text, "walkthrough")).transpose()?,
            version: self.version,
            client: self.client.clone().filter(|client| !client.is_empty()),
        })
    }

    fn offset_ms(&self) -> Result<i64> {
        match self.tz_offset_minutes.unwrap_or(0) {
            minutes if (-MAX_OFFSET_MS / 60_000..=MAX_OFFSET_MS / 60_000).contains(&minutes) => Ok(minutes * 60_000),
            _ => {
                let message = "Days begin at most 14 hours before or after those of UTC.";
                Err(Error::invalid("tz_offset_minutes", message))
            }
        }
    }
}

/// A body that can also be a table.
trait Table {
    /// The name of the file.
    const NAME: &'static str;

    /// The heads of the columns.
    fn head() -> Vec<&'static str>;

    /// The rows.
    fn rows(&self) -> Vec<Vec<String>>;
}

struct ReportRequest {
    web: Web,
    scope: Scope,
    params: ReportQuery,
}

impl ReportRequest {
    async fn answer<T: Table + Serialize + Send + 'static>(
        self,
        parts: ReportParts,
        answer: impl FnOnce(&Report) -> T + Send + 'static,
    ) -> ApiResult<Response> {
        let Scope { cx, organization_id } = &self.scope;
        let query = self.params.to_query(cx.now())?;
        let body = analytics::run(cx, self.web.ops(), (organization_id, &query), parts, answer).await?;
        Ok(match self.params.format.unwrap_or_default() {
            AnalyticsFormat::Json => axum::Json(body).into_response(),
            AnalyticsFormat::Csv => csv(&body),
        })
    }
}

fn csv<T: Table>(body: &T) -> Response {
    let mut content = spreadsheet::row(T::head());
    for row in body.rows() {
        content.extend(spreadsheet::row(row.iter().map(String::as_str)));
    }
    let mut response = content.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{}.csv\"", T::NAME)) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    response
}

/// A part of analytics as a file.
///
/// # Errors
/// `not_found` for a part that there is not, and as [`analytics::run`].
pub(crate) async fn file(
    cx: &Ctx,
    ops: &Ops,
    asked: (&OrganizationId, &AnalyticsQuery),
    (part, json): (&str, bool),
) -> Result<Response> {
    type Write = fn(&Report, bool) -> Response;
    fn write<T: Table + Serialize>(body: &T, json: bool) -> Response {
        if !json {
            return csv(body);
        }
        let value = serde_json::to_value(body).unwrap_or_default();
        super::end_users::json_download(&value, T::NAME)
    }
    let before = ReportParts { before: true, ..EVENTS };
    let (parts, answer): (ReportParts, Write) = match part {
        "overview" => (before, |report, json| write(&AnalyticsOverview::of(report), json)),
        "timeline" => (EVENTS, |report, json| write(&AnalyticsTimeline::of(report, 0), json)),
        "funnel" => (EVENTS, |report, json| write(&AnalyticsFunnel::of(report), json)),
        "steps" => (EVENTS, |report, json| write(&StepDurationList::of(report), json)),
        "flows" => (EVENTS, |report, json| write(&FlowList::of(report), json)),
        "tools" => (CALLS, |report, json| write(&ToolUsageList::of(report), json)),
        "errors" => (CALLS, |report, json| write(&ErrorCountList::of(report), json)),
        "rejected-calls" => (CALLS, |report, json| write(&RejectedCallList::of(report), json)),
        "clients" => (ReportParts { calls: true, ..EVENTS }, |report, json| write(&ClientUsageList::of(report), json)),
        _ => return Err(Error::not_found("export")),
    };
    analytics::run(cx, ops, asked, parts, move |report| answer(report, json)).await
}

const EVENTS: ReportParts = ReportParts { events: true, calls: false, before: false };
const CALLS: ReportParts = ReportParts { events: false, calls: true, before: false };

/// How many began, were active and completed, how many of those who began completed and resumed, and how long it took: in
/// the range, and in the one of the same length before.
#[utoipa::path(get, path = "/analytics/overview", tag = "analytics", operation_id = "get_analytics_overview", params(ReportQuery),
    responses((status = 200, content((AnalyticsOverview = "application/json"), (String = "text/csv"))), Problems))]
async fn overview(State(web): State<Web>, scope: Scope, Query(params): Query<ReportQuery>) -> ApiResult<Response> {
    let parts = ReportParts { before: true, ..EVENTS };
    ReportRequest { web, scope, params }.answer(parts, AnalyticsOverview::of).await
}

/// Started, completed and active on each day of the range.
#[utoipa::path(get, path = "/analytics/timeline", tag = "analytics", operation_id = "get_analytics_timeline", params(ReportQuery),
    responses((status = 200, content((AnalyticsTimeline = "application/json"), (String = "text/csv"))), Problems))]
async fn timeline(State(web): State<Web>, scope: Scope, Query(params): Query<ReportQuery>) -> ApiResult<Response> {
    let offset = params.offset_ms()?;
    ReportRequest { web, scope, params }.answer(EVENTS, move |report| AnalyticsTimeline::of(report, offset)).await
}

/// How far the attempts came that began in the range at one version of a walkthrough: `version`, or else the newest at
/// which any began. Needs `walkthrough_id`.
#[utoipa::path(get, path = "/analytics/funnel", tag = "analytics", operation_id = "get_analytics_funnel", params(ReportQuery),
    responses((status = 200, content((AnalyticsFunnel = "application/json"), (String = "text/csv"))), Problems))]
async fn funnel(State(web): State<Web>, scope: Scope, Query(params): Query<ReportQuery>) -> ApiResult<Response> {
    require_walkthrough(&params)?;
    ReportRequest { web, scope, params }.answer(EVENTS, AnalyticsFunnel::of).await
}

/// How long each step took those of the funnel who completed it. Needs `walkthrough_id`.
#[utoipa::path(get, path = "/analytics/steps", tag = "analytics", operation_id = "get_analytics_steps", params(ReportQuery),
    responses((status = 200, content((StepDurationList = "application/json"), (String = "text/csv"))), Problems))]
async fn steps(State(web): State<Web>, scope: Scope, Query(params): Query<ReportQuery>) -> ApiResult<Response> {
    require_walkthrough(&params)?;
    ReportRequest { web, scope, params }.answer(EVENTS, StepDurationList::of).await
}

/// The tools, the most used first, with errors and durations.
#[utoipa::path(get, path = "/analytics/tools", tag = "analytics", operation_id = "get_analytics_tools", params(ReportQuery),
    responses((status = 200, content((ToolUsageList = "application/json"), (String = "text/csv"))), Problems))]
async fn tools(State(web): State<Web>, scope: Scope, Query(params): Query<ReportQuery>) -> ApiResult<Response> {
    ReportRequest { web, scope, params }.answer(CALLS, ToolUsageList::of).await
}

/// The errors of tool calls, the most frequent first.
#[utoipa::path(get, path = "/analytics/errors", tag = "analytics", operation_id = "get_analytics_errors", params(ReportQuery),
    responses((status = 200, content((ErrorCountList = "application/json"), (String = "text/csv"))), Problems))]
async fn errors(State(web): State<Web>, scope: Scope, Query(params): Query<ReportQuery>) -> ApiResult<Response> {
    ReportRequest { web, scope, params }.answer(CALLS, ErrorCountList::of).await
}

/// Calls that were rejected before they reached a tool (401, 403, 413, 429), by server and reason, the most frequent first.
/// They are counted by the minute. Only the range and `server_id` narrow them.
#[utoipa::path(get, path = "/analytics/rejected-calls", tag = "analytics", operation_id = "get_analytics_rejected_calls",
    params(ReportQuery),
    responses((status = 200, content((RejectedCallList = "application/json"), (String = "text/csv"))), Problems))]
async fn rejected_calls(
    State(web): State<Web>,
    scope: Scope,
    Query(params): Query<ReportQuery>,
) -> ApiResult<Response> {
    ReportRequest { web, scope, params }.answer(CALLS, RejectedCallList::of).await
}

/// Where the attempts of the funnel went: from which step to which. Needs `walkthrough_id`.
#[utoipa::path(get, path = "/analytics/flows", tag = "analytics", operation_id = "get_analytics_flows", params(ReportQuery),
    responses((status = 200, content((FlowList = "application/json"), (String = "text/csv"))), Problems))]
async fn flows(State(web): State<Web>, scope: Scope, Query(params): Query<ReportQuery>) -> ApiResult<Response> {
    require_walkthrough(&params)?;
    ReportRequest { web, scope, params }.answer(EVENTS, FlowList::of).await
}

/// The clients that people used.
#[utoipa::path(get, path = "/analytics/clients", tag = "analytics", operation_id = "get_analytics_clients", params(ReportQuery),
    responses((status = 200, content((ClientUsageList = "application/json"), (String = "text/csv"))), Problems))]
async fn clients(State(web): State<Web>, scope: Scope, Query(params): Query<ReportQuery>) -> ApiResult<Response> {
    let parts = ReportParts { calls: true, ..EVENTS };
    ReportRequest { web, scope, params }.answer(parts, ClientUsageList::of).await
}

fn require_walkthrough(params: &ReportQuery) -> Result<()> {
    if params.walkthrough_id.is_some() {
        return Ok(());
    }
    Err(Error::invalid("walkthrough_id", "Name a walkthrough (`walkthrough_id`): its steps are what is counted."))
}
