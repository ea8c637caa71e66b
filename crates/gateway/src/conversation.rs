//! Relays a server's requests to the agent during a call.

use bytes::Bytes;
use http::HeaderMap;
use waypost_core::id::InstanceId;
use waypost_core::{Error, Result};
use waypost_mcp_wire::log_level::LogLevel;
use waypost_mcp_wire::strict::Message;
use waypost_ops::agent_tokens::ResolvedAgent;

use crate::agent_call::AgentCall;
use crate::agent_requests::AgentRequest;
use crate::input_state::InputBinding;
use crate::session::Session;
use crate::{Gateway, GatewayAddress};

/// The way in which a server's requests reach the agent.
pub(crate) enum Asking {
    /// They are returned to the agent (2026-07-28).
    ByResult(InputBinding),
    /// They are sent to the agent in the stream of its call.
    InStream(Box<Conversation>),
    /// The agent cannot be asked.
    Impossible,
}

/// The state that is needed to send requests to the agent, and to repeat its call.
pub(crate) struct Conversation {
    caller: ResolvedAgent,
    address: GatewayAddress,
    headers: HeaderMap,
    text: Bytes,
    pub(crate) session: Session,
    log_level: Option<LogLevel>,
    pub(crate) waiting: Vec<Question>,
    /// The responses to `inputRequests`, each as a member of a JSON object.
    pub(crate) responses: Vec<String>,
    /// The server's `requestState` as JSON text.
    pub(crate) state: Option<String>,
    /// The server's message from which `state` was copied.
    pub(crate) origin: Option<Bytes>,
}

/// A request to the agent.
pub(crate) struct Question {
    pub(crate) request: AgentRequest,
    pub(crate) asker: Asker,
}

pub(crate) enum Asker {
    /// A server that is waiting for the response to its request with this ID.
    Request { raw_id: String },
    /// The entry of `inputRequests` with this key and method.
    Input { key: String, method: String },
}

impl Asking {
    /// Determines how requests reach the agent of a call. `text` is the agent's request, and `instance` the server's
    /// instance.
    pub(crate) fn new((call, text): (AgentCall<'_>, &Bytes), instance: &InstanceId) -> Self {
        match call.session {
            _ if call.request.is_modern() => Self::ByResult(InputBinding {
                agent: call.caller.agent.id.clone(),
                instance: instance.clone(),
                text: text.clone(),
            }),
            Some(session) if !call.capabilities.is_empty() => {
                Self::InStream(Box::new(Conversation::new(call, session, text)))
            }
            _ => Self::Impossible,
        }
    }
}

impl Conversation {
    fn new(call: AgentCall<'_>, session: &Session, text: &Bytes) -> Self {
        Self {
            caller: call.caller.clone(),
            address: call.address.clone(),
            headers: call.headers.clone(),
            text: text.clone(),
            session: session.clone(),
            log_level: call.log_level,
            waiting: Vec::new(),
            responses: Vec::new(),
            state: None,
            origin: None,
        }
    }

    /// Returns the call. `request` must be the message that [`Self::request`] returns.
    pub(crate) fn call<'a>(&'a self, request: &'a Message<'a>) -> AgentCall<'a> {
        let Self { caller, address, headers, session, log_level, .. } = self;
        let capabilities = session.capabilities();
        AgentCall { caller, address, request, headers, session: Some(session), capabilities, log_level: *log_level }
    }

    /// Parses the agent's request.
    ///
    /// # Errors
    /// `internal` if the request is not valid, which does not happen in practice: it was parsed before.
    pub(crate) fn request(&self) -> Result<Message<'_>> {
        Message::read(&self.text).map_err(|error| Error::internal(error.message))
    }

    /// Begins a request to the agent, and returns its ID as JSON text.
    pub(crate) fn ask(&mut self, gateway: &Gateway, asker: Asker) -> String {
        let request = gateway.agent_requests.begin(&self.session, &*gateway.cx.random);
        let raw_id = request.raw_id();
        self.waiting.push(Question { request, asker });
        raw_id
    }
}
