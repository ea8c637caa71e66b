//! An MCP client for third-party servers, over Streamable HTTP.
//!
//! [`Client::connect`] prefers 2026-07-28 and falls back to the `initialize` handshake of older revisions. Results are
//! returned as the text that was received, so members that this client does not know are preserved. The caller chooses
//! the [`Route`](waypost_outbound::Route), and with it the addresses that may be reached.

mod client;
mod error;
mod transport;

pub use client::{Client, ConnectOptions, Identity};
pub use error::Error;
