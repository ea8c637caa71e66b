//! What the forms of these pages send.

use axum::Form;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use waypost_core::server::AuthType;

use crate::Auth;
use crate::limits::Kind;
use crate::page::{self, ErrorPage};
use crate::pending::{self, Pending};
use crate::server_request::ServerRequest;

/// A page of a server whose users Waypost itself signs in. Where the organisation's provider does, an account that
/// anybody can make must open nothing.
pub(super) struct Platform(pub(super) Pending);

impl FromRequestParts<Auth> for Platform {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, auth: &Auth) -> Result<Self, Response> {
        let pending = Pending::from_request_parts(parts, auth).await?;
        if pending.incoming.server().auth_type == AuthType::PlatformOauth {
            Ok(Self(pending))
        } else {
            Err(pending::gone(&pending.incoming))
        }
    }
}

/// The fields of all forms; one that is not there is empty. Without `Debug`: passwords and codes are among them.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields {
    csrf: String,
    pub(super) email: String,
    pub(super) password: Option<String>,
    pub(super) new_password: String,
    pub(super) code: Option<String>,
    /// The id of the code that was sent.
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
                    title: "This form cannot be read",
                    message: "What your browser sent is no form of these pages.",
                    advice: "Go back, load the page again, and send the form once more.",
                },
            )),
        }
    }
}

impl Fields {
    /// Checks that the form came from a page of this request in this browser, and not too often. A code is checked in any case:
    /// it has attempts of its own. So is a form of a browser in which the end user has signed in before.
    ///
    /// # Errors
    /// The page to show instead.
    pub(super) fn check(&self, auth: &Auth, pending: &Pending, headers: &HeaderMap) -> Result<(), Response> {
        if !self.is_unlimited(auth, pending, headers)
            && let Err(wait) = auth.limits.check(Kind::Form, pending.incoming.client)
        {
            return Err(page::too_many(&pending.incoming, wait));
        }
        pending.check_form(auth, headers, &self.csrf)
    }

    /// Whether no limit by client address alone applies to this form.
    pub(super) fn is_unlimited(&self, auth: &Auth, pending: &Pending, headers: &HeaderMap) -> bool {
        let device = super::device(pending, headers);
        let org = &pending.request.organization_id;
        self.code.is_some() || auth.accounts().is_known_browser(&pending.cx, org, &self.email, &device)
    }
}

/// What an error of an act is on the page: words beside the form.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    /// Which field it is about; empty for none.
    pub(super) field: String,
    /// What to tell the user.
    pub(super) message: String,
    /// The status of the answer.
    pub(super) status: StatusCode,
    /// Seconds until it is worth trying again.
    pub(super) retry_after: Option<u64>,
}

impl Problem {
    /// The problem that `error` is for the user; none when it is ours.
    pub(super) fn of(error: &waypost_core::Error) -> Option<Self> {
        use waypost_core::Code;
        let status = match error.code {
            Code::InvalidArguments => StatusCode::UNPROCESSABLE_ENTITY,
            Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            _ => return None,
        };
        let text = |name: &str| error.details.get(name).and_then(|value| value.as_str()).unwrap_or_default();
        let message = if error.code == Code::InvalidArguments && text("field") == "email" {
            "That is not an e-mail address. One looks like anna@example.com.".to_owned()
        } else {
            error.message.clone()
        };
        let retry_after = error.details.get("retry_after_seconds").and_then(serde_json::Value::as_u64);
        Some(Self { field: text("field").to_owned(), message, status, retry_after })
    }
}
