//! Subscribes agents to single resources: `resources/subscribe` and `resources/unsubscribe` in the revisions with a
//! handshake, and `subscriptions/listen` in 2026-07-28 ([`crate::listen`]).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use futures::future::join_all;
use serde_json::json;
use tokio::sync::Notify;
use waypost_core::instance::{Backend, DesiredRun, Instance};
use waypost_core::tool_definition::DefinitionKind;
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::strict::text_of;
use waypost_mcp_wire::{INVALID_PARAMS, JsonRpcError};
use waypost_ops::agent_tokens::ResolvedAgent;
use waypost_ops::instances::server_stream;
use waypost_ops::visibility::View;

use crate::agent_call::AgentCall;
use crate::subscriptions::{Mailbox, Resource, Subscription};
use crate::{Gateway, GatewayAddress, reply};

/// The maximum length of a URI in bytes.
pub(crate) const MAX_URI: usize = 2_048;
/// The time within which a server must accept a subscription, including the time to connect.
const TIMEOUT: Duration = Duration::from_secs(20);

impl Gateway {
    /// Answers `resources/subscribe` and `resources/unsubscribe`.
    ///
    /// # Errors
    /// An error that says why the server does not announce changes to the resource; `rate_limited` if there are too
    /// many subscriptions; `unavailable` if the agent's access cannot be read.
    pub(crate) async fn change_subscription(self: &Arc<Self>, call: AgentCall<'_>) -> Result<Response> {
        let AgentCall { caller, address, request, session, .. } = call;
        let reject = |text: &str| Ok(reply::rejection(&JsonRpcError::new(INVALID_PARAMS, text, request.id()), false));
        let Some(session) = session else {
            return reject("Invalid params: subscriptions need a session. Begin one with `initialize`.");
        };
        let Some(uri) = text_of(request.target()).filter(|uri| uri.len() <= MAX_URI) else {
            return reject("Invalid params: `uri` is missing, or longer than 2048 bytes.");
        };
        if request.method.as_deref() == Some("resources/unsubscribe") {
            self.session_subscriptions.unsubscribe(session, &uri);
            return Ok(reply::result(request, json!({})));
        }
        let used = self.session_subscriptions.enter(session);
        // Not counted as a call: clients repeat their subscriptions whenever they open their stream again.
        if used.has(&uri) {
            return Ok(reply::result(request, json!({})));
        }
        if let Err(wait) = self.quota.check(&caller.agent.id) {
            return Ok(reply::quota_exceeded(request, wait));
        }
        let Ok(_slot) = self.calls.acquire(&caller.organization_id, &caller.agent.id) else {
            return Ok(reply::rejection(&reply::too_many(request), false));
        };
        let begun = self.begin_subscription((caller, address), &uri, used.mailbox()).await?;
        let Some(mut subscription) = begun else {
            return Ok(reply::rejection(&reply::unknown(request), false));
        };
        confirm(&mut subscription).await?;
        used.add(subscription);
        Ok(reply::result(request, json!({})))
    }

    /// Subscribes a stream of 2026-07-28 to those of the resources that the agent may read and whose changes their
    /// servers announce.
    ///
    /// # Errors
    /// `rate_limited` if there are too many subscriptions; `unavailable` if the agent's access cannot be read.
    pub(crate) async fn subscribe_all(
        self: &Arc<Self>,
        agent: (&ResolvedAgent, &GatewayAddress),
        uris: &[String],
        mailbox: &Arc<Mailbox>,
    ) -> Result<Vec<Subscription>> {
        let mut begun = Vec::new();
        for uri in uris {
            match self.begin_subscription(agent, uri, mailbox).await {
                Ok(subscription) => begun.extend(subscription),
                Err(error) if matches!(error.code, Code::RateLimited | Code::Unavailable) => return Err(error),
                // Not acknowledged to the agent, like a subscription that the server refuses.
                Err(_) => {}
            }
        }
        let confirmed = join_all(begun.iter_mut().map(confirm)).await;
        Ok(begun
            .into_iter()
            .zip(confirmed)
            .filter(|(_, result)| result.is_ok())
            .map(|(accepted, _)| accepted)
            .collect())
    }

    /// Subscribes a mailbox to a resource. The server has yet to confirm the subscription. Returns `None` if the agent
    /// may not read the resource.
    async fn begin_subscription(
        self: &Arc<Self>,
        (caller, address): (&ResolvedAgent, &GatewayAddress),
        public: &str,
        mailbox: &Arc<Mailbox>,
    ) -> Result<Option<Subscription>> {
        let access = self.access.find(&caller.organization_id, &caller.agent.id).await?;
        let tool_set = address.tool_set(&access).ok_or_else(|| Error::not_found("tool set"))?;
        let view = View::new(&access, tool_set, self.cx.now());
        let Some(found) = view.find_resource(public) else { return Ok(None) };
        let instance = &found.server.instance;
        let wake = self.wake_for(instance)?;
        let resource = Resource { instance: &instance.id, uri: &found.original, public };
        let agent = (&caller.organization_id, &caller.agent.id);
        self.subscriptions.subscribe(agent, &resource, mailbox, &wake).map(Some)
    }

    /// Returns the [`Notify`] that tells the stream of a server that it has another subscription.
    fn wake_for(self: &Arc<Self>, instance: &Instance) -> Result<Arc<Notify>> {
        if instance.desired == DesiredRun::Stopped {
            let message = "The server is stopped. Ask an admin of the organisation to start it.";
            return Err(Error::new(Code::Conflict, message).with("reason", "not_running"));
        }
        if !server_stream::can_have_stream(instance) {
            return Err(no_shared_stream(instance));
        }
        self.keep_stream(instance).ok_or_else(|| {
            let message = "Too many servers announce changes at present. Try again later.";
            Error::new(Code::RateLimited, message).with("reason", "server_busy")
        })
    }

    /// Whether any server with a resource that an agent sees announces changes to single resources. A server without a
    /// connection counts as one that does not, and is connected in the background. So does a container until its stream
    /// is open; the stream is kept open, because only the stream shows this.
    pub(crate) fn can_subscribe(self: &Arc<Self>, view: View<'_>) -> bool {
        let kinds = [DefinitionKind::Resource, DefinitionKind::ResourceTemplate];
        let items: Vec<_> = kinds.into_iter().flat_map(|kind| view.items(kind)).collect();
        let mut known = HashSet::new();
        let instances = items.iter().map(|item| &item.server.instance).filter(|instance| known.insert(&instance.id));
        let running = instances.filter(|instance| instance.desired == DesiredRun::Running);
        let found = running.map(|instance| {
            server_stream::can_subscribe(&self.ops, instance).unwrap_or_else(|| {
                self.keep_stream(instance);
                self.server_streams.can_subscribe(&instance.id).unwrap_or(false)
            })
        });
        // Not `any`, which would skip the remaining servers after a match.
        found.fold(false, |one, other| one | other)
    }
}

/// Waits until the server has accepted a subscription.
async fn confirm(subscription: &mut Subscription) -> Result<()> {
    let late = || Error::new(Code::ToolServerError, "The server did not answer in time.").with("reason", "timeout");
    tokio::time::timeout(TIMEOUT, subscription.confirm()).await.unwrap_or_else(|_| Err(late()))
}

/// Returns the error for a server that has no stream for all agents, because each has its own container or connection.
pub(crate) fn no_shared_stream(instance: &Instance) -> Error {
    if let Backend::Container(_) = instance.backend {
        return server_stream::own_container();
    }
    let message = "Each agent has its own connection to this server, so resource subscriptions are not supported. Read the \
                   resource again instead.";
    Error::new(Code::Conflict, message).with("reason", "not_supported")
}
