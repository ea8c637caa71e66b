//! The gateway: one MCP endpoint through which an agent uses the servers of its organisation.
//!
//! 1. An agent sees exactly those definitions that it was granted, that are approved, and that the server lists at
//!    present ([`waypost_ops::tool_definitions`]). For everything else, the answer is the same: "Unknown tool".
//! 2. Messages are relayed byte for byte, except for names, request metadata, texts and URLs that are shown to users,
//!    and the members that differ between the eras of the protocol. A message that two parsers could read differently
//!    is not relayed.
//! 3. Lists are answered from stored definitions, and never wait for a server. A call waits only for its own server.
//! 4. The agent's token is never sent to a server. Nor are its other headers, except a valid trace context and the
//!    headers that the operator lists ([`ForwardedHeaders`]).
//! 5. Users see which server asks them for something, and only pages on hosts that the operator lists ([`ElicitationHosts`]).
//! 6. Every call has exactly one record, however it ends. Recording waits neither for the database nor for space in a
//!    queue.
//! 7. While the gateway is switched off for an organisation, its agents get 403 before their messages are read, and
//!    their streams end ([`waypost_ops::tool_access`]). Calls that were sent to a server may finish.

mod agent_call;
mod agent_requests;
mod call;
mod call_metrics;
mod conversation;
mod deadline;
mod elicitation;
mod endpoint;
mod forwarded_headers;
mod freshness;
mod headers;
mod input_state;
mod listen;
mod lists;
mod log_filter;
mod message_text;
mod parked;
mod quota;
mod record;
mod relay;
mod reply;
mod response;
mod running_calls;
mod server_stream;
mod session;
mod session_subscriptions;
mod slots;
mod subscribe;
mod subscriptions;
mod trace;
mod upstreams;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use waypost_core::caller::Ctx;
use waypost_core::tool_set::ToolSet;
use waypost_ops::Ops;
use waypost_ops::calls::CallLog;
use waypost_ops::hosting::Hosting;
use waypost_ops::tool_access::{self, AgentAccess, ToolAccessCache};

use crate::agent_requests::AgentRequests;
pub use crate::elicitation::ElicitationHosts;
pub use crate::endpoint::{MAX_BODY, unavailable};
pub use crate::forwarded_headers::ForwardedHeaders;
use crate::freshness::Freshness;
pub use crate::listen::TokenCheck;
use crate::parked::ParkedCalls;
use crate::quota::CallQuota;
use crate::record::CallRecorder;
use crate::running_calls::RunningCalls;
use crate::server_stream::ServerStreams;
use crate::session::Sessions;
use crate::session_subscriptions::SessionSubscriptions;
pub use crate::slots::MAX_SUBSCRIPTIONS;
use crate::slots::Slots;
use crate::subscriptions::Subscriptions;
use crate::upstreams::Upstreams;

/// The default of [`GatewayOptions::definition_max_age`].
pub const DEFINITION_MAX_AGE: Duration = Duration::from_secs(30);
/// The default of [`GatewayOptions::call_timeout`].
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The settings of the gateway.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// The maximum age of a server's list of definitions. An older list is read again before a call. If zero, the list
    /// is read before every call.
    pub definition_max_age: Duration,
    /// The time after which a call times out. It includes the start of a container, but neither the time spent asking
    /// the agent nor the time spent waiting for other calls of the server.
    pub call_timeout: Duration,
    /// The time within which a change to grants, approvals and tool sets takes effect.
    pub access_max_age: Duration,
    /// The maximum number of calls of an agent per hour in this process; 0 for no limit.
    pub calls_per_hour: u32,
    /// The headers of agents that are forwarded to servers.
    pub forwarded_headers: ForwardedHeaders,
    /// The hosts whose pages servers may ask users to open.
    pub elicitation_hosts: ElicitationHosts,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            definition_max_age: DEFINITION_MAX_AGE,
            call_timeout: CALL_TIMEOUT,
            access_max_age: tool_access::MAX_AGE,
            calls_per_hour: 0,
            forwarded_headers: ForwardedHeaders::default(),
            elicitation_hosts: ElicitationHosts::default(),
        }
    }
}

/// The address that an agent uses: `/gateway/mcp`, `/gateway/ORG/mcp` or `/gateway/ORG/SET/mcp`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GatewayAddress {
    /// The slug of the organisation.
    pub organization: Option<String>,
    /// The slug of the tool set.
    pub tool_set: Option<String>,
}

/// The gateway, with its state in this process.
#[derive(Debug)]
pub struct Gateway {
    ops: Ops,
    /// The context of the gateway's own operations, such as storing new definitions.
    cx: Ctx,
    options: GatewayOptions,
    /// The public origin of this installation, for links to the console.
    origin: String,
    access: Arc<ToolAccessCache>,
    freshness: Freshness,
    sessions: Sessions,
    session_subscriptions: SessionSubscriptions,
    subscriptions: Subscriptions,
    server_streams: ServerStreams,
    agent_requests: AgentRequests,
    parked: ParkedCalls,
    running_calls: RunningCalls,
    calls: Slots,
    quota: CallQuota,
    streams: Slots,
    upstreams: Upstreams,
    recorder: Arc<CallRecorder>,
    /// Ends all streams when it is cancelled.
    stop: CancellationToken,
}

impl GatewayAddress {
    /// Returns the tool set of the address, `Some(None)` for an address without one, and `None` if the address is not the
    /// agent's.
    pub(crate) fn tool_set<'a>(&self, access: &'a AgentAccess) -> Option<Option<&'a ToolSet>> {
        let access = &access.access;
        if self.organization.as_ref().is_some_and(|organization| *organization != access.organization_slug) {
            return None;
        }
        match &self.tool_set {
            None => Some(None),
            Some(slug) => access.tool_sets.iter().find(|set| set.slug == *slug).map(Some),
        }
    }
}

impl Gateway {
    /// Creates a gateway. `cx` is the context of its own operations, and `origin` the public origin of this
    /// installation.
    #[must_use]
    pub fn new(hosting: &Hosting, cx: Ctx, origin: String, options: GatewayOptions) -> Self {
        let ops = hosting.ops().clone();
        Self {
            access: Arc::new(ToolAccessCache::new(ops.clone(), options.access_max_age)),
            recorder: Arc::new(CallRecorder::new(CallLog::new(hosting), &cx)),
            quota: CallQuota::new(Arc::clone(&cx.clock), options.calls_per_hour),
            ops,
            cx,
            options,
            origin,
            freshness: Freshness::default(),
            sessions: Sessions::default(),
            session_subscriptions: SessionSubscriptions::default(),
            subscriptions: Subscriptions::default(),
            server_streams: ServerStreams::default(),
            agent_requests: AgentRequests::default(),
            parked: ParkedCalls::default(),
            running_calls: RunningCalls::default(),
            calls: Slots::for_calls(),
            streams: Slots::for_streams(),
            upstreams: Upstreams::default(),
            stop: CancellationToken::new(),
        }
    }

    /// Sets the token that ends all streams when it is cancelled.
    #[must_use]
    pub fn with_stop(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }
}
