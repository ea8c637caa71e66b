//! The list of toolboxes, and the form that adds one.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;
use waypost_core::Error;
use waypost_ops::toolboxes::{self, ToolboxView};

use super::{Usage, badge, list_all, memory, page_error, show};
use crate::Console;
use crate::form::Form;
use crate::layout::{CurrentOrganization, Layout};
use crate::live;
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};

struct ToolboxRow {
    view: ToolboxView,
    badge: &'static str,
    memory: Option<Usage>,
}

/// The rows of the list, which are polled.
#[derive(Template)]
#[template(path = "toolboxes/rows.html")]
struct Rows {
    org: CurrentOrganization,
    rows: Vec<ToolboxRow>,
}

#[derive(Template)]
#[template(path = "toolboxes/list.html")]
struct ToolboxesPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    entered_name: String,
    rows: Rows,
}

/// The form that adds a toolbox.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(super) struct NewToolbox {
    name: String,
}

async fn load(console: &Console, member: &Member) -> Result<Rows, PageError> {
    let Member { cx, organization_id, org, .. } = member;
    let views = list_all(cx, console, organization_id).await.map_err(page_error(member))?;
    let row = |view: ToolboxView| ToolboxRow { badge: badge(view.state), memory: memory(&view), view };
    Ok(Rows { org: org.clone(), rows: views.into_iter().map(row).collect() })
}

async fn page(console: &Console, member: &Member, name: String) -> Result<ToolboxesPage, PageError> {
    Ok(ToolboxesPage {
        rows: load(console, member).await?,
        layout: member.layout.clone().with_section("toolboxes"),
        org: member.org.clone(),
        form_error: FormError::default(),
        entered_name: name,
    })
}

pub(super) async fn show(State(console): State<Console>, member: Member) -> PageResult {
    Ok(view::page(&page(&console, &member, String::new()).await?))
}

pub(super) async fn rows(State(console): State<Console>, member: Member, headers: HeaderMap) -> PageResult {
    Ok(live::fragment(&headers, &load(&console, &member).await?))
}

pub(super) async fn create(
    State(console): State<Console>,
    member: Member,
    Form(NewToolbox { name }): Form<NewToolbox>,
) -> PageResult {
    match toolboxes::create(&member.cx, console.ops(), &member.organization_id, &name).await {
        // No redirect, because the token is only available in this response.
        Ok((view, token)) => show::render_with_token(&console, &member, view, &token).await,
        Err(error) => reject(&console, &member, name, error).await,
    }
}

async fn reject(console: &Console, member: &Member, name: String, error: Error) -> Result<Response, PageError> {
    let (status, form_error) = FormError::from_error(error).map_err(page_error(member))?;
    let page = page(console, member, name).await?;
    Ok(view::html(status, &ToolboxesPage { form_error, ..page }))
}
