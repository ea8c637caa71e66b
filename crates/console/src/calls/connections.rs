//! `/o/{org}/connections`: which agent reaches which instance through which toolbox.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use http::HeaderMap;
use waypost_core::id::ToolboxId;
use waypost_core::instance::{Backend, Instance};
use waypost_core::{Error, Result};
use waypost_ops::calls::{self, CallSummary};
use waypost_ops::toolboxes::ToolboxView;

use super::rows::{Target, agent_names};
use crate::Console;
use crate::instance_list::list_all;
use crate::instance_state;
use crate::layout::{CurrentOrganization, Layout};
use crate::live;
use crate::session::Member;
use crate::toolboxes;
use crate::view::{self, PageError, PageResult};

/// A badge: class and label.
type Badge = (&'static str, &'static str);

struct ConnectionRow {
    agent: Target,
    instance: Target,
    instance_badge: Option<Badge>,
    /// The toolbox with its state, or the origin of a remote server. `None` if the instance was deleted.
    place: Option<(Target, Option<Badge>)>,
    /// The path of the list of these calls.
    calls_href: String,
    calls: i64,
    failures: i64,
    last_at: String,
}

/// The table, which is polled.
#[derive(Template)]
#[template(path = "calls/connection_rows.html")]
struct ConnectionRows {
    rows: Vec<ConnectionRow>,
}

#[derive(Template)]
#[template(path = "calls/connections.html")]
struct ConnectionsPage {
    layout: Layout,
    org: CurrentOrganization,
    rows: ConnectionRows,
}

fn place(
    org: &CurrentOrganization,
    toolboxes: &BTreeMap<ToolboxId, ToolboxView>,
    instance: &Instance,
) -> (Target, Option<Badge>) {
    match &instance.backend {
        Backend::Remote(remote) => (Target { href: None, text: remote.origin.clone() }, None),
        Backend::Container(container) => {
            let id = &container.toolbox_id;
            let found = toolboxes.get(id);
            let badge = found.map(|view| (toolboxes::badge(view.state), view.state.as_str()));
            let text = found.map_or_else(|| format!("deleted ({id})"), |view| view.toolbox.name.clone());
            (Target { href: found.map(|_| org.path(&format!("toolboxes/{id}"))), text }, badge)
        }
    }
}

async fn load(console: &Console, member: &Member) -> Result<ConnectionRows> {
    let Member { cx, organization_id, org, .. } = member;
    let summaries = calls::summarize(cx, console.ops(), organization_id).await?;
    let agents = agent_names(cx, console, organization_id).await?;
    let instances = list_all(cx, console, organization_id).await?;
    let instances: BTreeMap<_, _> = instances.into_iter().map(|one| (one.id.clone(), one)).collect();
    let toolboxes = toolboxes::list_all(cx, console, organization_id).await?;
    let toolboxes: BTreeMap<_, _> = toolboxes.into_iter().map(|view| (view.toolbox.id.clone(), view)).collect();
    let row = |summary: CallSummary| {
        let (agent, instance) = (&summary.agent_id, &summary.instance_id);
        let found = instances.get(instance);
        let slug = found.map(|found| &found.slug);
        ConnectionRow {
            agent: Target::new(org, agents.get(agent), &format!("agents/{agent}"), agent.as_str()),
            instance: Target::new(org, slug, &format!("instances/{instance}"), instance.as_str()),
            instance_badge: found.map(|one| (instance_state::badge(one.state), instance_state::label(one.state))),
            place: found.map(|found| place(org, &toolboxes, found)),
            calls_href: org.path(&format!("calls?agent={agent}&instance={instance}")),
            calls: summary.calls,
            failures: summary.failures,
            last_at: summary.last_at.rfc3339(),
        }
    };
    Ok(ConnectionRows { rows: summaries.into_iter().map(row).collect() })
}

fn page_error(member: &Member) -> impl Fn(Error) -> PageError + use<> {
    let layout = member.layout.clone().with_section("connections");
    move |error| PageError::from(error).with_layout(layout.clone())
}

pub(super) async fn show(State(console): State<Console>, member: Member) -> PageResult {
    let rows = load(&console, &member).await.map_err(page_error(&member))?;
    let Member { org, layout, .. } = member;
    let layout = layout.with_section("connections");
    Ok(view::page(&ConnectionsPage { layout, org, rows }))
}

pub(super) async fn rows(State(console): State<Console>, member: Member, headers: HeaderMap) -> PageResult {
    Ok(live::fragment(&headers, &load(&console, &member).await.map_err(page_error(&member))?))
}
