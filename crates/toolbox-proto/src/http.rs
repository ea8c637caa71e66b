//! The requests of the control plane to the daemon, on HTTP/2 inside the WebSocket. `ID` is the ID of an instance.
//!
//! | Request | Body | Response |
//! |---|---|---|
//! | `POST /v1/control` | [`ControlMessage`](crate::message::ControlMessage), one per line, open | [`DaemonMessage`](crate::message::DaemonMessage), one per line, open |
//! | `POST /v1/instances/ID/mcp` | one JSON-RPC message, at most [`MAX_MESSAGE_BYTES`] | 200: JSON-RPC messages, one per line, the last one is the response; 202 without a body for a notification |
//! | `POST /v1/instances/ID/responses` | the JSON-RPC response to a request of the server, at most [`MAX_MESSAGE_BYTES`] | 202 without a body; 404 if the request no longer waits |
//! | `POST /v1/instances/ID/notifications` | [`NotificationsRequest`] | [`NotificationsOpened`], then JSON-RPC notifications, one per line, open |
//! | `GET /v1/instances/ID/logs?tail=N&follow=true` | | [`LogLine`], one per line |
//! | `GET /v1/instances/ID/stats` | | [`StatsSample`], one per line, oldest first |
//!
//! A call with [`CAPABILITIES_HEADER`] can be answered with requests of the server among its messages. The daemon gives each
//! of them an ID that is random. It accepts one response to it, while the call is running; if the call ends first, the server
//! gets an error. A daemon that does not know the header rejects all requests of the server itself, and so do all daemons
//! without it.
//!
//! A call with [`FORWARDED_HEADERS_HEADER`] brings headers of its agent. The daemon sends them to a server with an HTTP transport, with
//! the message of this call and with no other, and replaces none of its own headers with them. They mean nothing to a server on
//! standard input and output, and to a daemon that does not know the header.
//!
//! A stream of notifications says that a list, or one of the named resources, has changed, and nothing else. It exists only
//! for instances with sharing `shared`, starts no container (409 if none is running), does not count as a use of the
//! container, and ends with the session with the server. The daemon subscribes to the resources at the server, once for all
//! streams. It answers 404 if the server announces nothing, or sharing is not `shared`. So does a daemon that does not know
//! the request, so it needs no other version of the protocol.
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
/// The header with the time in milliseconds after which a call fails. It does not include the time in which the caller is asked.
pub const TIMEOUT_HEADER: &str = "waypost-timeout-ms";
/// The header with what the server may ask the caller for during a call: the JSON text of `capabilities` of a client. Absent if
/// the caller answers no requests.
pub const CAPABILITIES_HEADER: &str = "waypost-client-capabilities";
/// The header with the lowest level of the log messages that the caller wants. Absent if it has not asked for any.
pub const LOG_LEVEL_HEADER: &str = "waypost-log-level";
/// The header with the headers of the calling agent that its server receives, as [`forwarded_headers`](crate::forwarded_headers)
/// describes. Absent if there are none. What the daemon cannot read counts as absent.
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
/// The maximum length of the URI of each of them in bytes.
pub const MAX_RESOURCE_URI_BYTES: usize = 2_048;

/// The prefix of the key of a container that belongs to one agent.
const AGENT_PREFIX: &str = "agent:";

/// Returns the key of the container of an agent, for instances with sharing `per_agent`.
#[must_use]
pub fn agent_key(agent_id: &str) -> String {
    format!("{AGENT_PREFIX}{agent_id}")
}

/// Returns the agent of a container, if `key` has the form of [`agent_key`]. The ID may not exist.
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

/// What a stream of notifications announces, apart from changed lists.
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

/// The first line of a stream of notifications.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationsOpened {
    /// Whether the server declares that it announces changes of single resources.
    #[serde(default)]
    pub can_subscribe: bool,
    /// The requested resources whose changes the server announces.
    #[serde(default)]
    pub accepted: BTreeSet<String>,
    /// Those that the server has rejected, with its message.
    #[serde(default)]
    pub rejected: BTreeMap<String, String>,
}

/// Why a request failed.
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
