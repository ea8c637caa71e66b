//! The walkthroughs of a server. Every change affects a single assignment or only the order, so concurrent changes by
//! different users do not overwrite each other.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use serde::Deserialize;
use waypost_core::Error;
use waypost_core::assignment::{AssignmentCandidate, AssignmentView};
use waypost_core::id::{AssignmentId, WalkthroughId};
use waypost_core::walkthrough::WalkthroughState;
use waypost_ops::assignments::{self, AssignmentPatch};

use super::super::form::Form;
use super::super::layout::Layout;
use super::super::view::{self, PageResult};
use super::{ServerContext, ServerHeader};
use crate::Console;

/// The maximum number of candidates shown. The search finds the others.
const CANDIDATES: u32 = 20;

#[derive(Template)]
#[template(path = "servers/walkthroughs.html")]
struct ServerWalkthroughsPage {
    layout: Layout,
    header: ServerHeader,
    list: AssignmentList,
    candidates: Candidates,
}

/// The list of assignments, refreshed by htmx.
#[derive(Template)]
#[template(path = "servers/assignment_list.html")]
struct AssignmentList {
    base: String,
    /// The path of the organisation's walkthroughs.
    walkthroughs: String,
    order_path: String,
    rows: Vec<AssignmentRow>,
    /// The status message of the last change.
    message: String,
    /// Whether the list is rendered without the rest of the page.
    is_fragment: bool,
}

struct AssignmentRow {
    id: String,
    walkthrough_id: String,
    title: String,
    enabled: bool,
    state: WalkthroughState,
    is_first: bool,
    is_last: bool,
}

impl AssignmentRow {
    fn badge(&self) -> (&'static str, &'static str) {
        match (self.state, self.enabled) {
            (WalkthroughState::Published, true) => ("good", "available"),
            (WalkthroughState::Published, false) => ("", "disabled"),
            (WalkthroughState::Draft, _) => ("warn", "not published"),
            (WalkthroughState::Archived, _) => ("warn", "archived"),
        }
    }
}

/// The walkthroughs that can be assigned, refreshed by htmx while the user types.
#[derive(Template)]
#[template(path = "servers/candidates.html")]
struct Candidates {
    base: String,
    walkthroughs: String,
    q: String,
    candidates: Vec<AssignmentCandidate>,
    has_more: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct CandidateQuery {
    q: String,
}

fn rows(listed: Vec<AssignmentView>) -> Vec<AssignmentRow> {
    let count = listed.len();
    let row = |(index, view): (usize, AssignmentView)| AssignmentRow {
        id: view.assignment.id.to_string(),
        walkthrough_id: view.assignment.walkthrough_id.to_string(),
        title: view.title,
        enabled: view.assignment.enabled,
        state: view.state,
        is_first: index == 0,
        is_last: index + 1 == count,
    };
    listed.into_iter().enumerate().map(row).collect()
}

fn build_list(
    context: &ServerContext,
    listed: Vec<AssignmentView>,
    message: &str,
    is_fragment: bool,
) -> AssignmentList {
    AssignmentList {
        base: context.path("walkthroughs"),
        walkthroughs: context.org.path("walkthroughs"),
        order_path: format!("/servers/{}/assignments/order", context.server.id),
        rows: rows(listed),
        message: message.to_owned(),
        is_fragment,
    }
}

async fn find_candidates(console: &Console, context: &ServerContext, q: &str) -> Result<Candidates, Error> {
    let ServerContext { cx, organization_id, server, .. } = context;
    let mut candidates =
        assignments::list_candidates(cx, console.ops(), organization_id, &server.id, q, CANDIDATES + 1).await?;
    let has_more = candidates.len() > CANDIDATES as usize;
    candidates.truncate(CANDIDATES as usize);
    Ok(Candidates {
        base: context.path(""),
        walkthroughs: context.org.path("walkthroughs"),
        q: q.to_owned(),
        candidates,
        has_more,
    })
}

pub(super) async fn show(
    State(console): State<Console>,
    context: ServerContext,
    Query(search): Query<CandidateQuery>,
) -> PageResult {
    let ServerContext { cx, organization_id, server, .. } = &context;
    let listed = assignments::list(cx, console.ops(), organization_id, &server.id)
        .await
        .map_err(|error| context.page_error(error))?;
    Ok(view::page(&ServerWalkthroughsPage {
        layout: context.layout.clone(),
        header: context.header("walkthroughs"),
        list: build_list(&context, listed, "", false),
        candidates: find_candidates(&console, &context, &search.q).await?,
    }))
}

pub(super) async fn candidates(
    State(console): State<Console>,
    context: ServerContext,
    headers: HeaderMap,
    Query(search): Query<CandidateQuery>,
) -> PageResult {
    if !headers.contains_key("hx-request") {
        // The search form was submitted without htmx.
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("q", &search.q).finish();
        return Ok(view::redirect(&format!("{}?{query}", context.path("walkthroughs"))));
    }
    Ok(view::page(&find_candidates(&console, &context, &search.q).await?))
}

#[derive(Deserialize)]
pub(super) struct AssignForm {
    walkthrough: String,
}

pub(super) async fn assign(
    State(console): State<Console>,
    context: ServerContext,
    Form(form): Form<AssignForm>,
) -> PageResult {
    let ServerContext { cx, organization_id, server, .. } = &context;
    let result = match form.walkthrough.parse::<WalkthroughId>() {
        Ok(id) => {
            let settings = AssignmentPatch::default();
            assignments::assign(cx, console.ops(), organization_id, &server.id, &id, settings).await
        }
        Err(_) => Err(Error::not_found("walkthrough")),
    };
    result.map_err(|error| context.page_error(error))?;
    Ok(view::redirect_with_flash(&context.path("walkthroughs"), "Walkthrough assigned."))
}

/// The path parameter with the ID of an assignment.
#[derive(Deserialize)]
pub(super) struct AssignmentPath {
    assignment: String,
}

impl AssignmentPath {
    fn id(&self, context: &ServerContext) -> Result<AssignmentId, view::PageError> {
        self.assignment.parse().map_err(|_| context.page_error(Error::not_found("assignment")))
    }
}

/// Renders the list after a change: as a fragment for htmx, otherwise as a redirect with a message.
async fn render_list(
    console: &Console,
    context: &ServerContext,
    headers: &HeaderMap,
    message: &str,
) -> Result<Response, Error> {
    if !headers.contains_key("hx-request") {
        return Ok(view::redirect_with_flash(&context.path("walkthroughs"), message));
    }
    let ServerContext { cx, organization_id, server, .. } = context;
    let listed = assignments::list(cx, console.ops(), organization_id, &server.id).await?;
    Ok(view::page(&build_list(context, listed, message, true)).into_response())
}

#[derive(Deserialize)]
pub(super) struct ToggleForm {
    #[serde(default)]
    enabled: bool,
}

pub(super) async fn toggle(
    State(console): State<Console>,
    context: ServerContext,
    Path(path): Path<AssignmentPath>,
    headers: HeaderMap,
    Form(ToggleForm { enabled }): Form<ToggleForm>,
) -> PageResult {
    let (id, placement) = (path.id(&context)?, AssignmentPatch { enabled: Some(enabled), display_order: None });
    let changed = assignments::update(&context.cx, console.ops(), &context.organization_id, &id, placement).await;
    let changed = changed.map_err(|error| context.page_error(error))?;
    let message = format!("“{}” is now {}.", changed.title, if enabled { "enabled" } else { "disabled" });
    Ok(render_list(&console, &context, &headers, &message).await?)
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Direction {
    Up,
    Down,
}

#[derive(Deserialize)]
pub(super) struct MoveForm {
    direction: Direction,
}

pub(super) async fn reorder(
    State(console): State<Console>,
    context: ServerContext,
    Path(path): Path<AssignmentPath>,
    headers: HeaderMap,
    Form(MoveForm { direction }): Form<MoveForm>,
) -> PageResult {
    let ServerContext { cx, organization_id, server, .. } = &context;
    let id = path.id(&context)?;
    let listed = assignments::list(cx, console.ops(), organization_id, &server.id).await?;
    let mut order: Vec<_> = listed.iter().map(|view| view.assignment.id.clone()).collect();
    let Some(from) = order.iter().position(|other| *other == id) else {
        return Err(context.page_error(Error::not_found("assignment")));
    };
    let to = match direction {
        Direction::Up => from.saturating_sub(1),
        Direction::Down => (from + 1).min(order.len() - 1),
    };
    order.swap(from, to);
    let sorted = assignments::reorder(cx, console.ops(), organization_id, &server.id, &order).await;
    sorted.map_err(|error| context.page_error(error))?;
    let message = format!("“{}” moved to position {} of {}.", listed[from].title, to + 1, order.len());
    Ok(render_list(&console, &context, &headers, &message).await?)
}

pub(super) async fn unassign(
    State(console): State<Console>,
    context: ServerContext,
    Path(path): Path<AssignmentPath>,
    headers: HeaderMap,
) -> PageResult {
    let id = path.id(&context)?;
    let deleted = assignments::delete(&context.cx, console.ops(), &context.organization_id, &id).await;
    deleted.map_err(|error| context.page_error(error))?;
    let message = "Walkthrough removed from this server. Progress is kept.";
    Ok(render_list(&console, &context, &headers, message).await?)
}
