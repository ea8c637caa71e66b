//! The parts of the link to toolboxes that both ends share.
//!
//! A [`Socket`] is a WebSocket that first carries the handshake in text frames ([`Socket::send`], [`Socket::receive`]),
//! and then the bytes of HTTP/2 in binary frames. [`http2`] contains the HTTP/2 settings, [`Body`] reads bodies, and
//! [`lines`] transfers JSON messages, one per line.

mod body;
pub mod http2;
pub mod lines;
mod socket;

pub use body::{Body, BodyError, send};
pub use socket::{Socket, SocketError, config, upgrade_response};
