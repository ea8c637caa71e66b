//! Requests to toolboxes whose link another replica holds.

use bytes::Bytes;
use http::{Request, Response};
use waypost_core::id::ToolboxId;
use waypost_link_io::Body;

use crate::BoxFuture;
use crate::error::LinkError;

/// Sends requests to the replica that holds the link. The program implements it.
pub trait Forward: Send + Sync + 'static {
    /// Sends a request to the replica that holds the link of `toolbox`, which answers it with
    /// [`Links::request_here`](crate::Links::request_here). Dropping the future, or the body of the response, cancels it.
    ///
    /// # Errors
    /// [`LinkError::Offline`] if no replica holds the link, or it cannot be reached, or [`LinkError::Interrupted`].
    fn forward<'a>(
        &'a self,
        toolbox: &'a ToolboxId,
        request: Request<Bytes>,
    ) -> BoxFuture<'a, Result<Response<Body>, LinkError>>;
}
