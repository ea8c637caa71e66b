//! What the pages on the way in share: limits, the browser that signs in, the session that begins, and notices.

use std::net::IpAddr;

use askama::Template;
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use waypost_core::caller::{Caller, Ctx};
use waypost_core::{Code, Error, Result};
use waypost_ops::user_accounts::NewUserSession;
use waypost_ops::user_sessions::{self, Browser};

use super::layout::Layout;
use super::view;
use crate::limits::LimitKind;
use crate::request_info::RequestInfo;
use crate::{Web, cookies};

/// What is said to a person who has just verified an address for which there were accounts.
const REVOKED: &str = "Your e-mail address is verified. Passwords, sessions and API keys from before were revoked. You can set \
                       a new password under Your account.";

/// Who signs in: nobody yet.
pub(super) fn visitor_context(web: &Web, info: &RequestInfo) -> Ctx {
    web.context(Caller::Visitor, info)
}

/// Counts a request of this kind, unless it comes from a browser that has signed in to an account of the address `email`
/// before: nobody else's requests reject that one.
///
/// # Errors
/// As [`check_limit`].
pub(super) fn check_limit_for_email(
    web: &Web,
    (kind, info): (LimitKind, &RequestInfo),
    email: &str,
    device: &Device,
) -> Result<()> {
    if web.accounts().is_known_browser(&visitor_context(web, info), email, &device.cookie) {
        return Ok(());
    }
    check_limit(web, kind, info)
}

/// Counts a request of this kind.
///
/// # Errors
/// `rate_limited` when there were too many from the same network.
pub(super) fn check_limit(web: &Web, kind: LimitKind, info: &RequestInfo) -> Result<()> {
    web.limits.check(kind, info.client).map_err(|wait| {
        let message = "Too many tries from your network. Wait a minute, and try again.";
        Error::new(Code::RateLimited, message).with("retry_after_seconds", wait.as_secs().max(1))
    })
}

/// The browser that signs in.
pub(super) struct Device {
    user_agent: String,
    address: IpAddr,
    cookie: String,
}

impl Device {
    /// As its request says.
    pub(super) fn from_request(headers: &HeaderMap, info: &RequestInfo) -> Self {
        let user_agent = headers.get(header::USER_AGENT).and_then(|it| it.to_str().ok()).unwrap_or_default();
        let cookie = cookies::read(headers, cookies::DEVICE).unwrap_or_default();
        Self { user_agent: user_agent.to_owned(), address: info.client, cookie }
    }

    /// For the acts.
    pub(super) fn browser(&self) -> Browser<'_> {
        Browser { user_agent: &self.user_agent, address: self.address, device: &self.cookie }
    }
}

/// Gives the browser its new session, and ends the one that it had: a cookie that somebody else put there opens nothing.
pub(super) async fn start_session(web: &Web, headers: &HeaderMap, session: &NewUserSession, next: &str) -> Response {
    if let Some(before) = cookies::read(headers, cookies::SESSION)
        && let Err(error) = user_sessions::delete_by_token(web.ops(), &before).await
    {
        tracing::warn!(%error, "a session before could not be ended");
    }
    let mut response = view::redirect(view::local_path(next));
    cookies::set_session(response.headers_mut(), &session.token);
    cookies::set_device(response.headers_mut(), &session.device);
    if session.revoked {
        cookies::set_flash(response.headers_mut(), REVOKED);
    }
    response
}

/// A page that says something, and leads on.
#[derive(Template)]
#[template(path = "notice.html")]
pub(super) struct Notice {
    pub(super) layout: Layout,
    pub(super) title: &'static str,
    pub(super) message: String,
    /// Where the button leads; empty for none.
    pub(super) href: &'static str,
    pub(super) action: &'static str,
}

/// A notice for visitors.
pub(super) fn notice(
    status: StatusCode,
    (title, message): (&'static str, impl Into<String>),
    (href, action): (&'static str, &'static str),
) -> Response {
    view::html(status, &Notice { layout: Layout::empty(), title, message: message.into(), href, action })
}
