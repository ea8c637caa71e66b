//! Where a walkthrough goes: onto servers, and into files.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Deserialize;
use waypost_core::Error;
use waypost_core::access::Act;
use waypost_core::assignment::ListedAssignment;
use waypost_core::server::Server;
use waypost_core::walkthrough::WalkthroughState;
use waypost_ops::assignments::{self, AssignmentPatch};
use waypost_ops::servers;
use waypost_ops::walkthroughs::export;

use super::{Around, Opened};
use crate::Web;
use crate::pages::form::Form;
use crate::pages::frame::{Frame, Place};
use crate::pages::routes::{Access, Routes};
use crate::pages::session::Member;
use crate::pages::view::{self, PageResult};

pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Act::WalkthroughRead);
    const WRITE: Access = Access::Member(Act::AssignmentWrite);
    Routes::new()
        .get("/o/{org}/walkthroughs/{id}/assignments", READ, show)
        .post("/o/{org}/walkthroughs/{id}/assignments", WRITE, change)
        .get("/o/{org}/walkthroughs/{id}/export", READ, files)
        .get("/o/{org}/walkthroughs/{id}/export/{format}", READ, file)
}

/// A server, with how the walkthrough is placed there.
struct Row {
    server: Server,
    placed: Option<ListedAssignment>,
}

#[derive(Template)]
#[template(path = "walkthroughs/assignments.html")]
struct AssignmentsPage {
    frame: Frame,
    place: Place,
    around: Around,
    rows: Vec<Row>,
}

async fn show(State(web): State<Web>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let opened = Opened::new(&web, member, &id).await?;
    let Member { cx, organization_id, place, .. } = &opened.member;
    let found = async {
        let servers = servers::list(cx, web.ops(), organization_id).await?;
        let placed = assignments::list_for_walkthrough(cx, web.ops(), organization_id, &opened.id).await?;
        Ok::<_, Error>((servers, placed))
    };
    let (servers, placed) = found.await.map_err(|error| opened.within(error))?;
    let row =
        |server: Server| Row { placed: placed.iter().find(|it| it.assignment.server_id == server.id).cloned(), server };
    Ok(view::page(&AssignmentsPage {
        frame: opened.frame(),
        place: place.clone(),
        around: opened.around("assignments"),
        rows: servers.into_iter().map(row).collect(),
    }))
}

/// What to do on which server.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    server_id: String,
    act: String,
}

async fn change(
    State(web): State<Web>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Form(fields): Form<Fields>,
) -> PageResult {
    let opened = Opened::new(&web, member, &id).await?;
    let Member { cx, organization_id, .. } = &opened.member;
    let done = async {
        let server = fields.server_id.parse().map_err(|_| Error::not_found("server"))?;
        let name = servers::get(cx, web.ops(), organization_id, &server).await?.name;
        let put = |enabled| {
            let placement = AssignmentPatch { enabled, ..AssignmentPatch::default() };
            assignments::assign(cx, web.ops(), organization_id, (&server, &opened.id), placement)
        };
        match fields.act.as_str() {
            "add" => put(None).await.map(|_| format!("Placed on {name}.")),
            "on" => put(Some(true)).await.map(|_| format!("Switched on for {name}.")),
            "off" => put(Some(false)).await.map(|_| format!("Switched off for {name}. Progress is kept.")),
            "remove" => {
                let removed = assignments::unassign(cx, web.ops(), organization_id, &server, &opened.id).await;
                removed.map(|()| format!("Removed from {name}. Progress is kept."))
            }
            _ => Err(Error::invalid("act", "Choose what to do on the server.")),
        }
    };
    let said = done.await.map_err(|error| opened.within(error))?;
    Ok(view::redirect_saying(&format!("{}/assignments", opened.at), &said))
}

#[derive(Template)]
#[template(path = "walkthroughs/export.html")]
struct ExportPage {
    frame: Frame,
    around: Around,
    slug: String,
    steps: usize,
}

async fn files(State(web): State<Web>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let opened = Opened::new(&web, member, &id).await?;
    Ok(view::page(&ExportPage {
        frame: opened.frame(),
        around: opened.around("export"),
        slug: opened.head().slug.clone(),
        steps: opened.draft.steps.len(),
    }))
}

async fn file(
    State(web): State<Web>,
    member: Member,
    Path((_, id, format)): Path<(String, String, String)>,
) -> PageResult {
    let opened = Opened::new(&web, member, &id).await?;
    let Member { cx, organization_id, .. } = &opened.member;
    let made = async {
        match format.as_str() {
            "json" => {
                let envelope = export::export(cx, web.ops(), organization_id, &opened.id).await?;
                let text = serde_json::to_string_pretty(&envelope).map_err(Error::internal)?;
                Ok(("application/json", "json", text + "\n"))
            }
            "markdown" => {
                let text = export::export_as_markdown(cx, web.ops(), organization_id, &opened.id).await?;
                Ok(("text/markdown; charset=utf-8", "md", text))
            }
            _ => Err(Error::not_found("format")),
        }
    };
    let (kind, extension, body) = made.await.map_err(|error: Error| opened.within(error))?;
    let mut response: Response = ([(header::CONTENT_TYPE, kind)], body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let disposition = format!("attachment; filename=\"{}.{extension}\"", opened.head().slug);
    if let Ok(name) = HeaderValue::from_str(&disposition) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}
