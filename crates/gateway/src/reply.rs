//! Responses: JSON-RPC messages as JSON, or as events.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use waypost_core::{Code, Error};
use waypost_mcp_wire::memory::keep;
use waypost_mcp_wire::relay::make_single_line;
use waypost_mcp_wire::strict::{Message, text_of};
use waypost_mcp_wire::{
    HEADER_MISMATCH, INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, JsonRpcError, METHOD_NOT_FOUND,
    UNSUPPORTED_VERSION,
};

use crate::message_text::MessageText;
use crate::slots::{LimitReached, MAX_STREAMS};

/// The JSON-RPC code of the error for a caller with too many calls, outside the reserved ranges.
const LIMIT_REACHED: i64 = -31_429;
/// The JSON-RPC code of the error for a caller without permission, outside the reserved ranges.
const FORBIDDEN: i64 = -31_403;

/// Returns a response with a message as JSON.
pub(crate) fn message(status: StatusCode, text: impl Into<MessageText>) -> Response {
    let mut response = (status, Body::from(text.into())).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Returns the response to a request. `members` are those of its result; for 2026-07-28, [`modern_members`] are added.
pub(crate) fn result(request: &Message<'_>, mut members: Value) -> Response {
    if let Some(members) = members.as_object_mut().filter(|_| request.is_modern()) {
        members.extend(modern_members());
    }
    raw_result(request, &members.to_string())
}

/// Returns the members that every result of the gateway itself has in 2026-07-28.
pub(crate) fn modern_members() -> Map<String, Value> {
    let mut members = Map::new();
    members.insert("resultType".to_owned(), "complete".into());
    members.insert("_meta".to_owned(), json!({ "io.modelcontextprotocol/serverInfo": server_info() }));
    members
}

/// Returns the response to a request. `result` is JSON text.
pub(crate) fn raw_result(request: &Message<'_>, result: &str) -> Response {
    // The ID is returned as the agent wrote it.
    let text = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, request.raw_id.unwrap_or("null"));
    message(StatusCode::OK, text)
}

/// Returns the name and version of the gateway.
pub(crate) fn server_info() -> Value {
    json!({ "name": "waypost-gateway", "title": "Waypost gateway", "version": env!("CARGO_PKG_VERSION") })
}

/// Returns the response to a message that is rejected before it reaches a server.
pub(crate) fn rejection(error: &JsonRpcError, is_modern: bool) -> Response {
    let status = match error.code {
        METHOD_NOT_FOUND if is_modern => StatusCode::NOT_FOUND,
        INVALID_PARAMS | INTERNAL_ERROR | METHOD_NOT_FOUND if !is_modern => StatusCode::OK,
        LIMIT_REACHED => StatusCode::TOO_MANY_REQUESTS,
        HEADER_MISMATCH | UNSUPPORTED_VERSION => StatusCode::BAD_REQUEST,
        _ => StatusCode::BAD_REQUEST,
    };
    message(status, error.to_json().to_string())
}

/// Returns the response to a request whose agent may not use the gateway at present.
pub(crate) fn forbidden(error: &Error) -> Response {
    let reason = error.reason().unwrap_or(error.code.as_str());
    let error = JsonRpcError::new(FORBIDDEN, error.message.as_str(), None).with_data(json!({ "reason": reason }));
    message(StatusCode::FORBIDDEN, error.to_json().to_string())
}

/// Returns the error for a name that is unknown to the agent. It is the same for a tool that does not exist, is not
/// granted, is not approved or has changed since its approval.
pub(crate) fn unknown(request: &Message<'_>) -> JsonRpcError {
    let what = match request.method.as_deref() {
        Some("prompts/get") => "Unknown prompt",
        Some("resources/read" | "resources/subscribe") => "Unknown resource",
        Some("completion/complete") => "Unknown prompt or resource",
        _ => "Unknown tool",
    };
    let error = JsonRpcError::new(INVALID_PARAMS, what, request.id());
    match text_of(request.params.uri) {
        // SEP-2164.
        Some(uri) if what == "Unknown resource" => error.with_data(json!({ "uri": uri })),
        _ => error,
    }
}

/// Returns the error for an agent with too many calls at a time.
pub(crate) fn too_many(request: &Message<'_>) -> JsonRpcError {
    let text = format!("Too many calls: an agent can have {} at a time. Wait for one to end.", crate::slots::MAX_CALLS);
    JsonRpcError::new(LIMIT_REACHED, text, request.id())
}

/// Returns the response to an agent whose quota of calls is used up, with the time in whole seconds until the next call
/// is allowed (`Retry-After`, RFC 9110, section 10.2.3).
pub(crate) fn quota_exceeded(request: &Message<'_>, wait: Duration) -> Response {
    let seconds = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
    let text = format!("The quota of calls of this agent is used up. Try again in {seconds} seconds.");
    let error = JsonRpcError::new(LIMIT_REACHED, text, request.id())
        .with_data(json!({ "reason": "quota_exceeded", "retry_after_seconds": seconds }));
    let mut response = rejection(&error, request.is_modern());
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// Returns the response to an agent that cannot have another stream.
pub(crate) fn too_many_streams(request: Option<&Message<'_>>, limit: LimitReached) -> Response {
    let text = match limit {
        LimitReached::Agent => {
            format!("Too many streams: an agent can have {MAX_STREAMS}. Close one, or poll the lists.")
        }
        LimitReached::Organization => {
            "Too many streams: the organisation cannot have another one at present. Try again later.".to_owned()
        }
    };
    rejection(&JsonRpcError::new(LIMIT_REACHED, text, request.and_then(Message::id)), true)
}

/// Returns the error message for a call that failed. `raw_id` is the ID of its request. The message says what to do,
/// and contains no details of internal errors.
pub(crate) fn failure(raw_id: &str, error: &Error) -> String {
    let reason = error.reason().unwrap_or(error.code.as_str());
    let text = match error.code {
        Code::Internal => "An internal error occurred. Try again later.",
        _ => error.message.as_str(),
    };
    let object = json!({ "code": INTERNAL_ERROR, "message": text, "data": { "reason": reason } });
    format!(r#"{{"jsonrpc":"2.0","id":{raw_id},"error":{object}}}"#)
}

/// Returns the error for a server whose answer is missing or not acceptable.
pub(crate) fn server_error(message: &str, reason: &str) -> Error {
    Error::new(Code::ToolServerError, message).with("reason", reason).with("rpc_code", INVALID_REQUEST)
}

/// Returns the response to a call that its agent has cancelled: a stream without events. The agent must get no JSON-RPC
/// response, but a JSON body would have to contain one (2025-11-25, "Cancellation" and "Sending Messages to the
/// Server").
pub(crate) fn cancelled() -> Response {
    stream(Body::empty())
}

/// Returns the last event of a call, which contains the response.
pub(crate) fn response_event(text: MessageText) -> Bytes {
    let event = event_of(text.pieces().map(Bytes::as_ref), text.len());
    keep(event, text)
}

/// Returns an event of a stream (HTML standard, "Server-sent events").
pub(crate) fn event(text: &[u8]) -> Bytes {
    event_of(std::iter::once(text), text.len())
}

/// Returns an event that contains the pieces in one line. `size` is their total size in bytes.
fn event_of<'p>(pieces: impl Iterator<Item = &'p [u8]>, size: usize) -> Bytes {
    const START: &[u8] = b"event: message\ndata: ";
    const END: &[u8] = b"\n\n";
    let mut event = Vec::with_capacity(START.len() + size + END.len());
    event.extend_from_slice(START);
    pieces.for_each(|piece| event.extend_from_slice(piece));
    make_single_line(&mut event[START.len()..]);
    event.extend_from_slice(END);
    event.into()
}

/// Returns a response that is a stream of events.
pub(crate) fn stream(body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use waypost_mcp_wire::memory::MessageMemory;

    use super::*;

    #[test]
    fn an_event_holds_the_memory_of_its_message() {
        let memory = MessageMemory::new(200 * 1024).share("org_1");
        let message = memory.reserve().hold(Bytes::from(vec![b'1'; 150 * 1024])).unwrap();
        let event = response_event(message.into());
        assert!(event.starts_with(b"event: message\ndata: 11") && event.len() > 150 * 1024);
        assert!(memory.reserve().set(100 * 1024).is_err());
        drop(event);
        assert!(memory.reserve().set(100 * 1024).is_ok());
    }
}
