//! The bearer token of a request to an MCP URL (RFC 6750, section 2.1).

use http::{HeaderMap, header};
use waypost_core::server::Server;
use waypost_core::{Code, Error, Result};
use waypost_ops::identity::Subject;
use waypost_ops::oauth_grants;

use crate::Auth;

/// The bearer token of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BearerToken {
    /// The request has no token.
    Missing,
    /// The token is malformed, unknown, expired, revoked, or not valid on this server.
    Invalid,
    /// The token is valid for this subject.
    Valid(Subject),
}

/// Authenticates the `Authorization` header of a request to `server`. Ignores the rest of the request.
///
/// # Errors
/// `unavailable` if the database cannot be reached; `internal` for any other failure.
pub async fn authenticate(auth: &Auth, server: &Server, headers: &HeaderMap) -> Result<BearerToken> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(BearerToken::Missing) };
    if values.next().is_some() {
        return Ok(BearerToken::Invalid);
    }
    let token = value.to_str().ok().and_then(|value| value.split_once(' '));
    let Some(token) = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
        return Ok(BearerToken::Invalid);
    };
    match oauth_grants::authenticate(&auth.hosting, server, token.1.trim()).await {
        Ok(Some(subject)) => Ok(BearerToken::Valid(subject)),
        Ok(None) => Ok(BearerToken::Invalid),
        Err(error) if error.code == Code::Unavailable => Err(error),
        Err(error) => Err(Error::internal(error)),
    }
}
