//! `/analytics`: the metrics of the analytics page, as JSON and CSV. They are defined in docs/analytics.md.

mod xapi;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use waypost_core::analytics::TimeRange;
use waypost_core::{Error, Result, Timestamp};
use waypost_ops::analytics::rejected::RejectedCallList;
use waypost_ops::analytics::report::{
    AnalyticsFunnel, AnalyticsOverview, AnalyticsTimeline, FlowList, ReportTable, StepDurationList,
};
use waypost_ops::analytics::usage::{ClientUsageList, ErrorCountList, ToolUsageList};
use waypost_ops::analytics::{self, AnalyticsQuery, MAX_OFFSET_MS, Report, ReportParts};

use super::extract::{Query, Scope, parse_id};
use crate::extract::parse_time;
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};
use waypost_http_kit::download;
use waypost_http_kit::web::Web;

/// The operations on analytics.
pub(super) fn routes() -> Routes {
    Routes::new()
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
    /// The start of the range, inclusive. Defaults to 30 days before `to`, and can be at most 3,660 days before it.
    #[param(format = DateTime)]
    from: Option<String>,
    /// The end of the range, exclusive. Defaults to now.
    #[param(format = DateTime)]
    to: Option<String>,
    /// Only this server (`srv_…`).
    server_id: Option<String>,
    /// Only this walkthrough (`wt_…`). Tool calls are not linked to a walkthrough and are always counted.
    walkthrough_id: Option<String>,
    /// Only the version of the walkthrough with this number.
    #[param(minimum = 1, maximum = 4294967295_i64)]
    version: Option<u32>,
    /// Only the client that reports this name.
    #[param(max_length = 1000)]
    client: Option<String>,
    /// The UTC offset in minutes that determines when a day starts, such as 120 for central European summer time.
    #[param(minimum = -840, maximum = 840)]
    tz_offset_minutes: Option<i64>,
    /// The response format. Defaults to `json`.
    #[param(inline)]
    format: Option<AnalyticsFormat>,
}

impl ReportQuery {
    fn to_query(&self, now: Timestamp) -> Result<AnalyticsQuery> {
        let to = self.to.as_deref().map_or(Ok(now), |text| parse_time("to", text))?;
        let from = match &self.from {
            Some(text) => parse_time("from", text)?,
            None => analytics::last_days(to, 30).from,
        };
        if self.version == Some(0) {
            return Err(Error::invalid("version", "`version` must be at least 1."));
        }
        Ok(AnalyticsQuery {
            range: TimeRange { from, to },
            server_id: self.server_id.as_deref().map(|text| parse_id(text, "server")).transpose()?,
            walkthrough_id: self.walkthrough_id.as_deref().map(|text| parse_id(text, "walkthrough")).transpose()?,
            version: self.version,
            client: self.client.clone().filter(|client| !client.is_empty()),
        })
    }

    fn offset_ms(&self) -> Result<i64> {
        match self.tz_offset_minutes.unwrap_or(0) {
            minutes if (-MAX_OFFSET_MS / 60_000..=MAX_OFFSET_MS / 60_000).contains(&minutes) => Ok(minutes * 60_000),
            _ => {
                let message = "`tz_offset_minutes` must be from -840 to 840.";
                Err(Error::invalid("tz_offset_minutes", message))
            }
        }
    }
}

struct ReportRequest {
    web: Web,
    scope: Scope,
    params: ReportQuery,
}

impl ReportRequest {
    async fn respond<T: ReportTable + Send + 'static>(
        self,
        parts: ReportParts,
        body: impl FnOnce(&Report) -> T + Send + 'static,
    ) -> ApiResult<Response> {
        let Scope { cx, organization_id } = &self.scope;
        let query = self.params.to_query(cx.now())?;
        let body = analytics::run(cx, self.web.ops(), organization_id, &query, parts, body).await?;
        Ok(match self.params.format.unwrap_or_default() {
            AnalyticsFormat::Json => axum::Json(body).into_response(),
            AnalyticsFormat::Csv => {
                download::file(&format!("{}.csv", T::NAME), "text/csv; charset=utf-8", body.to_csv())
            }
        })
    }
}

/// Returns the totals of the range and of the previous range of the same length.
#[utoipa::path(get, path = "/analytics/overview", tag = "analytics", operation_id = "get_analytics_overview",
    params(ReportQuery),
    responses((status = 200, content((AnalyticsOverview = "application/json"), (String = "text/csv"))), Problems))]
async fn overview(State(web): State<Web>, scope: Scope, Query(params): Query<ReportQuery>) -> ApiResult<Response> {
    let parts = ReportParts { previous: true, ..ReportParts::EVENTS };
    ReportRequest { web, scope, params }.respond(parts, AnalyticsOverview::new).await
}

/// Returns the number of attempts started, attempts completed and active end users for each day of the range.
#[utoipa::path(get, path = "/analytics/timeline", tag = "analytics", operation_id = "get_analytics_timeline",
    params(ReportQuery),
    responses((status = 200, content((AnalyticsTimeline = "application/json"), (String = "text/csv"))), Problems))]
async fn timeline(State(web): State<Web>, scope: Scope, Query(params): Query<ReportQuery>) -> ApiResult<Response> {
    let offset = params.offset_ms()?;
    ReportRequest { web, scope, params }
        .respond(ReportParts::EVENTS, move |report| AnalyticsTimeline::new(report, offset))
        .await
}

/// Returns the funnel of a walkthrough: how far the attempts that started in the range got.
///
/// The funnel is that of `version`, by default the newest version with attempts in the range. Requires
/// `walkthrough_id`.
#[utoipa::path(get, path = "/analytics/funnel", tag = "analytics", operation_id = "get_analytics_funnel",
    params(ReportQuery),
    responses((status = 200, content((AnalyticsFunnel = "application/json"), (String = "text/csv"))), Problems))]
async fn funnel(State(web): State<Web>, scope: Scope, Query(params): Query<ReportQuery>) -> ApiResult<Response> {
    require_walkthrough(&params)?;
    ReportRequest { web, scope, params }.respond(ReportParts::EVENTS, AnalyticsFunnel::new).await
}

/// Returns how long each step took in the attempts of the funnel that completed it.
///
/// Requires `walkthrough_id`.
#[utoipa::path(get, path = "/analytics/steps", tag = "analytics", operation_id = "get_analytics_steps",
    params(ReportQuery),
    responses((status = 200, content((StepDurationList = "application/json"), (String = "text/csv"))), Problems))]
async fn steps(State(web): State<Web>, scope: Scope, Query(params): Query<ReportQuery>) -> ApiResult<Response> {
    require_walkthrough(&params)?;
    ReportRequest { web, scope, params }.respond(ReportParts::EVENTS, StepDurationList::new).await
}

/// Returns calls, errors and durations for each tool, most used first.
#[utoipa::path(get, path = "/analytics/tools", tag = "analytics", operation_id = "get_analytics_tools",
    params(ReportQuery),
    responses((status = 200, content((ToolUsageList = "application/json"), (String = "text/csv"))), Problems))]
async fn tools(State(web): State<Web>, scope: Scope, Query(params): Query<ReportQuery>) -> ApiResult<Response> {
    ReportRequest { web, scope, params }.respond(ReportParts::CALLS, ToolUsageList::new).await
}

/// Returns the errors of tool calls, most frequent first.
#[utoipa::path(get, path = "/analytics/errors", tag = "analytics", operation_id = "get_analytics_errors",
    params(ReportQuery),
    responses((status = 200, content((ErrorCountList = "application/json"), (String = "text/csv"))), Problems))]
async fn errors(State(web): State<Web>, scope: Scope, Query(params): Query<ReportQuery>) -> ApiResult<Response> {
    ReportRequest { web, scope, params }.respond(ReportParts::CALLS, ErrorCountList::new).await
}

/// Returns the calls that were rejected before they reached a tool, by server and reason, most frequent first.
///
/// These are responses with status 401, 403, 413 or 429, counted per minute. Only the range and `server_id` apply;
/// other filters are ignored.
#[utoipa::path(get, path = "/analytics/rejected-calls", tag = "analytics",
    operation_id = "get_analytics_rejected_calls",
    params(ReportQuery),
    responses((status = 200, content((RejectedCallList = "application/json"), (String = "text/csv"))), Problems))]
async fn rejected_calls(
    State(web): State<Web>,
    scope: Scope,
    Query(params): Query<ReportQuery>,
) -> ApiResult<Response> {
    ReportRequest { web, scope, params }.respond(ReportParts::CALLS, RejectedCallList::new).await
}

/// Returns the transitions between steps in the attempts of the funnel.
///
/// Requires `walkthrough_id`.
#[utoipa::path(get, path = "/analytics/flows", tag = "analytics", operation_id = "get_analytics_flows",
    params(ReportQuery),
    responses((status = 200, content((FlowList = "application/json"), (String = "text/csv"))), Problems))]
async fn flows(State(web): State<Web>, scope: Scope, Query(params): Query<ReportQuery>) -> ApiResult<Response> {
    require_walkthrough(&params)?;
    ReportRequest { web, scope, params }.respond(ReportParts::EVENTS, FlowList::new).await
}

/// Returns the number of attempts, active end users and tool calls for each client.
#[utoipa::path(get, path = "/analytics/clients", tag = "analytics", operation_id = "get_analytics_clients",
    params(ReportQuery),
    responses((status = 200, content((ClientUsageList = "application/json"), (String = "text/csv"))), Problems))]
async fn clients(State(web): State<Web>, scope: Scope, Query(params): Query<ReportQuery>) -> ApiResult<Response> {
    let parts = ReportParts { calls: true, ..ReportParts::EVENTS };
    ReportRequest { web, scope, params }.respond(parts, ClientUsageList::new).await
}

fn require_walkthrough(params: &ReportQuery) -> Result<()> {
    if params.walkthrough_id.is_some() {
        return Ok(());
    }
    Err(Error::invalid("walkthrough_id", "`walkthrough_id` is required. Specify a walkthrough."))
}
