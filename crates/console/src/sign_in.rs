//! Shared parts of the sign-in pages: rate limits, the browser, starting a session and notices.

use std::net::IpAddr;

use askama::Template;
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use waypost_core::caller::{Caller, Ctx};
use waypost_core::{Code, Error, Result};
use waypost_ops::user_accounts::NewUserSession;
use waypost_ops::user_sessions::{self, Browser};

use crate::Console;
use crate::layout::Layout;
use crate::view;
use waypost_http_kit::cookies;
use waypost_http_kit::limits::LimitKind;
use waypost_http_kit::request_info::RequestInfo;

/// The message after a sign-in that verified the email and revoked the credentials created before.
const REVOKED: &str = "Your email is verified. Earlier passwords, sessions and API keys were revoked. You can set a new password \
                       in your account settings.";

/// Returns the context of a request without a signed-in user.
pub(super) fn visitor_context(console: &Console, info: &RequestInfo) -> Ctx {
    console.context(Caller::Visitor, info)
}

/// Checks the rate limit of this kind, except for a browser that has signed in to an account with `email` before. Other
/// users' requests cannot lock out such a browser.
///
/// # Errors
/// See [`check_limit`].
pub(super) fn check_limit_for_email(
    console: &Console,
    kind: LimitKind,
    info: &RequestInfo,
    email: &str,
    device: &Device,
) -> Result<()> {
    if console.accounts().is_known_browser(&visitor_context(console, info), email, &device.cookie) {
        return Ok(());
    }
    check_limit(console, kind, info)
}

/// Checks the rate limit of this kind.
///
/// # Errors
/// `rate_limited` if there were too many requests from the same network.
pub(super) fn check_limit(console: &Console, kind: LimitKind, info: &RequestInfo) -> Result<()> {
    console.limits.check(kind, info.client).map_err(|wait| {
        let message = "Too many attempts from your network. Wait a minute, then try again.";
        Error::new(Code::RateLimited, message).with("retry_after_seconds", wait.as_secs().max(1))
    })
}

/// The browser of a sign-in request.
pub(super) struct Device {
    user_agent: String,
    address: IpAddr,
    cookie: String,
}

impl Device {
    /// Reads the browser from a request.
    pub(super) fn from_request(headers: &HeaderMap, info: &RequestInfo) -> Self {
        let user_agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let cookie = cookies::read(headers, cookies::DEVICE).unwrap_or_default();
        Self { user_agent: user_agent.to_owned(), address: info.client, cookie }
    }

    /// Returns the browser in the form that the operations require.
    pub(super) fn browser(&self) -> Browser<'_> {
        Browser { user_agent: &self.user_agent, address: self.address, device: &self.cookie }
    }
}

/// Sets the cookies of the new session and ends the previous session, which prevents session fixation.
pub(super) async fn start_session(
    console: &Console,
    headers: &HeaderMap,
    session: &NewUserSession,
    next: &str,
) -> Response {
    if let Some(previous_token) = cookies::read(headers, cookies::SESSION)
        && let Err(error) = user_sessions::delete_by_token(console.ops(), &previous_token).await
    {
        tracing::warn!(%error, "failed to end the previous session");
    }
    let mut response = view::redirect(view::local_path(next));
    cookies::set_session(response.headers_mut(), cookies::SESSION, &session.token);
    cookies::set_device(response.headers_mut(), cookies::DEVICE, &session.device);
    if session.revoked {
        cookies::set_flash(response.headers_mut(), REVOKED);
    }
    response
}

/// A page with a message and a link.
#[derive(Template)]
#[template(path = "notice.html")]
pub(super) struct Notice {
    pub(super) layout: Layout,
    pub(super) title: &'static str,
    pub(super) message: String,
    /// The target of the button. Empty for no button.
    pub(super) href: &'static str,
    pub(super) action: &'static str,
}

/// Renders a notice for a visitor.
pub(super) fn notice(
    status: StatusCode,
    title: &'static str,
    message: impl Into<String>,
    href: &'static str,
    action: &'static str,
) -> Response {
    view::html(status, &Notice { layout: Layout::empty(), title, message: message.into(), href, action })
}
