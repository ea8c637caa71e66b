//! The endpoint: reads a message, checks it, and answers or relays it.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::json;
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::client_capabilities::ClientCapabilities;
use waypost_mcp_wire::log_level::LogLevel;
use waypost_mcp_wire::media_type::MediaType;
use waypost_mcp_wire::methods;
use waypost_mcp_wire::revision::{MODERN, SESSION_HEADER};
use waypost_mcp_wire::strict::{Message, MessageKind, Messages, text_of};
use waypost_mcp_wire::{
    INVALID_PARAMS, INVALID_REQUEST, JsonRpcError, METHOD_NOT_FOUND, PARSE_ERROR, UNSUPPORTED_VERSION,
};
use waypost_ops::agent_tokens::ResolvedAgent;
use waypost_ops::tool_access::AgentAccess;
use waypost_ops::visibility::View;

use crate::agent_call::AgentCall;
use crate::listen::Opening;
use crate::record::{CallRecord, is_switched_off};
use crate::session::Session;
use crate::{Gateway, GatewayAddress, TokenCheck, headers, listen, lists, reply};

/// The maximum size of a message in bytes.
pub const MAX_BODY: usize = 4 * 1024 * 1024;

impl Gateway {
    /// Answers a request of an agent that was identified by its token. For streams, `is_valid` checks the token again.
    /// Returns 404 for an address that is not the agent's, whether it exists or not, and 403 for every address while
    /// the gateway is switched off for the agent's organisation.
    pub async fn handle(
        self: &Arc<Self>,
        caller: &ResolvedAgent,
        address: &GatewayAddress,
        is_valid: TokenCheck,
        (parts, body): (Parts, Body),
    ) -> Response {
        match self.find_access(caller, address).await {
            Ok(Some(_)) => {}
            Ok(None) => return not_found(),
            Err(error) => return reject(&error),
        }
        if parts.method != Method::POST {
            return Box::pin(self.handle_stream(caller, address, is_valid, &parts)).await;
        }
        if !is_json(&parts.headers) {
            let error = JsonRpcError::new(PARSE_ERROR, "The content type must be application/json in UTF-8.", None);
            return reply::message(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_json().to_string());
        }
        let bytes = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
                let text = format!("The message is larger than {} MiB.", MAX_BODY / (1024 * 1024));
                let error = JsonRpcError::new(INVALID_REQUEST, text, None);
                return reply::message(StatusCode::PAYLOAD_TOO_LARGE, error.to_json().to_string());
            }
            Err(_) => return StatusCode::BAD_REQUEST.into_response(),
        };
        let message = match Messages::read(&bytes) {
            Ok(Messages::Single(message)) => message,
            Ok(Messages::Batch(_)) => {
                let text = "Invalid Request: the gateway accepts one message per request, no batches.";
                return reply::rejection(&JsonRpcError::new(INVALID_REQUEST, text, None), true);
            }
            Err(error) => return reply::rejection(&error, true),
        };
        // From here on, a call has a record.
        let record = self.recorder.begin(caller, &message);
        if let Err(error) = headers::check(&message, &parts.headers) {
            // Only messages whose headers or body declare 2026-07-28 are rejected here.
            return reply::rejection(&error, true);
        }
        let Ok(session) = self.find_session(caller, address, (&message, &parts.headers)) else {
            return unknown_session();
        };
        let (request, headers, session) = (&*message, &parts.headers, session.as_ref());
        let (capabilities, log_level) = match session {
            Some(session) => (session.capabilities(), self.sessions.log_level(session)),
            None => {
                let meta = &request.params.meta;
                (ClientCapabilities::parse(meta.client_capabilities), LogLevel::parse(meta.log_level))
            }
        };
        let call = AgentCall { caller, address, request, headers, session, capabilities, log_level };
        match self.answer(call, &bytes, (record, is_valid)).await {
            Ok(response) => response,
            Err(error) if error.code == Code::NotFound => not_found(),
            // It was switched off after the message arrived.
            Err(error) if is_switched_off(&error) => reply::forbidden(&error),
            Err(error) => {
                if error.code == Code::Internal {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(cause, "a request to the gateway failed");
                }
                reply::message(StatusCode::OK, reply::failure(message.raw_id.unwrap_or("null"), &error))
            }
        }
    }

    /// Answers GET and DELETE requests, which exist only in the revisions with a handshake.
    async fn handle_stream(
        self: &Arc<Self>,
        caller: &ResolvedAgent,
        address: &GatewayAddress,
        is_valid: TokenCheck,
        parts: &Parts,
    ) -> Response {
        let is_stream = parts.method == Method::GET && accepts_events(&parts.headers);
        if !is_stream && parts.method != Method::DELETE {
            return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, POST, DELETE")]).into_response();
        }
        let Ok(keyring) = self.ops.keyring() else { return unknown_session() };
        let session = self.sessions.find(keyring, &caller.agent.id, address, (&parts.headers, self.cx.now()));
        match session {
            None => unknown_session(),
            Some(session) if is_stream => {
                let opened = self.listen((caller, address), is_valid, Opening::Get(session.as_ref())).await;
                opened.unwrap_or_else(|error| reject(&error))
            }
            Some(Some(session)) => {
                self.sessions.end(&session);
                self.session_subscriptions.end(&session);
                StatusCode::NO_CONTENT.into_response()
            }
            Some(None) => {
                let text = "Invalid Request: the header `Mcp-Session-Id` is missing.";
                reply::rejection(&JsonRpcError::new(INVALID_REQUEST, text, None), true)
            }
        }
    }

    /// Returns the session of a message, if it has one.
    ///
    /// # Errors
    /// If the session is unknown or has ended.
    fn find_session(
        &self,
        caller: &ResolvedAgent,
        address: &GatewayAddress,
        (message, headers): (&Message<'_>, &HeaderMap),
    ) -> std::result::Result<Option<Session>, ()> {
        // 2026-07-28 has no sessions, and `initialize` begins a new one.
        if message.is_modern() || message.method.as_deref() == Some("initialize") {
            return Ok(None);
        }
        let keyring = self.ops.keyring().map_err(drop)?;
        self.sessions.find(keyring, &caller.agent.id, address, (headers, self.cx.now())).ok_or(())
    }

    async fn answer(
        self: &Arc<Self>,
        call: AgentCall<'_>,
        text: &Bytes,
        (record, is_valid): (Option<CallRecord>, TokenCheck),
    ) -> Result<Response> {
        let AgentCall { caller, address, request, .. } = call;
        let is_modern = request.is_modern();
        if let Some(declared) = text_of(request.params.meta.protocol_version).filter(|declared| declared != MODERN) {
            return Ok(unsupported_version(request, &declared));
        }
        match request.kind {
            // 2026-07-28, "Request metadata".
            MessageKind::Request if is_modern && !declares_capabilities(request) => {
                let text =
                    "Invalid params: `_meta` must contain the object `io.modelcontextprotocol/clientCapabilities`.";
                return Ok(reply::rejection(&JsonRpcError::new(INVALID_PARAMS, text, request.id()), true));
            }
            MessageKind::Request => {}
            MessageKind::Notification => {
                let id = request.params.request_id;
                if let (Some("notifications/cancelled"), Some(session), Some(id)) =
                    (request.method.as_deref(), call.session, id)
                {
                    self.running_calls.cancel(session, id);
                }
                return Ok(StatusCode::ACCEPTED.into_response());
            }
            // 2026-07-28: servers send no requests.
            MessageKind::Result | MessageKind::Error if is_modern => {
                let error = JsonRpcError::new(INVALID_REQUEST, "Invalid Request: a response to no request.", None);
                return Ok(reply::rejection(&error, true));
            }
            MessageKind::Result | MessageKind::Error => {
                if let Some(session) = call.session {
                    self.agent_requests.respond(session, request);
                }
                return Ok(StatusCode::ACCEPTED.into_response());
            }
        }
        let method = request.method.as_deref().unwrap_or_default();
        if let Some(record) = record {
            if request.target().is_none() {
                let text = "Invalid params: the name or URI is missing.";
                return Ok(reply::rejection(&JsonRpcError::new(INVALID_PARAMS, text, request.id()), is_modern));
            }
            return self.call(call, text, record).await;
        }
        if is_modern && method == listen::METHOD {
            return Box::pin(self.listen((caller, address), is_valid, Opening::Listen(request))).await;
        }
        if !is_modern && matches!(method, "resources/subscribe" | "resources/unsubscribe") {
            return Box::pin(self.change_subscription(call)).await;
        }
        let access = self.access.find(&caller.organization_id, &caller.agent.id).await?;
        let tool_set = address.tool_set(&access).ok_or_else(|| Error::not_found("tool set"))?;
        let view = View::new(&access, tool_set, self.cx.now());
        if let Some((kind, member)) = lists::kind_of(method) {
            if request.params.cursor.is_some_and(|cursor| cursor != "null") {
                let text = "Invalid params: `cursor` is unknown. Lists have one page.";
                return Ok(reply::rejection(&JsonRpcError::new(INVALID_PARAMS, text, request.id()), is_modern));
            }
            return Ok(reply::raw_result(request, &lists::list(view, kind, member, is_modern)));
        }
        Ok(match (method, is_modern) {
            ("initialize", false) => {
                let mut response = reply::result(request, lists::initialize(view, request, self.can_subscribe(view)));
                let session = Session::new(address, request, &self.cx);
                let id = session.seal(self.ops.keyring()?, &caller.agent.id, &self.cx)?;
                response.headers_mut().insert(SESSION_HEADER, id);
                response
            }
            ("ping", false) => reply::result(request, json!({})),
            ("server/discover", true) => reply::result(request, lists::discover(view, self.can_subscribe(view))),
            ("logging/setLevel", false) if call.session.is_some() => self.set_log_level(call),
            _ => {
                let text = methods::not_found(method, is_modern);
                reply::rejection(&JsonRpcError::new(METHOD_NOT_FOUND, text, request.id()), is_modern)
            }
        })
    }

    fn set_log_level(&self, call: AgentCall<'_>) -> Response {
        let level = LogLevel::parse(call.request.params.level);
        match (call.session, level) {
            (Some(session), Some(level)) => {
                self.sessions.set_log_level(session, level);
                reply::result(call.request, json!({}))
            }
            _ => {
                let text = "Invalid params: `level` is missing or unknown.";
                reply::rejection(&JsonRpcError::new(INVALID_PARAMS, text, call.request.id()), false)
            }
        }
    }

    /// Returns the access of an agent; `None` if the address is not the agent's.
    async fn find_access(&self, caller: &ResolvedAgent, address: &GatewayAddress) -> Result<Option<AgentAccess>> {
        let access = self.access.find(&caller.organization_id, &caller.agent.id).await?;
        Ok(Some(access).filter(|access| address.tool_set(access).is_some()))
    }
}

fn declares_capabilities(request: &Message<'_>) -> bool {
    request.params.meta.client_capabilities.is_some_and(|capabilities| capabilities.starts_with('{'))
}

/// Whether the client accepts events, as every client that opens a stream must ("Listening for Messages from the
/// Server").
fn accepts_events(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("text/event-stream"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONTENT_TYPE).iter().map(HeaderValue::as_bytes);
    MediaType::of(values) == Some(MediaType::Json)
}

/// Returns the response to a request with an unsupported protocol version (2026-07-28, "Versioning").
fn unsupported_version(request: &Message<'_>, declared: &str) -> Response {
    let object = json!({
        "code": UNSUPPORTED_VERSION,
        "message": "Unsupported protocol version",
        "data": { "supported": [MODERN], "requested": declared },
    });
    let text = format!(r#"{{"jsonrpc":"2.0","id":{},"error":{object}}}"#, request.raw_id.unwrap_or("null"));
    reply::message(StatusCode::BAD_REQUEST, text)
}

/// Returns 404, after which the client begins a new session (2025-11-25, "Session Management").
fn unknown_session() -> Response {
    let text = "The session is unknown or has ended. Begin a new one with `initialize`.";
    let error = JsonRpcError::new(INVALID_REQUEST, text, None);
    reply::message(StatusCode::NOT_FOUND, error.to_json().to_string())
}

fn not_found() -> Response {
    let error = JsonRpcError::new(INVALID_REQUEST, "Not found.", None);
    reply::message(StatusCode::NOT_FOUND, error.to_json().to_string())
}

fn reject(error: &Error) -> Response {
    match error.code {
        Code::NotFound => not_found(),
        Code::Forbidden => reply::forbidden(error),
        _ => unavailable(),
    }
}

/// Returns the response to a request that cannot be checked at present, with the status 503.
#[must_use]
pub fn unavailable() -> Response {
    let text = "The gateway is temporarily unavailable. Try again in a few seconds.";
    let error = JsonRpcError::new(waypost_mcp_wire::INTERNAL_ERROR, text, None);
    let mut response = reply::message(StatusCode::SERVICE_UNAVAILABLE, error.to_json().to_string());
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
