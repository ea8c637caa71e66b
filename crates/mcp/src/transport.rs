//! Responses to clients of the HTTP+SSE transport of 2024-11-05, which is not supported, and to requests for unknown
//! methods.
//!
//! Clients of that transport send GET with `Accept: text/event-stream`, to `/sse` or to the configured URL, and POST to
//! `/messages`. Most show their user only the status and the reason phrase, so the phrase also says what to change.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use hyper::ext::ReasonPhrase;
use serde_json::Value;
use waypost_mcp_wire::{INVALID_REQUEST, JsonRpcError, METHOD_NOT_FOUND, methods};

use crate::message::Message;

/// Returns an error as an HTTP response with `status`.
pub(crate) fn json_rpc_error_response(status: StatusCode, error: &JsonRpcError) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], error.to_json().to_string()).into_response()
}

/// Explains how to replace the HTTP+SSE transport. `url` is the MCP URL, if it differs from the requested one.
fn advice(url: Option<&str>) -> String {
    let url = url.map_or_else(|| "this URL".to_owned(), |url| format!("the URL {url}"));
    format!(
        "This server does not support the HTTP+SSE transport of 2024-11-05. In the client's configuration, set the transport \
         to Streamable HTTP (often called \"http\") with {url}. If the client has no such setting, update it: the SDKs have \
         supported it since Python mcp 1.8 and TypeScript 1.10."
    )
}

/// Sets the reason phrase, which HTTP/1.1 clients show with the status.
fn with_reason(mut response: Response, reason: &'static str) -> Response {
    response.extensions_mut().insert(ReasonPhrase::from_static(reason.as_bytes()));
    response
}

/// Returns the response to a method other than POST at an MCP URL: 405.
pub(crate) fn method_not_allowed(headers: &HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let wants_stream = accept.contains("text/event-stream");
    let message = match wants_stream {
        true => format!("Only POST is supported here; there is no GET stream. {}", advice(None)),
        false => "Only POST is supported here.".to_owned(),
    };
    let mut response =
        json_rpc_error_response(StatusCode::METHOD_NOT_ALLOWED, &JsonRpcError::new(INVALID_REQUEST, message, None));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    if wants_stream {
        with_reason(response, "Method Not Allowed: use Streamable HTTP instead of SSE")
    } else {
        response
    }
}

/// Returns the response at `/sse` and `/messages`: 410, with the MCP URL.
#[must_use]
pub fn gone(url: &str) -> Response {
    let error = JsonRpcError::new(INVALID_REQUEST, advice(Some(url)), None);
    with_reason(
        json_rpc_error_response(StatusCode::GONE, &error),
        "Gone: use Streamable HTTP at the URL that ends in /mcp",
    )
}

/// Replaces the message of rmcp's `-32601` error with one that names the method and the revisions that define it.
pub(crate) async fn explain_unknown_method(response: Response, message: &Message) -> Response {
    let Some(method) = message.method.as_deref().filter(|method| methods::may_be_missing(method, message.is_modern))
    else {
        return response;
    };
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.starts_with("application/json")));
    if !is_json {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut body_json: Value = match serde_json::from_slice(&bytes) {
        Ok(body) => body,
        Err(_) => return Response::from_parts(parts, Body::from(bytes)),
    };
    if body_json["error"]["code"] != METHOD_NOT_FOUND {
        return Response::from_parts(parts, Body::from(bytes));
    }
    body_json["error"]["message"] = methods::not_found(method, message.is_modern).into();
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(body_json.to_string()))
}
