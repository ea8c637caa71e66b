//! Calls that are relayed to a server.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use serde_json::Value;
use waypost_core::agent::{Agent, AgentKind};
use waypost_core::grant::allows;
use waypost_core::id::{InstanceId, OrganizationId, random_part};
use waypost_core::instance::{DesiredRun, Instance};
use waypost_core::tool_definition::{Class, DefinitionKind, ToolDefinition};
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::client_capabilities::ClientCapabilities;
use waypost_mcp_wire::revision::{META_CLIENT_CAPABILITIES, META_CLIENT_INFO, META_LOG_LEVEL, META_PROTOCOL_VERSION};
use waypost_mcp_wire::rewrite::{Member, Rewrite, quote};
use waypost_mcp_wire::strict::{Message, text_of};
use waypost_mcp_wire::{INVALID_PARAMS, JsonRpcError};
use waypost_ops::hosting::with_timeout;
use waypost_ops::instances::connect;
use waypost_ops::instances::containers::{self, ContainerKey};
use waypost_ops::instances::exchange::{Exchange, ExchangeTarget};
use waypost_ops::tool_access::AgentAccess;
use waypost_ops::visibility::{Found, View};
use waypost_toolbox_proto::entry::Sharing;
use waypost_toolbox_proto::http::MAX_MESSAGE_BYTES;

use crate::agent_call::{AgentCall, Input, OpenCall, Opened};
use crate::deadline::CallDeadline;
use crate::headers::check_arguments;
use crate::input_state::{InputBinding, InputState};
use crate::parked::ParkedCall;
use crate::record::CallRecord;
use crate::relay::Relay;
use crate::slots::LimitReached;
use crate::trace::set_trace_context;
use crate::upstreams::CalledServer;
use crate::{Gateway, input_state, reply};

/// The delay before a message is retried.
const RETRY_DELAY: Duration = Duration::from_millis(200);

impl Gateway {
    /// Relays a call to its server, and returns the response for the agent. `text` is the body of the request.
    pub(crate) async fn call(
        self: &Arc<Self>,
        call: AgentCall<'_>,
        text: &Bytes,
        mut record: CallRecord,
    ) -> Result<Response> {
        record.accept();
        if let Err(wait) = self.quota.check(&call.caller.agent.id) {
            record.deny();
            return Ok(reply::quota_exceeded(call.request, wait));
        }
        let Ok(slot) = self.calls.acquire(&call.caller.organization_id, &call.caller.agent.id) else {
            record.deny();
            return Ok(reply::rejection(&reply::too_many(call.request), call.request.is_modern()));
        };
        let running = self.running_calls.begin(call.session, call.request.raw_id.unwrap_or("null"));
        let deadline = CallDeadline::after(self.options.call_timeout);
        let Some(opened) = running.run(self.open(call, (None, deadline), &mut record)).await else {
            return Ok(reply::cancelled());
        };
        match opened {
            Ok(Opened::Called(open)) => Relay::new(self, (call, text), *open, (slot, record)).run(running).await,
            Ok(Opened::Rejected(error)) => {
                record.deny();
                Ok(reply::rejection(&error, call.request.is_modern()))
            }
            Ok(Opened::InputRequired(result)) => {
                record.complete();
                Ok(reply::raw_result(call.request, &result))
            }
            Err(error) => {
                record.fail(&error);
                Err(error)
            }
        }
    }

    /// Checks a call, and sends it to its server. With `input`, a call that was sent before is sent again with the
    /// agent's responses.
    pub(crate) async fn open(
        self: &Arc<Self>,
        call: AgentCall<'_>,
        (input, mut deadline): (Option<&Input>, CallDeadline),
        record: &mut CallRecord,
    ) -> Result<Opened> {
        let AgentCall { caller, request, headers, .. } = call;
        let mut access = self.access.find(&caller.organization_id, &caller.agent.id).await?;
        let unknown = || Ok(Opened::Rejected(reply::unknown(request)));
        // Checked first, so that an agent cannot make this installation contact a server that it was not granted.
        let Some(found) = self.find_allowed(&access, call, record) else { return unknown() };
        if found.server.instance.desired == DesiredRun::Stopped {
            let message = "The server is stopped. Ask an admin of the organisation to start it.";
            return Err(Error::new(Code::Conflict, message).with("reason", "not_running"));
        }
        if let Ok(Some(InputState::Parked(key))) = self.input_state(call, &found.server.instance.id) {
            return Box::pin(self.continue_parked(call, &found, &key, deadline)).await;
        }
        // A missing connection or personal secret is not a failure of the server.
        let connected = connect::check_connected(&self.ops, &found.server.instance, &caller.agent.id);
        let connected = with_timeout(connected).await;
        connected.map_err(|error| self.explain_connection(error, &access, &found.server.instance, &caller.agent))?;
        let container = with_timeout(self.container(call, &found)).await?;
        let server = CalledServer::new(&found.server.instance, found.server.sharing, &caller.agent.id);
        let mut attempt = deadline.exclude(self.upstreams.enter(&server)).await?;
        let checked = self.check_definitions(&found.server.instance, (&server.key, &container));
        let checked = deadline.limit(checked).await.inspect_err(|error| attempt.record_failure(error));
        let checked = checked.map_err(|error| match found.server.instance.is_connected_per_agent() {
            // The definitions may have been read with the connection of another agent.
            true => error,
            false => self.explain_connection(error, &access, &found.server.instance, &caller.agent),
        })?;
        if checked.is_new {
            access = self.access.find(&caller.organization_id, &caller.agent.id).await?;
        }
        let found = self.find_allowed(&access, call, record);
        let Some(found) = found.filter(|found| checked.lists(&found.definition.digest)) else { return unknown() };
        if let Err(error) = check_arguments(request, headers, &found.definition.definition) {
            return Ok(Opened::Rejected(error));
        }
        let forwarded = match self.options.forwarded_headers.select(request, headers) {
            Ok(forwarded) => forwarded,
            Err(error) => return Ok(Opened::Rejected(error)),
        };
        let instance = &found.server.instance;
        let state = match self.input_state(call, &instance.id) {
            Ok(Some(InputState::OfServer(state))) => Some(state),
            Ok(None) => None,
            // Parked calls of this instance are continued above.
            Ok(Some(InputState::Parked(_))) | Err(()) => return Ok(Opened::Rejected(unknown_state(request))),
        };
        let input = match input {
            Some(Input { responses, state }) => (responses.as_deref(), state.as_deref()),
            None => (request.params.input_responses.filter(|_| request.is_modern()), state.as_deref()),
        };
        let capabilities = self.options.elicitation_hosts.limit(call.capabilities);
        let message = rewritten(AgentCall { capabilities, ..call }, &found.original, input);
        let target = ExchangeTarget {
            agent: Some(&caller.agent.id),
            definition: Some(&found.definition.definition),
            capabilities,
            log_level: call.log_level,
            headers: Some(&forwarded),
            ..ExchangeTarget::new(instance, &container)
        };
        self.keep_stream(instance);
        record.begin_upstream();
        let exchange = deadline.limit(self.exchange(target, message, &found)).await;
        let exchange = exchange.inspect_err(|error| attempt.record_failure(error));
        let exchange = exchange.map_err(|error| self.explain_connection(error, &access, instance, &caller.agent))?;
        Ok(Opened::Called(Box::new(OpenCall {
            server,
            slug: instance.slug.clone(),
            responder: exchange.responder(),
            call_id: exchange.call_id().unwrap_or_else(|| request.raw_id.unwrap_or("null").to_owned()),
            messages: exchange.into_stream(),
            count: 0,
            attempt: Some(attempt),
            deadline,
        })))
    }

    /// Adds advice for the user to an error that says that the agent is not connected, or that its connection lacks a
    /// scope. Returns other errors unchanged.
    fn explain_connection(&self, mut error: Error, access: &AgentAccess, instance: &Instance, agent: &Agent) -> Error {
        let is_per_agent = instance.is_connected_per_agent();
        let can_connect = match error.reason() {
            Some("not_connected") => is_per_agent,
            _ => error.details.contains_key("required_scope"),
        };
        if !can_connect {
            return error;
        }
        let (origin, organization) = (&self.origin, &access.access.organization_slug);
        let advice = match agent.kind {
            _ if !is_per_agent => {
                let url = format!("{origin}/o/{organization}/instances/{}", instance.id);
                format!("Tell the user that an admin of the organisation can connect the server on this page: {url}")
            }
            AgentKind::Person => {
                let url = format!("{origin}/o/{organization}/connect/{}", instance.slug);
                format!("Tell the user to connect their account on this page, then call again: {url}")
            }
            AgentKind::Service => {
                let url = format!("{origin}/o/{organization}/instances/{}/connections", instance.id);
                format!("Tell the user that an admin of the organisation can connect the agent on this page: {url}")
            }
        };
        error.message = format!("{} {advice}", error.message);
        error
    }

    /// Sends a message to a server. If the server cannot be reached, or the connection breaks before the response, the
    /// message is retried once, but only if it changes nothing: the server may have processed it already.
    async fn exchange(&self, target: ExchangeTarget<'_>, message: Bytes, found: &Found<'_>) -> Result<Exchange> {
        let send = |message| Exchange::open(&self.ops, target, message, (self.options.call_timeout, MAX_MESSAGE_BYTES));
        match send(message.clone()).await {
            Err(error) if changes_nothing(found.definition) && error.reason() == Some("unreachable") => {
                tokio::time::sleep(RETRY_DELAY).await;
                Box::pin(send(message)).await
            }
            result => result,
        }
    }

    /// Sends the agent's response to the server that is waiting for it. As with a response in a session, the server is
    /// already processing the call, so the call neither waits for a slot nor fails without one.
    async fn continue_parked(
        &self,
        call: AgentCall<'_>,
        found: &Found<'_>,
        key: &str,
        deadline: CallDeadline,
    ) -> Result<Opened> {
        if let Err(error) = check_arguments(call.request, call.headers, &found.definition.definition) {
            return Ok(Opened::Rejected(error));
        }
        let instance = &found.server.instance;
        let server = CalledServer::new(instance, found.server.sharing, &call.caller.agent.id);
        let Some(parked) = self.parked.take(key) else { return Ok(Opened::Rejected(unknown_state(call.request))) };
        let Some(response) = parked.response(call.request.params.input_responses) else {
            let binding = InputBinding {
                agent: call.caller.agent.id.clone(),
                instance: server.key.instance().clone(),
                text: Bytes::copy_from_slice(call.request.text.as_bytes()),
            };
            return self.park((&call.caller.organization_id, &binding), parked).map(Opened::InputRequired);
        };
        deadline.limit(parked.responder.respond(&response)).await?;
        let ParkedCall { messages, responder, call_id, count, .. } = parked;
        let (responder, slug, attempt) = (Some(responder), instance.slug.clone(), self.upstreams.try_enter(&server));
        let open = OpenCall { server, slug, messages, responder, call_id, count, attempt, deadline };
        Ok(Opened::Called(Box::new(open)))
    }

    /// Parks a call until its agent has answered, and returns the result for the agent as JSON text.
    pub(crate) fn park(
        &self,
        (organization, binding): (&OrganizationId, &InputBinding),
        call: ParkedCall,
    ) -> Result<String> {
        let requests = call.input_requests();
        let key = self.parked.park((organization, &binding.agent), call, &*self.cx.random).map_err(too_many_parked)?;
        let state = binding.seal(self.ops.keyring()?, &self.cx, InputState::Parked(key))?;
        Ok(format!(r#"{{"resultType":"input_required","inputRequests":{requests},"requestState":{state}}}"#))
    }

    /// Whether the agent may still make a call that it has made before.
    pub(crate) async fn is_allowed(&self, call: AgentCall<'_>, record: &mut CallRecord) -> Result<bool> {
        let access = self.access.find(&call.caller.organization_id, &call.caller.agent.id).await?;
        Ok(self.find_allowed(&access, call, record).is_some())
    }

    /// Returns the state that the agent has sent back; `None` if there is none.
    ///
    /// # Errors
    /// If the state is not valid for this call.
    fn input_state(&self, call: AgentCall<'_>, instance: &InstanceId) -> std::result::Result<Option<InputState>, ()> {
        let state = call.request.params.request_state.filter(|state| *state != "null" && call.request.is_modern());
        if state.is_none() {
            return Ok(None);
        }
        let keyring = self.ops.keyring().map_err(drop)?;
        let request = (call.request, self.cx.now());
        input_state::open(keyring, &call.caller.agent.id, instance, request).map(Some).ok_or(())
    }

    /// Finds the target of a call, and records it. Returns `None` if the agent does not see the target, or may not use
    /// it with these arguments.
    fn find_allowed<'a>(
        &self,
        access: &'a AgentAccess,
        call: AgentCall<'_>,
        record: &mut CallRecord,
    ) -> Option<Found<'a>> {
        let (now, request) = (self.cx.now(), call.request);
        let view = View::new(access, call.address.tool_set(access)?, now);
        let target = text_of(request.target())?;
        let found = match request.method.as_deref()? {
            "tools/call" => view.find_named(DefinitionKind::Tool, &target)?,
            "prompts/get" => view.find_named(DefinitionKind::Prompt, &target)?,
            "resources/read" => view.find_resource(&target)?,
            "completion/complete" => match text_of(request.params.reference.kind)?.as_ref() {
                "ref/prompt" => view.find_named(DefinitionKind::Prompt, &target)?,
                _ => view.find_template(&target)?,
            },
            _ => return None,
        };
        record.set_target(&found);
        record.capture_arguments(&found.server.instance, request);
        // The arguments are parsed only if there are rules about them.
        let has_rules = found.grants.iter().any(|grant| !grant.rules.is_empty());
        let arguments: Option<Value> =
            request.params.arguments.filter(|_| has_rules).and_then(|raw| serde_json::from_str(raw).ok());
        allows(found.grants, now, found.target(), arguments.as_ref()).then_some(found)
    }

    /// Returns the container that a call uses. A request without a session counts as a session of its own.
    ///
    /// # Errors
    /// Those of [`containers::find_of_agent`].
    async fn container(&self, call: AgentCall<'_>, found: &Found<'_>) -> Result<ContainerKey> {
        let agent = &call.caller.agent.id;
        let session = match (found.server.sharing, call.session) {
            (Sharing::Shared | Sharing::PerAgent, _) => {
                return containers::find_of_agent(&self.ops, &found.server.instance, agent).await;
            }
            (Sharing::PerSession, Some(session)) => session.key.clone(),
            (Sharing::PerSession, None) => random_part(&*self.cx.random),
        };
        Ok(ContainerKey::new(format!("agent:{agent}:{session}")))
    }
}

/// Returns the message for the server. It contains the name by which the server knows the target, a valid trace
/// context, the agent's capabilities that servers may use, its log level and its input (`inputResponses` and
/// `requestState`), but neither its protocol version nor its client info.
fn rewritten(call: AgentCall<'_>, original: &str, (responses, state): (Option<&str>, Option<&str>)) -> Bytes {
    let request = call.request;
    let mut rewrite = Rewrite::new(request);
    rewrite.set_target(original);
    let capabilities = Some(call.capabilities).filter(|capabilities| !capabilities.is_empty());
    let level = call.log_level.map(|level| quote(level.as_str()));
    rewrite.set_meta(META_PROTOCOL_VERSION, None);
    rewrite.set_meta(META_CLIENT_INFO, None);
    rewrite.set_meta(META_CLIENT_CAPABILITIES, capabilities.map(ClientCapabilities::to_json).as_deref());
    rewrite.set_meta(META_LOG_LEVEL, level.as_deref());
    rewrite.set(Member::InputResponses, responses);
    rewrite.set(Member::RequestState, state);
    set_trace_context(&mut rewrite, request, call.headers);
    rewrite.finish().into()
}

/// Whether using a definition changes nothing. True for prompts, resources and completions, and for tools that an admin
/// has classified as read-only.
fn changes_nothing(definition: &ToolDefinition) -> bool {
    definition.kind != DefinitionKind::Tool || definition.class == Some(Class::Read)
}

fn too_many_parked(limit: LimitReached) -> Error {
    let message = match limit {
        LimitReached::Agent => "Too many calls wait for the answer of their agent. Answer or wait for one of them.",
        LimitReached::Organization => {
            "Too many calls of the organisation wait for the answer of their agents. Try again later."
        }
    };
    Error::new(Code::RateLimited, message).with("reason", "too_many_parked")
}

fn unknown_state(request: &Message<'_>) -> JsonRpcError {
    let text = "Invalid params: `requestState` is not valid here, or has expired. Call again without it.";
    JsonRpcError::new(INVALID_PARAMS, text, request.id())
}
