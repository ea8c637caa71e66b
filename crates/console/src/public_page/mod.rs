//! The public page of a hosted server (docs/public-page.md). It lists the walkthroughs and shows how to connect each
//! client.
//!
//! On a server without OAuth, every visitor gets a personal URL. Its ID is a bearer secret that exists only in the
//! visitor's cookie and client: a page view stores nothing. Styles and scripts are inlined, so the page is the same on
//! HOST and on the server's own host.

mod cookie;
mod view;

use std::net::IpAddr;
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use waypost_core::Error;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::personal::PersonalId;
use waypost_ops::logos;
use waypost_ops::offers::Offers;
use waypost_ops::public_url::ServerUrls;

use crate::Console;
use waypost_http_kit::limits::LimitKind;
use waypost_http_kit::status;

/// A request for the public page of a server.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// The requested address, possibly with a former slug.
    pub address: ServerUrls,
    /// The address with the current slug, in the same form.
    pub current: ServerUrls,
    /// The server and its walkthroughs.
    pub offers: Arc<Offers>,
    /// The client's IP address.
    pub client: IpAddr,
    /// The request ID, as logged.
    pub request_id: String,
}

impl PageRequest {
    fn context(&self, console: &Console) -> Ctx {
        let server = &self.offers.server;
        let caller = Caller::Client { organization_id: server.organization_id.clone(), server_id: server.id.clone() };
        console.hosting.context(caller, Arc::clone(&console.random), self.request_id.clone())
    }
}

/// Counts a request from `client` against the rate limit.
///
/// # Errors
/// Returns the response (429) if there were too many requests.
pub fn check_rate(console: &Console, client: IpAddr) -> Result<(), Response> {
    let Err(wait) = console.limits.check(LimitKind::PublicPage, client) else { return Ok(()) };
    let seconds = wait.as_secs().max(1);
    let message =
        format!("There were too many requests from your network. Wait {seconds} seconds, then reload the page.");
    let mut response = view::notice(StatusCode::TOO_MANY_REQUESTS, "Too many requests", &message);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    Err(response)
}

/// Renders the page. On a server without OAuth, sets the cookie.
pub async fn show(console: &Console, page: &PageRequest, headers: &HeaderMap) -> Response {
    let server = &page.offers.server;
    let branding = match logos::get_branding(&page.context(console), console.ops(), &server.organization_id).await {
        Ok(branding) => branding,
        Err(error) => return failed(error),
    };
    if server.auth_type.has_sign_in() {
        return view::page(console, page, &branding, None);
    }
    let keys = console.hosting.keys();
    let cookie = cookie::PersonalCookie::of(&page.address);
    let known = |cookie: &cookie::PersonalCookie| PersonalId::from_cookie(&cookie.read(headers)?, keys, &server.id);
    let handover = cookie::PersonalCookie::handover(&page.current);
    let handed_over = || known(handover.as_ref()?);
    let id = known(&cookie).or_else(handed_over).unwrap_or_else(|| PersonalId::new(&*console.random));
    let mut response = view::page(console, page, &branding, Some(&id));
    // Set on every view, so that it expires a year after the last one.
    cookie.set(response.headers_mut(), id.to_cookie(keys, &server.id));
    if let Some(handover) = handover.filter(|_| page.address.prefix() != page.current.prefix()) {
        handover.set(response.headers_mut(), id.to_cookie(keys, &server.id));
    }
    response
}

/// Returns the organisation's logo for the page.
pub async fn logo(console: &Console, page: &PageRequest) -> Response {
    match logos::find_public(&page.context(console), console.ops(), &page.offers.server.organization_id).await {
        Ok(Some(png)) => view::png(png),
        Ok(None) => not_found(),
        Err(error) => failed(error),
    }
}

/// Returns the 404 response. It is the same for a server that does not exist and for a page that is turned off.
#[must_use]
pub fn not_found() -> Response {
    let message = "There is no page at this URL. Check the link, or ask the person who sent it to you.";
    view::notice(StatusCode::NOT_FOUND, "Page not found", message)
}

/// Logs `error` and returns the response for a page that cannot be rendered.
#[must_use]
pub fn failed(error: Error) -> Response {
    status::log(&error);
    let message = "The page cannot be shown at the moment. Try again later.";
    view::notice(status::of(error.code), "Something went wrong", message).into_response()
}
