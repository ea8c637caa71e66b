//! The assignments and the export of a walkthrough.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Deserialize;
use waypost_core::Error;
use waypost_core::access::Operation;
use waypost_core::assignment::AssignmentView;
use waypost_core::server::Server;
use waypost_core::walkthrough::WalkthroughState;
use waypost_ops::assignments::{self, AssignmentPatch};
use waypost_ops::servers;
use waypost_ops::walkthroughs::export;

use super::{DraftContext, WalkthroughHeader};
use crate::Console;
use crate::form::Form;
use crate::layout::{CurrentOrganization, Layout};
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, PageResult};

pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Operation::WalkthroughRead);
    const WRITE: Access = Access::Member(Operation::AssignmentWrite);
    Routes::new()
        .get("/o/{org}/walkthroughs/{id}/assignments", READ, show)
        .post("/o/{org}/walkthroughs/{id}/assignments", WRITE, update)
        .get("/o/{org}/walkthroughs/{id}/export", READ, show_export)
        .get("/o/{org}/walkthroughs/{id}/export/{format}", READ, download)
}

/// A server with the walkthrough's assignment, if any.
struct AssignmentRow {
    server: Server,
    assigned: Option<AssignmentView>,
}

#[derive(Template)]
#[template(path = "walkthroughs/assignments.html")]
struct AssignmentsPage {
    layout: Layout,
    org: CurrentOrganization,
    header: WalkthroughHeader,
    rows: Vec<AssignmentRow>,
}

async fn show(State(console): State<Console>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let context = DraftContext::new(&console, member, &id).await?;
    let Member { cx, organization_id, org, .. } = &context.member;
    let loaded = async {
        let servers = servers::list(cx, console.ops(), organization_id).await?;
        let assigned = assignments::list_for_walkthrough(cx, console.ops(), organization_id, &context.id).await?;
        Ok::<_, Error>((servers, assigned))
    };
    let (servers, assigned) = loaded.await.map_err(|error| context.page_error(error))?;
    let row = |server: Server| AssignmentRow {
        assigned: assigned.iter().find(|assignment| assignment.assignment.server_id == server.id).cloned(),
        server,
    };
    Ok(view::page(&AssignmentsPage {
        layout: context.layout(),
        org: org.clone(),
        header: context.header("assignments"),
        rows: servers.into_iter().map(row).collect(),
    }))
}

/// The form to change an assignment.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AssignmentForm {
    server_id: String,
    act: String,
}

async fn update(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Form(fields): Form<AssignmentForm>,
) -> PageResult {
    let context = DraftContext::new(&console, member, &id).await?;
    let Member { cx, organization_id, .. } = &context.member;
    let updated = async {
        let server = fields.server_id.parse().map_err(|_| Error::not_found("server"))?;
        let name = servers::get(cx, console.ops(), organization_id, &server).await?.name;
        let assign = |enabled| {
            let placement = AssignmentPatch { enabled, ..AssignmentPatch::default() };
            assignments::assign(cx, console.ops(), organization_id, &server, &context.id, placement)
        };
        match fields.act.as_str() {
            "add" => assign(None).await.map(|_| format!("Assigned to {name}.")),
            "on" => assign(Some(true)).await.map(|_| format!("Enabled on {name}.")),
            "off" => assign(Some(false)).await.map(|_| format!("Disabled on {name}. Progress is kept.")),
            "remove" => {
                let removed = assignments::unassign(cx, console.ops(), organization_id, &server, &context.id).await;
                removed.map(|()| format!("Removed from {name}. Progress is kept."))
            }
            _ => Err(Error::invalid("act", "Select an action for the server.")),
        }
    };
    let message = updated.await.map_err(|error| context.page_error(error))?;
    Ok(view::redirect_with_flash(&format!("{}/assignments", context.path), &message))
}

#[derive(Template)]
#[template(path = "walkthroughs/export.html")]
struct ExportPage {
    layout: Layout,
    header: WalkthroughHeader,
    slug: String,
    steps: usize,
}

async fn show_export(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let context = DraftContext::new(&console, member, &id).await?;
    Ok(view::page(&ExportPage {
        layout: context.layout(),
        header: context.header("export"),
        slug: context.walkthrough().slug.clone(),
        steps: context.draft.steps.len(),
    }))
}

async fn download(
    State(console): State<Console>,
    member: Member,
    Path((_, id, format)): Path<(String, String, String)>,
) -> PageResult {
    let context = DraftContext::new(&console, member, &id).await?;
    let Member { cx, organization_id, .. } = &context.member;
    let exported = async {
        match format.as_str() {
            "json" => {
                let envelope = export::export(cx, console.ops(), organization_id, &context.id).await?;
                let text = serde_json::to_string_pretty(&envelope).map_err(Error::internal)?;
                Ok(("application/json", "json", text + "\n"))
            }
            "markdown" => {
                let text = export::export_as_markdown(cx, console.ops(), organization_id, &context.id).await?;
                Ok(("text/markdown; charset=utf-8", "md", text))
            }
            _ => Err(Error::not_found("format")),
        }
    };
    let (kind, extension, body) = exported.await.map_err(|error: Error| context.page_error(error))?;
    let mut response: Response = ([(header::CONTENT_TYPE, kind)], body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let disposition = format!("attachment; filename=\"{}.{extension}\"", context.walkthrough().slug);
    if let Ok(name) = HeaderValue::from_str(&disposition) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}
