//! Requests that change something come from our own pages: what a browser sends from elsewhere is refused.
//!
//! A browser says itself where a request comes from (`Sec-Fetch-Site`, Fetch Metadata; `Origin`, RFC 6454), and no script
//! can make it lie. That holds for every form, without a token in each of them.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, header};
use url::Url;

use crate::request_info::RequestInfo;

/// Whether a request with these headers comes from a page of `info`'s host. Who says nothing is no browser of today.
#[must_use]
pub fn is_own(headers: &HeaderMap, info: &RequestInfo) -> bool {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    match (text("sec-fetch-site"), text(header::ORIGIN.as_str())) {
        // `none`: typed by hand, which no form is.
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => is_origin(origin, &info.authority),
        (None, None) => false,
    }
}

/// Whether `origin` is that of `authority`: behind a proxy the scheme is not known here, so host and port decide.
fn is_origin(origin: &str, authority: &str) -> bool {
    let Ok(url) = Url::parse(origin) else { return false };
    let Ok(own) = Url::parse(&format!("{}://{authority}", url.scheme())) else { return false };
    matches!(url.scheme(), "http" | "https") && url.origin() == own.origin()
}

/// Refuses what would change something and does not come from our own pages.
pub async fn check(info: RequestInfo, request: Request, next: Next) -> Response {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if safe || is_own(request.headers(), &info) {
        return next.run(request).await;
    }
    let message =
        "This form was not sent from a page of this console. Go back, load the page again, and send it once more.\n";
    (StatusCode::FORBIDDEN, message).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(headers: &[(&'static str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        is_own(
            &map,
            &RequestInfo {
                authority: "console.example:8443".to_owned(),
                client: [192, 0, 2, 7].into(),
                request_id: String::new(),
            },
        )
    }

    #[test]
    fn only_our_own_pages() {
        assert!(own(&[("sec-fetch-site", "same-origin")]));
        assert!(own(&[("origin", "https://console.example:8443")]));
        assert!(own(&[("origin", "http://console.example:8443")]), "the proxy speaks TLS, we do not");
        for site in ["cross-site", "same-site", "none", ""] {
            assert!(!own(&[("sec-fetch-site", site)]), "{site}");
            assert!(!own(&[("sec-fetch-site", site), ("origin", "https://console.example:8443")]), "{site}");
        }
        for origin in ["null", "https://console.example", "https://evil.example", "https://a.console.example:8443", "x"]
        {
            assert!(!own(&[("origin", origin)]), "{origin}");
        }
        assert!(!own(&[]));
    }
}
