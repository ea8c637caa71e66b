//! Setup instructions for an agent: the URL, a token, and the snippet for each client.

use askama::Template;
use axum::extract::{Query, State};
use http::HeaderMap;
use serde::Deserialize;
use waypost_core::Timestamp;
use waypost_core::agent::AgentState;
use waypost_core::id::AgentTokenId;
use waypost_core::tool_set::MAX_TOOL_SETS;
use waypost_ops::agent_tokens::USED_EVERY_MS;
use waypost_ops::agents::AgentView;
use waypost_ops::tool_sets;

use super::{AgentContext, AgentHeader};
use crate::Console;
use crate::form::default_expiry;
use crate::install::{self, Client, Target};
use crate::layout::Layout;
use crate::live;
use crate::view::{self, FormError, PageError, PageResult};

/// The text that snippets contain instead of a token.
const PLACEHOLDER: &str = "YOUR_TOKEN";

/// The tool set to connect to. Without one, the URL gives access to everything that the agent was granted.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ConnectQuery {
    set: String,
}

/// A token that has just been created.
pub(super) struct CreatedToken {
    pub(super) id: AgentTokenId,
    pub(super) name: String,
    pub(super) secret: String,
}

/// The request that the page waits for: the first one with a new token, or any after a point in time.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct StatusQuery {
    /// The time at which the page was opened, in milliseconds.
    since: i64,
    /// The ID of the token that has just been created. Empty if there is none.
    token: String,
}

/// The state of the agent's connection, which is polled.
#[derive(Template)]
#[template(path = "agents/connection.html")]
struct Connection {
    /// The recorded time of the request that shows that the agent has connected. `None` if there was none.
    connected_at: Option<String>,
    is_disabled: bool,
}

impl Connection {
    /// Returns the state of the connection. The time of the last request is recorded at most once a minute, so a
    /// request in the minute before the page was opened counts as well. With a new token, this is not necessary: its
    /// first request is always recorded.
    fn new(view: &AgentView, query: &StatusQuery) -> Self {
        let token: Option<AgentTokenId> = query.token.parse().ok();
        let at = match token {
            Some(id) => view.tokens.iter().find(|token| token.id == id).and_then(|token| token.last_used_at),
            None => view.agent.last_seen_at.filter(|at| at.0 > query.since.saturating_sub(USED_EVERY_MS)),
        };
        Self { connected_at: at.map(Timestamp::rfc3339), is_disabled: view.agent.state == AgentState::Disabled }
    }
}

#[derive(Template)]
#[template(path = "agents/connect.html")]
pub(super) struct ConnectPage {
    layout: Layout,
    header: AgentHeader,
    form_error: FormError,
    created: Option<CreatedToken>,
    /// The URLs as options: the slug of the tool set, and the label.
    sets: Vec<(String, String)>,
    tool_set: String,
    url: String,
    clients: Vec<Client>,
    token_name: String,
    expires_on: String,
    connection: Connection,
    /// The path of the fragment with the state of the connection.
    connection_path: String,
}

impl ConnectPage {
    /// Returns the page with the snippets for a tool set. They contain the token that has just been created, or a
    /// placeholder.
    pub(super) async fn load(
        console: &Console,
        at: &AgentContext,
        set: &str,
        created: Option<CreatedToken>,
    ) -> Result<Self, PageError> {
        let limit = u32::try_from(MAX_TOOL_SETS).unwrap_or(u32::MAX);
        let found = tool_sets::list(&at.cx, console.ops(), &at.organization_id, None, limit).await;
        let found = found.map_err(|error| at.page_error(error))?;
        let mut sets = vec![(String::new(), "Everything that the agent was granted".to_owned())];
        sets.extend(found.into_iter().map(|set| (set.slug, format!("Tool set {}", set.name))));
        let tool_set = sets.iter().find(|(slug, _)| slug == set).map(|(slug, _)| slug.clone()).unwrap_or_default();
        let url = gateway_url(console, &at.org.organization.slug, &tool_set);
        let name = if tool_set.is_empty() { &at.org.organization.slug } else { &tool_set };
        let secret = created.as_ref().map_or(PLACEHOLDER, |created| created.secret.as_str());
        let query = StatusQuery {
            since: at.cx.now().0,
            token: created.as_ref().map(|created| created.id.to_string()).unwrap_or_default(),
        };
        let clients = install::clients_with_token(Target { name, url: &url }, secret);
        Ok(Self {
            layout: at.layout.clone(),
            header: at.header("connect"),
            form_error: FormError::default(),
            created,
            sets,
            tool_set,
            url,
            clients,
            token_name: String::new(),
            expires_on: default_expiry(at.cx.now()),
            connection: Connection::new(&at.view, &query),
            connection_path: at.path(&format!("connect/status?since={}&token={}", query.since, query.token)),
        })
    }
}

/// Returns the gateway URL of an organisation or, unless `set` is empty, of its tool set with this slug.
pub(crate) fn gateway_url(console: &Console, organization: &str, set: &str) -> String {
    let origin = console.public_url.origin();
    if set.is_empty() {
        format!("{origin}/gateway/{organization}/mcp")
    } else {
        format!("{origin}/gateway/{organization}/{set}/mcp")
    }
}

pub(super) async fn show(
    State(console): State<Console>,
    at: AgentContext,
    Query(query): Query<ConnectQuery>,
) -> PageResult {
    Ok(view::page(&ConnectPage::load(&console, &at, &query.set, None).await?))
}

pub(super) async fn status(at: AgentContext, Query(query): Query<StatusQuery>, headers: HeaderMap) -> PageResult {
    Ok(live::fragment(&headers, &Connection::new(&at.view, &query)))
}
