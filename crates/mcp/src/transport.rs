//! What is said to clients of the HTTP+SSE transport of 2024-11-05, which is not served, and to requests for a method that
//! does not exist.
//!
//! Clients of that transport send GET with `Accept: text/event-stream`, to `/sse` or to the configured address, and POST to
//! `/messages`. Most show their user nothing but status and reason phrase, so that the phrase says what to change, too.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use hyper::ext::ReasonPhrase;
use serde_json::Value;

use crate::endpoint::refuse;
use crate::message::{INVALID_REQUEST, METHOD_NOT_FOUND, Message, Refusal};
use crate::methods;

/// How to get away from the HTTP+SSE transport. `address` is that of the server, if it differs from the one in use.
fn advice(address: Option<&str>) -> String {
    let address = address.map_or_else(|| "this URL".to_owned(), |address| format!("the URL {address}"));
    format!(
        "This server does not serve the HTTP+SSE transport of 2024-11-05. In the client's configuration, set the transport to \
         Streamable HTTP (often called \"http\") with {address}. If the client has no such setting, update it: the SDKs support \
         it since Python mcp 1.8 and TypeScript 1.10."
    )
}

/// Sets the reason phrase, which HTTP/1.1 clients show with the status.
fn with_reason(mut response: Response, reason: &'static str) -> Response {
    response.extensions_mut().insert(ReasonPhrase::from_static(reason.as_bytes()));
    response
}

/// The response to a method other than POST at an MCP address: 405.
pub(crate) fn only_post(headers: &HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let wants_stream = accept.contains("text/event-stream");
    let message = match wants_stream {
        true => format!("There is no stream to listen to here: only POST is served. {}", advice(None)),
        false => "Only POST is served here.".to_owned(),
    };
    let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, &Refusal::new(INVALID_REQUEST, message, None));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    if wants_stream {
        with_reason(response, "Method Not Allowed: use Streamable HTTP instead of SSE")
    } else {
        response
    }
}

/// The response at `/sse` and `/messages`: 410, with the address that is served.
#[must_use]
pub fn removed(address: &str) -> Response {
    let refusal = Refusal::new(INVALID_REQUEST, advice(Some(address)), None);
    with_reason(refuse(StatusCode::GONE, &refusal), "Gone: use Streamable HTTP at the address that ends in /mcp")
}

/// Gives a `-32601` error of rmcp a message that names the method and the revisions that have it.
pub(crate) async fn name_method(response: Response, message: &Message) -> Response {
    let Some(method) = message.method.as_deref().filter(|method| methods::may_be_missing(method, message.modern))
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
    let mut answer: Value = match serde_json::from_slice(&bytes) {
        Ok(answer) => answer,
        Err(_) => return Response::from_parts(parts, Body::from(bytes)),
    };
    if answer["error"]["code"] != METHOD_NOT_FOUND {
        return Response::from_parts(parts, Body::from(bytes));
    }
    answer["error"]["message"] = methods::not_found(method, message.modern).into();
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(answer.to_string()))
}
