//! `/o/{org}/agents`: the clients that use the gateway, their tokens, and the definitions that they see.

mod connect;
mod list;
mod secrets;
mod show;
mod tokens;
mod visible;

pub(crate) use self::connect::gateway_url;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use waypost_core::access::Operation;
use waypost_core::agent::{AgentKind, AgentState};
use waypost_core::caller::Ctx;
use waypost_core::id::{AgentId, OrganizationId};
use waypost_core::{Error, Result};
use waypost_ops::agents::{self, AgentView};

use crate::Console;
use crate::layout::{CurrentOrganization, Layout};
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::PageError;

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Operation::AgentRead);
    const WRITE: Access = Access::Member(Operation::AgentWrite);
    const READ_SECRETS: Access = Access::Member(Operation::AgentSecretRead);
    const WRITE_SECRETS: Access = Access::Member(Operation::AgentSecretWrite);
    Routes::new()
        .get("/o/{org}/agents", READ, list::show)
        .post("/o/{org}/agents", WRITE, list::create)
        .get("/o/{org}/agents/{agent}", READ, show::show)
        .post("/o/{org}/agents/{agent}", WRITE, show::rename)
        .post("/o/{org}/agents/{agent}/enable", WRITE, show::enable)
        .post("/o/{org}/agents/{agent}/disable", WRITE, show::disable)
        .post("/o/{org}/agents/{agent}/delete", WRITE, show::delete)
        .post("/o/{org}/agents/{agent}/tokens", WRITE, tokens::create)
        .post("/o/{org}/agents/{agent}/tokens/{token}/revoke", WRITE, tokens::revoke)
        .get("/o/{org}/agents/{agent}/visible", READ, visible::show)
        .get("/o/{org}/agents/{agent}/secrets", READ_SECRETS, secrets::show)
        .post("/o/{org}/agents/{agent}/secrets/{instance}", WRITE_SECRETS, secrets::set)
        .post("/o/{org}/agents/{agent}/secrets/{instance}/delete", WRITE_SECRETS, secrets::delete)
        .get("/o/{org}/agents/{agent}/connect", READ, connect::show)
        .get("/o/{org}/agents/{agent}/connect/status", READ, connect::status)
}

/// The agent in the path (`{agent}`) with the context of the request.
pub(super) struct AgentContext {
    cx: Ctx,
    organization_id: OrganizationId,
    org: CurrentOrganization,
    layout: Layout,
    view: AgentView,
}

impl FromRequestParts<Console> for AgentContext {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Response> {
        let Member { cx, organization_id, org, layout } = Member::from_request_parts(parts, console).await?;
        let layout = layout.with_section("agents");
        let params = RawPathParams::from_request_parts(parts, console).await.map_err(IntoResponse::into_response)?;
        let id = params.iter().find(|(name, _)| *name == "agent").and_then(|(_, text)| text.parse().ok());
        let found = match id {
            Some(id) => agents::get(&cx, console.ops(), &organization_id, &id).await,
            None => Err(Error::not_found("agent")),
        };
        match found {
            Ok(view) => Ok(Self { cx, organization_id, org, layout, view }),
            Err(error) => Err(PageError::from(error).with_layout(layout).into_response()),
        }
    }
}

impl AgentContext {
    fn id(&self) -> &AgentId {
        &self.view.agent.id
    }

    /// Returns the path of a page of the agent.
    fn path(&self, rest: &str) -> String {
        let base = format!("agents/{}", self.id());
        self.org.path(&if rest.is_empty() { base } else { format!("{base}/{rest}") })
    }

    /// Returns the header for a page of the agent.
    fn header(&self, tab: &'static str) -> AgentHeader {
        AgentHeader {
            list: self.org.path("agents"),
            base: self.path(""),
            name: self.view.agent.name.clone(),
            is_person: self.view.agent.kind == AgentKind::Person,
            is_disabled: self.view.agent.state == AgentState::Disabled,
            is_gateway_off: !self.org.organization.gateway_enabled,
            tab,
        }
    }

    fn page_error(&self, error: Error) -> PageError {
        PageError::from(error).with_layout(self.layout.clone())
    }
}

/// The header of all pages of an agent.
struct AgentHeader {
    /// The path of the list.
    list: String,
    /// The path of the agent.
    base: String,
    name: String,
    /// Whether the agent belongs to a user who signs in. Other agents use tokens.
    is_person: bool,
    is_disabled: bool,
    /// Whether the organisation has switched the gateway off.
    is_gateway_off: bool,
    tab: &'static str,
}

impl AgentHeader {
    /// Returns the path and label of each tab, and whether it is the current one.
    fn tabs(&self) -> Vec<(String, &'static str, bool)> {
        let tabs = [("", "Overview"), ("visible", "Visibility"), ("secrets", "Secrets"), ("connect", "Connect")];
        let tab = |(rest, label): (&str, &'static str)| {
            let href = if rest.is_empty() { self.base.clone() } else { format!("{}/{rest}", self.base) };
            (href, label, rest == self.tab)
        };
        tabs.into_iter().map(tab).collect()
    }
}
