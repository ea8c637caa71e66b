//! The token of a request: what the router found out about it, and the answers that ask for one.

use waypost_ops::identity::Subject;

/// What the router found out about the request's token, before the endpoint, which decides whether one is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bearer {
    /// The server asks nobody to sign in; what the request carries is ignored.
    NotAsked,
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
