//! MCP messages as they are sent on the wire, without I/O. The servers and clients of this project share this crate.
//!
//! An [`Envelope`] parses the members of a JSON-RPC message that are needed to route it, and keeps everything else as
//! the raw text that was received.

pub mod argument_shape;
pub mod canonical;
pub mod client_capabilities;
pub mod definition;
mod edits;
pub mod elicitation;
mod envelope;
pub mod era;
mod error;
pub mod excerpt;
pub mod headers;
pub mod input_requests;
pub mod log_level;
pub mod media_type;
pub mod memory;
pub mod methods;
pub mod names;
pub mod param_headers;
mod params;
mod plain_text;
pub mod relay;
mod request_id;
pub mod revision;
pub mod rewrite;
mod scan;
mod session;
#[cfg(any(test, feature = "testing"))]
pub mod smuggling;
pub mod sse;
pub mod strict;
pub mod trace_context;

pub use envelope::{Body, Envelope, MAX_BATCH, MAX_DEPTH};
pub use error::{
    ErrorObject, HEADER_MISMATCH, INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, JsonRpcError, METHOD_NOT_FOUND,
    MISSING_CAPABILITY, PARSE_ERROR, UNSUPPORTED_VERSION, URL_ELICITATION_REQUIRED,
};
pub use params::RoutingParams;
pub use request_id::RequestId;
pub use scan::{Ambiguity, MAX_LEVELS};
pub use session::{LIFETIME_MS, OpenedSession, Session};
