//! The control plane's end of the links to toolboxes.
//!
//! A daemon opens a WebSocket; after the handshake, the control plane sends HTTP/2 requests through it. [`Links`] holds
//! the open links of this process, [`Directory`] gives the link access to the store, and [`Forward`] sends requests to
//! the replica of the control plane that holds a link.
//!
//! Invariants (tests/it):
//! 1. A link opens only after [`Directory::authenticate`] has accepted the daemon's signature of this connection's nonce.
//! 2. A toolbox has at most one link. The newest one wins: the previous one is closed. With several replicas, this
//!    applies across all of them: a replica that has lost its lease closes its link.
//! 3. Without a link, a request fails at once. A request that another replica has forwarded is not forwarded again.
//! 4. Messages from a toolbox are passed on in order, one at a time. If one cannot be stored, the later ones wait.
//! 5. Closing a link cancels its calls on the daemon, and dropping a request cancels its call.

mod accept;
mod control;
mod error;
mod forward;
mod links;
mod request;
mod verify;

use std::pin::Pin;

use waypost_core::id::ToolboxId;
use waypost_toolbox_proto::desired::DesiredState;
use waypost_toolbox_proto::handshake::{Challenge, Hello, Rejection};
use waypost_toolbox_proto::message::{ControlMessage, DaemonMessage};

pub use accept::AcceptError;
pub use error::LinkError;
pub use forward::Forward;
pub use links::Links;
pub use verify::{is_public_key, verify};
pub use waypost_link_io::lines::{LineError, LineReader};
pub use waypost_link_io::{Body, BodyError, upgrade_response};

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Provides the link with data about toolboxes, and stores their messages. Implemented by the operations; tests replace
/// it.
pub trait Directory: Send + Sync + 'static {
    /// Verifies the signature of a daemon (see [`verify()`]), and stores its version and, if it presents one, its next
    /// public key, which replaces the current one.
    fn authenticate<'a>(
        &'a self,
        challenge: &'a Challenge,
        hello: &'a Hello,
    ) -> BoxFuture<'a, Result<ToolboxId, Rejection>>;

    /// Records that this process holds the link of a toolbox, instead of any other replica. Called after the link has
    /// been opened, and before it is used. The default implementation does nothing, for installations with one process.
    fn claim<'a>(&'a self, _toolbox: &'a ToolboxId) -> BoxFuture<'a, waypost_core::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Records that this process no longer holds the link of a toolbox. Does nothing if another replica holds it. The
    /// default implementation does nothing.
    fn release<'a>(&'a self, _toolbox: &'a ToolboxId) -> BoxFuture<'a, waypost_core::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Returns the desired state of a toolbox; `None` if it is revoked or deleted, which closes the link.
    fn desired_state<'a>(&'a self, toolbox: &'a ToolboxId)
    -> BoxFuture<'a, waypost_core::Result<Option<DesiredState>>>;

    /// Stores a message from a toolbox, and returns the answer, if any. An event is acknowledged only after it has been
    /// stored. Messages about instances of other toolboxes are ignored and logged. An ignored event must still be
    /// acknowledged, and an ignored request for secrets must be answered with `None`.
    ///
    /// An event whose number is not higher than that of the last stored one has already been stored, and is acknowledged
    /// again, with the number of the last stored one.
    ///
    /// The link does not know which instances a toolbox has, and passes on everything that the daemon sends. After an
    /// error, it passes the same message on again until it is stored, and keeps the later ones waiting. Only heartbeats
    /// are not repeated.
    fn receive<'a>(
        &'a self,
        toolbox: &'a ToolboxId,
        message: DaemonMessage,
    ) -> BoxFuture<'a, waypost_core::Result<Option<ControlMessage>>>;
}
