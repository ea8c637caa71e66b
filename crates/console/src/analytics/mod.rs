//! Analytics of an organisation's servers. The metrics are defined in docs/analytics.md.

mod chart;
mod fields;
mod stopped;

use askama::Template;
use axum::extract::{Path, Query, State};
use waypost_core::Timestamp;
use waypost_core::access::Operation;
use waypost_core::analytics::{ClientRow, ErrorRow, HOUR_MS, Overview, ToolRow, share};
use waypost_http_kit::download;
use waypost_ops::analytics::export::export as export_report;
use waypost_ops::analytics::{self, FlowEdge, FlowNode, RejectedCalls, Report, ReportParts, VersionFunnel};
use waypost_ops::servers;
use waypost_ops::walkthroughs::{self, WalkthroughListQuery};

use self::chart::{HEIGHT, LineChart, Sankey, WIDTH};
use self::fields::AnalyticsFilter;
use super::layout::{CurrentOrganization, Layout};
use super::routes::{Access, Routes};
use super::session::Member;
use super::view::{self, FormError, PageError, PageResult};
use super::walkthroughs::{DraftContext, WalkthroughHeader};
use crate::Console;

const PARTS: ReportParts = ReportParts { events: true, calls: true, previous: true };

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Operation::AnalyticsRead);
    Routes::new()
        .get("/o/{org}/analytics", READ, show)
        .get("/o/{org}/walkthroughs/{id}/analytics", READ, show_walkthrough)
        .get("/o/{org}/walkthroughs/{id}/analytics/stopped/{step}", READ, stopped::show)
        .get("/o/{org}/analytics/export/{part}", READ, export)
}

/// A metric with its values in this period and the previous one.
struct AnalyticsTile {
    label: &'static str,
    value: String,
    before: String,
    /// The change, such as `+12%`. `None` if there is no previous value to compare with.
    change: Option<String>,
}

/// A row of the funnel table.
struct FunnelRow {
    position: usize,
    title: String,
    reached: u64,
    reached_share: String,
    completed: u64,
    completed_share: String,
    dropped: u64,
    active: u64,
    median: String,
    /// The path of the step in the editor.
    href: String,
    /// The path of the page with the users who stopped at the step.
    stopped_href: String,
    /// The share of started attempts that completed the step, from 0 to 100.
    width: f64,
}

/// A row of the paths table.
struct FlowRow {
    from: String,
    to: String,
    count: u64,
}

/// The data of the page.
struct AnalyticsData {
    now: Overview,
    before: Overview,
    lines: LineChart,
    /// The start of each period, with the numbers of started and completed attempts and of active end users.
    periods: Vec<(String, u64, u64, u64)>,
    is_hourly: bool,
    funnel: Option<VersionFunnel>,
    sankey: Option<Sankey>,
    flows: Vec<FlowEdge>,
    tools: Vec<ToolRow>,
    errors: Vec<ErrorRow>,
    rejected: Vec<RejectedCalls>,
    clients: Vec<ClientRow>,
    versions: Vec<u32>,
}

/// The maximum length of a range that is shown by hour.
const MAX_HOURLY_MS: i64 = 48 * HOUR_MS;

fn compute(report: &Report) -> AnalyticsData {
    let range = report.range();
    let is_hourly = range.to.since(range.from) <= MAX_HOURLY_MS;
    let periods = if is_hourly { report.hourly_timeline() } else { report.timeline(0) };
    let name = |at: Timestamp| {
        let text = at.rfc3339();
        if is_hourly { text[..16].replace('T', " ") } else { text[..10].to_owned() }
    };
    let funnel = report.funnel();
    let flows = report.flows();
    let steps = funnel.iter().flat_map(|funnel| &funnel.stages).map(|stage| stage.step_id.to_string());
    let order: Vec<String> = steps.collect();
    AnalyticsData {
        now: report.overview(),
        before: report.previous_overview(),
        lines: chart::lines(&periods),
        sankey: chart::sankey(&flows, &order),
        periods: periods
            .iter()
            .map(|period| (name(period.at), period.started, period.completed, period.active))
            .collect(),
        is_hourly,
        funnel,
        flows,
        tools: report.tools(),
        errors: report.errors(),
        rejected: report.rejected().to_vec(),
        clients: report.clients(),
        versions: report.versions().iter().map(|version| version.number).collect(),
    }
}

#[derive(Template)]
#[template(path = "analytics/page.html")]
struct AnalyticsPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    fields: AnalyticsFilter,
    /// The value and label of each option.
    ranges: Vec<(String, String)>,
    servers: Vec<(String, String)>,
    walkthroughs: Vec<(String, String)>,
    /// The header of the walkthrough. `None` on the page of the organisation.
    header: Option<WalkthroughHeader>,
    /// The path of this page.
    path: String,
    versions: Vec<(String, String)>,
    clients: Vec<(String, String)>,
    tiles: Vec<AnalyticsTile>,
    charts: Option<AnalyticsCharts>,
}

/// The charts and tables below the tiles.
struct AnalyticsCharts {
    lines: LineChart,
    periods: Vec<(String, u64, u64, u64)>,
    is_hourly: bool,
    version: Option<u32>,
    started: u64,
    completed: u64,
    rows: Vec<FunnelRow>,
    sankey: Option<Sankey>,
    flows: Vec<FlowRow>,
    tools: Vec<(ToolRow, String, String)>,
    errors: Vec<ErrorRow>,
    rejected: Vec<RejectedCalls>,
    clients: Vec<ClientRow>,
    is_empty: bool,
}

fn micros(microseconds: Option<i64>) -> String {
    match microseconds {
        Some(us) if us < 1_000 => format!("{us} µs"),
        us => view::duration(us.map(|us| us / 1_000)),
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.1}%", share * 100.0))
}

fn change(now: f64, before: f64) -> Option<String> {
    (before > 0.0).then(|| {
        let change = ((now - before) / before * 100.0).round() as i64;
        let sign = if change > 0 { "+" } else { "" };
        format!("{sign}{change}%").replace('-', "−")
    })
}

fn tiles(now: &Overview, before: &Overview) -> Vec<AnalyticsTile> {
    let number = |label, now: u64, before: u64| AnalyticsTile {
        label,
        value: now.to_string(),
        before: before.to_string(),
        change: change(now as f64, before as f64),
    };
    let rate = |label, now: Option<f64>, before: Option<f64>| AnalyticsTile {
        label,
        value: percent(now),
        before: percent(before),
        change: now.zip(before).map(|(now, before)| format!("{:+.1} points", (now - before) * 100.0).replace('-', "−")),
    };
    let time = |label, now: Option<i64>, before: Option<i64>| AnalyticsTile {
        label,
        value: view::duration(now),
        before: view::duration(before),
        change: now.zip(before).and_then(|(now, before)| change(now as f64, before as f64)),
    };
    vec![
        number("Started", now.started, before.started),
        number("Active end users", now.active, before.active),
        number("Completed", now.completed, before.completed),
        rate("Completion rate", now.completion_rate(), before.completion_rate()),
        time("Median time to complete", now.median_ms, before.median_ms),
        time("90th percentile time to complete", now.p90_ms, before.p90_ms),
        rate("Resume rate", now.resume_rate(), before.resume_rate()),
    ]
}

fn charts(data: AnalyticsData, walkthrough: &str, query: &str) -> AnalyticsCharts {
    let AnalyticsData {
        now, lines, periods, is_hourly, funnel, sankey, flows, tools, errors, rejected, clients, ..
    } = data;
    let is_empty = now == Overview::default() && tools.is_empty() && rejected.is_empty();
    let started = funnel.as_ref().map_or(0, |funnel| funnel.started);
    let row = |(index, stage): (usize, waypost_ops::analytics::FunnelStage)| FunnelRow {
        position: index + 1,
        title: stage.title,
        reached: stage.counts.reached,
        reached_share: percent(share(stage.counts.reached, started)),
        completed: stage.counts.completed,
        completed_share: percent(share(stage.counts.completed, started)),
        dropped: stage.counts.dropped,
        active: stage.counts.active,
        href: format!("{walkthrough}?step={}", stage.step_id),
        stopped_href: format!("{walkthrough}/analytics/stopped/{}?{query}", stage.step_id),
        median: view::duration(stage.counts.median_ms),
        width: if started > 0 { stage.counts.completed as f64 / started as f64 * 100.0 } else { 0.0 },
    };
    let flow = |flow: &FlowEdge| FlowRow {
        from: chart::name(&flow.from).to_owned(),
        to: chart::name(&flow.to).to_owned(),
        count: flow.count,
    };
    let mut sorted: Vec<&FlowEdge> = flows.iter().filter(|flow| flow.from != FlowNode::DropOff).collect();
    sorted.sort_by_key(|flow| std::cmp::Reverse(flow.count));
    AnalyticsCharts {
        lines,
        periods,
        is_hourly,
        version: funnel.as_ref().map(|funnel| funnel.version),
        started,
        completed: funnel.as_ref().map_or(0, |funnel| funnel.completed),
        sankey,
        flows: sorted.into_iter().take(200).map(flow).collect(),
        rows: funnel.into_iter().flat_map(|funnel| funnel.stages).enumerate().map(row).collect(),
        tools: tools.into_iter().map(|tool| (tool.clone(), micros(tool.median_us), micros(tool.p90_us))).collect(),
        errors,
        rejected,
        clients,
        is_empty,
    }
}

async fn show(State(console): State<Console>, member: Member, Query(fields): Query<AnalyticsFilter>) -> PageResult {
    render(&console, &member, fields, None).await
}

/// Renders the analytics tab of a walkthrough.
async fn show_walkthrough(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Query(fields): Query<AnalyticsFilter>,
) -> PageResult {
    let context = DraftContext::new(&console, member, &id).await?;
    let fields = AnalyticsFilter { walkthrough: context.id.to_string(), ..fields };
    render(&console, &context.member, fields, Some(context.header("analytics"))).await
}

async fn render(
    console: &Console,
    member: &Member,
    fields: AnalyticsFilter,
    header: Option<WalkthroughHeader>,
) -> PageResult {
    let Member { cx, organization_id, org, layout } = member;
    let layout = layout.clone().with_section(if header.is_some() { "walkthroughs" } else { "analytics" });
    let page_error = |error| PageError::from(error).with_layout(layout.clone());
    let result = match fields.to_query(cx.now()) {
        Ok(query) => analytics::run(cx, console.ops(), organization_id, &query, PARTS, compute).await,
        Err(error) => Err(error),
    };
    let (status, form_error, data) = match result {
        Ok(data) => (http::StatusCode::OK, FormError::default(), Some(data)),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error).map_err(page_error)?;
            (status, form_error, None)
        }
    };
    let servers = servers::list(cx, console.ops(), organization_id).await.map_err(page_error)?;
    let listed = WalkthroughListQuery { limit: Some(200), ..WalkthroughListQuery::default() };
    let walkthroughs = walkthroughs::list(cx, console.ops(), organization_id, listed).await.map_err(page_error)?.items;
    let choice = |text: &str, rest: Vec<(String, String)>| {
        std::iter::once((String::new(), text.to_owned())).chain(rest).collect::<Vec<_>>()
    };
    let versions = data.iter().flat_map(|data| &data.versions);
    let versions = versions.map(|number| (number.to_string(), format!("Version {number}"))).collect();
    let mut clients: Vec<String> =
        data.iter().flat_map(|data| &data.clients).filter_map(|client| client.name.clone()).collect();
    if !fields.client.is_empty() && !clients.contains(&fields.client) {
        clients.push(fields.client.clone());
    }
    let walkthrough_path = org.path(&format!("walkthroughs/{}", fields.walkthrough));
    let page = AnalyticsPage {
        path: if header.is_some() { format!("{walkthrough_path}/analytics") } else { org.path("analytics") },
        header,
        layout: layout.clone(),
        org: org.clone(),
        form_error,
        ranges: fields::RANGES.iter().map(|(value, text)| ((*value).to_owned(), (*text).to_owned())).collect(),
        servers: choice(
            "All servers",
            servers.into_iter().map(|server| (server.id.to_string(), server.name)).collect(),
        ),
        walkthroughs: choice(
            "All walkthroughs",
            walkthroughs
                .into_iter()
                .map(|walkthrough| (walkthrough.walkthrough.id.to_string(), walkthrough.walkthrough.title))
                .collect(),
        ),
        versions: choice("All versions", versions),
        clients: choice("All clients", clients.into_iter().map(|name| (name.clone(), name)).collect()),
        tiles: data.as_ref().map(|data| tiles(&data.now, &data.before)).unwrap_or_default(),
        charts: data.map(|data| charts(data, &walkthrough_path, &fields.query(""))),
        fields,
    };
    Ok(view::html(status, &page))
}

/// Downloads the data of one section, in the same format as the REST API.
async fn export(
    State(console): State<Console>,
    member: Member,
    Path((_, part)): Path<(String, String)>,
    Query(fields): Query<AnalyticsFilter>,
) -> PageResult {
    let Member { cx, organization_id, layout, .. } = &member;
    let page_error = |error| PageError::from(error).with_layout(layout.clone().with_section("analytics"));
    let query = fields.to_query(cx.now()).map_err(page_error)?;
    let file = export_report(cx, console.ops(), organization_id, &query, &part, fields.format == "json").await;
    let file = file.map_err(page_error)?;
    Ok(download::file(&file.name, file.media_type, file.content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_formatted_with_units() {
        let formatted =
            [None, Some(0), Some(999), Some(1_000), Some(180_000), Some(200_000), Some(7_260_000), Some(90_000_000)]
                .map(view::duration);
        assert_eq!(formatted, ["–", "0 ms", "999 ms", "1 s", "3 min", "3 min 20 s", "2 h 1 min", "1 d 1 h"]);
        assert_eq!(micros(Some(250)), "250 µs");
    }

    #[test]
    fn changes_have_a_sign() {
        assert_eq!(change(3.0, 2.0).as_deref(), Some("+50%"));
        assert_eq!(change(1.0, 2.0).as_deref(), Some("−50%"));
        assert_eq!(change(1.0, 0.0), None);
    }
}
