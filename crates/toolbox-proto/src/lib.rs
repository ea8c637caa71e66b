//! The protocol between the control plane and the toolbox daemon: types without I/O.
//!
//! The daemon opens one WebSocket to the control plane ([`handshake`]). After the handshake, the WebSocket carries
//! HTTP/2 with reversed roles: the control plane is the client and sends requests to the daemon ([`http`]). One of
//! these requests stays open and carries messages in both directions ([`message`]): the desired state, heartbeats,
//! events and secrets. All other requests are for tool calls, logs and statistics, each on a separate stream.
//!
//! The protocol has no request that runs a command in a container or on the machine.

pub mod deployment;
pub mod desired;
pub mod entry;
pub mod forwarded_headers;
pub mod handshake;
pub mod http;
pub mod instance;
pub mod message;
mod names;
pub mod runtime;

pub use deployment::{DeploymentError, DeploymentStep, ErrorCode};
pub use desired::{DesiredInstance, DesiredState, InstanceSpec};
pub use entry::{Destination, ResourceClass, SecretDelivery, SecretSpec, Sharing, Transport, Volume};
pub use instance::{Health, InstanceState};
