//! The page of a grant, and the form for a new one.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use waypost_core::agent::MAX_AGENTS;
use waypost_core::grant::Grant;
use waypost_core::id::{AgentId, GrantId, InstanceId};
use waypost_core::tool_definition::ToolDefinition;
use waypost_core::{Error, Result};
use waypost_ops::grants::{self, GrantPatch, NewGrant};
use waypost_ops::{agents, instances, visibility};

use super::GrantRow;
use super::form::GrantForm;
use crate::Console;
use crate::form::{Form, day, locate_expiry};
use crate::instance_list::list_all;
use crate::layout::{CurrentOrganization, Layout};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};

/// The agent and the instance of a new grant.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct NewQuery {
    agent: String,
    instance: String,
}

/// The page that asks for the agent and the instance of a new grant.
#[derive(Template)]
#[template(path = "grants/choose.html")]
struct ChoosePage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    /// IDs and labels.
    agents: Vec<(String, String)>,
    instances: Vec<(String, String)>,
    agent: String,
    instance: String,
}

#[derive(Template)]
#[template(path = "grants/edit.html")]
struct GrantPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    agent_id: AgentId,
    agent_name: String,
    instance_id: InstanceId,
    instance_slug: String,
    /// The stored grant, unless it is new.
    stored: Option<(Grant, GrantRow)>,
    form: GrantForm,
}

impl GrantPage {
    /// Returns the path to which the form is submitted.
    fn action(&self) -> String {
        match &self.stored {
            Some((grant, _)) => self.org.path(&format!("grants/{}", grant.id)),
            None => self.org.path("grants"),
        }
    }

    fn agent_path(&self) -> String {
        self.org.path(&format!("agents/{}", self.agent_id))
    }

    /// Returns the message of an error that belongs to a list of names as a whole.
    fn names_error(&self) -> Option<&str> {
        ["tools", "prompts", "resources"].iter().find_map(|field| self.form_error.message_for(field))
    }
}

fn page_error(member: &Member) -> impl Fn(Error) -> PageError + use<> {
    let layout = member.layout.clone().with_section("grants");
    move |error| PageError::from(error).with_layout(layout.clone())
}

/// Returns the definitions of the server of an instance.
async fn list_definitions(
    console: &Console,
    member: &Member,
    agent: &AgentId,
    at: &InstanceId,
) -> Result<Vec<ToolDefinition>> {
    let explained = visibility::explain(&member.cx, console.ops(), &member.organization_id, agent, at).await?;
    Ok(explained.into_iter().map(|one| one.definition).collect())
}

/// Returns the page of a grant of `agent` for `instance`. `pairs` is the submitted form, if any.
async fn load(
    console: &Console,
    member: &Member,
    (agent, instance): (&AgentId, &InstanceId),
    stored: Option<Grant>,
    pairs: Option<&[(String, String)]>,
) -> Result<GrantPage> {
    let Member { cx, organization_id, org, layout } = member;
    let agent = agents::get(cx, console.ops(), organization_id, agent).await?.agent;
    let instance = instances::get(cx, console.ops(), organization_id, instance).await?.instance;
    let known = list_definitions(console, member, &agent.id, &instance.id).await?;
    let form = match pairs {
        Some(pairs) => GrantForm::from_input(&known, pairs),
        None => GrantForm::new(&known, stored.as_ref()),
    };
    let instances = [instance];
    let stored = stored.map(|grant| {
        let row = GrantRow::new(org, &grant, &instances, cx.now());
        (grant, row)
    });
    let [instance] = instances;
    Ok(GrantPage {
        layout: layout.clone().with_section("grants"),
        org: org.clone(),
        form_error: FormError::default(),
        agent_id: agent.id,
        agent_name: agent.name,
        instance_id: instance.id,
        instance_slug: instance.slug,
        stored,
        form,
    })
}

async fn find(console: &Console, member: &Member, id: &str) -> Result<Grant> {
    let id: GrantId = id.parse().map_err(|_| Error::not_found("grant"))?;
    grants::get(&member.cx, console.ops(), &member.organization_id, &id).await
}

pub(super) async fn new(State(console): State<Console>, member: Member, Query(query): Query<NewQuery>) -> PageResult {
    if query.agent.is_empty() || query.instance.is_empty() {
        return choose(&console, &member, query).await;
    }
    let page = async {
        let agent = query.agent.parse().map_err(|_| Error::not_found("agent"))?;
        let instance = query.instance.parse().map_err(|_| Error::not_found("instance"))?;
        load(&console, &member, (&agent, &instance), None, None).await
    };
    Ok(view::page(&page.await.map_err(page_error(&member))?))
}

async fn choose(console: &Console, member: &Member, query: NewQuery) -> PageResult {
    let Member { cx, organization_id, org, layout } = member;
    let limit = u32::try_from(MAX_AGENTS).unwrap_or(u32::MAX);
    let agents = agents::list(cx, console.ops(), organization_id, None, limit).await.map_err(page_error(member))?;
    let instances = list_all(cx, console, organization_id).await.map_err(page_error(member))?;
    let instances = instances.into_iter().filter(|instance| !instance.is_removing);
    let page = ChoosePage {
        layout: layout.clone().with_section("grants"),
        org: org.clone(),
        form_error: FormError::default(),
        agents: agents.into_iter().map(|view| (view.agent.id.to_string(), view.agent.name)).collect(),
        instances: instances.map(|instance| (instance.id.to_string(), instance.slug)).collect(),
        agent: query.agent,
        instance: query.instance,
    };
    Ok(view::page(&page))
}

pub(super) async fn show(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let page = async {
        let grant = find(&console, &member, &id).await?;
        let at = (&grant.agent_id.clone(), &grant.instance_id.clone());
        load(&console, &member, at, Some(grant), None).await
    };
    Ok(view::page(&page.await.map_err(page_error(&member))?))
}

/// Whether the form was submitted only to add rows for rules.
fn wants_rows(pairs: &[(String, String)]) -> bool {
    pairs.iter().any(|(name, value)| name == "act" && value == "rows")
}

pub(super) async fn create(
    State(console): State<Console>,
    member: Member,
    Form(pairs): Form<Vec<(String, String)>>,
) -> PageResult {
    let text = |name: &str| pairs.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value.as_str());
    let page = async {
        let agent = text("agent_id").parse().map_err(|_| Error::not_found("agent"))?;
        let instance = text("instance_id").parse().map_err(|_| Error::not_found("instance"))?;
        load(&console, &member, (&agent, &instance), None, Some(&pairs)).await
    };
    let page = page.await.map_err(page_error(&member))?;
    if wants_rows(&pairs) {
        return Ok(view::page(&page));
    }
    match submit(&console, &member, &page).await {
        Ok(_) => Ok(view::redirect_with_flash(&page.agent_path(), "Access granted.")),
        Err(error) => reject(&member, page, error),
    }
}

async fn submit(console: &Console, member: &Member, page: &GrantPage) -> Result<Grant> {
    let access = page.form.parse_access()?;
    let new = NewGrant {
        agent_id: page.agent_id.clone(),
        instance_id: page.instance_id.clone(),
        access,
        names: page.form.names(access),
        rules: page.form.parse_rules()?,
        expires_at: page.form.parse_expiry()?,
    };
    grants::create(&member.cx, console.ops(), &member.organization_id, &new).await
}

pub(super) async fn update(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Form(pairs): Form<Vec<(String, String)>>,
) -> PageResult {
    let page = async {
        let grant = find(&console, &member, &id).await?;
        let at = (&grant.agent_id.clone(), &grant.instance_id.clone());
        load(&console, &member, at, Some(grant), Some(&pairs)).await
    };
    let page = page.await.map_err(page_error(&member))?;
    if wants_rows(&pairs) {
        return Ok(view::page(&page));
    }
    match submit_change(&console, &member, &page).await {
        Ok(()) => Ok(view::redirect_with_flash(&page.agent_path(), "Grant changed.")),
        Err(error) => reject(&member, page, error),
    }
}

async fn submit_change(console: &Console, member: &Member, page: &GrantPage) -> Result<()> {
    let Some((grant, _)) = &page.stored else { return Err(Error::not_found("grant")) };
    let access = page.form.parse_access()?;
    let names = page.form.names(access);
    // The form shows only the day, so an unchanged day must not change the exact expiry time.
    let is_same_day = page.form.expires_on == grant.expires_at.map(day).unwrap_or_default();
    let change = GrantPatch {
        access: Some(access),
        tools: Some(names.tools),
        prompts: Some(names.prompts),
        resources: Some(names.resources),
        rules: Some(page.form.parse_rules()?),
        expires_at: if is_same_day { None } else { Some(page.form.parse_expiry()?) },
    };
    grants::update(&member.cx, console.ops(), &member.organization_id, &grant.id, &change).await.map(|_| ())
}

fn reject(member: &Member, page: GrantPage, error: Error) -> Result<Response, PageError> {
    let (status, form_error) = FormError::from_error(locate_expiry(error)).map_err(page_error(member))?;
    Ok(view::html(status, &GrantPage { form_error, ..page }))
}

pub(super) async fn delete(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let deleted = async {
        let grant = find(&console, &member, &id).await?;
        grants::delete(&member.cx, console.ops(), &member.organization_id, &grant.id).await?;
        Ok(grant.agent_id)
    };
    let agent = deleted.await.map_err(page_error(&member))?;
    Ok(view::redirect_with_flash(&member.org.path(&format!("agents/{agent}")), "Grant removed."))
}
