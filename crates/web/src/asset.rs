//! Style sheet and scripts of the console: in the binary, and kept by browsers for a year, because their addresses name
//! their content.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use data_encoding::HEXLOWER;
use http::{HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use crate::Web;

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, kind and content of each file.
const FILES: &[(&str, &str, &[u8])] = &[
    ("console.css", STYLE, include_bytes!("../assets/console.css")),
    ("console.js", SCRIPT, include_bytes!("../assets/console.js")),
    ("htmx.js", SCRIPT, include_bytes!("../assets/htmx.min.js")),
    ("icon.svg", "image/svg+xml", include_bytes!("../assets/icon.svg")),
];

/// The address of each file: another one as soon as its content is another one.
static PATHS: LazyLock<Vec<(&str, String)>> = LazyLock::new(|| {
    let path = |(name, _, content): &(&'static str, &str, &[u8])| {
        (*name, format!("/assets/{name}?v={}", HEXLOWER.encode(&Sha256::digest(content)[..8])))
    };
    FILES.iter().map(path).collect()
});

/// The address of the file `name`.
#[must_use]
pub fn path(name: &str) -> &'static str {
    PATHS.iter().find(|(own, _)| *own == name).map_or("", |(_, path)| path)
}

/// `/assets/…`.
pub fn router() -> Router<Web> {
    Router::new().route("/assets/{name}", get(file))
}

async fn file(Path(name): Path<String>, RawQuery(query): RawQuery) -> Response {
    let Some((name, kind, content)) = FILES.iter().find(|(own, ..)| *own == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let current = query.is_some_and(|query| path(name).ends_with(&format!("?{query}")));
    let keep = if current { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut response = content.into_response();
    for (name, value) in
        [(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, keep), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_an_address_that_names_its_content() {
        for (name, ..) in FILES {
            assert!(path(name).starts_with(&format!("/assets/{name}?v=")), "{name}");
        }
        assert_eq!(path("other"), "");
    }
}
