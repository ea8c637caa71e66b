//! The grants of an organisation as a matrix of agents and instances.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Query, State};
use serde::Deserialize;
use url::form_urlencoded;
use waypost_core::agent::AgentState;
use waypost_core::grant::{Grant, MAX_GRANTS};
use waypost_core::id::InstanceId;
use waypost_core::{Error, Result, Timestamp};
use waypost_ops::agents::{self, AgentView};
use waypost_ops::grants::{self, GrantFilter};
use waypost_ops::instances;

use super::access_label;
use crate::Console;
use crate::layout::{CurrentOrganization, Layout};
use crate::session::Member;
use crate::view::{self, PageError, PageResult};

/// The number of agents per page.
const AGENTS: u32 = 25;
/// The number of instances per page.
const INSTANCES: u32 = 12;

/// The cursors of rows and columns: the name of the last agent and the slug of the last instance on the previous page.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct MatrixQuery {
    agents_after: String,
    instances_after: String,
}

impl MatrixQuery {
    fn path(&self, org: &CurrentOrganization) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("agents_after", &self.agents_after).append_pair("instances_after", &self.instances_after);
        org.path(&format!("grants?{}", query.finish()))
    }
}

/// A grant in a cell.
struct CellGrant {
    href: String,
    label: &'static str,
    /// Whether it is restricted by rules on arguments.
    has_rules: bool,
    is_expired: bool,
}

/// The grants of an agent for an instance.
struct Cell {
    instance: String,
    /// The path of the form for a new grant.
    new: String,
    grants: Vec<CellGrant>,
}

struct AgentRow {
    href: String,
    name: String,
    is_disabled: bool,
    cells: Vec<Cell>,
}

#[derive(Template)]
#[template(path = "grants/matrix.html")]
struct MatrixPage {
    layout: Layout,
    org: CurrentOrganization,
    /// The path and the slug of the instance of each column.
    columns: Vec<(String, String)>,
    rows: Vec<AgentRow>,
    is_later_page: bool,
    more_agents: Option<String>,
    more_instances: Option<String>,
}

/// Removes the items that belong to the next page. Returns whether there is a next page.
fn truncate<T>(items: &mut Vec<T>, limit: u32) -> bool {
    let has_more = items.len() > limit as usize;
    items.truncate(limit as usize);
    has_more
}

fn cursor(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

async fn load(console: &Console, member: &Member, query: &MatrixQuery) -> Result<MatrixPage> {
    let Member { cx, organization_id, org, layout } = member;
    let ops = console.ops();
    let mut agents = agents::list(cx, ops, organization_id, cursor(&query.agents_after), AGENTS + 1).await?;
    let mut instances =
        instances::list(cx, ops, organization_id, cursor(&query.instances_after), INSTANCES + 1).await?;
    let (more_agents, more_instances) = (truncate(&mut agents, AGENTS), truncate(&mut instances, INSTANCES));
    let last_agent = agents.last().filter(|_| more_agents).map(|view| view.agent.name.clone());
    let last_instance = instances.last().filter(|_| more_instances).map(|view| view.instance.slug.clone());
    let columns: Vec<_> = instances.iter().map(|view| (&view.instance.id, view.instance.slug.as_str())).collect();
    let mut rows = Vec::with_capacity(agents.len());
    let limit = u32::try_from(MAX_GRANTS).unwrap_or(u32::MAX);
    for view in agents {
        let filter = GrantFilter { agent: Some(&view.agent.id), instance: None };
        let found = grants::list(cx, ops, organization_id, filter, (None, limit)).await?;
        rows.push(agent_row(org, &view, &columns, &found, cx.now()));
    }
    let path = |change: MatrixQuery| change.path(org);
    Ok(MatrixPage {
        layout: layout.clone().with_section("grants"),
        org: org.clone(),
        columns: columns.iter().map(|(id, slug)| (org.path(&format!("instances/{id}")), (*slug).to_owned())).collect(),
        rows,
        is_later_page: !query.agents_after.is_empty() || !query.instances_after.is_empty(),
        more_agents: last_agent.map(|name| path(MatrixQuery { agents_after: name, ..query.clone() })),
        more_instances: last_instance.map(|slug| path(MatrixQuery { instances_after: slug, ..query.clone() })),
    })
}

fn agent_row(
    org: &CurrentOrganization,
    view: &AgentView,
    columns: &[(&InstanceId, &str)],
    grants: &[Grant],
    now: Timestamp,
) -> AgentRow {
    let mut by_instance: BTreeMap<&str, Vec<CellGrant>> = BTreeMap::new();
    for grant in grants {
        by_instance.entry(grant.instance_id.as_str()).or_default().push(CellGrant {
            href: org.path(&format!("grants/{}", grant.id)),
            label: access_label(grant.access),
            has_rules: !grant.rules.is_empty(),
            is_expired: grant.is_expired(now),
        });
    }
    let cell = |(id, slug): &(&InstanceId, &str)| Cell {
        instance: (*slug).to_owned(),
        new: org.path(&format!("grants/new?agent={}&instance={id}", view.agent.id)),
        grants: by_instance.remove(id.as_str()).unwrap_or_default(),
    };
    AgentRow {
        href: org.path(&format!("agents/{}", view.agent.id)),
        name: view.agent.name.clone(),
        is_disabled: view.agent.state == AgentState::Disabled,
        cells: columns.iter().map(cell).collect(),
    }
}

pub(super) async fn show(
    State(console): State<Console>,
    member: Member,
    Query(query): Query<MatrixQuery>,
) -> PageResult {
    let page_error = |error: Error| PageError::from(error).with_layout(member.layout.clone().with_section("grants"));
    Ok(view::page(&load(&console, &member, &query).await.map_err(page_error)?))
}
