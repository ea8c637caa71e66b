//! The pending authorization request that a page belongs to, in the browser that made it.

use axum::extract::{FromRequestParts, Query};
use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use waypost_core::authorization::AuthorizationRequest;
use waypost_core::caller::Ctx;
use waypost_core::{Code, Error};
use waypost_ops::authorizations;

use crate::Auth;
use crate::issuer_request::{IssuerRequest, log_failure};
use crate::page::{self, ErrorPage};
use crate::server_request::ServerRequest;
use waypost_http_kit::cookies;

/// A pending authorization request in the browser that made it. Pages use it as an extractor, which responds with an
/// error page if the request is not pending in this browser.
#[derive(Debug, Clone)]
pub struct PendingAuthorization<R = ServerRequest> {
    /// The context for operations.
    pub cx: Ctx,
    /// The HTTP request and its issuer.
    pub incoming: R,
    /// The client's authorization request.
    pub request: AuthorizationRequest,
    /// The value of the browser's cookie.
    pub browser: String,
    /// The CSRF token of forms of this request in this browser.
    pub csrf: String,
}

#[derive(Deserialize)]
struct RequestQuery {
    request: String,
}

impl<R: IssuerRequest> FromRequestParts<Auth> for PendingAuthorization<R> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, auth: &Auth) -> Result<Self, Response> {
        let incoming = R::from_request_parts(parts, auth).await?;
        let cx = auth.context(&incoming);
        let id = Query::<RequestQuery>::try_from_uri(&parts.uri).ok().map(|Query(query)| query.request);
        let browser = cookies::read(&parts.headers, cookies::END_USER_BROWSER);
        let (Some(id), Some(browser)) = (id, browser) else { return Err(gone(&incoming)) };
        match authorizations::get(&cx, auth.hosting.ops(), &incoming.issuer_id(), &id, &browser).await {
            Ok(request) => Ok(Self::new(auth, incoming, request, browser)),
            Err(error) if error.code == Code::NotFound => Err(gone(&incoming)),
            Err(error) => Err(failed(&incoming, &error)),
        }
    }
}

impl<R: IssuerRequest> PendingAuthorization<R> {
    /// Creates the state of a request that was just made in this browser.
    #[must_use]
    pub fn new(auth: &Auth, incoming: R, request: AuthorizationRequest, browser: String) -> Self {
        let (cx, csrf) = (auth.context(&incoming), csrf_of(auth, &request, &browser));
        Self { cx, incoming, request, browser, csrf }
    }

    /// Returns the path of a page of this request, such as `/s/SLUG/oauth/sign-in?request=arq_…`.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        format!("{}?request={}", self.incoming.path(name), self.request.id)
    }

    /// Checks that a form was sent from a page of this request in this browser.
    ///
    /// # Errors
    /// Returns an error page if it was not.
    pub fn check_form(&self, auth: &Auth, headers: &HeaderMap, csrf: &str) -> Result<(), Response> {
        let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
        let is_cross_origin = origin.is_some_and(|origin| !origin.eq_ignore_ascii_case(self.incoming.origin()));
        let signature = BASE64URL_NOPAD.decode(csrf.as_bytes()).unwrap_or_default();
        let message = message_of(&self.request, &self.browser);
        if is_cross_origin || auth.hosting.keys().find_signing_key(CSRF, message.as_bytes(), &signature).is_none() {
            return Err(page::error(
                &self.incoming,
                StatusCode::FORBIDDEN,
                ErrorPage {
                    title: "This form is not valid",
                    message: "It was not sent from a page of this sign-in.",
                    advice: "Go back, reload the page, and submit the form again.",
                },
            ));
        }
        Ok(())
    }
}

const CSRF: &str = "form of an authorization request";

fn message_of(request: &AuthorizationRequest, browser: &str) -> String {
    format!("{} {browser}", request.id)
}

fn csrf_of(auth: &Auth, request: &AuthorizationRequest, browser: &str) -> String {
    BASE64URL_NOPAD.encode(&auth.hosting.secret().sign(CSRF, message_of(request, browser).as_bytes()))
}

/// Returns the page for a request that is not pending in this browser.
#[must_use]
pub fn gone(incoming: &impl IssuerRequest) -> Response {
    page::error(
        incoming,
        StatusCode::BAD_REQUEST,
        ErrorPage {
            title: "This sign-in is no longer active",
            message: "It was completed, has expired, or was started in another browser.",
            advice: "Go back to your application and connect again.",
        },
    )
}

/// Returns the page for an internal error, and logs the error.
#[must_use]
pub fn failed(incoming: &impl IssuerRequest, error: &Error) -> Response {
    log_failure(incoming, error);
    let (status, title) = match error.code {
        Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Temporarily unavailable"),
        Code::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
        Code::WalkthroughNotFound
        | Code::WalkthroughEmpty
        | Code::NoActiveWalkthrough
        | Code::AmbiguousWalkthrough
        | Code::StepMismatch
        | Code::StepNotFound
        | Code::ConfirmationRequired
        | Code::HandleUnknown
        | Code::EmailRequired
        | Code::SignInRequired
        | Code::NoProgress
        | Code::Conflict
        | Code::PreconditionFailed
        | Code::ImageNotFound
        | Code::ImageDenied
        | Code::ToolServerError
        | Code::InvalidArguments
        | Code::NotFound
        | Code::Forbidden
        | Code::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong"),
    };
    page::error(incoming, status, ErrorPage { title, message: &error.message, advice: "Try again in a moment." })
}
