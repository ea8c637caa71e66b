//! Why a request was not made or not answered, as sentences for the administrator who typed the address.
//!
//! They name the host as it was typed and never what it resolved to: who may only name addresses must not learn the
//! plan of the network inside.

use std::error::Error as StdError;
use std::fmt;
use std::io;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address itself cannot be used.
    #[error("The address cannot be used: {why}.")]
    Invalid {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The host is, or resolves to, an address that requests must not go to.
    #[error(
        "`{host}` is not on the public internet, so no connection is made to it; networks that are let through all the same are listed in the setting `outbound_allow`."
    )]
    Refused {
        /// The host, as the URL has it.
        host: String,
    },
    /// `http://` to a host outside of the allowed networks.
    #[error("The address of `{host}` must begin with https://.")]
    Plain {
        /// The host, as the URL has it.
        host: String,
    },
    /// No connection, or it broke.
    #[error("`{host}` cannot be reached: {failure}.")]
    Unreachable {
        /// The host, as the URL has it.
        host: String,
        /// What failed.
        failure: Failure,
    },
    /// It took too long.
    #[error("`{host}` did not answer in time.")]
    Timeout {
        /// The host that was asked first.
        host: String,
    },
    /// The answer is larger than the call allowed.
    #[error("The answer of `{host}` is larger than {limit} bytes.")]
    TooLarge {
        /// The host, as the URL has it.
        host: String,
        /// The bytes that were allowed.
        limit: usize,
    },
    /// The answer redirects in a way that is not followed.
    #[error("`{host}` redirects {why}.")]
    Redirect {
        /// The host that redirected.
        host: String,
        /// Why it is not followed.
        why: &'static str,
    },
    /// The way out cannot be set up.
    #[error("Requests to other servers cannot be set up: {why}.")]
    Setup {
        /// What is wrong.
        why: String,
    },
}

/// What failed on the way to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The name has no address.
    Name,
    /// Nothing accepts connections there.
    Connection,
    /// The two did not agree on a secure connection; the text is the TLS library's.
    Tls(String),
    /// The connection was made, but what came back was no complete HTTP answer.
    Answer,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("the name has no address"),
            Self::Connection => f.write_str("no connection could be made"),
            Self::Tls(why) => write!(f, "no secure connection could be made ({why})"),
            Self::Answer => f.write_str("the connection broke before the answer was complete"),
        }
    }
}

/// Why the resolver hands out no address. It travels through the HTTP client as the cause of a failed connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the name resolves to an address that is not public")]
    NotPublic,
    #[error("plain HTTP is for allowed networks only")]
    Plain,
    #[error("the name has no address")]
    NoAddress,
}

impl Refusal {
    pub(crate) fn of(self, host: &str) -> Error {
        let host = host.to_owned();
        match self {
            Self::NotPublic => Error::Refused { host },
            Self::Plain => Error::Plain { host },
            Self::NoAddress => Error::Unreachable { host, failure: Failure::Name },
        }
    }
}

/// What an error of the HTTP client means, in a request to `host`.
pub(crate) fn translate(error: &reqwest::Error, host: &str) -> Error {
    let mut tls = None;
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(refusal) = current.downcast_ref::<Refusal>() {
            return refusal.of(host);
        }
        cause = current.source();
        if let Some(outer) = current.downcast_ref::<io::Error>() {
            // The only invalid data before a connection stands is what the TLS library refuses.
            if outer.kind() == io::ErrorKind::InvalidData {
                tls = Some(outer.to_string());
            }
            // `source` of an I/O error skips the error that it was made of.
            cause = outer.get_ref().map(|inner| inner as &(dyn StdError + 'static)).or(cause);
        }
    }
    let host = host.to_owned();
    if error.is_timeout() {
        return Error::Timeout { host };
    }
    let failure = match tls {
        Some(why) if error.is_connect() => Failure::Tls(why),
        _ if error.is_connect() => Failure::Connection,
        _ => Failure::Answer,
    };
    Error::Unreachable { host, failure }
}
