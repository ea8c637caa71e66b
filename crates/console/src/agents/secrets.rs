//! An agent's values for personal secrets. Admins can set the values of services, and remove those of any agent.

use askama::Template;
use axum::extract::{Path, State};
use waypost_core::Result;
use waypost_ops::agent_secrets::{self, AgentSecretRef, InstancePersonalSecrets};

use super::{AgentContext, AgentHeader};
use crate::Console;
use crate::form::Form;
use crate::layout::Layout;
use crate::personal_secrets::{SecretForm, form_error, parse_instance};
use crate::view::{self, FormError, PageResult};

#[derive(Template)]
#[template(path = "agents/secrets.html")]
struct AgentSecretsPage {
    layout: Layout,
    header: AgentHeader,
    form_error: FormError,
    /// The path of the page.
    base: String,
    instances: Vec<InstancePersonalSecrets>,
    /// Whether admins can set the values. People set their values themselves.
    can_set: bool,
}

async fn load(console: &Console, at: &AgentContext) -> Result<AgentSecretsPage> {
    let header = at.header("secrets");
    Ok(AgentSecretsPage {
        instances: agent_secrets::list_of_agent(&at.cx, console.ops(), &at.organization_id, at.id()).await?,
        layout: at.layout.clone(),
        form_error: FormError::default(),
        base: at.path("secrets"),
        can_set: !header.is_person,
        header,
    })
}

pub(super) async fn show(State(console): State<Console>, at: AgentContext) -> PageResult {
    Ok(view::page(&load(&console, &at).await.map_err(|error| at.page_error(error))?))
}

pub(super) async fn set(
    State(console): State<Console>,
    at: AgentContext,
    Path((_, _, instance)): Path<(String, String, String)>,
    Form(form): Form<SecretForm>,
) -> PageResult {
    let id = parse_instance(&instance).map_err(|error| at.page_error(error))?;
    let secret = AgentSecretRef { instance: &id, agent: at.id(), name: &form.name };
    let result = agent_secrets::set(&at.cx, console.ops(), &at.organization_id, secret, &form.value()).await;
    finish(&console, &at, result, "Value set. It is used from the agent's next call on.").await
}

pub(super) async fn delete(
    State(console): State<Console>,
    at: AgentContext,
    Path((_, _, instance)): Path<(String, String, String)>,
    Form(form): Form<SecretForm>,
) -> PageResult {
    let id = parse_instance(&instance).map_err(|error| at.page_error(error))?;
    let secret = AgentSecretRef { instance: &id, agent: at.id(), name: &form.name };
    let result = agent_secrets::delete(&at.cx, console.ops(), &at.organization_id, secret).await;
    finish(&console, &at, result, "Value removed.").await
}

async fn finish(console: &Console, at: &AgentContext, result: Result<()>, message: &str) -> PageResult {
    let error = match result {
        Ok(()) => return Ok(view::redirect_with_flash(&at.path("secrets"), message)),
        Err(error) => error,
    };
    let (status, form_error) = form_error(error).map_err(|error| at.page_error(error))?;
    let page = load(console, at).await.map_err(|error| at.page_error(error))?;
    Ok(view::html(status, &AgentSecretsPage { form_error, ..page }))
}
