//! Errors of outgoing requests, as sentences for the administrator who entered the URL.
//!
//! Messages contain the host as it was entered, never the address it resolved to: a user who may only enter URLs must
//! not learn the topology of the internal network.

use std::error::Error as StdError;
use std::fmt;
use std::io;

/// The reason why a request has no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL itself is not usable.
    #[error("The URL cannot be used: {reason}.")]
    InvalidUrl {
        /// The problem, as a clause.
        reason: &'static str,
    },
    /// The host is, or resolves to, an address that is neither public nor allowed.
    #[error(
        "`{host}` is not on the public internet, so Waypost does not connect to it. To allow its network, add it to the setting `outbound_allow`."
    )]
    AddressNotAllowed {
        /// The host, as written in the URL.
        host: String,
    },
    /// `http://` to a host outside the allowed networks.
    #[error("The URL of `{host}` must begin with https://.")]
    HttpNotAllowed {
        /// The host, as written in the URL.
        host: String,
    },
    /// The connection could not be established, or broke.
    #[error("`{host}` cannot be reached: {failure}.")]
    Unreachable {
        /// The host, as written in the URL.
        host: String,
        /// The kind of failure.
        failure: Failure,
        /// The innermost cause, such as `Connection refused`. Not part of the message: a user who may only enter URLs
        /// must not learn it.
        cause: Option<String>,
    },
    /// The request timed out.
    #[error("`{host}` did not respond in time.")]
    Timeout {
        /// The host of the first request.
        host: String,
    },
    /// The response exceeds the limit of the request.
    #[error("The response of `{host}` is larger than {limit} bytes.")]
    TooLarge {
        /// The host, as written in the URL.
        host: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// The response is a redirect that cannot be followed.
    #[error("`{host}` redirects {reason}.")]
    Redirect {
        /// The host that sent the redirect.
        host: String,
        /// The reason why it is not followed, as a continuation of "redirects".
        reason: &'static str,
    },
    /// The HTTP client cannot be created.
    #[error("Outgoing requests cannot be set up: {reason}.")]
    Setup {
        /// The problem, as a clause.
        reason: String,
    },
}

/// The kind of failure of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The host name has no address.
    NameResolution,
    /// The connection was not accepted.
    Connection,
    /// The TLS handshake failed; contains the message of the TLS library.
    Tls(String),
    /// The connection was established, but no complete HTTP response was received.
    IncompleteResponse,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameResolution => f.write_str("the host name does not resolve to an address"),
            Self::Connection => f.write_str("the connection could not be established"),
            Self::Tls(reason) => write!(f, "a secure connection could not be established ({reason})"),
            Self::IncompleteResponse => f.write_str("the connection was closed before the response was complete"),
        }
    }
}

/// The reason why the addresses of a host are rejected. If the resolver returns it, the HTTP client passes it on as the
/// cause of a failed connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("the name resolves to an address that is not public")]
    NotPublic,
    #[error("plain HTTP is only permitted to allowed networks")]
    HttpNotAllowed,
    #[error("the host name does not resolve to an address")]
    NoAddress,
}

impl AddressError {
    pub(crate) fn into_error(self, host: &str) -> Error {
        let host = host.to_owned();
        match self {
            Self::NotPublic => Error::AddressNotAllowed { host },
            Self::HttpNotAllowed => Error::HttpNotAllowed { host },
            Self::NoAddress => Error::Unreachable { host, failure: Failure::NameResolution, cause: None },
        }
    }
}

/// Converts an error of the HTTP client for a request to `host`.
pub(crate) fn translate(error: &reqwest::Error, host: &str) -> Error {
    let mut tls = None;
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(error) = current.downcast_ref::<AddressError>() {
            return error.into_error(host);
        }
        cause = current.source();
        if let Some(outer) = current.downcast_ref::<io::Error>() {
            // Before a connection is established, only the TLS library reports invalid data.
            if outer.kind() == io::ErrorKind::InvalidData {
                tls = Some(outer.to_string());
            }
            // `source` of an I/O error skips the wrapped error.
            cause = outer.get_ref().map(|inner| inner as &(dyn StdError + 'static)).or(cause);
        }
    }
    let host = host.to_owned();
    if error.is_timeout() {
        return Error::Timeout { host };
    }
    let failure = match tls {
        Some(reason) if error.is_connect() => Failure::Tls(reason),
        _ if error.is_connect() => Failure::Connection,
        _ => Failure::IncompleteResponse,
    };
    Error::Unreachable { host, failure, cause: Some(innermost(error)) }
}

/// Returns the message of the innermost cause. The outer messages carry no details.
pub(crate) fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn StdError = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
