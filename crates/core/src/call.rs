//! Records of calls through the gateway.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{AgentId, CallId, InstanceId, OrganizationId};
use crate::walkthrough::names;

/// The maximum number of characters of [`Call::tool`].
pub const MAX_TOOL: usize = 256;

names! {
    /// The outcome of a call.
    CallOutcome {
        /// The server returned a result.
        Ok = "ok",
        /// The server returned a result that is an error of the tool (`isError`).
        ToolError = "tool_error",
        /// The gateway rejected the call.
        Denied = "denied",
        /// The server returned an error, or no result could be received from it.
        Failed = "failed",
        /// The server did not answer in time.
        TimedOut = "timed_out",
        /// The agent cancelled the call, or disconnected before it ended.
        Cancelled = "cancelled",
    }
}

names! {
    /// The method of a call. Only methods that are relayed to a server are recorded.
    CallMethod {
        /// A tool is called.
        ToolsCall = "tools/call",
        /// A prompt is read.
        PromptsGet = "prompts/get",
        /// A resource is read.
        ResourcesRead = "resources/read",
        /// An argument of a prompt or a resource template is completed.
        CompletionComplete = "completion/complete",
    }
}

/// A call of an agent through the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The ID, which sorts by the time at which the call ended.
    pub id: CallId,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The agent.
    pub agent_id: AgentId,
    /// The instance. `None` if the gateway rejected the call before it found one.
    pub instance_id: Option<InstanceId>,
    /// The method.
    pub method: CallMethod,
    /// The server's own name of the tool or prompt, the URI of the resource, or the URI template of a resource that is
    /// not listed. If it is unknown, the name that the agent used. At most [`MAX_TOOL`] characters.
    pub tool: String,
    /// The outcome.
    pub outcome: CallOutcome,
    /// The time from the request to the end of the call, in milliseconds.
    pub duration_ms: i64,
    /// The part of `duration_ms` that was spent calling the server. `None` if the server was not called.
    pub upstream_ms: Option<i64>,
    /// The size of the request in bytes.
    pub request_bytes: i64,
    /// The total size of the relayed messages of the server, in bytes.
    pub response_bytes: i64,
    /// The names and JSON types of the top-level arguments, as a JSON object.
    pub argument_shape: String,
    /// The time at which the call ended.
    pub at: Timestamp,
}

/// A part of the contents of a call, in which secrets are masked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentText {
    /// The text.
    pub text: String,
    /// Whether the end is missing.
    pub is_truncated: bool,
}

/// The contents of a call, which are recorded only if recording is enabled for the instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallContents {
    /// The arguments, or the parameters of a method without arguments. `None` if the agent sent none.
    pub arguments: Option<ContentText>,
    /// The server's result. `None` if there was none.
    pub result: Option<ContentText>,
    /// The error of the server or of the gateway. `None` if there was none.
    pub error: Option<ContentText>,
}
