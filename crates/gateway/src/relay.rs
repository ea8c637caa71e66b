//! The messages of a call from the server to the agent, and the requests of the server to the agent in the meantime.
//!
//! | Agent | Server | The server's requests |
//! |---|---|---|
//! | 2026-07-28 | 2026-07-28 | are returned to the agent, with a sealed state ([`crate::input_state`]) |
//! | with a session | 2026-07-28 | are sent to the agent in the stream of the call; then the call is repeated with the responses |
//! | with a session | with a handshake | are sent to the agent in the stream of the call; its responses are sent to the server |
//! | 2026-07-28 | with a handshake | are returned to the agent; the call is parked until the agent sends it again ([`crate::parked`]) |
//! | any other | any | are rejected, because the agent has no such capability |
//!
//! Invariants:
//! 1. A server asks only for what the agent has declared, and only the agent whose call it is processing.
//! 2. Before the server gets a response, the gateway checks that the agent may still make the call.
//! 3. While the agent is being asked, the call occupies none of the server's slots.
//! 4. The number of requests, the number of rounds and the time in which the agent must answer are limited.
//! 5. The user sees which server asks, and only pages on hosts that the operator allows ([`crate::elicitation`]).
//! 6. What a server sends holds memory ([`waypost_mcp_wire::memory`]) until the agent has received it, also in copies.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::future::select_all;
use futures::stream;
use http::StatusCode;
use waypost_core::id::OrganizationId;
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::client_capabilities::ClientCapabilities;
use waypost_mcp_wire::input_requests::InputRequest;
use waypost_mcp_wire::memory::keep;
use waypost_mcp_wire::rewrite::{Member, Rewrite, quote};
use waypost_mcp_wire::strict::{Message, MessageKind, OwnedMessage, ResultMembers, text_of};
use waypost_mcp_wire::{JsonRpcError, METHOD_NOT_FOUND};
use waypost_ops::instances::exchange::{INPUT_TIME, Responder};

use crate::agent_call::{AgentCall, Input, Messages, OpenCall, Opened};
use crate::conversation::{Asker, Asking, Question};
use crate::deadline::{CallDeadline, late};
use crate::elicitation::{ElicitationPolicy, invalid_input, refusal};
use crate::input_state::InputState;
use crate::log_filter::LogFilter;
use crate::message_text::MessageText;
use crate::parked::ParkedCall;
use crate::record::CallRecord;
use crate::reply::server_error;
use crate::response::{convert, status};
use crate::running_calls::RunningCall;
use crate::slots::Slot;
use crate::upstreams::{Attempt, CalledServer};
use crate::{Gateway, reply};

/// The maximum number of requests to the agent that are pending at a time in one call.
const MAX_WAITING: usize = 16;
/// The maximum number of times that a server may ask during one call.
const MAX_QUESTIONS: usize = 32;
/// The interval at which comments are sent in the stream while the agent is being asked, so that no proxy closes the
/// idle connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Relays the messages of a call.
pub(crate) struct Relay {
    gateway: Arc<Gateway>,
    organization: OrganizationId,
    server: CalledServer,
    /// The slug of the server's instance.
    slug: String,
    messages: Messages,
    responder: Option<Responder>,
    /// The ID of the call in the server's messages, as JSON text.
    call_id: String,
    asking: Asking,
    /// The capabilities of the agent that the server may use.
    capabilities: ClientCapabilities,
    /// The number of requests that the server has sent.
    count: usize,
    deadline: CallDeadline,
    is_modern: bool,
    log_filter: LogFilter,
    /// The ID of the request as the agent wrote it.
    raw_id: String,
    record: CallRecord,
    /// `None` while the agent is being asked, and afterwards if the server has no free slot.
    attempt: Option<Attempt>,
    _slot: Slot,
}

enum Next {
    /// Events of the stream.
    Events(Bytes),
    /// The response, and its HTTP status, which applies if it is the first message.
    Response(MessageText, StatusCode),
}

enum Event {
    Message(Option<Result<OwnedMessage>>),
    Answer(usize, Bytes),
    Idle,
}

impl Relay {
    pub(crate) fn new(
        gateway: &Arc<Gateway>,
        (call, text): (AgentCall<'_>, &Bytes),
        open: OpenCall,
        (slot, record): (Slot, CallRecord),
    ) -> Self {
        let OpenCall { server, slug, messages, responder, call_id, count, attempt, deadline } = open;
        let asking = Asking::new((call, text), server.key.instance());
        Self {
            gateway: Arc::clone(gateway),
            organization: call.caller.organization_id.clone(),
            server,
            slug,
            responder,
            messages,
            call_id,
            count,
            asking,
            capabilities: call.capabilities,
            deadline,
            is_modern: call.request.is_modern(),
            log_filter: LogFilter::new(call),
            raw_id: call.request.raw_id.unwrap_or("null").to_owned(),
            record,
            attempt,
            _slot: slot,
        }
    }

    /// Returns the response to the agent: JSON if the server's first message is the response, otherwise a stream of
    /// events. If the agent cancels the call, the stream ends without a response.
    pub(crate) async fn run(mut self, running: RunningCall) -> Result<Response> {
        let Some(first) = running.run(self.next()).await else { return Ok(reply::cancelled()) };
        let first = match first? {
            Next::Response(text, status) => return Ok(reply::message(status, text)),
            Next::Events(events) => events,
        };
        let events = stream::unfold(Some((self, running, Some(first))), |state| async move {
            let (mut relay, running, pending) = state?;
            let next = match pending {
                Some(events) => Ok(Next::Events(events)),
                None => running.run(relay.next()).await?,
            };
            // After the response, the call is dropped.
            let (events, state) = match next {
                Ok(Next::Events(events)) => (events, Some((relay, running, None))),
                Ok(Next::Response(text, _)) => (reply::response_event(text), None),
                Err(error) => (reply::event(reply::failure(&relay.raw_id, &error).as_bytes()), None),
            };
            Some((Ok::<_, std::convert::Infallible>(events), state))
        });
        Ok(reply::stream(Body::from_stream(events)))
    }

    /// Returns what is sent to the agent next. Records the size of a response, or the error.
    async fn next(&mut self) -> Result<Next> {
        let next = self.receive().await;
        match &next {
            Ok(Next::Response(text, _)) => self.record.add_response(text.len()),
            // Recorded when the events are created, without the overhead of the event format.
            Ok(Next::Events(_)) => {}
            Err(error) => {
                self.record.fail(error);
                if let Some(attempt) = &mut self.attempt {
                    attempt.record_failure(error);
                }
            }
        }
        next
    }

    async fn receive(&mut self) -> Result<Next> {
        loop {
            let next = match self.wait().await? {
                Event::Idle => Some(Next::Events(Bytes::from_static(b": waiting\n\n"))),
                Event::Answer(index, answer) => self.answer(index, &answer).await?,
                Event::Message(received) => {
                    let message =
                        received.unwrap_or_else(|| Err(server_error("The server did not answer.", "no_mcp")))?;
                    if let Some(attempt) = &mut self.attempt {
                        attempt.record_success();
                    }
                    match self.relay(message).await? {
                        Some(response @ Next::Response(..)) => Some(response),
                        // A server cannot prolong a call by sending messages continuously.
                        _ if self.deadline.has_passed() => return Err(late()),
                        next => next,
                    }
                }
            };
            if let Some(next) = next {
                return Ok(next);
            }
        }
    }

    async fn wait(&mut self) -> Result<Event> {
        let Self { messages, asking, deadline, .. } = self;
        let deadline = tokio::time::sleep_until(deadline.at());
        let waiting = match asking {
            Asking::InStream(conversation) if !conversation.waiting.is_empty() => &mut conversation.waiting,
            Asking::InStream(_) | Asking::ByResult(_) | Asking::Impossible => {
                return tokio::select! {
                    biased;
                    received = messages.next() => Ok(Event::Message(received)),
                    () = deadline => Err(late()),
                };
            }
        };
        let answers = select_all(waiting.iter_mut().map(|question| &mut question.request));
        tokio::select! {
            (answer, index, _) = answers => Ok(Event::Answer(index, answer)),
            received = messages.next() => Ok(Event::Message(received)),
            () = tokio::time::sleep(KEEP_ALIVE) => Ok(Event::Idle),
            () = deadline => Err(Error::new(Code::ToolServerError, "The client did not answer the server in time.")
                .with("reason", "input_timeout")),
        }
    }

    /// Relays a message of the server. Returns `None` if nothing is sent to the agent: messages that do not belong to this call
    /// are dropped.
    async fn relay(&mut self, received: OwnedMessage) -> Result<Option<Next>> {
        let text = received.text().clone();
        match self.process(received).await? {
            Some(Next::Events(events)) => Ok(Some(Next::Events(keep(events, text)))),
            next => Ok(next),
        }
    }

    async fn process(&mut self, received: OwnedMessage) -> Result<Option<Next>> {
        let message = received.message();
        match message.kind {
            MessageKind::Notification => Ok(self.relay_notification(message, received.text()).map(Next::Events)),
            MessageKind::Request => self.ask(message, received.text()).await,
            MessageKind::Error | MessageKind::Result if !self.is_own(message) => Ok(None),
            MessageKind::Error | MessageKind::Result => match &message.result {
                Some(result) if text_of(result.result_type).is_some_and(|kind| kind == "input_required") => {
                    self.require_input((message, received.text()), result).await
                }
                _ => {
                    let text = convert(&received, (self.raw_id.as_str(), self.is_modern), self.elicitations())?;
                    self.record.respond(message);
                    Ok(Some(Next::Response(text, status(message, self.is_modern))))
                }
            },
        }
    }

    /// Whether a response belongs to the call. An error without an ID refers to a request that the server could not
    /// read.
    fn is_own(&self, response: &Message<'_>) -> bool {
        match response.raw_id {
            None | Some("null") => response.kind == MessageKind::Error,
            id => id == Some(&self.call_id),
        }
    }

    /// Returns the rules for what the server may show.
    fn elicitations(&self) -> ElicitationPolicy<'_> {
        let hosts = &self.gateway.options.elicitation_hosts;
        ElicitationPolicy { hosts, instance: self.server.key.instance(), slug: &self.slug }
    }

    fn relay_notification(&mut self, notification: &Message<'_>, text: &Bytes) -> Option<Bytes> {
        // Agents are notified on their own streams, and only about what they see.
        if self.gateway.receive_announcement(&self.organization, &self.server.key, notification) {
            return None;
        }
        if notification.method.as_deref() != Some("notifications/cancelled") {
            return self.log_filter.accepts(notification).then(|| self.event(text));
        }
        // The server no longer waits for the response to its request, whose ID the agent does not know.
        let Asking::InStream(conversation) = &mut self.asking else { return None };
        let cancelled = |question: &Question| match &question.asker {
            Asker::Request { raw_id } => Some(raw_id.as_str()) == notification.params.request_id,
            Asker::Input { .. } => false,
        };
        let index = conversation.waiting.iter().position(cancelled)?;
        let question = conversation.waiting.swap_remove(index);
        let mut rewrite = Rewrite::new(notification);
        rewrite.set(Member::RequestId, Some(&question.request.raw_id()));
        self.continue_server();
        Some(self.event(&rewrite.finish()))
    }

    /// Returns the event with a message for the agent, and records its size.
    fn event(&mut self, text: &[u8]) -> Bytes {
        self.record.add_response(text.len());
        reply::event(text)
    }

    /// Passes a request of a server with a handshake to the agent, or rejects it.
    async fn ask(&mut self, request: &Message<'_>, text: &Bytes) -> Result<Option<Next>> {
        let Some(responder) = self.responder.clone() else { return Ok(None) };
        self.count += 1;
        let waiting = match &self.asking {
            Asking::InStream(conversation) => conversation.waiting.len(),
            Asking::ByResult(_) | Asking::Impossible => 0,
        };
        let method = request.method.as_deref().unwrap_or_default();
        let is_allowed =
            self.capabilities.allow(method, request.params.raw) && waiting < MAX_WAITING && self.count <= MAX_QUESTIONS;
        let shown = match is_allowed {
            true => self.elicitations().apply(method, request.params.raw).map_err(|error| refusal(&error, request)),
            false => {
                Err(JsonRpcError::new(METHOD_NOT_FOUND, "The client does not support this request.", request.id()))
            }
        };
        let shown = match shown {
            Ok(shown) => shown,
            Err(error) => {
                responder.respond(error.to_json().to_string().as_bytes()).await?;
                return Ok(None);
            }
        };
        let mut rewrite = Rewrite::new(request);
        if let (Some(params), Some(shown)) = (request.params.raw, &shown) {
            rewrite.replace(params, shown);
        }
        match &mut self.asking {
            Asking::Impossible => Ok(None),
            Asking::ByResult(binding) => {
                let parked = ParkedCall {
                    messages: std::mem::replace(&mut self.messages, stream::pending().boxed()),
                    responder,
                    call_id: self.call_id.clone(),
                    count: self.count,
                    question: keep(rewrite.finish().into(), text.clone()),
                };
                let result = self.gateway.park((&self.organization, binding), parked)?;
                self.record.complete();
                let response = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, self.raw_id);
                Ok(Some(Next::Response(keep(response.into(), text.clone()).into(), StatusCode::OK)))
            }
            Asking::InStream(conversation) => {
                let raw_id = request.raw_id.unwrap_or("null").to_owned();
                let id = conversation.ask(&self.gateway, Asker::Request { raw_id });
                rewrite.set_id(&id);
                let text = rewrite.finish();
                self.pause();
                Ok(Some(Next::Events(self.event(&text))))
            }
        }
    }

    /// Returns the requests of a server that uses revision 2026-07-28 to the agent, or sends them in the stream of the
    /// call.
    async fn require_input(
        &mut self,
        (message, text): (&Message<'_>, &Bytes),
        result: &ResultMembers<'_>,
    ) -> Result<Option<Next>> {
        let requests = InputRequest::parse_all(result.input_requests.unwrap_or("{}")).ok_or_else(invalid_input)?;
        let state = result.request_state.filter(|state| *state != "null");
        if requests.is_empty() && state.is_none() {
            return Err(invalid_input());
        }
        if requests.iter().any(|request| !self.capabilities.allow(&request.method, request.params)) {
            return Err(invalid_input());
        }
        let policy = self.elicitations();
        let shown = requests.iter().map(|request| policy.apply(&request.method, request.params));
        let shown = shown.collect::<Result<Vec<_>>>()?;
        match &mut self.asking {
            Asking::Impossible => Err(invalid_input()),
            Asking::ByResult(binding) => {
                let mut rewrite = Rewrite::new(message);
                rewrite.set_id(&self.raw_id);
                for (request, shown) in requests.iter().zip(&shown) {
                    if let (Some(params), Some(shown)) = (request.params, shown) {
                        rewrite.replace(params, shown);
                    }
                }
                if let Some(state) = state {
                    let state = InputState::OfServer(state.to_owned());
                    let sealed = binding.seal(self.gateway.ops.keyring()?, &self.gateway.cx, state)?;
                    rewrite.set(Member::RequestState, Some(&sealed));
                }
                self.record.respond(message);
                Ok(Some(Next::Response(keep(rewrite.finish().into(), text.clone()).into(), StatusCode::OK)))
            }
            Asking::InStream(conversation) => {
                self.count += 1;
                if self.count > MAX_QUESTIONS {
                    return Err(server_error("The server asks for input too often.", "input_required"));
                }
                conversation.state = state.map(str::to_owned);
                conversation.origin = Some(text.clone());
                let mut events = BytesMut::new();
                for (InputRequest { key, method, params }, shown) in requests.into_iter().zip(shown) {
                    let params = shown.as_deref().or(params);
                    let params = params.map_or(String::new(), |params| format!(",\"params\":{params}"));
                    let id = conversation.ask(&self.gateway, Asker::Input { key, method: method.clone() });
                    let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{}{params}}}"#, quote(&method));
                    self.record.add_response(text.len());
                    events.extend_from_slice(&reply::event(text.as_bytes()));
                }
                if events.is_empty() {
                    return self.repeat().await;
                }
                self.messages = stream::pending().boxed();
                self.pause();
                Ok(Some(Next::Events(events.freeze())))
            }
        }
    }

    /// Frees the server's slot, and pauses the server's time, while the agent is being asked.
    fn pause(&mut self) {
        self.attempt = None;
        self.deadline.pause(INPUT_TIME);
    }

    /// Resumes the server's remaining time if no request to the agent is pending.
    fn continue_server(&mut self) {
        if let Asking::InStream(conversation) = &self.asking
            && conversation.waiting.is_empty()
        {
            self.deadline.resume();
        }
    }

    /// Processes a response of the agent.
    async fn answer(&mut self, index: usize, answer: &[u8]) -> Result<Option<Next>> {
        let Asking::InStream(conversation) = &mut self.asking else { return Ok(None) };
        let question = conversation.waiting.swap_remove(index);
        let is_last_input = matches!(question.asker, Asker::Input { .. }) && conversation.waiting.is_empty();
        self.continue_server();
        let deadline = self.deadline;
        let next = deadline.limit(self.pass_on(question, answer)).await?;
        // The deadline does not apply to the repeated call as a whole: waiting for other calls of the server does not
        // count.
        if is_last_input { self.repeat().await } else { Ok(next) }
    }

    async fn pass_on(&mut self, question: Question, answer: &[u8]) -> Result<Option<Next>> {
        let Asking::InStream(conversation) = &mut self.asking else { return Ok(None) };
        let answer = Message::read(answer).map_err(|error| Error::internal(error.message))?;
        match question.asker {
            Asker::Request { raw_id } => {
                let request = conversation.request()?;
                if !self.gateway.is_allowed(conversation.call(&request), &mut self.record).await? {
                    self.record.deny();
                    let error = reply::unknown(&request).to_json().to_string();
                    return Ok(Some(Next::Response(error.into(), StatusCode::OK)));
                }
                let mut rewrite = Rewrite::new(&answer);
                rewrite.set_id(&raw_id);
                let text = rewrite.finish();
                if let Some(responder) = &self.responder {
                    responder.respond(&text).await?;
                }
                if conversation.waiting.is_empty() {
                    // The server is already processing the call, so the call neither waits for a slot nor fails without
                    // one.
                    self.attempt = self.gateway.upstreams.try_enter(&self.server);
                }
                Ok(None)
            }
            Asker::Input { key, method } => {
                let response = match &answer.result {
                    Some(result) => result.raw,
                    // An error counts as a cancellation by the user.
                    None if method == "elicitation/create" => r#"{"action":"cancel"}"#,
                    None => {
                        let text = "The client answered a request of the server with an error.";
                        return Err(Error::new(Code::ToolServerError, text).with("reason", "input_failed"));
                    }
                };
                conversation.responses.push(format!("{}:{response}", quote(&key)));
                Ok(None)
            }
        }
    }

    /// Sends the call again to a server that uses revision 2026-07-28, with the agent's responses.
    async fn repeat(&mut self) -> Result<Option<Next>> {
        let Asking::InStream(conversation) = &mut self.asking else { return Ok(None) };
        let responses = std::mem::take(&mut conversation.responses);
        let responses = (!responses.is_empty()).then(|| format!("{{{}}}", responses.join(",")));
        let input = Input { responses, state: conversation.state.take() };
        drop(conversation.origin.take());
        self.attempt = None;
        let (request, again) = (conversation.request()?, (Some(&input), self.deadline));
        // Boxed, like everything that most calls do not need: large futures are slow to move.
        match Box::pin(self.gateway.open(conversation.call(&request), again, &mut self.record)).await? {
            Opened::Rejected(error) => {
                self.record.deny();
                Ok(Some(Next::Response(error.to_json().to_string().into(), StatusCode::OK)))
            }
            // Only calls of 2026-07-28 are parked.
            Opened::InputRequired(_) => Err(Error::internal("a call in a session was parked")),
            Opened::Called(open) => {
                let OpenCall { messages, responder, call_id, attempt, deadline, .. } = *open;
                self.responder = responder;
                self.call_id = call_id;
                self.messages = messages;
                self.attempt = attempt;
                self.deadline = deadline;
                Ok(None)
            }
        }
    }
}
