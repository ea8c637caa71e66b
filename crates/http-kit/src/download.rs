//! Files that browsers download.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde_json::Value;

/// Returns a response that browsers save as the file `name`. It must not be cached.
#[must_use]
pub fn file(name: &str, media_type: &'static str, body: Vec<u8>) -> Response {
    let mut response = ([(header::CONTENT_TYPE, media_type)], body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    response
}

/// Returns a response that browsers save as the JSON file `name.json`.
#[must_use]
pub fn json(name: &str, document: &Value) -> Response {
    let body = serde_json::to_string_pretty(document).unwrap_or_default();
    file(&format!("{name}.json"), "application/json", body.into_bytes())
}
