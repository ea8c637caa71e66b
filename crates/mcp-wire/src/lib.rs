//! MCP messages as they are on the wire, without I/O: what servers and clients of this project have in common.
//!
//! An [`Envelope`] reads the members of a JSON-RPC message that decide where it goes, and keeps everything else as the raw
//! text that was received.

pub mod canonical;
mod envelope;
mod error;
pub mod methods;
mod params;
pub mod revision;
mod session;

pub use envelope::{Body, Envelope, MAX_BATCH, MAX_DEPTH, RequestId};
pub use error::{
    ErrorObject, INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, JsonRpcError, METHOD_NOT_FOUND, PARSE_ERROR,
    UNSUPPORTED_VERSION,
};
pub use params::RoutingParams;
pub use session::{LIFETIME_MS, OpenedSession, Session};
