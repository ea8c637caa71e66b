//! An MCP client for third-party servers, over Streamable HTTP and HTTP+SSE.
//!
//! [`Connection`] relays messages as the text that was received, in both eras of the protocol: it prefers 2026-07-28
//! and falls back to the `initialize` handshake of older revisions. [`Client`] uses it for single requests. The caller
//! chooses the [`Route`](waypost_outbound::Route), and with it the addresses that may be reached.

mod client;
mod connection;
mod error;
mod handshake;
mod options;
mod transport;

pub use client::{Client, ConnectOptions};
pub use connection::Connection;
pub use error::Error;
pub use handshake::Server;
pub use options::{ConnectionOptions, Identity, Limits, Protocol, Redirects};
pub use transport::exchange::Exchange;
pub use transport::message::{CallRequest, Counters};
