//! The control plane's end of the links to toolboxes.
//!
//! A daemon opens a WebSocket; after the handshake, the control plane sends HTTP/2 requests through it. [`Directory`] is
//! what the link needs from the store.

use std::pin::Pin;

use waypost_core::id::ToolboxId;
use waypost_toolbox_proto::desired::DesiredState;
use waypost_toolbox_proto::handshake::{Challenge, Hello, Rejection};
use waypost_toolbox_proto::message::{ControlMessage, DaemonMessage};

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the link needs to know of toolboxes, and where their messages go. The operations implement it; tests replace it.
pub trait Directory: Send + Sync + 'static {
    /// Verifies the signature of a daemon, and stores its version and, if it presents one, its next public key.
    fn authenticate<'a>(
        &'a self,
        challenge: &'a Challenge,
        hello: &'a Hello,
    ) -> BoxFuture<'a, Result<ToolboxId, Rejection>>;

    /// Returns the desired state of a toolbox; `None` if it is revoked or deleted, which closes the link.
    fn desired_state<'a>(&'a self, toolbox: &'a ToolboxId)
    -> BoxFuture<'a, waypost_core::Result<Option<DesiredState>>>;

    /// Stores a message of a toolbox, and returns the answer. An event is acknowledged only after it has been stored.
    /// The message concerns this toolbox's own instances; anything about others is ignored and logged.
    fn receive<'a>(
        &'a self,
        toolbox: &'a ToolboxId,
        message: DaemonMessage,
    ) -> BoxFuture<'a, waypost_core::Result<Option<ControlMessage>>>;
}
