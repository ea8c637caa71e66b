//! Records of tool calls.

use std::net::IpAddr;

use tokio::time::Instant;
use waypost_core::caller::Ctx;
use waypost_core::id::ToolCallId;
use waypost_core::server::Server;
use waypost_core::{Error, Timestamp};
use waypost_store::recorder::RecorderEntry;
use waypost_store::session::NewSession;
use waypost_store::tool_call::ToolCall;

use crate::hosting::Hosting;
use crate::identity::{ClientInfo, Identity, USED_EVERY_MS};
use crate::sessions::{self, CallOwner};

/// The context of a call, for its record.
#[derive(Debug, Clone)]
pub struct CallContext {
    /// The tool's name.
    pub tool: String,
    /// The arguments as a JSON object, with handles and emails masked.
    pub arguments: String,
    /// The time at which the request was received, on the monotonic clock.
    pub since: Instant,
    /// The time at which the request was received.
    pub at: Timestamp,
    /// The client's description of itself.
    pub client: ClientInfo,
    /// The handle of the client's protocol session (`Mcp-Session-Id`). `None` if it has no such session.
    pub protocol_session: Option<String>,
    /// Whether the call comes from the console's "Try it".
    pub is_test: bool,
    /// The client's IP address.
    pub address: IpAddr,
}

impl CallContext {
    /// Returns the row of this call.
    #[must_use]
    pub fn row(&self, cx: &Ctx, server: &Server, owner: &CallOwner, outcome: &str) -> ToolCall {
        ToolCall {
            id: ToolCallId::new(self.at, &*cx.random),
            organization_id: server.organization_id.clone(),
            server_id: server.id.clone(),
            end_user_id: owner.end_user_id.clone(),
            tool: self.tool.clone(),
            arguments: self.arguments.clone(),
            outcome: outcome.to_owned(),
            duration_us: i64::try_from(self.since.elapsed().as_micros()).unwrap_or(i64::MAX),
            client_name: self.client.name.clone(),
            protocol_version: self.client.protocol_version.clone(),
            request_id: cx.request_id.clone(),
            created_at: self.at,
            session_id: owner.session_id.clone(),
            is_test: self.is_test,
        }
    }

    /// Enqueues the record of a call that changed nothing, and the use of its session. `identity` is `None` if the user
    /// is unknown.
    pub async fn record(
        &self,
        cx: &Ctx,
        hosting: &Hosting,
        server: &Server,
        identity: Option<&Identity>,
        outcome: CallOutcome<'_>,
    ) {
        let owner = call_owner(server, self, identity);
        let outcome = match outcome {
            CallOutcome::Read => "ok",
            CallOutcome::Failed(error) => error.code.as_str(),
        };
        let row = self.row(cx, server, &owner, outcome);
        hosting.recorder.record(RecorderEntry::Call(Box::new(row))).await;
        record_use(cx, hosting, server, self, &owner).await;
    }
}

/// Returns the owner of a call. `identity` is `None` if the user is unknown.
pub(crate) fn call_owner(server: &Server, call: &CallContext, identity: Option<&Identity>) -> CallOwner {
    let end_user_id = identity.and_then(|identity| identity.end_user_id.clone());
    let of_row = identity.and_then(|identity| identity.session_id.clone());
    let has_handle = of_row.is_some();
    let server = &server.id;
    let derived = || match (&end_user_id, &call.protocol_session) {
        (Some(end_user), Some(handle)) => {
            Some(sessions::derive(&["protocol session", server.as_str(), end_user.as_str(), handle]))
        }
        (Some(end_user), None) => {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let (name, version) = (text(&call.client.name), text(&call.client.version));
            Some(sessions::derive(&["client", server.as_str(), end_user.as_str(), &name, &version]))
        }
        (None, Some(handle)) => Some(sessions::id_for_handle(server, handle)),
        (None, None) => None,
    };
    let session_id = of_row.or_else(derived);
    CallOwner { end_user_id, session_id, has_handle }
}

/// Records that a session without a handle was used, unless that was recorded within the last minute. Must be called
/// after the end user was written: the recorder skips sessions of users who do not exist.
pub(crate) async fn record_use(cx: &Ctx, hosting: &Hosting, server: &Server, call: &CallContext, owner: &CallOwner) {
    let (Some(end_user_id), Some(id), false) = (&owner.end_user_id, &owner.session_id, owner.has_handle) else {
        return;
    };
    let now = cx.now();
    let recent = &hosting.recent_sessions.0;
    if recent.get(id).is_some_and(|at| now.since(at) < USED_EVERY_MS) {
        return;
    }
    recent.insert(id.clone(), now);
    let client = &call.client;
    let session = NewSession {
        id: id.clone(),
        organization_id: server.organization_id.clone(),
        server_id: server.id.clone(),
        end_user_id: end_user_id.clone(),
        handle_hash: None,
        client_name: client.name.clone(),
        client_version: client.version.clone(),
        protocol_version: client.protocol_version.clone(),
        created_at: call.at,
        last_used_at: now,
    };
    hosting.recorder.record(RecorderEntry::Session(Box::new(session))).await;
}

/// The outcome of a call that changed nothing.
#[derive(Debug, Clone, Copy)]
pub enum CallOutcome<'a> {
    /// It succeeded.
    Read,
    /// It failed.
    Failed(&'a Error),
}

/// The reason why a call was rejected before it reached a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// A token is missing or invalid (401).
    Unauthorized,
    /// The token's scope does not cover the call (403).
    InsufficientScope,
    /// The request's `Origin` may not call the server (403).
    OriginNotAllowed,
    /// The body is too large (413).
    TooLarge,
    /// The rate limit is exceeded (429).
    RateLimited,
}

impl Rejection {
    /// Returns the name in analytics, in the API and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::InsufficientScope => "insufficient_scope",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
        }
    }
}

/// Counts a rejected call to a server, in the metrics and per minute in the database.
pub fn record_rejection(hosting: &Hosting, server: &Server, rejection: Rejection) {
    let now = hosting.clock.now();
    hosting.recorder.count_rejection(&server.organization_id, &server.id, rejection.as_str(), now);
}
