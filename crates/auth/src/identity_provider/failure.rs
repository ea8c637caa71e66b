//! Why the provider's answer did not sign anybody in.

use waypost_core::name;

/// Characters of what a provider wrote that are shown at most.
const MAX_SHOWN: usize = 200;

/// What went wrong. The sentences are for the person in the browser, and for the log: none holds a code or a token.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Down(waypost_outbound::Error),
    #[error("The identity provider refuses the sign-in: {0}.")]
    Refused(String),
    #[error("The identity provider's answer cannot be used: {0}.")]
    Answer(String),
    #[error("What the identity provider says of you cannot be trusted: {0}.")]
    Token(String),
    /// RFC 9207, 2.4.
    #[error("The answer came from another identity provider than the one that was asked.")]
    OtherIssuer,
    /// A fault of our own, or of the store.
    #[error("{0}")]
    Own(waypost_core::Error),
}

impl From<waypost_core::Error> for Failure {
    fn from(error: waypost_core::Error) -> Self {
        Self::Own(error)
    }
}

impl From<waypost_outbound::Error> for Failure {
    fn from(error: waypost_outbound::Error) -> Self {
        Self::Down(error)
    }
}

/// What a provider wrote, fit for a page and for the log.
pub(super) fn shown(text: &str) -> String {
    name::clean(text).chars().take(MAX_SHOWN).collect()
}
