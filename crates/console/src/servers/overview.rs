//! The overview of a server: its URL, what agents see and recent activity.

use askama::Template;
use axum::extract::State;
use waypost_core::assignment::AssignmentView;
use waypost_core::server::{Server, Support, Toolset};
use waypost_core::walkthrough::WalkthroughState;
use waypost_ops::{assignments, servers};

use super::super::layout::Layout;
use super::super::view::{self, PageResult};
use super::{ServerContext, ServerHeader, auth_label, pluralize};
use crate::Console;
use waypost_http_kit::request_info::RequestInfo;

#[derive(Template)]
#[template(path = "servers/overview.html")]
struct ServerOverviewPage {
    layout: Layout,
    header: ServerHeader,
    mcp_url: String,
    page_url: Option<String>,
    host_url: Option<String>,
    state: AgentView,
    offered: Vec<AssignmentView>,
    walkthroughs: String,
    calls: String,
    last_call_at: Option<String>,
    auth: &'static str,
}

/// The tools and walkthroughs that agents currently see.
pub(super) struct AgentView {
    /// Whether agents see any walkthrough tools.
    is_ok: bool,
    text: String,
    /// The next action: its label, and the path below the server.
    next: Option<(&'static str, &'static str)>,
}

/// Returns what agents currently see, by the rules of `tools/list` (docs/mcp.md, "Tools").
fn agent_view(server: &Server, offered: usize, assigned: usize) -> AgentView {
    let support = match server.support {
        Support::Off => "",
        Support::Tickets => " Agents also see the support tool.",
    };
    let bad = |text: &str, next| AgentView { is_ok: false, text: format!("{text}{support}"), next: Some(next) };
    if !server.walkthrough_tools_enabled {
        return bad("The walkthrough tools are turned off, so agents do not see them.", ("Turn them on", "settings"));
    }
    if assigned == 0 {
        return bad(
            "No walkthroughs are assigned, so agents see no walkthrough tools.",
            ("Assign walkthroughs", "walkthroughs"),
        );
    }
    if offered == 0 {
        let text = "None of the assigned walkthroughs is published and enabled, so agents see no walkthrough tools.";
        return bad(text, ("View walkthroughs", "walkthroughs"));
    }
    let tools = match server.toolset {
        Toolset::Guided => "the guided tools",
        Toolset::Stepwise => "the stepwise tools",
        Toolset::All => "the guided and the stepwise tools",
    };
    let offered = pluralize(i64::try_from(offered).unwrap_or(i64::MAX), "walkthrough", "walkthroughs");
    AgentView { is_ok: true, text: format!("Agents see {tools} and {offered}.{support}"), next: None }
}

pub(super) async fn show(State(console): State<Console>, info: RequestInfo, context: ServerContext) -> PageResult {
    let ServerContext { cx, organization_id, server, .. } = &context;
    let assigned = assignments::list(cx, console.ops(), organization_id, &server.id)
        .await
        .map_err(|error| context.page_error(error))?;
    let count = assigned.len();
    let offered: Vec<_> = assigned
        .into_iter()
        .filter(|view| view.assignment.enabled && view.state == WalkthroughState::Published)
        .collect();
    let usage = servers::list_usage(cx, console.ops(), organization_id, &[&server.id]).await?.pop().unwrap_or_default();
    Ok(view::page(&ServerOverviewPage {
        layout: context.layout.clone(),
        header: context.header(""),
        mcp_url: context.mcp_url.clone(),
        page_url: context.page_url.clone(),
        host_url: console.public_url.host_urls(&info.authority, &server.slug).map(|address| address.resource(None)),
        state: agent_view(server, offered.len(), count),
        walkthroughs: format!("{} of {count}", offered.len()),
        offered,
        calls: super::list::format_calls(usage),
        last_call_at: usage.last_call_at.map(|at| at.rfc3339()),
        auth: auth_label(server.auth_type),
    }))
}
