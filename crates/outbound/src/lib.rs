//! Outgoing requests to URLs supplied by a tenant or a client, protected against server-side request forgery.
//!
//! All such requests use [`Outbound`], which provides a [`Route`] for every purpose and organisation with the private
//! networks that the operator allows ([`policy`]). The host of a URL is resolved, every address is checked
//! ([`address`]), and the connection is made only to the addresses that were checked, so DNS rebinding has no effect.
//! Proxies are not used, cookies and referrers are neither stored nor sent, and size and time are limited. Redirects
//! are followed one by one, and every hop is checked like the first request. A response is read completely, or as a
//! stream of chunks ([`Route::open`]).
//!
//! [`Route::unguarded`] is the exception, for command-line programs that connect to a URL entered by their own user.

mod address;
mod client;
mod error;
mod policy;
mod resolve;
mod route;
mod stream;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use url::Url;

pub use address::is_public;
pub use client::{Outbound, unguarded_client};
pub use error::{Error, Failure};
pub use policy::{Allowance, Policy, Purpose};
pub use route::{OutboundRequest, Route, RouteScope};
pub use stream::{StreamLimits, StreamResponse};

/// Limits of one request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum size of the response body in bytes.
    pub max_bytes: usize,
    /// Timeout for the whole request: name resolution, connections, redirects and the complete body.
    pub timeout: Duration,
    /// Maximum number of redirects. With 0, a redirect is returned as a response; otherwise exceeding it is an error.
    pub redirects: u8,
}

/// A complete response.
#[derive(Debug, Clone)]
pub struct OutboundResponse {
    /// The status. A 4xx or 5xx status is not an error here.
    pub status: StatusCode,
    /// The response headers.
    pub headers: HeaderMap,
    /// The complete body.
    pub body: Bytes,
    /// The URL that responded. It differs from the requested URL if redirects were followed.
    pub url: Url,
}
