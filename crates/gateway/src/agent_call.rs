//! An agent's call, and its possible outcomes.

use futures::stream::BoxStream;
use http::HeaderMap;
use waypost_core::Result;
use waypost_mcp_wire::JsonRpcError;
use waypost_mcp_wire::client_capabilities::ClientCapabilities;
use waypost_mcp_wire::log_level::LogLevel;
use waypost_mcp_wire::strict::{Message, OwnedMessage};
use waypost_ops::agent_tokens::ResolvedAgent;
use waypost_ops::instances::exchange::Responder;

use crate::GatewayAddress;
use crate::deadline::CallDeadline;
use crate::session::Session;
use crate::upstreams::{Attempt, CalledServer};

/// The messages of a server.
pub(crate) type Messages = BoxStream<'static, Result<OwnedMessage>>;

/// An agent's call, with the context of its request.
#[derive(Clone, Copy)]
pub(crate) struct AgentCall<'a> {
    pub(crate) caller: &'a ResolvedAgent,
    pub(crate) address: &'a GatewayAddress,
    pub(crate) request: &'a Message<'a>,
    pub(crate) headers: &'a HeaderMap,
    /// The session. `None` if the request has none, as in revisions without a handshake.
    pub(crate) session: Option<&'a Session>,
    /// The agent's capabilities that servers may use.
    pub(crate) capabilities: ClientCapabilities,
    /// The minimum level of the log messages that the agent requested; `None` if it has not requested any.
    pub(crate) log_level: Option<LogLevel>,
}

/// The agent's responses to the requests of a server that uses revision 2026-07-28.
#[derive(Debug)]
pub(crate) struct Input {
    /// `inputResponses` as JSON text.
    pub(crate) responses: Option<String>,
    /// The server's `requestState` as JSON text.
    pub(crate) state: Option<String>,
}

/// The outcome of opening a call.
pub(crate) enum Opened {
    /// The call is rejected.
    Rejected(JsonRpcError),
    /// The server is waiting for a response that the agent has not sent. Contains the result for the agent as JSON
    /// text.
    InputRequired(String),
    /// The server was called.
    Called(Box<OpenCall>),
}

/// A call that a server is processing.
pub(crate) struct OpenCall {
    pub(crate) server: CalledServer,
    /// The slug of the server's instance.
    pub(crate) slug: String,
    pub(crate) messages: Messages,
    pub(crate) responder: Option<Responder>,
    /// The ID of the call in the server's messages, as JSON text.
    pub(crate) call_id: String,
    /// The number of requests that the server has sent.
    pub(crate) count: usize,
    /// `None` if the call continues after a response of the agent, and the server has no free slot.
    pub(crate) attempt: Option<Attempt>,
    pub(crate) deadline: CallDeadline,
}
