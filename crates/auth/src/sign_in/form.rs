//! The forms of the sign-in pages.

use axum::Form;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use waypost_core::server::AuthType;

use crate::Auth;
use crate::page::{self, ErrorPage};
use crate::pending::{self, PendingAuthorization};
use crate::server_request::ServerRequest;
use waypost_http_kit::limits::LimitKind;

/// A page of a server whose users sign in with Waypost accounts. On a server with an identity provider, the sign-in
/// pages are not available: an account that anyone can create must not grant access there.
pub(super) struct PlatformSignIn(pub(super) PendingAuthorization);

impl FromRequestParts<Auth> for PlatformSignIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, auth: &Auth) -> Result<Self, Response> {
        let pending: PendingAuthorization = PendingAuthorization::from_request_parts(parts, auth).await?;
        if pending.incoming.server().auth_type == AuthType::PlatformOauth {
            Ok(Self(pending))
        } else {
            Err(pending::gone(&pending.incoming))
        }
    }
}

/// The fields of all forms. Missing fields are empty. Does not implement `Debug`, because the fields include passwords
/// and codes.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields {
    csrf: String,
    pub(super) email: String,
    pub(super) password: Option<String>,
    pub(super) new_password: String,
    pub(super) code: Option<String>,
    /// The ID of the code that was sent.
    pub(super) sent: String,
}

impl FromRequest<Auth> for Fields {
    type Rejection = Response;

    async fn from_request(request: Request, auth: &Auth) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let incoming = ServerRequest::from_request_parts(&mut parts, auth).await?;
        match Form::<Self>::from_request(Request::from_parts(parts, body), auth).await {
            Ok(Form(fields)) => Ok(fields),
            Err(rejection) => Err(page::error(
                &incoming,
                rejection.status(),
                ErrorPage {
                    title: "This form is not valid",
                    message: "Your browser sent data that this page does not accept.",
                    advice: "Go back, reload the page, and submit the form again.",
                },
            )),
        }
    }
}

impl Fields {
    /// Checks the rate limit, and that the form was sent from a page of this request in this browser. The rate limit
    /// does not apply to a form with a code, because each code has its own limit on attempts, or to a browser in which
    /// the end user has signed in before.
    ///
    /// # Errors
    /// Returns an error page if the limit is exceeded or the form was not sent from such a page.
    pub(super) fn check(
        &self,
        auth: &Auth,
        pending: &PendingAuthorization,
        headers: &HeaderMap,
    ) -> Result<(), Response> {
        if !self.is_unlimited(auth, pending, headers)
            && let Err(wait) = auth.limits.check(LimitKind::EndUserForm, pending.incoming.client)
        {
            return Err(page::too_many(&pending.incoming, wait));
        }
        pending.check_form(auth, headers, &self.csrf)
    }

    /// Whether this form is exempt from the rate limit per client address.
    pub(super) fn is_unlimited(&self, auth: &Auth, pending: &PendingAuthorization, headers: &HeaderMap) -> bool {
        let device = super::device_cookie(pending, headers);
        let org = &pending.incoming.server().organization_id;
        self.code.is_some() || auth.accounts().is_known_browser(&pending.cx, org, &self.email, &device)
    }
}

/// An error of an operation, shown as a message above the form.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    /// The name of the invalid field. Empty if the problem is not about a field.
    pub(super) field: String,
    /// The message for the user.
    pub(super) message: String,
    /// The status of the response.
    pub(super) status: StatusCode,
    /// The number of seconds until a retry can succeed.
    pub(super) retry_after: Option<u64>,
}

impl Problem {
    /// Returns the problem for an error that the user can correct. Returns `None` for internal errors.
    pub(super) fn from_error(error: &waypost_core::Error) -> Option<Self> {
        use waypost_core::Code;
        let status = match error.code {
            Code::InvalidArguments => StatusCode::UNPROCESSABLE_ENTITY,
            Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            _ => return None,
        };
        let text = |name: &str| error.details.get(name).and_then(|value| value.as_str()).unwrap_or_default();
        let message = if error.code == Code::InvalidArguments && text("field") == "email" {
            "Enter a valid email, such as anna@example.com.".to_owned()
        } else {
            error.message.clone()
        };
        let retry_after = error.details.get("retry_after_seconds").and_then(serde_json::Value::as_u64);
        Some(Self { field: text("field").to_owned(), message, status, retry_after })
    }
}
