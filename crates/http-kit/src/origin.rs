//! Protection against cross-site request forgery: requests that change something must come from the console's own
//! pages.
//!
//! The browser states the origin of a request (`Sec-Fetch-Site`, Fetch Metadata; `Origin`, RFC 6454), and scripts
//! cannot forge these headers. Forms therefore need no token.

use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};
use url::Url;

use crate::request_info::RequestInfo;
use crate::status;

/// Whether a request with these headers comes from a page of the host in `info`. Returns `false` if neither header is
/// present: every current browser sends at least one of them with a form.
#[must_use]
pub fn is_same_origin(headers: &HeaderMap, info: &RequestInfo) -> bool {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    match (text("sec-fetch-site"), text(header::ORIGIN.as_str())) {
        // `none` means that the user entered the URL, which never submits a form.
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => is_origin_of(origin, &info.authority),
        (None, None) => false,
    }
}

/// Whether `origin` is the origin of `authority`. Only host and port are compared, because the scheme is not known
/// behind a proxy.
fn is_origin_of(origin: &str, authority: &str) -> bool {
    let Ok(url) = Url::parse(origin) else { return false };
    let Ok(own) = Url::parse(&format!("{}://{authority}", url.scheme())) else { return false };
    matches!(url.scheme(), "http" | "https") && url.origin() == own.origin()
}

/// Returns the error response to a request that would change something and does not come from the console's own pages.
/// Returns `None` if the request is allowed.
pub fn check(request: &Parts) -> Option<Response> {
    if matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return None;
    }
    let info = match RequestInfo::from_parts(request) {
        Ok(info) => info,
        Err(error) => {
            status::log(&error);
            return Some(status::of(error.code).into_response());
        }
    };
    if is_same_origin(&request.headers, &info) {
        return None;
    }
    let message =
        "This form was not sent from a page of this console. Go back, reload the page and submit the form again.\n";
    Some((StatusCode::FORBIDDEN, message).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(headers: &[(&'static str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        is_same_origin(
            &map,
            &RequestInfo {
                authority: "console.example:8443".to_owned(),
                client: [192, 0, 2, 7].into(),
                request_id: String::new(),
            },
        )
    }

    #[test]
    fn only_requests_from_the_same_origin_are_accepted() {
        assert!(accepts(&[("sec-fetch-site", "same-origin")]));
        assert!(accepts(&[("origin", "https://console.example:8443")]));
        assert!(accepts(&[("origin", "http://console.example:8443")]), "TLS may end at the proxy");
        for site in ["cross-site", "same-site", "none", ""] {
            assert!(!accepts(&[("sec-fetch-site", site)]), "{site}");
            assert!(!accepts(&[("sec-fetch-site", site), ("origin", "https://console.example:8443")]), "{site}");
        }
        for origin in ["null", "https://console.example", "https://evil.example", "https://a.console.example:8443", "x"]
        {
            assert!(!accepts(&[("origin", origin)]), "{origin}");
        }
        assert!(!accepts(&[]));
    }
}
