//! Calls that are relayed to a server.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use waypost_core::grant::allows;
use waypost_core::instance::DesiredRun;
use waypost_core::tool_definition::DefinitionKind;
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::INVALID_REQUEST;
use waypost_mcp_wire::rewrite::{Caching, Rewrite};
use waypost_mcp_wire::strict::{Message, MessageKind, text_of};
use waypost_ops::agent_tokens::ResolvedAgent;
use waypost_ops::instances::exchange::{Exchange, ExchangeTarget};
use waypost_ops::tool_access::AgentAccess;
use waypost_toolbox_proto::entry::Sharing;
use waypost_toolbox_proto::http::MAX_MESSAGE_BYTES;

use crate::headers::check_arguments;
use crate::reply;
use crate::slots::CallSlot;
use crate::view::{Found, View};
use crate::{Gateway, GatewayAddress};

/// The time for the response of a server, including the start of its container.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The additional time in which the toolbox reports that a call has timed out.
const REPORT_TIME: Duration = Duration::from_secs(5);

/// Whether a method is relayed to the server of its target.
pub(crate) fn is_relayed(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read" | "completion/complete")
}

impl Gateway {
    /// Relays a call to its server.
    pub(crate) async fn call(
        &self,
        caller: &ResolvedAgent,
        address: &GatewayAddress,
        request: &Message<'_>,
        headers: &HeaderMap,
    ) -> Result<Response> {
        let is_modern = request.is_modern();
        let Some(slot) = self.slots.acquire(&caller.agent.id) else {
            return Ok(reply::rejection(&reply::too_many(request), is_modern));
        };
        let mut access = self.access.find(&caller.organization_id, &caller.agent.id).await?;
        let unknown = || reply::rejection(&reply::unknown(request), is_modern);
        // Nobody can make this installation read a server that they were not granted.
        let Some(found) = self.find_allowed(&access, address, request) else { return Ok(unknown()) };
        if found.server.instance.desired == DesiredRun::Stopped {
            let message = "The server is stopped. Ask an admin of the organisation to start it.";
            return Err(Error::new(Code::Conflict, message).with("reason", "not_running"));
        }
        if self.check_definitions(&found.server.instance).await? {
            access = self.access.find(&caller.organization_id, &caller.agent.id).await?;
        }
        let Some(found) = self.find_allowed(&access, address, request) else { return Ok(unknown()) };
        if let Err(error) = check_arguments(request, headers, &found.definition.definition) {
            return Ok(reply::rejection(&error, is_modern));
        }
        let key = self.container_key(caller, found.server.sharing);
        let instance = &found.server.instance;
        let target = ExchangeTarget { instance: &instance.id, toolbox: &instance.toolbox_id, key: &key };
        let message = rewritten(request, &found.original);
        let exchange = Exchange::open(&self.ops, target, message, (TIMEOUT, MAX_MESSAGE_BYTES));
        let exchange = tokio::time::timeout(TIMEOUT + REPORT_TIME, exchange).await.map_err(|_| late())??;
        relay(request, exchange, slot).await
    }

    /// Returns the target of a call if the agent may use it with these arguments.
    fn find_allowed<'a>(
        &self,
        access: &'a AgentAccess,
        address: &GatewayAddress,
        request: &Message<'_>,
    ) -> Option<Found<'a>> {
        let now = self.cx.now();
        let view = View::new(access, self.tool_set(access, address)?, now);
        let target = text_of(request.target())?;
        let found = match request.method.as_deref()? {
            "tools/call" => view.find_named(DefinitionKind::Tool, &target)?,
            "prompts/get" => view.find_named(DefinitionKind::Prompt, &target)?,
            "resources/read" => view.find_resource(&target)?,
            "completion/complete" => match text_of(request.params.reference.kind)?.as_ref() {
                "ref/prompt" => view.find_named(DefinitionKind::Prompt, &target)?,
                _ => view.find_template(&target)?,
            },
            _ => return None,
        };
        // Arguments become a tree only if there are rules on them.
        let has_rules = found.grants.iter().any(|grant| !grant.rules.is_empty());
        let arguments: Option<Value> =
            request.params.arguments.filter(|_| has_rules).and_then(|raw| serde_json::from_str(raw).ok());
        allows(found.grants, now, found.target(), arguments.as_ref()).then_some(found)
    }

    /// Returns the key of the container that a call uses.
    fn container_key(&self, caller: &ResolvedAgent, sharing: Sharing) -> String {
        match sharing {
            Sharing::Shared | Sharing::PerAgent => format!("agent:{}", caller.agent.id),
            Sharing::PerSession => {
                let mut bytes = [0_u8; 15];
                self.cx.random.fill(&mut bytes);
                format!("agent:{}:{}", caller.agent.id, waypost_core::id::base32(&bytes))
            }
        }
    }
}

/// Returns the message for the server: with the name by which the server knows the target, and without the metadata of the
/// agent, which the toolbox replaces. A server is told of no capability of the agent, so it asks the agent for nothing.
fn rewritten(request: &Message<'_>, original: &str) -> Bytes {
    let mut rewrite = Rewrite::new(request);
    rewrite.set_target(original);
    rewrite.request_to_legacy();
    rewrite.finish().into()
}

/// Relays the messages of a response: as JSON if the first one is the response, otherwise as events.
async fn relay(request: &Message<'_>, mut exchange: Exchange, slot: CallSlot) -> Result<Response> {
    let relayed = Relayed { is_modern: request.is_modern(), raw_id: request.raw_id.unwrap_or("null").to_owned() };
    let deadline = tokio::time::Instant::now() + TIMEOUT + REPORT_TIME;
    let first = next(&mut exchange, &relayed, deadline).await?;
    match first {
        Next::Response(text) => Ok(reply::message(StatusCode::OK, text)),
        Next::Notification(text) => {
            let state = Some((exchange, relayed, slot, Some(text)));
            let events = stream::unfold(state, move |state| async move {
                let (mut exchange, relayed, slot, pending) = state?;
                if let Some(text) = pending {
                    return Some((
                        Ok::<_, std::convert::Infallible>(reply::event(&text)),
                        Some((exchange, relayed, slot, None)),
                    ));
                }
                match next(&mut exchange, &relayed, deadline).await {
                    Ok(Next::Notification(text)) => {
                        Some((Ok(reply::event(&text)), Some((exchange, relayed, slot, None))))
                    }
                    Ok(Next::Response(text)) => Some((Ok(reply::event(&text)), None)),
                    Err(error) => Some((Ok(reply::event(&relayed.failure(&error))), None)),
                }
            });
            Ok(reply::stream(Body::from_stream(events)))
        }
    }
}

/// What is needed to relay a response.
struct Relayed {
    is_modern: bool,
    /// The ID of the request as the agent wrote it.
    raw_id: String,
}

enum Next {
    Notification(Bytes),
    Response(Bytes),
}

impl Relayed {
    fn failure(&self, error: &Error) -> Vec<u8> {
        let object = serde_json::json!({ "code": waypost_mcp_wire::INTERNAL_ERROR, "message": error.message });
        format!(r#"{{"jsonrpc":"2.0","id":{},"error":{object}}}"#, self.raw_id).into_bytes()
    }
}

/// Returns the next message for the agent. Messages that do not belong to this call are dropped.
async fn next(exchange: &mut Exchange, relayed: &Relayed, deadline: tokio::time::Instant) -> Result<Next> {
    loop {
        let received = tokio::time::timeout_at(deadline, exchange.next()).await.map_err(|_| late())??;
        let text = received.ok_or_else(|| server_error("The server did not answer.", "no_mcp"))?;
        let message = Message::read(&text).map_err(|_| {
            server_error("The server's answer could be read in different ways, so it is not relayed.", "ambiguous")
        })?;
        match message.kind {
            MessageKind::Notification => return Ok(Next::Notification(text)),
            // The toolbox answers requests of servers.
            MessageKind::Request => {}
            MessageKind::Error | MessageKind::Result if message.raw_id != Some(&relayed.raw_id) => {}
            MessageKind::Error => return Ok(Next::Response(text)),
            MessageKind::Result => {
                let converted = converted(&message, relayed.is_modern)?;
                return Ok(Next::Response(converted.unwrap_or(text.clone())));
            }
        }
    }
}

/// Returns the response for the era of the agent; `None` if it can be relayed as it is.
fn converted(response: &Message<'_>, is_modern: bool) -> Result<Option<Bytes>> {
    let Some(result) = &response.result else { return Ok(None) };
    let result_type = text_of(result.result_type);
    if result_type.as_deref().is_some_and(|kind| kind != "complete") {
        return Err(server_error(
            "The server asks for input, or answers in a way that this gateway does not relay yet.",
            "input_required",
        ));
    }
    let mut rewrite = Rewrite::new(response);
    match (is_modern, result_type.is_some()) {
        (true, true) | (false, false) => return Ok(None),
        (true, false) => rewrite.result_to_modern(Some(Caching { ttl_ms: 0, is_public: false })),
        (false, true) => rewrite.result_to_legacy(),
    }
    Ok(Some(rewrite.finish().into()))
}

fn server_error(message: &str, reason: &str) -> Error {
    Error::new(Code::ToolServerError, message).with("reason", reason).with("rpc_code", INVALID_REQUEST)
}

fn late() -> Error {
    Error::new(Code::ToolServerError, "The server did not answer in time.").with("reason", "timeout")
}
