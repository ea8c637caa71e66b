//! The gateway: one MCP endpoint through which an agent uses the servers of its organisation.
//!
//! 1. An agent sees exactly what it was granted, what is approved, and what the server lists at present
//!    ([`waypost_ops::tool_definitions`]). For everything else, the answer is the same: "Unknown tool".
//! 2. Bytes are relayed: apart from names, request metadata and the members that differ between the eras of the protocol, a
//!    message reaches the other side as it was sent. A message that two parsers could read differently reaches nobody.
//! 3. Lists are answered from what is stored, and never wait for a server. A call waits for its own server only.
//! 4. The token of the agent, and its other headers, are never sent to a server.

mod call;
mod endpoint;
mod freshness;
mod headers;
mod lists;
mod reply;
mod slots;
mod view;

use std::time::Duration;

use waypost_core::caller::Ctx;
use waypost_ops::Ops;
use waypost_ops::tool_access::{self, ToolAccessCache};

pub use crate::endpoint::MAX_BODY;
use crate::freshness::Freshness;
use crate::slots::CallSlots;

/// The default of [`GatewayOptions::definition_max_age`].
pub const DEFINITION_MAX_AGE: Duration = Duration::from_secs(30);

/// The settings of the gateway.
#[derive(Debug, Clone, Copy)]
pub struct GatewayOptions {
    /// The age of a server's list of definitions up to which it is not read again before a call. Zero reads it before every
    /// call.
    pub definition_max_age: Duration,
    /// The time within which a change of grants, approvals and tool sets takes effect.
    pub access_max_age: Duration,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self { definition_max_age: DEFINITION_MAX_AGE, access_max_age: tool_access::MAX_AGE }
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

/// The gateway.
#[derive(Debug)]
pub struct Gateway {
    ops: Ops,
    /// The context of what the gateway does itself, such as storing new definitions.
    cx: Ctx,
    options: GatewayOptions,
    access: ToolAccessCache,
    freshness: Freshness,
    slots: CallSlots,
}

impl Gateway {
    /// Creates a gateway. `cx` is the context of what it does itself.
    #[must_use]
    pub fn new(ops: Ops, cx: Ctx, options: GatewayOptions) -> Self {
        let access = ToolAccessCache::new(ops.clone(), options.access_max_age);
        Self { ops, cx, options, access, freshness: Freshness::default(), slots: CallSlots::default() }
    }
}
