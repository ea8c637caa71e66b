//! The public page of a hosted server: at `HOST/s/SLUG`, at `SLUG.HOST/`, and for a browser that opens an MCP URL.

use std::sync::Arc;

use axum::extract::{RawPathParams, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderMap, Method, header};
use waypost_core::Code;
use waypost_mcp::endpoint::HandlerFactory;
use waypost_ops::public_url::HostKind as Host;
use waypost_web::public_page::{self, PageRequest};

use super::RouterState;
use super::server::{ServerTarget, find, locate, param};

/// Whether a browser asks for a page at an MCP address. MCP clients accept JSON and event streams, never HTML by name.
pub(super) fn is_wanted(request: &Request) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && accepts_html(request.headers())
}

/// Whether `Accept` names `text/html` (RFC 9110, section 12.5.1). `*/*` does not count: programs send it by default.
pub(super) fn accepts_html(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let html = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
        let refused = parts.any(|part| {
            let weight = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
            weight.is_some_and(|weight| weight.parse() == Ok(0.0_f32))
        });
        html && !refused
    })
}

/// `GET /s/SLUG`.
pub(super) async fn show<R: HandlerFactory>(
    State(routes): State<Arc<RouterState<R>>>,
    params: RawPathParams,
    request: Request,
) -> Response {
    of(&routes, param(&params, "slug"), request).await
}

/// The public page of the server that `request` names by its path (`slug`) or by its host. No other part of the path is
/// read: an ID in the URL is never shown or adopted.
pub(super) async fn of<R: HandlerFactory>(routes: &RouterState<R>, slug: Option<String>, request: Request) -> Response {
    if let Some(slug) = slug.as_ref().filter(|slug| slug.bytes().any(|byte| byte.is_ascii_uppercase())) {
        // Paths of cookies are case-sensitive: one server has one path.
        let path = format!("/s/{}", slug.to_ascii_lowercase());
        if path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-".contains(&byte)) {
            return Redirect::permanent(&path).into_response();
        }
    }
    match open(routes, slug, &request) {
        Ok((located, headers)) => match lookup(routes, located).await {
            Ok(page) => public_page::show(&routes.web, &page, &headers).await,
            Err(response) => response,
        },
        Err(response) => response,
    }
}

/// `GET /s/SLUG/logo.png`, and `/logo.png` on the server's own host.
pub(super) async fn logo<R: HandlerFactory>(
    State(routes): State<Arc<RouterState<R>>>,
    params: RawPathParams,
    request: Request,
) -> Response {
    match open(&routes, param(&params, "slug"), &request) {
        Ok((located, _)) => match lookup(&routes, located).await {
            Ok(page) => public_page::logo(&routes.web, &page).await,
            Err(response) => response,
        },
        Err(response) => response,
    }
}

/// What is needed of the request, once its client is known not to ask too often.
fn open<R: HandlerFactory>(
    routes: &RouterState<R>,
    slug: Option<String>,
    request: &Request,
) -> Result<(ServerTarget, HeaderMap), Response> {
    let located = locate(slug, request).map_err(|_| public_page::not_found())?;
    public_page::check_rate(&routes.web, located.client)?;
    Ok((located, request.headers().clone()))
}

/// The server, unless its page is switched off: that gives the same response as a server that does not exist.
async fn lookup<R: HandlerFactory>(routes: &RouterState<R>, located: ServerTarget) -> Result<PageRequest, Response> {
    let asked = located.asked.clone();
    let site = match find(routes, located).await {
        Ok(site) if site.server().public_page => site,
        Ok(_) => return Err(public_page::not_found()),
        Err(error) if error.code == Code::NotFound => return Err(public_page::not_found()),
        Err(error) => return Err(public_page::failed(error)),
    };
    let (public_url, slug) = (&routes.auth.public_url, &site.server().slug);
    // A former slug shows the present addresses: it may be released at any time.
    let current = match asked.host {
        Host::Main => Some(public_url.path_urls(&asked.authority, slug)),
        Host::Server(label) if label == *slug => None,
        Host::Server(_) => public_url.host_urls(&asked.authority, slug),
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
    fn browsers_name_html_and_programs_do_not() {
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
