//! OAuth error responses of the authorization server.

use crate::error::{Code, Error};
use crate::walkthrough::names;

names! {
    /// The `error` member of an OAuth error response.
    OauthCode {
        /// A parameter is missing, repeated or malformed (RFC 6749, sections 4.1.2.1 and 5.2).
        InvalidRequest = "invalid_request",
        /// The client is unknown or failed to authenticate (RFC 6749, section 5.2).
        InvalidClient = "invalid_client",
        /// The code or refresh token is unknown, expired, used, or bound to something else (RFC 6749, section 5.2).
        InvalidGrant = "invalid_grant",
        /// The token endpoint does not support the grant type (RFC 6749, section 5.2).
        UnsupportedGrantType = "unsupported_grant_type",
        /// The authorization endpoint only issues codes (RFC 6749, section 4.1.2.1).
        UnsupportedResponseType = "unsupported_response_type",
        /// The scope does not exist, or exceeds what was granted (RFC 6749, section 5.2).
        InvalidScope = "invalid_scope",
        /// The resource is not a URL of this server (RFC 8707, section 2).
        InvalidTarget = "invalid_target",
        /// The user denied the request (RFC 6749, section 4.1.2.1).
        AccessDenied = "access_denied",
        /// The user is not signed in and `prompt=none` forbids asking (OpenID Connect Core, section 3.1.2.6).
        LoginRequired = "login_required",
        /// The user has not consented and `prompt=none` forbids asking (OpenID Connect Core, section 3.1.2.6).
        ConsentRequired = "consent_required",
        /// Request objects are not supported (OpenID Connect Core, section 3.1.2.6).
        RequestNotSupported = "request_not_supported",
        /// Request objects by reference are not supported (OpenID Connect Core, section 3.1.2.6).
        RequestUriNotSupported = "request_uri_not_supported",
        /// The redirect URI cannot be registered (RFC 7591, section 3.2.2).
        InvalidRedirectUri = "invalid_redirect_uri",
        /// The client metadata cannot be registered (RFC 7591, section 3.2.2).
        InvalidClientMetadata = "invalid_client_metadata",
        /// Tokens of this type cannot be revoked (RFC 7009, section 2.2.1).
        UnsupportedTokenType = "unsupported_token_type",
        /// An internal error (RFC 6749, section 4.1.2.1).
        ServerError = "server_error",
        /// A dependency is unavailable, or there are too many requests (RFC 6749, section 4.1.2.1).
        TemporarilyUnavailable = "temporarily_unavailable",
    }
}

/// An error of the authorization server. `description` is for the client's developer and never contains a secret.
#[derive(Debug, thiserror::Error)]
#[error("{}: {description}", code.as_str())]
pub struct OauthError {
    /// The error code.
    pub code: OauthCode,
    /// A description in printable ASCII without double quotes and backslashes (RFC 6749, section 5.2).
    pub description: String,
    /// The cause, for the log.
    #[source]
    pub cause: Option<Error>,
}

impl OauthError {
    /// Creates an error with a description. Replaces characters that are not allowed.
    #[must_use]
    pub fn new(code: OauthCode, description: impl Into<String>) -> Self {
        let sanitize = |c: char| if matches!(c, ' '..='~') && !matches!(c, '"' | '\\') { c } else { '?' };
        let description = description.into().chars().map(|c| if c == '`' { '\'' } else { sanitize(c) }).collect();
        Self { code, description, cause: None }
    }
}

impl From<Error> for OauthError {
    fn from(error: Error) -> Self {
        let code = match error.code {
            Code::InvalidArguments => OauthCode::InvalidRequest,
            Code::Unavailable | Code::RateLimited | Code::Conflict => OauthCode::TemporarilyUnavailable,
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
            | Code::PreconditionFailed
            | Code::ImageNotFound
            | Code::ImageDenied
            | Code::ToolServerError
            | Code::NotFound
            | Code::Forbidden
            | Code::Internal => OauthCode::ServerError,
        };
        Self { cause: Some(error), ..Self::new(code, error_text(code)) }
    }
}

fn error_text(code: OauthCode) -> &'static str {
    match code {
        OauthCode::TemporarilyUnavailable => "The server is temporarily unavailable. Try again.",
        OauthCode::InvalidRequest => "The request is not valid.",
        _ => "Internal server error.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_contain_only_characters_allowed_by_rfc_6749() {
        let error = OauthError::new(OauthCode::InvalidScope, "`é\"\\\n` is not a scope");
        assert_eq!(error.description, "'????' is not a scope");
    }
}
