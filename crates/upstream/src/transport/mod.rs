//! The transports: Streamable HTTP, in which each request has its own HTTP response, and HTTP+SSE, in which all
//! messages of the server arrive on one stream.

pub(crate) mod core;
pub(crate) mod exchange;
pub(crate) mod http;
mod incoming;
pub(crate) mod message;
pub(crate) mod sse;
