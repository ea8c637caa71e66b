//! Requests to addresses that a tenant or a client named: never into a private network.
//!
//! There is one way out, [`Outbound`], which gives every purpose and organisation a [`Route`] with the networks that the
//! operator allows them ([`policy`]). The host of a URL is resolved, every address is judged ([`address`]), and only
//! then is the connection made, to just the addresses that were judged: a name that changes its mind in between
//! (DNS rebinding) gains nothing. Nothing is sent through proxies, no cookies and no referrer are kept or sent, and
//! size and time are limited. Redirects are followed by hand, each hop judged like the first.

mod address;
mod client;
mod error;
mod policy;
mod resolve;
mod route;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use url::Url;

pub use client::Outbound;
pub use error::{Error, Failure};
pub use policy::{Allowance, Policy, Purpose};
pub use route::{Route, Scope};

/// What one call may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the answer's body at most.
    pub max_bytes: usize,
    /// Time for all of it: names, connections, redirects, and the body to its end.
    pub timeout: Duration,
    /// Redirects that are followed. With 0 a redirect is an answer like any other; one more than the number is an error.
    pub redirects: u8,
}

/// What a request was answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status; one that means failure is no error here.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, all of it.
    pub body: Bytes,
    /// The URL that answered: another one than was asked when redirects were followed.
    pub url: Url,
}
