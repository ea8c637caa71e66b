//! The overview of an agent: its tokens and its grants.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use waypost_core::agent::{AgentState, AgentToken};
use waypost_core::{Error, Timestamp};
use waypost_ops::agents::{self, AgentPatch, AgentView};
use waypost_ops::calls::ListCalls;

use super::list::locate_name;
use super::{AgentContext, AgentHeader};
use crate::Console;
use crate::calls::{CallRows, recent_rows};
use crate::form::{Form, default_expiry};
use crate::grants::{GrantRow, list_of_agent};
use crate::layout::{CurrentOrganization, Layout};
use crate::view::{self, FormError, PageError, PageResult};

#[derive(Template)]
#[template(path = "agents/show.html")]
pub(super) struct AgentPage {
    layout: Layout,
    org: CurrentOrganization,
    header: AgentHeader,
    form_error: FormError,
    view: AgentView,
    grants: Vec<GrantRow>,
    calls: CallRows,
    now: Timestamp,
    /// The name in the form that changes the agent.
    entered_name: String,
    token_name: String,
    expires_on: String,
}

impl AgentPage {
    pub(super) async fn load(console: &Console, at: &AgentContext) -> Result<Self, PageError> {
        let grants = list_of_agent(&at.cx, console, &at.organization_id, &at.org, at.id()).await;
        let query = ListCalls { agent_id: Some(at.id().clone()), ..ListCalls::default() };
        let calls = recent_rows(&at.cx, console, &at.organization_id, &at.org, query).await;
        Ok(Self {
            layout: at.layout.clone(),
            org: at.org.clone(),
            header: at.header(""),
            form_error: FormError::default(),
            view: at.view.clone(),
            grants: grants.map_err(|error| at.page_error(error))?,
            calls: calls.map_err(|error| at.page_error(error))?,
            now: at.cx.now(),
            entered_name: at.view.agent.name.clone(),
            token_name: String::new(),
            expires_on: default_expiry(at.cx.now()),
        })
    }

    /// Returns the page with the rejected form for a new token.
    pub(super) fn with_token_error(self, form_error: FormError, token_name: String, expires_on: String) -> Self {
        Self { form_error, token_name, expires_on, ..self }
    }

    /// Returns the class and the label of the badge of a token.
    fn token_badge(&self, token: &AgentToken) -> (&'static str, &'static str) {
        match token.revoked_at {
            Some(_) => ("bad", "revoked"),
            None if token.is_active(self.now) => ("good", "active"),
            None => ("bad", "expired"),
        }
    }

    fn calls_path(&self) -> String {
        self.org.path(&format!("calls?agent={}", self.view.agent.id))
    }

    fn new_grant_path(&self) -> String {
        self.org.path(&format!("grants/new?agent={}", self.view.agent.id))
    }
}

pub(super) async fn show(State(console): State<Console>, at: AgentContext) -> PageResult {
    Ok(view::page(&AgentPage::load(&console, &at).await?))
}

/// The form that changes an agent.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct AgentForm {
    name: String,
}

pub(super) async fn rename(
    State(console): State<Console>,
    at: AgentContext,
    Form(AgentForm { name }): Form<AgentForm>,
) -> PageResult {
    let change = AgentPatch { name: Some(name.clone()), state: None };
    match agents::update(&at.cx, console.ops(), &at.organization_id, at.id(), &change).await {
        Ok(_) => Ok(view::redirect_with_flash(&at.path(""), "Saved.")),
        Err(error) => {
            let (status, form_error) =
                FormError::from_error(locate_name(error)).map_err(|error| at.page_error(error))?;
            let page = AgentPage::load(&console, &at).await?;
            Ok(view::html(status, &AgentPage { form_error, entered_name: name, ..page }))
        }
    }
}

async fn set_state(console: &Console, at: &AgentContext, state: AgentState) -> Result<(), Error> {
    let change = AgentPatch { name: None, state: Some(state) };
    agents::update(&at.cx, console.ops(), &at.organization_id, at.id(), &change).await.map(|_| ())
}

fn finish(at: &AgentContext, result: Result<(), Error>, message: &str) -> Result<Response, PageError> {
    result.map_err(|error| at.page_error(error))?;
    Ok(view::redirect_with_flash(&at.path(""), message))
}

pub(super) async fn enable(State(console): State<Console>, at: AgentContext) -> PageResult {
    let changed = set_state(&console, &at, AgentState::Active).await;
    finish(&at, changed, "Agent enabled.")
}

pub(super) async fn disable(State(console): State<Console>, at: AgentContext) -> PageResult {
    let changed = set_state(&console, &at, AgentState::Disabled).await;
    finish(&at, changed, "Agent disabled. All its tokens are rejected.")
}

pub(super) async fn delete(State(console): State<Console>, at: AgentContext) -> PageResult {
    let deleted = agents::delete(&at.cx, console.ops(), &at.organization_id, at.id()).await;
    deleted.map_err(|error| at.page_error(error))?;
    let message = format!("Agent {} deleted.", at.view.agent.name);
    Ok(view::redirect_with_flash(&at.org.path("agents"), &message))
}
