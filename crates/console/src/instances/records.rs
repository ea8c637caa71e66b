//! The events and the deployments of an instance.

use askama::Template;
use axum::extract::{Query, State};
use serde::Deserialize;
use waypost_core::deployment::{Deployment, DeploymentState};
use waypost_core::instance::{InstanceEvent, InstanceEventKind};
use waypost_ops::{deployments as ops, instances};

use super::{InstanceContext, InstanceHeader, VersionSource};
use crate::Console;
use crate::layout::Layout;
use crate::view::{self, PageResult};

/// The number of events and deployments per page.
const LIMIT: u32 = 50;

/// Returns the badge class of the state of a deployment.
pub(super) fn deployment_badge(state: DeploymentState) -> &'static str {
    match state {
        DeploymentState::Running => "info",
        DeploymentState::Complete => "good",
        DeploymentState::Failed => "bad",
        DeploymentState::RolledBack => "warn",
    }
}

/// Returns the label of the state of a deployment.
fn deployment_label(state: DeploymentState) -> &'static str {
    match state {
        DeploymentState::RolledBack => "rolled back",
        other => other.as_str(),
    }
}

/// The cursor of a list.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct BeforeQuery {
    before: String,
}

#[derive(Template)]
#[template(path = "instances/events.html")]
struct EventsPage {
    layout: Layout,
    header: InstanceHeader,
    events: Vec<InstanceEvent>,
    older: Option<String>,
    is_first_page: bool,
}

impl EventsPage {
    fn is_crash(&self, event: &InstanceEvent) -> bool {
        event.kind == InstanceEventKind::Crashed
    }
}

pub(super) async fn events(
    State(console): State<Console>,
    at: InstanceContext,
    Query(query): Query<BeforeQuery>,
) -> PageResult {
    // With a malformed cursor, the page starts at the newest event.
    let before = query.before.parse().ok();
    let found =
        instances::list_events(&at.cx, console.ops(), &at.organization_id, at.id(), before.as_ref(), LIMIT + 1).await;
    let mut events = found.map_err(|error| at.page_error(error))?;
    let has_more = events.len() > LIMIT as usize;
    events.truncate(LIMIT as usize);
    let older = events.last().filter(|_| has_more).map(|last| at.path(&format!("events?before={}", last.id)));
    let header = at.header("events");
    Ok(view::page(&EventsPage { layout: at.layout, header, events, older, is_first_page: before.is_none() }))
}

struct DeploymentRow {
    deployment: Deployment,
    badge: &'static str,
    label: &'static str,
    version: String,
    duration: String,
}

#[derive(Template)]
#[template(path = "instances/deployments.html")]
struct DeploymentsPage {
    layout: Layout,
    header: InstanceHeader,
    rows: Vec<DeploymentRow>,
    older: Option<String>,
    is_first_page: bool,
}

pub(super) async fn deployments(
    State(console): State<Console>,
    at: InstanceContext,
    Query(query): Query<BeforeQuery>,
) -> PageResult {
    let before: Option<u64> = query.before.parse().ok();
    let found = async {
        let found = ops::list(&at.cx, console.ops(), &at.organization_id, at.id(), before, LIMIT + 1).await?;
        let version = &at.instance().container()?.catalog_version_id;
        Ok((found, VersionSource::find(&at.cx, &console, &at.organization_id, version).await?))
    };
    let (mut found, source) = found.await.map_err(|error| at.page_error(error))?;
    let has_more = found.len() > LIMIT as usize;
    found.truncate(LIMIT as usize);
    let older = found.last().filter(|_| has_more);
    let older = older.map(|last| at.path(&format!("deployments?before={}", last.generation)));
    let row = |deployment: Deployment| {
        // All deployments of an instance are of versions of one entry.
        let version = source.entry.versions.iter().find(|version| version.id == deployment.catalog_version_id);
        DeploymentRow {
            badge: deployment_badge(deployment.state),
            label: deployment_label(deployment.state),
            version: version.map_or_else(|| "deleted version".to_owned(), |version| version.version.clone()),
            duration: view::duration(deployment.ended_at.map(|end| (end.0 - deployment.started_at.0).max(0))),
            deployment,
        }
    };
    let rows = found.into_iter().map(row).collect();
    let header = at.header("deployments");
    Ok(view::page(&DeploymentsPage { layout: at.layout, header, rows, older, is_first_page: before.is_none() }))
}
