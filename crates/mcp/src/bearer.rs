//! The token of a request: what the router found out about it, whether the request needs one, and the answers that ask
//! for one (MCP, "Authorization"; RFC 6750, section 3; RFC 9728, section 5.1).

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, Uri, header};
use serde_json::Value;
use waypost_core::scope::{Scope, Scopes};
use waypost_ops::identity::Subject;

use crate::message::{Message, Refusal};
use crate::{resources, tools};

/// The JSON-RPC code of a request that needs a token, outside of the ranges that others have reserved.
const UNAUTHORIZED: i64 = -31_401;
/// The JSON-RPC code of a request whose token allows too little.
const FORBIDDEN: i64 = -31_403;

/// What the router found out about the request's token, before the endpoint, which decides whether one is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bearer {
    /// The server asks nobody to sign in; what the request carries is ignored.
    NotRequired,
    /// No token was sent; how to ask for one.
    Missing(Challenge),
    /// A token was sent and is not valid: the answer is 401, whatever the request asks for.
    Invalid(Challenge),
    /// A valid token of this server was sent.
    Valid {
        /// Whom it names.
        subject: Subject,
        /// How to ask for one that allows more.
        challenge: Challenge,
    },
}

/// How the client learns where to get a token (RFC 9728, section 5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The metadata URL of the very address that was asked.
    pub resource_metadata: String,
}

/// Why a request is turned away, and what its sender can do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denial<'a> {
    status: StatusCode,
    /// The error code of RFC 6750, section 3.1; none when no token was sent.
    error: Option<&'static str>,
    message: &'static str,
    challenge: &'a Challenge,
}

impl Bearer {
    /// Whom the request names.
    #[must_use]
    pub fn subject(&self) -> Option<&Subject> {
        match self {
            Self::Valid { subject, .. } => Some(subject),
            _ => None,
        }
    }

    /// Lets a request for `uri` with these messages through, or says why not; `on_connect` is whether this client is
    /// asked to sign in for every request. This comes before everything that the
    /// protocol says about the messages: nobody learns anything with a token that is not valid.
    pub(crate) fn admit<'m>(
        &self,
        on_connect: bool,
        uri: &Uri,
        messages: impl Iterator<Item = &'m Message>,
    ) -> Result<(), Denial<'_>> {
        let challenge = match self {
            Self::NotRequired => return Ok(()),
            Self::Missing(challenge) | Self::Invalid(challenge) | Self::Valid { challenge, .. } => challenge,
        };
        let denied = |status, error, message| Err(Denial { status, error, message, challenge });
        let unauthorized = StatusCode::UNAUTHORIZED;
        if has_token(uri) {
            // It is in logs and histories by now (RFC 6750, section 5.3): it is not even looked at.
            let message = "A token belongs into the Authorization header, not into the address.";
            return denied(unauthorized, Some("invalid_request"), message);
        }
        let needed = messages.filter_map(needs).map(Scopes::from).reduce(|a, b| a.union(&b));
        match self {
            Self::Invalid(_) => {
                denied(unauthorized, Some("invalid_token"), "The token is not valid here, or no longer. Sign in again.")
            }
            Self::Missing(_) if needed.is_some() || on_connect => {
                denied(unauthorized, None, "Sign in to go on: this needs an access token.")
            }
            Self::Valid { subject, .. } if needed.is_some_and(|needed| !subject.scopes.covers(&needed)) => {
                let message = "The token allows reading only. Sign in again and allow more.";
                denied(StatusCode::FORBIDDEN, Some("insufficient_scope"), message)
            }
            _ => Ok(()),
        }
    }
}

/// What a token must allow for this message; none when it needs nobody.
fn needs(message: &Message) -> Option<Scope> {
    let name = message.name.as_deref()?;
    match message.method.as_deref()? {
        "tools/call" => tools::find(name)?.needs,
        "resources/read" => resources::is_step(name).then_some(Scope::WalkRead),
        _ => None,
    }
}

fn has_token(uri: &Uri) -> bool {
    let mut pairs = uri.query().unwrap_or_default().split('&');
    pairs.any(|pair| pair.split('=').next() == Some("access_token"))
}

impl Denial<'_> {
    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer to the request `id`.
    pub(crate) fn into_response(self, id: Option<Value>) -> Response {
        // All that any operation here needs, in one go: nobody should have to sign in twice.
        let scope = Scopes::default();
        let mut header =
            format!("Bearer resource_metadata=\"{}\", scope=\"{scope}\"", self.challenge.resource_metadata);
        if let Some(error) = self.error {
            header.push_str(&format!(", error=\"{error}\""));
        }
        let code = if self.status == StatusCode::FORBIDDEN { FORBIDDEN } else { UNAUTHORIZED };
        let body = Refusal::new(code, self.message, id).to_json().to_string();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        let header = HeaderValue::try_from(header).unwrap_or(HeaderValue::from_static("Bearer"));
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header);
        response
    }
}
