//! Access tokens of requests: the result of their validation, whether a request needs one, and the challenges (MCP,
//! "Authorization"; RFC 6750, section 3; RFC 9728, section 5.1).

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, Uri, header};
use waypost_core::scope::{Scope, Scopes};
use waypost_mcp_wire::{JsonRpcError, RequestId};
use waypost_ops::identity::Subject;

use crate::message::Message;
use crate::{resources, tools};

/// The JSON-RPC code of the error for a request that lacks a valid token, outside the reserved ranges.
const UNAUTHORIZED: i64 = -31_401;
/// The JSON-RPC code of the error for a request whose token has insufficient scope.
const FORBIDDEN: i64 = -31_403;

/// The router's validation result for the token of a request. The endpoint decides whether a token is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bearer {
    /// The server does not use sign-in. A token in the request is ignored.
    NotRequired,
    /// No token was sent.
    Missing(Challenge),
    /// The token that was sent is invalid. The response is always 401.
    Invalid(Challenge),
    /// A valid token for this server was sent.
    Valid {
        /// The subject of the token.
        subject: Subject,
        /// The challenge, in case the scope is insufficient.
        challenge: Challenge,
    },
}

/// A `WWW-Authenticate` challenge, which tells the client where to get a token (RFC 9728, section 5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The URL of the protected-resource metadata of the requested MCP URL.
    pub resource_metadata: String,
}

/// The rejection of a request because of its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denial<'a> {
    status: StatusCode,
    /// The error code of RFC 6750, section 3.1. `None` if no token was sent.
    error: Option<&'static str>,
    message: &'static str,
    challenge: &'a Challenge,
}

impl Bearer {
    /// Returns the subject of a valid token.
    #[must_use]
    pub fn subject(&self) -> Option<&Subject> {
        match self {
            Self::Valid { subject, .. } => Some(subject),
            _ => None,
        }
    }

    /// Checks whether a request for `uri` with these messages has the token that it needs. `on_connect` is whether
    /// every request of this client needs a token. Must be called before any protocol check, so that a request with an
    /// invalid token reveals nothing.
    pub(crate) fn authorize<'m>(
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
            // The token may be in logs and histories by now, so it is never accepted (RFC 6750, section 5.3).
            let message = "Send the token in the Authorization header, not in the URL.";
            return denied(unauthorized, Some("invalid_request"), message);
        }
        let needed = messages.filter_map(required_scope).map(Scopes::from).reduce(|a, b| a.union(&b));
        match self {
            Self::Invalid(_) => {
                denied(unauthorized, Some("invalid_token"), "The token is invalid or expired. Sign in again.")
            }
            Self::Missing(_) if needed.is_some() || on_connect => {
                denied(unauthorized, None, "This request requires an access token. Sign in to continue.")
            }
            Self::Valid { subject, .. } if needed.is_some_and(|needed| !subject.scopes.covers(&needed)) => {
                let message = "The token is read-only. Sign in again and grant full access.";
                denied(StatusCode::FORBIDDEN, Some("insufficient_scope"), message)
            }
            _ => Ok(()),
        }
    }
}

/// Returns the scope that this message requires, or `None` if it requires no token.
fn required_scope(message: &Message) -> Option<Scope> {
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
    /// Returns the status of the response.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the response to the request `id`.
    pub(crate) fn into_response(self, id: Option<RequestId>) -> Response {
        // Ask for the scope of all operations, so that users do not have to sign in twice.
        let scope = Scopes::default();
        let mut header =
            format!("Bearer resource_metadata=\"{}\", scope=\"{scope}\"", self.challenge.resource_metadata);
        if let Some(error) = self.error {
            header.push_str(&format!(", error=\"{error}\""));
        }
        let code = if self.status == StatusCode::FORBIDDEN { FORBIDDEN } else { UNAUTHORIZED };
        let body = JsonRpcError::new(code, self.message, id).to_json().to_string();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        let header = HeaderValue::try_from(header).unwrap_or(HeaderValue::from_static("Bearer"));
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header);
        response
    }
}
