//! The record of each call. It is written when the call is dropped, so every call has exactly one, however it ends.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use waypost_core::call::{Call, CallMethod, CallOutcome, MAX_TOOL};
use waypost_core::caller::Ctx;
use waypost_core::id::{AgentId, CallId, InstanceId, OrganizationId};
use waypost_core::instance::Instance;
use waypost_core::tool_definition::DefinitionKind;
use waypost_core::{Clock, Code, Error, Random};
use waypost_mcp_wire::argument_shape::argument_shape;
use waypost_mcp_wire::strict::{Message, MessageKind, text_of};
use waypost_ops::agent_tokens::ResolvedAgent;
use waypost_ops::call_contents::{CapturedContents, CapturedText};
use waypost_ops::calls::CallLog;
use waypost_ops::tool_access::OFF_REASON;
use waypost_ops::visibility::Found;

use crate::call_metrics::CallMetrics;

/// The `reason` of the error for a server that did not answer in time.
pub(crate) const TIMEOUT_REASON: &str = "timeout";

/// Whether an error says that the gateway is switched off for the organisation of the agent.
pub(crate) fn is_switched_off(error: &Error) -> bool {
    error.code == Code::Forbidden && error.reason() == Some(OFF_REASON)
}

/// Records calls in the log and in the metrics.
pub(crate) struct CallRecorder {
    log: CallLog,
    metrics: CallMetrics,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl std::fmt::Debug for CallRecorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallRecorder").field("log", &self.log).finish_non_exhaustive()
    }
}

impl CallRecorder {
    /// Creates a recorder with the clock and the random number generator of `cx`.
    pub(crate) fn new(log: CallLog, cx: &Ctx) -> Self {
        let (clock, random) = (Arc::clone(&cx.clock), Arc::clone(&cx.random));
        Self { log, metrics: CallMetrics::default(), clock, random }
    }

    /// Begins the record of a call. Returns `None` if the message is not a request that is relayed to a server.
    pub(crate) fn begin(self: &Arc<Self>, caller: &ResolvedAgent, message: &Message<'_>) -> Option<CallRecord> {
        let method: CallMethod = message.method.as_deref()?.parse().ok()?;
        let target = text_of(message.target()).unwrap_or_default();
        (message.kind == MessageKind::Request).then(|| CallRecord {
            recorder: Arc::clone(self),
            organization_id: caller.organization_id.clone(),
            agent_id: caller.agent.id.clone(),
            method,
            instance_id: None,
            tool: shorten(&target),
            label: String::new(),
            outcome: CallOutcome::Denied,
            started: Instant::now(),
            upstream: None,
            request_bytes: message.text.len(),
            response_bytes: 0,
            argument_shape: argument_shape(message.params.arguments),
            contents: None,
        })
    }
}

/// Returns a name without control characters, of at most [`MAX_TOOL`] characters.
fn shorten(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_TOOL).collect()
}

/// The record of a call. Until [`CallRecord::accept`], the call counts as denied; from then on, as cancelled until its
/// outcome is set. Dropping it writes it.
#[derive(Debug)]
pub(crate) struct CallRecord {
    recorder: Arc<CallRecorder>,
    organization_id: OrganizationId,
    agent_id: AgentId,
    method: CallMethod,
    instance_id: Option<InstanceId>,
    tool: String,
    /// The value of the metrics' label `tool`.
    label: String,
    outcome: CallOutcome,
    started: Instant,
    /// The time at which the server was called.
    upstream: Option<Instant>,
    request_bytes: usize,
    response_bytes: usize,
    argument_shape: String,
    /// The recorded contents. `None` unless the instance records contents.
    contents: Option<Box<CapturedContents>>,
}

impl CallRecord {
    /// Records that the message is valid.
    pub(crate) fn accept(&mut self) {
        self.outcome = CallOutcome::Cancelled;
    }

    /// Sets the target. For a resource of a template, the template is recorded, because the URI contains arguments.
    pub(crate) fn set_target(&mut self, found: &Found<'_>) {
        let definition = found.definition;
        self.instance_id = Some(found.server.instance.id.clone());
        self.tool = shorten(&definition.name);
        self.label = match definition.kind {
            DefinitionKind::Tool => self.tool.clone(),
            // Not the name: servers can have any number of resources.
            _ => self.method.to_string(),
        };
    }

    /// Copies the beginning of the arguments if the instance records contents.
    pub(crate) fn capture_arguments(&mut self, instance: &Instance, request: &Message<'_>) {
        if !instance.record_contents {
            self.contents = None;
            return;
        }
        let arguments = match self.method {
            CallMethod::ToolsCall | CallMethod::PromptsGet => request.params.arguments,
            CallMethod::ResourcesRead | CallMethod::CompletionComplete => request.params.raw,
        };
        // A call that is repeated has the same arguments.
        self.contents.get_or_insert_with(|| {
            Box::new(CapturedContents { arguments: arguments.map(CapturedText::new), ..CapturedContents::default() })
        });
    }

    /// Records the time at which the server is called.
    pub(crate) fn begin_upstream(&mut self) {
        self.upstream = Some(Instant::now());
    }

    /// Records that the gateway rejected the call.
    pub(crate) fn deny(&mut self) {
        self.outcome = CallOutcome::Denied;
    }

    /// Records the error that ended the call.
    pub(crate) fn fail(&mut self, error: &Error) {
        let is_timeout = error.reason() == Some(TIMEOUT_REASON);
        self.outcome = match error.code {
            // The address, or the agent, no longer exists.
            Code::NotFound => CallOutcome::Denied,
            // It was switched off after the call began.
            _ if is_switched_off(error) => CallOutcome::Denied,
            _ if is_timeout => CallOutcome::TimedOut,
            _ => CallOutcome::Failed,
        };
        if let Some(contents) = &mut self.contents {
            let text = json!({ "message": error.message, "reason": error.reason() }).to_string();
            contents.error = Some(CapturedText::new(&text));
        }
    }

    /// Records that the gateway itself has returned a result.
    pub(crate) fn complete(&mut self) {
        self.outcome = CallOutcome::Ok;
    }

    /// Records the server's response. Only the top-level members of a result are inspected.
    pub(crate) fn respond(&mut self, response: &Message<'_>) {
        self.outcome = match &response.result {
            Some(result) if self.method == CallMethod::ToolsCall && result.is_error == Some("true") => {
                CallOutcome::ToolError
            }
            Some(_) => CallOutcome::Ok,
            None => CallOutcome::Failed,
        };
        if let Some(contents) = &mut self.contents {
            contents.result = response.result.as_ref().map(|result| CapturedText::new(result.raw));
            contents.error = response.error.as_ref().map(|error| CapturedText::new(error.raw));
        }
    }

    /// Adds the size of a message that is relayed to the agent.
    pub(crate) fn add_response(&mut self, bytes: usize) {
        self.response_bytes += bytes;
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        let recorder = &self.recorder;
        let duration = self.started.elapsed();
        let target = self.instance_id.as_ref().map(|instance| (instance, self.label.as_str()));
        recorder.metrics.count(target, self.outcome, duration);
        let at = recorder.clock.now();
        let call = Call {
            id: CallId::new(at, &*recorder.random),
            organization_id: self.organization_id.clone(),
            agent_id: self.agent_id.clone(),
            instance_id: self.instance_id.take(),
            method: self.method,
            tool: std::mem::take(&mut self.tool),
            outcome: self.outcome,
            duration_ms: milliseconds(duration),
            upstream_ms: self.upstream.map(|begun| milliseconds(begun.elapsed())),
            request_bytes: size(self.request_bytes),
            response_bytes: size(self.response_bytes),
            argument_shape: std::mem::take(&mut self.argument_shape),
            at,
        };
        match self.contents.take() {
            Some(contents) => recorder.log.record_with_contents(call, *contents),
            None => recorder.log.record(call),
        }
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
