//! Requests from the control plane to the daemon, over HTTP/2 inside the WebSocket. `ID` is the ID of an instance.
//!
//! | Request | Body | Response |
//! |---|---|---|
//! | `POST /v1/control` | [`ControlMessage`](crate::message::ControlMessage), one per line, open | [`DaemonMessage`](crate::message::DaemonMessage), one per line, open |
//! | `POST /v1/instances/ID/mcp` | one JSON-RPC message, at most [`MAX_MESSAGE_BYTES`] | 200: JSON-RPC messages, one per line, the last one is the response; 202 without a body for a notification |
//! | `POST /v1/instances/ID/responses` | the JSON-RPC response to a request from the server, at most [`MAX_MESSAGE_BYTES`] | 202 without a body; 404 if the request is no longer waiting |
//! | `POST /v1/instances/ID/notifications` | [`NotificationsRequest`] | [`NotificationsOpened`], then JSON-RPC notifications, one per line, open |
//! | `GET /v1/instances/ID/logs?tail=N&follow=true` | | [`LogLine`], one per line |
//! | `GET /v1/instances/ID/stats` | | [`StatsSample`], one per line, oldest first |
//!
//! The response to a call with [`CAPABILITIES_HEADER`] can contain requests from the server. The daemon gives each of
//! them a random ID, and accepts one response to it while the call is running; if the call ends first, the server gets
//! an error. Without the header, the daemon itself rejects all requests from the server, and so does a daemon that does
//! not know the header.
//!
//! A call with [`FORWARDED_HEADERS_HEADER`] carries headers from its agent. The daemon sends them to a server with an
//! HTTP transport, only with the message of this call, and never replaces its own headers with them. They are ignored
//! for a server on standard input and output, and by a daemon that does not know the header.
//!
//! A notification stream reports only that a list, or one of the named resources, has changed. It exists only for
//! instances with sharing `shared`, starts no container (409 if none is running), does not count as a use of the
//! container, and ends with the session with the server. The daemon subscribes to the resources on the server, once for
//! all streams. It answers 404 if the server announces no changes, or sharing is not `shared`. So does a daemon that
//! does not know the request, so the request needs no new version of the protocol.
//!
//! Cancelling a request (`RST_STREAM`) cancels the call. An error is a status with [`CallError`] as its body: 404 for an
//! unknown instance, 409 if the instance is stopped or its deployment failed, 413, 429 if too many calls are waiting, 502 if
//! the server did not answer with MCP, 503 if it cannot be started, 504 for a timeout.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The path of the control stream.
pub const CONTROL: &str = "/v1/control";
/// The header with the key of the container that a call uses, for instances with sharing `per_agent` and `per_session`.
/// Absent for shared instances.
pub const CONTAINER_KEY_HEADER: &str = "waypost-container-key";
/// The header with a number that increases with every change of the personal secrets of the calling agent. A container that
/// was started with an earlier one is replaced before it is called. Absent if the instance has no personal secrets.
pub const SECRETS_VERSION_HEADER: &str = "waypost-secrets-version";
/// The header with the time in milliseconds after which a call fails. The time in which the server waits for answers
/// from the caller does not count.
pub const TIMEOUT_HEADER: &str = "waypost-timeout-ms";
/// The header with the requests that the server may send to the caller during a call: the `capabilities` of an MCP
/// client as JSON. Absent if the caller answers no requests.
pub const CAPABILITIES_HEADER: &str = "waypost-client-capabilities";
/// The header with the lowest level of the log messages that the caller wants. Absent if it has not asked for any.
pub const LOG_LEVEL_HEADER: &str = "waypost-log-level";
/// The header with the headers of the calling agent that its server receives, as
/// [`forwarded_headers`](crate::forwarded_headers) describes. Absent if there are none. A value that the daemon cannot
/// decode is ignored.
pub const FORWARDED_HEADERS_HEADER: &str = "waypost-forwarded-headers";
/// The headers of a call that the daemon reads. Replicas forward them.
pub const CALL_HEADERS: [&str; 6] = [
    CONTAINER_KEY_HEADER,
    SECRETS_VERSION_HEADER,
    TIMEOUT_HEADER,
    CAPABILITIES_HEADER,
    LOG_LEVEL_HEADER,
    FORWARDED_HEADERS_HEADER,
];
/// The maximum size of a message to or from a server in bytes.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// The maximum number of resources of a [`NotificationsRequest`].
pub const MAX_NOTIFIED_RESOURCES: usize = 1_000;
/// The maximum length of the URI of each of these resources in bytes.
pub const MAX_RESOURCE_URI_BYTES: usize = 2_048;

/// The prefix of the key of a container that belongs to one agent.
const AGENT_PREFIX: &str = "agent:";

/// Returns the key of the container of an agent, for instances with sharing `per_agent`.
#[must_use]
pub fn agent_key(agent_id: &str) -> String {
    format!("{AGENT_PREFIX}{agent_id}")
}

/// Returns the agent ID in the key of a container; `None` if `key` does not have the form of [`agent_key`]. The agent
/// may not exist.
#[must_use]
pub fn agent_of_key(key: &str) -> Option<&str> {
    key.strip_prefix(AGENT_PREFIX).filter(|id| !id.is_empty() && !id.contains(':'))
}

/// Returns the path of calls to an instance.
#[must_use]
pub fn mcp_path(instance_id: &str) -> String {
    format!("/v1/instances/{instance_id}/mcp")
}

/// Returns the path of responses to requests of the servers of an instance.
#[must_use]
pub fn responses_path(instance_id: &str) -> String {
    format!("/v1/instances/{instance_id}/responses")
}

/// Returns the path of the notifications of the server of an instance.
#[must_use]
pub fn notifications_path(instance_id: &str) -> String {
    format!("/v1/instances/{instance_id}/notifications")
}

/// Returns the path of the log of an instance.
#[must_use]
pub fn logs_path(instance_id: &str, tail: u64, follow: bool) -> String {
    format!("/v1/instances/{instance_id}/logs?tail={tail}&follow={follow}")
}

/// Returns the path of the statistics of an instance.
#[must_use]
pub fn stats_path(instance_id: &str) -> String {
    format!("/v1/instances/{instance_id}/stats")
}

/// The resources whose changes a notification stream announces, in addition to changed lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationsRequest {
    /// The URIs of resources whose changes are announced: at most [`MAX_NOTIFIED_RESOURCES`], each of at most
    /// [`MAX_RESOURCE_URI_BYTES`].
    #[serde(default)]
    pub resources: BTreeSet<String>,
}

impl NotificationsRequest {
    /// Whether the request is within the limits.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let are_short = self.resources.iter().all(|uri| uri.len() <= MAX_RESOURCE_URI_BYTES);
        are_short && self.resources.len() <= MAX_NOTIFIED_RESOURCES
    }
}

/// The first line of a notification stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationsOpened {
    /// Whether the server declares that it announces changes of single resources.
    #[serde(default)]
    pub can_subscribe: bool,
    /// The requested resources whose changes the server announces.
    #[serde(default)]
    pub accepted: BTreeSet<String>,
    /// The requested resources that the server rejected, with its message for each.
    #[serde(default)]
    pub rejected: BTreeMap<String, String>,
}

/// The body of the response to a failed request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallError {
    /// The message for the caller.
    pub message: String,
}

/// A line of the log of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogLine {
    /// The time in milliseconds since the Unix epoch.
    pub at: i64,
    /// Where the line comes from.
    pub stream: LogStream,
    /// The text, with secrets masked, at most 16 KiB.
    pub text: String,
}

/// The source of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output, except MCP messages.
    Stdout,
    /// Standard error.
    Stderr,
    /// The daemon.
    Toolbox,
}

/// The use of resources by an instance at one time, summed over its containers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatsSample {
    /// The time in milliseconds since the Unix epoch.
    pub at: i64,
    /// The CPU time since the previous sample, in percent of one CPU.
    pub cpu_percent: f64,
    /// The memory in bytes.
    pub memory_bytes: u64,
    /// The bytes received from the network since the containers started.
    pub network_received_bytes: u64,
    /// The bytes sent to the network since the containers started.
    pub network_sent_bytes: u64,
    /// The number of processes.
    pub pids: u64,
}
