//! Assets of the sign-in pages: the style sheet and the organisation's logo.

use std::sync::LazyLock;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use http::{HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};
use waypost_core::Timestamp;
use waypost_http_kit::asset::cache_control;
use waypost_ops::logos;
use waypost_ops::public_url::ServerUrls;

use crate::Auth;
use crate::issuer_request::IssuerRequest;
use crate::pending;
use crate::server_request::ServerRequest;

const STYLE: &str = include_str!("../assets/sign-in.css");

/// The hash of the style sheet, used as the version in its URL.
static HASH: LazyLock<String> = LazyLock::new(|| HEXLOWER.encode(&Sha256::digest(STYLE.as_bytes())[..8]));

/// Returns the URL path of the style sheet. The path changes when the content does.
#[must_use]
pub fn style_path(incoming: &impl IssuerRequest) -> String {
    format!("{}?v={}", incoming.path("sign-in.css"), *HASH)
}

/// Returns the URL path of the logo that was set at `at`.
#[must_use]
pub fn logo_path(address: &ServerUrls, at: Timestamp) -> String {
    format!("{}?v={}", address.path("logo.png"), at.0)
}

/// `GET /oauth/sign-in.css`: returns the style sheet.
pub async fn style<R: IssuerRequest>(_: R, RawQuery(query): RawQuery) -> Response {
    let is_current = query.is_some_and(|query| query == format!("v={}", *HASH));
    file("text/css; charset=utf-8", STYLE.as_bytes().to_vec(), is_current)
}

/// `GET /oauth/logo.png`: returns the organisation's logo, or 404 if it has none.
pub async fn logo(State(auth): State<Auth>, incoming: ServerRequest, RawQuery(query): RawQuery) -> Response {
    let cx = auth.context(&incoming);
    match logos::find_public(&cx, auth.hosting.ops(), &incoming.server().organization_id).await {
        Ok(Some(png)) => file("image/png", png, query.is_some()),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => pending::failed(&incoming, &error),
    }
}

/// Returns a response that contains a file. If `is_versioned`, the URL identifies the content, so browsers may cache it
/// for a year.
fn file(content_type: &'static str, content: Vec<u8>, is_versioned: bool) -> Response {
    let mut response = content.into_response();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, cache_control(is_versioned)),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
