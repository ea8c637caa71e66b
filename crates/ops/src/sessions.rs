//! Sessions of calls.
//!
//! A session is one client's use of one server by one end user. What delimits it depends on how the user is identified:
//!
//! | User | Session |
//! |---|---|
//! | anonymous | the handle. The row is written with the first progress; a client that passes the handle continues it |
//! | personal URL or token, client with protocol sessions | the `Mcp-Session-Id` |
//! | personal URL or token, other clients (2026-07-28) | the client's name and version |
//! | unknown | the `Mcp-Session-Id`, without a row; a client without one has no session |
//!
//! A session ends 90 days after its last call. Its ID is derived from what delimits it, so the session of a call is known
//! without a query. Rows of sessions without a handle are written by the recorder, at most once per minute and session.

use moka::sync::Cache;
use waypost_core::Timestamp;
use waypost_core::caller::Ctx;
use waypost_core::id::{EndUserId, ServerId, SessionId};
use waypost_core::secret::hash;
use waypost_core::server::Server;
use waypost_store::recorder::RecorderEntry;
use waypost_store::session::NewSession;

use crate::call_records::CallContext;
use crate::hosting::Hosting;
use crate::identity::{Identity, USED_EVERY_MS};

/// The number of hexadecimal digits of a derived ID: 96 bits.
const DIGITS: usize = 24;
/// The maximum number of sessions whose last recorded use is cached.
const MAX_SESSIONS: u64 = 100_000;

/// When sessions without a handle were last recorded as used.
#[derive(Debug, Clone)]
pub(crate) struct RecentSessions(Cache<SessionId, Timestamp>);

impl Default for RecentSessions {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MAX_SESSIONS).build())
    }
}

/// The end user and the session of a recorded call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallOwner {
    /// The end user, if known.
    pub end_user_id: Option<EndUserId>,
    /// The session, if there is one.
    pub session_id: Option<SessionId>,
    /// Whether the session is identified by a handle.
    has_handle: bool,
}

fn derive(parts: &[&str]) -> SessionId {
    // No part contains a line break: IDs, handles, and names of clients without control characters.
    let digest = hash(&parts.join("\n"));
    SessionId::from_store(format!("{}{}", SessionId::PREFIX, &digest[..DIGITS]))
}

/// Returns the ID of the session that a handle identifies on a server.
pub(crate) fn id_for_handle(server: &ServerId, handle: &str) -> SessionId {
    derive(&["handle", server.as_str(), handle])
}

/// Returns the owner of a call. `identity` is `None` if the user is unknown.
pub(crate) fn call_owner(server: &Server, call: &CallContext, identity: Option<&Identity>) -> CallOwner {
    let end_user_id = identity.and_then(|identity| identity.end_user_id.clone());
    let of_row = identity.and_then(|identity| identity.session_id.clone());
    let has_handle = of_row.is_some();
    let server = &server.id;
    let derived = || match (&end_user_id, &call.protocol_session) {
        (Some(end_user), Some(handle)) => {
            Some(derive(&["protocol session", server.as_str(), end_user.as_str(), handle]))
        }
        (Some(end_user), None) => {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let (name, version) = (text(&call.client.name), text(&call.client.version));
            Some(derive(&["client", server.as_str(), end_user.as_str(), &name, &version]))
        }
        (None, Some(handle)) => Some(id_for_handle(server, handle)),
        (None, None) => None,
    };
    let session_id = of_row.or_else(derived);
    CallOwner { end_user_id, session_id, has_handle }
}

/// Records that a session without a handle was used, unless that was recorded within the last minute. Must be called after
/// the end user was written: the recorder skips sessions of users who do not exist.
pub(crate) async fn record_use(
    cx: &Ctx,
    hosting: &Hosting,
    server: &Server,
    (call, owner): (&CallContext, &CallOwner),
) {
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
