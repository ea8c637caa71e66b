//! Errors of the authorization server, as clients know them.

use crate::error::{Code, Error};
use crate::walkthrough::names;

names! {
    /// The `error` member of an OAuth answer.
    OauthCode {
        /// A parameter is missing, repeated or malformed (RFC 6749, sections 4.1.2.1 and 5.2).
        InvalidRequest = "invalid_request",
        /// The client is unknown, or did not prove who it is (RFC 6749, section 5.2).
        InvalidClient = "invalid_client",
        /// The code or refresh token is unknown, expired, used, or bound to something else (RFC 6749, section 5.2).
        InvalidGrant = "invalid_grant",
        /// The token endpoint does not have this grant type (RFC 6749, section 5.2).
        UnsupportedGrantType = "unsupported_grant_type",
        /// The authorization endpoint gives out codes only (RFC 6749, section 4.1.2.1).
        UnsupportedResponseType = "unsupported_response_type",
        /// A scope that does not exist, or more than was granted (RFC 6749, section 5.2).
        InvalidScope = "invalid_scope",
        /// The resource is no address of this server (RFC 8707, section 2).
        InvalidTarget = "invalid_target",
        /// The user said no (RFC 6749, section 4.1.2.1).
        AccessDenied = "access_denied",
        /// The user is not signed in, and `prompt=none` forbids to ask (OpenID Connect Core, section 3.1.2.6).
        LoginRequired = "login_required",
        /// The user did not consent yet, and `prompt=none` forbids to ask (OpenID Connect Core, section 3.1.2.6).
        ConsentRequired = "consent_required",
        /// Request objects are not supported (OpenID Connect Core, section 3.1.2.6).
        RequestNotSupported = "request_not_supported",
        /// The same by reference (OpenID Connect Core, section 3.1.2.6).
        RequestUriNotSupported = "request_uri_not_supported",
        /// A redirect URI that cannot be registered (RFC 7591, section 3.2.2).
        InvalidRedirectUri = "invalid_redirect_uri",
        /// Metadata that cannot be registered (RFC 7591, section 3.2.2).
        InvalidClientMetadata = "invalid_client_metadata",
        /// This kind of token cannot be revoked (RFC 7009, section 2.2.1).
        UnsupportedTokenType = "unsupported_token_type",
        /// A fault of Waypost's own (RFC 6749, section 4.1.2.1).
        ServerError = "server_error",
        /// A part that is needed does not answer, or there are too many requests (RFC 6749, section 4.1.2.1).
        TemporarilyUnavailable = "temporarily_unavailable",
    }
}

/// An error of the authorization server. `description` is for the developer of the client: it never holds a secret.
#[derive(Debug, thiserror::Error)]
#[error("{}: {description}", code.as_str())]
pub struct OauthError {
    /// What kind of error.
    pub code: OauthCode,
    /// What happened, in printable ASCII without quotes and backslashes (RFC 6749, section 5.2).
    pub description: String,
    /// For the log.
    #[source]
    pub cause: Option<Error>,
}

impl OauthError {
    /// An error with a description.
    #[must_use]
    pub fn new(code: OauthCode, description: impl Into<String>) -> Self {
        let plain = |c: char| if matches!(c, ' '..='~') && !matches!(c, '"' | '\\') { c } else { '?' };
        let description = description.into().chars().map(|c| if c == '`' { '\'' } else { plain(c) }).collect();
        Self { code, description, cause: None }
    }
}

impl From<Error> for OauthError {
    fn from(error: Error) -> Self {
        let code = match error.code {
            Code::InvalidArguments => OauthCode::InvalidRequest,
            Code::Unavailable | Code::RateLimited | Code::Conflict => OauthCode::TemporarilyUnavailable,
            _ => OauthCode::ServerError,
        };
        Self { cause: Some(error), ..Self::new(code, error_text(code)) }
    }
}

fn error_text(code: OauthCode) -> &'static str {
    match code {
        OauthCode::TemporarilyUnavailable => "The server cannot answer at the moment. Try again.",
        OauthCode::InvalidRequest => "The request is not valid.",
        _ => "Something went wrong on the server's side.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_have_only_the_characters_of_rfc_6749() {
        let error = OauthError::new(OauthCode::InvalidScope, "`é\"\\\n` is no scope");
        assert_eq!(error.description, "'????' is no scope");
    }
}
