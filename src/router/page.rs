//! The public page of a hosted server: at `HOST/s/SLUG`, at `SLUG.HOST/`, and for a browser that opens an MCP URL.

use std::sync::Arc;

use axum::extract::{RawPathParams, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderMap, Method, header};
use waypost_console::public_page::{self, PageRequest};
use waypost_core::Code;
use waypost_mcp::endpoint::HandlerFactory;
use waypost_ops::public_url::HostKind as Host;

use super::RouterState;
use super::server::{ServerTarget, find, locate, param};

/// Whether a browser requests a page at an MCP URL. MCP clients accept JSON and event streams, but do not explicitly
/// accept HTML.
pub(super) fn is_page_request(request: &Request) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && accepts_html(request.headers())
}

/// Whether `Accept` contains `text/html` (RFC 9110, section 12.5.1). `*/*` does not count, because programs send it by
/// default.
pub(super) fn accepts_html(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_html = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
        let is_refused = parts.any(|part| {
            let weight = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
            weight.is_some_and(|weight| weight.parse() == Ok(0.0_f32))
        });
        is_html && !is_refused
    })
}

/// `GET /s/SLUG`.
pub(super) async fn show<R: HandlerFactory>(
    State(state): State<Arc<RouterState<R>>>,
    params: RawPathParams,
    request: Request,
) -> Response {
    public_page(&state, param(&params, "slug"), request).await
}

/// Returns the public page of the server given by the path (`slug`) or the host of `request`. Nothing else in the path
/// is used: an ID in the URL is neither shown nor adopted.
pub(super) async fn public_page<R: HandlerFactory>(
    state: &RouterState<R>,
    slug: Option<String>,
    request: Request,
) -> Response {
    if let Some(slug) = slug.as_ref().filter(|slug| slug.bytes().any(|byte| byte.is_ascii_uppercase())) {
        // Cookie paths are case-sensitive, so a server must have one path.
        let path = format!("/s/{}", slug.to_ascii_lowercase());
        if path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-".contains(&byte)) {
            return Redirect::permanent(&path).into_response();
        }
    }
    match parse_target(state, slug, &request) {
        Ok((target, headers)) => match find_page(state, target).await {
            Ok(page) => public_page::show(&state.console, &page, &headers).await,
            Err(response) => response,
        },
        Err(response) => response,
    }
}

/// `GET /s/SLUG/logo.png`, and `/logo.png` on the server's own host.
pub(super) async fn logo<R: HandlerFactory>(
    State(state): State<Arc<RouterState<R>>>,
    params: RawPathParams,
    request: Request,
) -> Response {
    match parse_target(&state, param(&params, "slug"), &request) {
        Ok((target, _)) => match find_page(&state, target).await {
            Ok(page) => public_page::logo(&state.console, &page).await,
            Err(response) => response,
        },
        Err(response) => response,
    }
}

/// Returns the target and the headers of the request, after checking the rate limit.
fn parse_target<R: HandlerFactory>(
    state: &RouterState<R>,
    slug: Option<String>,
    request: &Request,
) -> Result<(ServerTarget, HeaderMap), Response> {
    let target = locate(slug, request).map_err(|_| public_page::not_found())?;
    public_page::check_rate(&state.console, target.client)?;
    Ok((target, request.headers().clone()))
}

/// Returns the page of a server. A disabled page gives the same response as a server that does not exist.
async fn find_page<R: HandlerFactory>(state: &RouterState<R>, target: ServerTarget) -> Result<PageRequest, Response> {
    let requested = target.requested.clone();
    let site = match find(state, target).await {
        Ok(site) if site.server().public_page => site,
        Ok(_) => return Err(public_page::not_found()),
        Err(error) if error.code == Code::NotFound => return Err(public_page::not_found()),
        Err(error) => return Err(public_page::failed(error)),
    };
    let (public_url, slug) = (&state.auth.public_url, &site.server().slug);
    // A former slug shows the current URLs, because it may be released at any time.
    let current = match requested.host {
        Host::Main => Some(public_url.path_urls(&requested.authority, slug)),
        Host::Server(label) if label == *slug => None,
        Host::Server(_) => public_url.host_urls(&requested.authority, slug),
    };
    Ok(PageRequest {
        current: current.unwrap_or_else(|| site.address.clone()),
        address: site.address,
        offers: site.offers,
        client: site.client,
        request_id: site.request_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_browsers_accept_html_explicitly() {
        let html = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            accepts_html(&headers)
        };
        for accept in
            ["text/html", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "a/b, Text/HTML; q=0.5"]
        {
            assert!(html(accept), "{accept}");
        }
        for accept in ["*/*", "", "application/json, text/event-stream", "text/*", "text/htmlx", "text/html;q=0.0"] {
            assert!(!html(accept), "{accept}");
        }
        assert!(!accepts_html(&HeaderMap::new()));
    }
}
