//! The list of instances.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Query, State};
use http::HeaderMap;
use serde::Deserialize;
use waypost_core::instance::Backend;
use waypost_core::{Error, Timestamp};
use waypost_ops::instances::{self, InstanceView};
use waypost_toolbox_proto::instance::Health;

use super::Badge;
use crate::Console;
use crate::layout::{CurrentOrganization, Layout};
use crate::live;
use crate::session::Member;
use crate::toolboxes::list_all;
use crate::view::{self, PageError, PageResult};

/// The number of instances per page.
const LIMIT: u32 = 50;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ListQuery {
    after: String,
}

impl ListQuery {
    fn after(&self) -> Option<&str> {
        Some(self.after.as_str()).filter(|slug| !slug.is_empty())
    }
}

/// The location of the server of an instance.
enum Place {
    Toolbox { path: String, name: String },
    Remote(String),
}

struct InstanceRow {
    view: InstanceView,
    badge: Badge,
    place: Place,
    /// The step of the deployment that is running.
    step: Option<&'static str>,
    /// The reason why the deployment of the current generation failed, if it did.
    cause: Option<String>,
}

impl InstanceRow {
    fn checked_at(&self, health: &Health) -> String {
        Timestamp(health.checked_at).rfc3339()
    }
}

/// The rows of the list, which are polled.
#[derive(Template)]
#[template(path = "instances/rows.html")]
struct Rows {
    org: CurrentOrganization,
    rows: Vec<InstanceRow>,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "instances/list.html")]
struct InstancesPage {
    layout: Layout,
    org: CurrentOrganization,
    rows: Rows,
    after: String,
    has_toolbox: bool,
}

impl InstancesPage {
    fn new_path(&self) -> String {
        self.org.path("instances/new")
    }

    fn toolboxes_path(&self) -> String {
        self.org.path("toolboxes")
    }

    /// Returns the path of the rows. A slug needs no encoding.
    fn rows_path(&self) -> String {
        self.org.path(&format!("instances/rows?after={}", self.after))
    }
}

async fn load(console: &Console, member: &Member, query: &ListQuery) -> Result<(Rows, bool), PageError> {
    let Member { cx, organization_id, org, layout } = member;
    let page_error = |error: Error| PageError::from(error).with_layout(layout.clone().with_section("instances"));
    let found = instances::list(cx, console.ops(), organization_id, query.after(), LIMIT + 1).await;
    let mut found = found.map_err(page_error)?;
    let toolboxes = list_all(cx, console, organization_id).await.map_err(page_error)?;
    let has_toolbox = !toolboxes.is_empty();
    let names: BTreeMap<_, _> = toolboxes.into_iter().map(|view| (view.toolbox.id, view.toolbox.name)).collect();
    let has_more = found.len() > LIMIT as usize;
    found.truncate(LIMIT as usize);
    let next = found.last().filter(|_| has_more);
    let next = next.map(|last| org.path(&format!("instances?after={}", last.instance.slug)));
    let row = |view: InstanceView| {
        let deployment = view.deployment.as_ref();
        InstanceRow {
            badge: Badge::new(view.instance.state),
            place: match &view.instance.backend {
                Backend::Container(container) => Place::Toolbox {
                    path: org.path(&format!("toolboxes/{}", container.toolbox_id)),
                    name: names.get(&container.toolbox_id).cloned().unwrap_or_default(),
                },
                Backend::Remote(remote) => Place::Remote(remote.origin.clone()),
            },
            step: deployment.filter(|deployment| deployment.ended_at.is_none()).map(|running| running.step.as_str()),
            cause: deployment.and_then(|deployment| deployment.error.as_ref()).map(|error| error.cause.clone()),
            view,
        }
    };
    Ok((Rows { org: org.clone(), rows: found.into_iter().map(row).collect(), next }, has_toolbox))
}

pub(super) async fn show(State(console): State<Console>, member: Member, Query(query): Query<ListQuery>) -> PageResult {
    let (rows, has_toolbox) = load(&console, &member, &query).await?;
    let after =
        if query.after.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') { query.after } else { String::new() };
    let Member { org, layout, .. } = member;
    Ok(view::page(&InstancesPage { layout: layout.with_section("instances"), org, rows, after, has_toolbox }))
}

pub(super) async fn rows(
    State(console): State<Console>,
    member: Member,
    Query(query): Query<ListQuery>,
    headers: HeaderMap,
) -> PageResult {
    Ok(live::fragment(&headers, &load(&console, &member, &query).await?.0))
}
