//! The OAuth connections of agents to a remote server, for admins, who can connect services and end any connection.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use waypost_core::agent::{AgentKind, MAX_AGENTS};
use waypost_core::id::AgentId;
use waypost_core::instance::ConnectionState;
use waypost_core::{Error, Result};
use waypost_ops::agents;
use waypost_ops::instances::connect::{self, AgentConnection};

use super::connection::authorize_page;
use super::{InstanceContext, InstanceHeader};
use crate::Console;
use crate::form::Form;
use crate::layout::Layout;
use crate::view::{self, FormError, PageError, PageResult};

/// The number of connections on a page.
const PAGE_SIZE: u32 = 100;

/// The query of the page.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ConnectionsQuery {
    /// The ID of the agent after which the page begins.
    after: String,
}

/// A connection in the table.
struct ConnectionRow {
    name: String,
    is_person: bool,
    /// The path of the agent.
    href: String,
    badge: &'static str,
    state: &'static str,
    connected_at: String,
    expires_at: Option<String>,
    /// The scope that the server requires and the connection lacks.
    required_scope: Option<String>,
    /// The path of the form that ends the connection.
    disconnect: String,
}

#[derive(Template)]
#[template(path = "instances/connections.html")]
struct ConnectionsPage {
    layout: Layout,
    header: InstanceHeader,
    form_error: FormError,
    rows: Vec<ConnectionRow>,
    /// The path of the next page.
    next: Option<String>,
    /// The services that can be connected, as values and labels.
    services: Vec<(String, String)>,
    /// The ID of the selected service.
    agent: String,
    /// The path of the page on which people connect their own account.
    own: String,
}

/// Returns the class of the badge of a state.
pub(super) fn badge(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Connected => "good",
        ConnectionState::Expired => "warn",
        ConnectionState::Failed => "bad",
    }
}

fn row(at: &InstanceContext, found: AgentConnection) -> Option<ConnectionRow> {
    let (id, (name, kind)) = (found.agent_id?, found.agent?);
    Some(ConnectionRow {
        name,
        is_person: kind == AgentKind::Person,
        href: at.org.path(&format!("agents/{id}")),
        badge: badge(found.state),
        state: found.state.as_str(),
        connected_at: found.connected_at.rfc3339(),
        expires_at: found.expires_at.map(waypost_core::Timestamp::rfc3339),
        required_scope: found.required_scope,
        disconnect: at.path(&format!("connections/{id}/disconnect")),
    })
}

impl ConnectionsPage {
    async fn load(console: &Console, at: &InstanceContext, after: Option<&AgentId>) -> Result<Self> {
        if !at.instance().is_connected_per_agent() {
            return Err(Error::not_found("page"));
        }
        let (ops, organization) = (console.ops(), &at.organization_id);
        let mut found = connect::list(&at.cx, ops, organization, at.id(), (after, PAGE_SIZE + 1)).await?;
        let has_more = found.len() > PAGE_SIZE as usize;
        found.truncate(PAGE_SIZE as usize);
        let last = found.last().and_then(|last| last.agent_id.clone()).filter(|_| has_more);
        let limit = u32::try_from(MAX_AGENTS).unwrap_or(u32::MAX);
        let agents = agents::list(&at.cx, ops, organization, None, limit).await?;
        let services = agents.into_iter().filter(|view| view.agent.kind == AgentKind::Service);
        Ok(Self {
            layout: at.layout.clone(),
            header: at.header("connections"),
            form_error: FormError::default(),
            rows: found.into_iter().filter_map(|one| row(at, one)).collect(),
            next: last.map(|id| at.path(&format!("connections?after={id}"))),
            services: services.map(|view| (view.agent.id.to_string(), view.agent.name)).collect(),
            agent: String::new(),
            own: at.org.path(&format!("connect/{}", at.instance().slug)),
        })
    }
}

pub(super) async fn show(
    State(console): State<Console>,
    at: InstanceContext,
    Query(query): Query<ConnectionsQuery>,
) -> PageResult {
    let after = query.after.parse().ok();
    let page = ConnectionsPage::load(&console, &at, after.as_ref()).await;
    Ok(view::page(&page.map_err(|error| at.page_error(error))?))
}

/// The form that connects a service.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ConnectForm {
    /// The ID of the agent.
    agent: String,
}

/// Starts the connection of a service.
pub(super) async fn connect(
    State(console): State<Console>,
    at: InstanceContext,
    Form(form): Form<ConnectForm>,
) -> PageResult {
    match start(&console, &at, &form.agent).await {
        Ok(response) => Ok(response),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error).map_err(|error| at.page_error(error))?;
            let page = ConnectionsPage::load(&console, &at, None).await.map_err(|error| at.page_error(error))?;
            Ok(view::html(status, &ConnectionsPage { form_error, agent: form.agent, ..page }))
        }
    }
}

async fn start(console: &Console, at: &InstanceContext, agent: &str) -> Result<Response> {
    let id: AgentId = agent.parse().map_err(|_| Error::invalid("agent", "Select one of the services."))?;
    let (ops, origin) = (console.ops(), console.public_url.origin());
    let found = agents::get(&at.cx, ops, &at.organization_id, &id).await?;
    let started = connect::begin(&at.cx, ops, &at.organization_id, at.id(), (Some(&id), &origin)).await?;
    let effect = format!("Only the agent {} then uses the account with which you sign in.", found.agent.name);
    let texts = (at.path("connections"), at.instance().name.clone(), effect);
    Ok(authorize_page(at.layout.clone(), started, texts))
}

/// Ends the connection of an agent.
pub(super) async fn disconnect(
    State(console): State<Console>,
    at: InstanceContext,
    Path((_, _, agent)): Path<(String, String, String)>,
) -> PageResult {
    let ended = async {
        let id: AgentId = agent.parse().map_err(|_| Error::not_found("connection"))?;
        connect::disconnect(&at.cx, console.ops(), &at.organization_id, at.id(), Some(&id)).await
    };
    ended.await.map_err(|error| -> PageError { at.page_error(error) })?;
    Ok(view::redirect_with_flash(&at.path("connections"), "Disconnected."))
}
