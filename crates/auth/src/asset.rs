//! What pages need beside themselves: the style sheet, and the organisation's logo.

use std::sync::LazyLock;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use http::{HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};
use waypost_core::Timestamp;
use waypost_ops::logos;
use waypost_ops::public_url::ServerUrls;

use crate::Auth;
use crate::pending;
use crate::site::Site;

const STYLE: &str = include_str!("../assets/sign-in.css");

/// What tells this style sheet from those of other releases.
static HASH: LazyLock<String> = LazyLock::new(|| HEXLOWER.encode(&Sha256::digest(STYLE.as_bytes())[..8]));

/// The address of the style sheet: another one as soon as its content is another one.
#[must_use]
pub fn style_path(address: &ServerUrls) -> String {
    format!("{}?v={}", address.path("sign-in.css"), *HASH)
}

/// The address of the logo that was set at `at`.
#[must_use]
pub fn logo_path(address: &ServerUrls, at: Timestamp) -> String {
    format!("{}?v={}", address.path("logo.png"), at.0)
}

/// `GET /oauth/sign-in.css`.
pub async fn style(_: Site, RawQuery(query): RawQuery) -> Response {
    let current = query.is_some_and(|query| query == format!("v={}", *HASH));
    file("text/css; charset=utf-8", STYLE.as_bytes().to_vec(), current)
}

/// `GET /oauth/logo.png`.
pub async fn logo(State(auth): State<Auth>, site: Site, RawQuery(query): RawQuery) -> Response {
    let cx = auth.context(&site);
    match logos::get(&cx, auth.hosting.ops(), &site.server().organization_id).await {
        Ok(Some(png)) => file("image/png", png, query.is_some()),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => pending::failed(&site, &error),
    }
}

/// A file that browsers may keep for a year, when its address names its content.
fn file(kind: &'static str, content: Vec<u8>, named: bool) -> Response {
    let keep = if named { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut response = content.into_response();
    for (name, value) in
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, keep), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
