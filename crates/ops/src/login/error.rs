//! The reasons why a login with an identity provider fails.

use waypost_content::name;

/// The maximum number of characters of a provider's text that are shown.
const MAX_SHOWN: usize = 200;

/// The reason for a failed login. The messages are shown to the user and logged; none contains a code or a token.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The provider did not respond.
    #[error("{0}")]
    Unreachable(waypost_outbound::Error),
    /// The provider returned an error.
    #[error("The identity provider rejected the sign-in: {0}.")]
    Refused(String),
    /// The response is malformed or incomplete.
    #[error("The identity provider's response is not valid: {0}.")]
    InvalidResponse(String),
    /// The response is forged, outdated, or meant for another client or sign-in.
    #[error("The identity provider's response cannot be trusted: {0}.")]
    Untrusted(String),
    /// The response came from another provider (RFC 9207, 2.4).
    #[error("The response came from a different identity provider than the requested one.")]
    OtherIssuer,
    /// An internal error.
    #[error("{0}")]
    Internal(waypost_core::Error),
}

impl From<waypost_core::Error> for LoginError {
    fn from(error: waypost_core::Error) -> Self {
        Self::Internal(error)
    }
}

impl From<waypost_outbound::Error> for LoginError {
    fn from(error: waypost_outbound::Error) -> Self {
        Self::Unreachable(error)
    }
}

/// Returns a provider's text in a form that is safe for pages and the log.
pub(super) fn sanitize(text: &str) -> String {
    name::clean(text).chars().take(MAX_SHOWN).collect()
}
