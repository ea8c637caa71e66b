//! The walkthroughs of a server: choose, order, switch, remove. Every change is one of a single assignment, or of places
//! alone, so that two people who work here at the same time keep each other's changes.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use serde::Deserialize;
use waypost_core::Error;
use waypost_core::assignment::{Candidate, ListedAssignment};
use waypost_core::id::{AssignmentId, WalkthroughId};
use waypost_core::walkthrough::WalkthroughState;
use waypost_ops::assignments::{self, AssignmentPatch};

use super::super::form::Form;
use super::super::frame::Frame;
use super::super::view::{self, PageResult};
use super::{Head, Hosted};
use crate::Web;

/// Walkthroughs to choose among that are shown at once; the search finds the others.
const CANDIDATES: u32 = 20;

#[derive(Template)]
#[template(path = "servers/walkthroughs.html")]
struct AssignedPage {
    frame: Frame,
    head: Head,
    list: AssignedList,
    candidates: Candidates,
}

/// The list itself, which htmx renews.
#[derive(Template)]
#[template(path = "servers/assigned.html")]
struct AssignedList {
    base: String,
    /// The path of the organisation's walkthroughs.
    walkthroughs: String,
    order_path: String,
    rows: Vec<Row>,
    /// What is said of the change that was made.
    said: String,
    /// Whether it comes alone, and the rest of the page is there.
    fragment: bool,
}

struct Row {
    id: String,
    walkthrough_id: String,
    title: String,
    enabled: bool,
    state: WalkthroughState,
    first: bool,
    last: bool,
}

impl Row {
    fn badge(&self) -> (&'static str, &'static str) {
        match (self.state, self.enabled) {
            (WalkthroughState::Published, true) => ("good", "offered"),
            (WalkthroughState::Published, false) => ("", "switched off"),
            (WalkthroughState::Draft, _) => ("warn", "not published"),
            (WalkthroughState::Archived, _) => ("warn", "archived"),
        }
    }
}

/// What could be placed here, which htmx renews as somebody types.
#[derive(Template)]
#[template(path = "servers/candidates.html")]
struct Candidates {
    base: String,
    walkthroughs: String,
    q: String,
    found: Vec<Candidate>,
    more: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Search {
    q: String,
}

fn rows(listed: Vec<ListedAssignment>) -> Vec<Row> {
    let last = listed.len();
    let row = |(at, it): (usize, ListedAssignment)| Row {
        id: it.assignment.id.to_string(),
        walkthrough_id: it.assignment.walkthrough_id.to_string(),
        title: it.title,
        enabled: it.assignment.enabled,
        state: it.state,
        first: at == 0,
        last: at + 1 == last,
    };
    listed.into_iter().enumerate().map(row).collect()
}

fn list(hosted: &Hosted, listed: Vec<ListedAssignment>, said: &str, fragment: bool) -> AssignedList {
    AssignedList {
        base: hosted.path("walkthroughs"),
        walkthroughs: hosted.place.path("walkthroughs"),
        order_path: format!("/servers/{}/assignments/order", hosted.server.id),
        rows: rows(listed),
        said: said.to_owned(),
        fragment,
    }
}

async fn found(web: &Web, hosted: &Hosted, q: &str) -> Result<Candidates, Error> {
    let Hosted { cx, organization_id, server, .. } = hosted;
    let mut found =
        assignments::list_candidates(cx, web.ops(), organization_id, &server.id, (q, CANDIDATES + 1)).await?;
    let more = found.len() > CANDIDATES as usize;
    found.truncate(CANDIDATES as usize);
    Ok(Candidates {
        base: hosted.path(""),
        walkthroughs: hosted.place.path("walkthroughs"),
        q: q.to_owned(),
        found,
        more,
    })
}

pub(super) async fn show(State(web): State<Web>, hosted: Hosted, Query(search): Query<Search>) -> PageResult {
    let Hosted { cx, organization_id, server, .. } = &hosted;
    let listed = assignments::list(cx, web.ops(), organization_id, &server.id).await.map_err(|it| hosted.failed(it))?;
    Ok(view::page(&AssignedPage {
        frame: hosted.frame.clone(),
        head: hosted.head("walkthroughs"),
        list: list(&hosted, listed, "", false),
        candidates: found(&web, &hosted, &search.q).await?,
    }))
}

pub(super) async fn candidates(
    State(web): State<Web>,
    hosted: Hosted,
    headers: HeaderMap,
    Query(search): Query<Search>,
) -> PageResult {
    if !headers.contains_key("hx-request") {
        // The form of the search, sent by hand.
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("q", &search.q).finish();
        return Ok(view::redirect(&format!("{}?{query}", hosted.path("walkthroughs"))));
    }
    Ok(view::page(&found(&web, &hosted, &search.q).await?))
}

#[derive(Deserialize)]
pub(super) struct Chosen {
    walkthrough: String,
}

pub(super) async fn add(State(web): State<Web>, hosted: Hosted, Form(chosen): Form<Chosen>) -> PageResult {
    let Hosted { cx, organization_id, server, .. } = &hosted;
    let result = match chosen.walkthrough.parse::<WalkthroughId>() {
        Ok(id) => {
            let place = (&server.id, &id);
            assignments::assign(cx, web.ops(), organization_id, place, AssignmentPatch::default()).await
        }
        Err(_) => Err(Error::not_found("walkthrough")),
    };
    result.map_err(|error| hosted.failed(error))?;
    Ok(view::redirect_saying(&hosted.path("walkthroughs"), "The walkthrough is placed here, after the others."))
}

/// The assignment in the path.
#[derive(Deserialize)]
pub(super) struct At {
    assignment: String,
}

impl At {
    fn id(&self, hosted: &Hosted) -> Result<AssignmentId, view::PageError> {
        self.assignment.parse().map_err(|_| hosted.failed(Error::not_found("assignment")))
    }
}

/// The list after a change: as a part for htmx, or as the page with a sentence.
async fn after(web: &Web, hosted: &Hosted, headers: &HeaderMap, said: &str) -> Result<Response, Error> {
    if !headers.contains_key("hx-request") {
        return Ok(view::redirect_saying(&hosted.path("walkthroughs"), said));
    }
    let Hosted { cx, organization_id, server, .. } = hosted;
    let listed = assignments::list(cx, web.ops(), organization_id, &server.id).await?;
    Ok(view::page(&list(hosted, listed, said, true)).into_response())
}

#[derive(Deserialize)]
pub(super) struct Switch {
    #[serde(default)]
    enabled: bool,
}

pub(super) async fn switch(
    State(web): State<Web>,
    hosted: Hosted,
    Path(at): Path<At>,
    headers: HeaderMap,
    Form(Switch { enabled }): Form<Switch>,
) -> PageResult {
    let (id, placement) = (at.id(&hosted)?, AssignmentPatch { enabled: Some(enabled), display_order: None });
    let changed = assignments::update(&hosted.cx, web.ops(), &hosted.organization_id, &id, placement).await;
    let changed = changed.map_err(|error| hosted.failed(error))?;
    let said = format!("“{}” is switched {}.", changed.title, if enabled { "on" } else { "off" });
    Ok(after(&web, &hosted, &headers, &said).await?)
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Direction {
    Up,
    Down,
}

#[derive(Deserialize)]
pub(super) struct Shift {
    direction: Direction,
}

pub(super) async fn shift(
    State(web): State<Web>,
    hosted: Hosted,
    Path(at): Path<At>,
    headers: HeaderMap,
    Form(Shift { direction }): Form<Shift>,
) -> PageResult {
    let Hosted { cx, organization_id, server, .. } = &hosted;
    let id = at.id(&hosted)?;
    let listed = assignments::list(cx, web.ops(), organization_id, &server.id).await?;
    let mut order: Vec<_> = listed.iter().map(|it| it.assignment.id.clone()).collect();
    let Some(from) = order.iter().position(|it| *it == id) else {
        return Err(hosted.failed(Error::not_found("assignment")));
    };
    let to = match direction {
        Direction::Up => from.saturating_sub(1),
        Direction::Down => (from + 1).min(order.len() - 1),
    };
    order.swap(from, to);
    let sorted = assignments::reorder(cx, web.ops(), organization_id, &server.id, &order).await;
    sorted.map_err(|error| hosted.failed(error))?;
    let said = format!("“{}” is now number {} of {}.", listed[from].title, to + 1, order.len());
    Ok(after(&web, &hosted, &headers, &said).await?)
}

pub(super) async fn remove(
    State(web): State<Web>,
    hosted: Hosted,
    Path(at): Path<At>,
    headers: HeaderMap,
) -> PageResult {
    let id = at.id(&hosted)?;
    let deleted = assignments::delete(&hosted.cx, web.ops(), &hosted.organization_id, &id).await;
    deleted.map_err(|error| hosted.failed(error))?;
    let said = "The walkthrough is not offered here any more. What people did is kept.";
    Ok(after(&web, &hosted, &headers, said).await?)
}
