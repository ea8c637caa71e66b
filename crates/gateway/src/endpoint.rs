//! The endpoint: reads a message, checks it, and answers or relays it.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::json;
use waypost_core::tool_set::ToolSet;
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::methods;
use waypost_mcp_wire::revision::MODERN;
use waypost_mcp_wire::strict::{Message, MessageKind, Messages, text_of};
use waypost_mcp_wire::{
    INVALID_PARAMS, INVALID_REQUEST, JsonRpcError, METHOD_NOT_FOUND, PARSE_ERROR, UNSUPPORTED_VERSION,
};
use waypost_ops::agent_tokens::ResolvedAgent;
use waypost_ops::tool_access::AgentAccess;

use crate::call::is_relayed;
use crate::view::View;
use crate::{Gateway, GatewayAddress, headers, lists, reply};

/// The maximum size of a message in bytes.
pub const MAX_BODY: usize = 4 * 1024 * 1024;

impl Gateway {
    /// Answers a request of an agent that was identified by its token. An address that is not the agent's is answered with
    /// 404, whether it exists or not.
    pub async fn handle(
        &self,
        caller: &ResolvedAgent,
        address: &GatewayAddress,
        (parts, body): (Parts, Body),
    ) -> Response {
        match self.find_access(caller, address).await {
            Ok(Some(_)) => {}
            Ok(None) => return not_found(),
            Err(error) => return unavailable(&error),
        }
        if parts.method != Method::POST {
            return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")]).into_response();
        }
        if !is_json(&parts.headers) {
            let error = JsonRpcError::new(PARSE_ERROR, "The content type must be application/json.", None);
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
        if let Err(error) = headers::check(&message, &parts.headers) {
            return reply::rejection(&error, message.is_modern());
        }
        match self.answer(caller, address, &message, &parts.headers).await {
            Ok(response) => response,
            Err(error) if error.code == Code::NotFound => not_found(),
            Err(error) => {
                if error.code == Code::Internal {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(cause, "a request to the gateway failed");
                }
                reply::failure(&message, &error)
            }
        }
    }

    async fn answer(
        &self,
        caller: &ResolvedAgent,
        address: &GatewayAddress,
        request: &Message<'_>,
        headers: &HeaderMap,
    ) -> Result<Response> {
        let is_modern = request.is_modern();
        if let Some(declared) = text_of(request.params.meta.protocol_version).filter(|declared| declared != MODERN) {
            return Ok(unsupported_version(request, &declared));
        }
        match request.kind {
            MessageKind::Request => {}
            MessageKind::Notification => return Ok(StatusCode::ACCEPTED.into_response()),
            // No server can send requests to the agent yet, so no response belongs to one.
            MessageKind::Result | MessageKind::Error if is_modern => {
                let error = JsonRpcError::new(INVALID_REQUEST, "Invalid Request: a response to no request.", None);
                return Ok(reply::rejection(&error, true));
            }
            MessageKind::Result | MessageKind::Error => return Ok(StatusCode::ACCEPTED.into_response()),
        }
        let method = request.method.as_deref().unwrap_or_default();
        if is_relayed(method) {
            if request.target().is_none() {
                let text = "Invalid params: the name or URI is missing.";
                return Ok(reply::rejection(&JsonRpcError::new(INVALID_PARAMS, text, request.id()), is_modern));
            }
            return self.call(caller, address, request, headers).await;
        }
        let access = self.access.find(&caller.organization_id, &caller.agent.id).await?;
        let tool_set = self.tool_set(&access, address).ok_or_else(|| Error::not_found("tool set"))?;
        let view = View::new(&access, tool_set, self.cx.now());
        if let Some((kind, member)) = lists::kind_of(method) {
            if request.params.cursor.is_some_and(|cursor| cursor != "null") {
                let text = "Invalid params: `cursor` is unknown. Lists have one page.";
                return Ok(reply::rejection(&JsonRpcError::new(INVALID_PARAMS, text, request.id()), is_modern));
            }
            return Ok(reply::result(request, lists::list(view, kind, member, is_modern)));
        }
        Ok(match (method, is_modern) {
            ("initialize", false) => reply::result(request, lists::initialize(view, request)),
            ("ping", false) => reply::result(request, json!({})),
            ("server/discover", true) => reply::result(request, lists::discover(view)),
            _ => {
                let text = methods::not_found(method, is_modern);
                reply::rejection(&JsonRpcError::new(METHOD_NOT_FOUND, text, request.id()), is_modern)
            }
        })
    }

    /// Returns what the agent can use at an address; `None` if the address is not the agent's.
    async fn find_access(&self, caller: &ResolvedAgent, address: &GatewayAddress) -> Result<Option<AgentAccess>> {
        let access = self.access.find(&caller.organization_id, &caller.agent.id).await?;
        let slug = &access.access.organization_slug;
        let is_own = address.organization.as_ref().is_none_or(|organization| organization == slug);
        Ok(Some(access).filter(|access| is_own && self.tool_set(access, address).is_some()))
    }

    /// Returns the tool set of an address, `Some(None)` for an address without one, and `None` if there is no such tool set.
    pub(crate) fn tool_set<'a>(
        &self,
        access: &'a AgentAccess,
        address: &GatewayAddress,
    ) -> Option<Option<&'a ToolSet>> {
        match &address.tool_set {
            None => Some(None),
            Some(slug) => access.access.tool_sets.iter().find(|set| set.slug == *slug).map(Some),
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

/// 2026-07-28, "Versioning".
fn unsupported_version(request: &Message<'_>, declared: &str) -> Response {
    let object = json!({
        "code": UNSUPPORTED_VERSION,
        "message": "Unsupported protocol version",
        "data": { "supported": [MODERN], "requested": declared },
    });
    let text = format!(r#"{{"jsonrpc":"2.0","id":{},"error":{object}}}"#, request.raw_id.unwrap_or("null"));
    reply::message(StatusCode::BAD_REQUEST, text)
}

fn not_found() -> Response {
    let error = JsonRpcError::new(INVALID_REQUEST, "Not found.", None);
    reply::message(StatusCode::NOT_FOUND, error.to_json().to_string())
}

fn unavailable(error: &Error) -> Response {
    if error.code == Code::NotFound {
        return not_found();
    }
    let text = "The gateway is temporarily unavailable. Try again in a few seconds.";
    let error = JsonRpcError::new(waypost_mcp_wire::INTERNAL_ERROR, text, None);
    let mut response = reply::message(StatusCode::SERVICE_UNAVAILABLE, error.to_json().to_string());
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
