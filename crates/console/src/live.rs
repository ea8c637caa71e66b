//! Fragments of pages that show live state. `live.js` polls them.

use askama::Template;
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};
use waypost_http_kit::compression::without_coding;

use crate::view;

/// The number of bytes of the hash in an entity tag.
const TAG_BYTES: usize = 16;

/// Renders a fragment with an `ETag`. Returns 304 if `If-None-Match` contains it: the script already has this content.
pub(crate) fn fragment(headers: &HeaderMap, template: &impl Template) -> Response {
    let body = match template.render() {
        Ok(body) => body,
        Err(error) => {
            tracing::error!(%error, "failed to render a fragment");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let tag = HEXLOWER.encode(&Sha256::digest(body.as_bytes())[..TAG_BYTES]);
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    let mut known = known.flat_map(|line| line.split(',')).map(|one| without_coding(one.trim().trim_matches('"')));
    let mut response = if known.any(|one| one == tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        (StatusCode::OK, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], body).into_response()
    };
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{tag}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    view::add_security_headers(&mut response);
    response
}

/// Formats a size, such as `512 MiB`.
#[must_use]
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = size as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 10.0 && value.fract() >= 0.05 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Template)]
    #[template(source = "<p>{{ text }}</p>", ext = "html")]
    struct Fragment {
        text: &'static str,
    }

    #[test]
    fn unchanged_fragments_are_not_sent_again() {
        let first = fragment(&HeaderMap::new(), &Fragment { text: "a" });
        let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        assert_eq!(first.status(), StatusCode::OK);
        let status = |tag: &str, text| {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_str(tag).unwrap())]);
            fragment(&headers, &Fragment { text }).status()
        };
        assert_eq!(status(&tag, "a"), StatusCode::NOT_MODIFIED);
        assert_eq!(status(&format!("\"x\", {}-br\"", tag.trim_end_matches('"')), "a"), StatusCode::NOT_MODIFIED);
        assert_eq!(status(&tag, "b"), StatusCode::OK);
    }

    #[test]
    fn sizes_have_binary_units() {
        let cases = [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (512 << 20, "512 MiB"), (4 << 30, "4 GiB")];
        for (size, text) in cases {
            assert_eq!(bytes(size), text);
        }
    }
}
