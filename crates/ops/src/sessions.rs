//! Sessions of calls.
//!
//! A session is one client's use of one server by one end user. It is delimited by a key that depends on how the user
//! is identified:
//!
//! | User | Key |
//! |---|---|
//! | anonymous | the handle. The row is written with the first progress; passing the handle continues the session |
//! | personal URL or token, client with protocol sessions | the `Mcp-Session-Id` |
//! | personal URL or token, other clients (2026-07-28) | the client's name and version |
//! | unknown | the `Mcp-Session-Id`, without a row; a client without one has no session |
//!
//! A session ends 90 days after its last call. Its ID is derived from the key, so the session of a call is known
//! without a query. Rows of sessions without a handle are written by the recorder, at most once per minute and session.

use waypost_core::id::{EndUserId, ServerId, SessionId};
use waypost_core::secret::hash;

/// The number of hexadecimal digits of a derived ID: 96 bits.
const DIGITS: usize = 24;

/// The end user and the session of a recorded call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallOwner {
    /// The end user, if known.
    pub end_user_id: Option<EndUserId>,
    /// The session, if there is one.
    pub session_id: Option<SessionId>,
    /// Whether the session is identified by a handle.
    pub(crate) has_handle: bool,
}

/// Returns the ID of the session that `parts` delimit.
pub(crate) fn derive(parts: &[&str]) -> SessionId {
    // No part contains a line break: IDs, handles, and names of clients without control characters.
    let digest = hash(&parts.join("\n"));
    SessionId::from_store(format!("{}{}", SessionId::PREFIX, &digest[..DIGITS]))
}

/// Returns the ID of the session that a handle identifies on a server.
pub(crate) fn id_for_handle(server: &ServerId, handle: &str) -> SessionId {
    derive(&["handle", server.as_str(), handle])
}
