//! `/o/{org}/tool-sets`: selections of tools, each with its own gateway URL.

mod form;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use waypost_core::access::Operation;
use waypost_core::id::{InstanceId, ToolSetId};
use waypost_core::instance::Instance;
use waypost_core::tool_set::{MAX_TOOL_SETS, ToolSet};
use waypost_core::{Error, Result};
use waypost_ops::tool_sets::{self, NewToolSet, ToolSetPatch};

use self::form::ToolSetForm;
use crate::Console;
use crate::agents::gateway_url;
use crate::form::Form;
use crate::instance_list::list_all;
use crate::layout::{CurrentOrganization, Layout};
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Operation::ToolSetRead);
    const WRITE: Access = Access::Member(Operation::ToolSetWrite);
    Routes::new()
        .get("/o/{org}/tool-sets", READ, list)
        .get("/o/{org}/tool-sets/new", WRITE, new)
        .post("/o/{org}/tool-sets", WRITE, create)
        .get("/o/{org}/tool-sets/{set}", READ, show)
        .post("/o/{org}/tool-sets/{set}", WRITE, update)
        .post("/o/{org}/tool-sets/{set}/delete", WRITE, delete)
}

/// A tool set in the list.
struct ToolSetRow {
    href: String,
    tool_set: ToolSet,
    /// The slugs of the instances.
    members: Vec<String>,
    url: String,
}

#[derive(Template)]
#[template(path = "tool_sets/list.html")]
struct ToolSetsPage {
    layout: Layout,
    org: CurrentOrganization,
    rows: Vec<ToolSetRow>,
}

#[derive(Template)]
#[template(path = "tool_sets/edit.html")]
struct ToolSetPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    /// The stored tool set and its URL, unless it is new.
    stored: Option<(ToolSet, String)>,
    form: ToolSetForm,
}

impl ToolSetPage {
    /// Returns the path to which the form is submitted.
    fn action(&self) -> String {
        match &self.stored {
            Some((tool_set, _)) => path(&self.org, &tool_set.id),
            None => self.org.path("tool-sets"),
        }
    }
}

fn path(org: &CurrentOrganization, id: &ToolSetId) -> String {
    org.path(&format!("tool-sets/{id}"))
}

fn page_error(member: &Member) -> impl Fn(Error) -> PageError + use<> {
    let layout = member.layout.clone().with_section("tool-sets");
    move |error| PageError::from(error).with_layout(layout.clone())
}

fn page(member: &Member, stored: Option<(ToolSet, String)>, form: ToolSetForm) -> ToolSetPage {
    let layout = member.layout.clone().with_section("tool-sets");
    ToolSetPage { layout, org: member.org.clone(), form_error: FormError::default(), stored, form }
}

async fn find(console: &Console, member: &Member, id: &str) -> Result<(ToolSet, String)> {
    let id: ToolSetId = id.parse().map_err(|_| Error::not_found("tool set"))?;
    let tool_set = tool_sets::get(&member.cx, console.ops(), &member.organization_id, &id).await?;
    let url = gateway_url(console, &member.org.organization.slug, &tool_set.slug);
    Ok((tool_set, url))
}

async fn list_instances(console: &Console, member: &Member) -> Result<Vec<Instance>> {
    list_all(&member.cx, console, &member.organization_id).await
}

async fn list(State(console): State<Console>, member: Member) -> PageResult {
    let Member { cx, organization_id, org, .. } = &member;
    let limit = u32::try_from(MAX_TOOL_SETS).unwrap_or(u32::MAX);
    let found = async {
        let sets = tool_sets::list(cx, console.ops(), organization_id, None, limit).await?;
        Ok((sets, list_instances(&console, &member).await?))
    };
    let (sets, instances) = found.await.map_err(page_error(&member))?;
    let slug =
        |id: &InstanceId| instances.iter().find(|instance| instance.id == *id).map(|instance| instance.slug.clone());
    let row = |tool_set: ToolSet| ToolSetRow {
        href: path(org, &tool_set.id),
        members: tool_set.members.iter().filter_map(|member| slug(&member.instance_id)).collect(),
        url: gateway_url(&console, &org.organization.slug, &tool_set.slug),
        tool_set,
    };
    let rows = sets.into_iter().map(row).collect();
    let Member { org, layout, .. } = member;
    Ok(view::page(&ToolSetsPage { layout: layout.with_section("tool-sets"), org, rows }))
}

async fn new(State(console): State<Console>, member: Member) -> PageResult {
    let instances = list_instances(&console, &member).await.map_err(page_error(&member))?;
    Ok(view::page(&page(&member, None, ToolSetForm::new(&instances, None))))
}

async fn create(
    State(console): State<Console>,
    member: Member,
    Form(pairs): Form<Vec<(String, String)>>,
) -> PageResult {
    let instances = list_instances(&console, &member).await.map_err(page_error(&member))?;
    let form = ToolSetForm::from_input(&instances, &pairs);
    let created = async {
        let new = NewToolSet {
            slug: form.slug.trim().to_owned(),
            name: Some(form.name.clone()).filter(|name| !name.trim().is_empty()),
            prefix: form.has_prefix,
            members: form.selected_members(),
        };
        tool_sets::create(&member.cx, console.ops(), &member.organization_id, &new).await
    };
    match created.await {
        Ok(created) => Ok(view::redirect_with_flash(&path(&member.org, &created.id), "Tool set created.")),
        Err(error) => reject(&member, page(&member, None, form), error),
    }
}

async fn show(State(console): State<Console>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let stored = find(&console, &member, &id).await.map_err(page_error(&member))?;
    let instances = list_instances(&console, &member).await.map_err(page_error(&member))?;
    let form = ToolSetForm::new(&instances, Some(&stored.0));
    Ok(view::page(&page(&member, Some(stored), form)))
}

async fn update(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Form(pairs): Form<Vec<(String, String)>>,
) -> PageResult {
    let stored = find(&console, &member, &id).await.map_err(page_error(&member))?;
    let instances = list_instances(&console, &member).await.map_err(page_error(&member))?;
    let form = ToolSetForm::from_input(&instances, &pairs);
    let changed = async {
        let change = ToolSetPatch {
            slug: Some(form.slug.trim().to_owned()),
            name: Some(form.name.clone()),
            prefix: Some(form.has_prefix),
            members: Some(form.selected_members()),
        };
        tool_sets::update(&member.cx, console.ops(), &member.organization_id, &stored.0.id, &change).await
    };
    match changed.await {
        Ok(changed) => Ok(view::redirect_with_flash(&path(&member.org, &changed.id), "Saved.")),
        Err(error) => reject(&member, page(&member, Some(stored), form), error),
    }
}

fn reject(member: &Member, page: ToolSetPage, error: Error) -> Result<Response, PageError> {
    let (status, form_error) = FormError::from_error(error).map_err(page_error(member))?;
    Ok(view::html(status, &ToolSetPage { form_error, ..page }))
}

async fn delete(State(console): State<Console>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let deleted = async {
        let (tool_set, _) = find(&console, &member, &id).await?;
        tool_sets::delete(&member.cx, console.ops(), &member.organization_id, &tool_set.id).await?;
        Ok(tool_set.name)
    };
    let name = deleted.await.map_err(page_error(&member))?;
    Ok(view::redirect_with_flash(&member.org.path("tool-sets"), &format!("Tool set {name} deleted.")))
}
