//! Requests to toolboxes whose link is held by another replica.

use bytes::Bytes;
use http::{Request, Response};
use waypost_core::id::ToolboxId;
use waypost_link_io::Body;

use crate::BoxFuture;
use crate::error::LinkError;

/// Sends requests to the replica that holds the link. Implemented by the program.
pub trait Forward: Send + Sync + 'static {
    /// Sends a request to the replica that holds the link of `toolbox`, which answers it with
    /// [`Links::request_here`](crate::Links::request_here). Dropping the future, or the body of the response, cancels it.
    ///
    /// # Errors
    /// Returns [`LinkError::Offline`] if no replica holds the link or the replica cannot be reached, or
    /// [`LinkError::Interrupted`] if the connection is lost.
    fn forward<'a>(
        &'a self,
        toolbox: &'a ToolboxId,
        request: Request<Bytes>,
    ) -> BoxFuture<'a, Result<Response<Body>, LinkError>>;
}
