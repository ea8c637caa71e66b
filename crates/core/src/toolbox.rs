//! Toolboxes: an organisation's machines that run tool servers.

use waypost_toolbox_proto::message::{Capacity, Engine, HEARTBEAT_SECONDS, MISSED_HEARTBEATS};

use crate::clock::Timestamp;
use crate::id::{OrganizationId, ToolboxId};
use crate::walkthrough::names;

/// The time for which a join token is valid, in milliseconds.
pub const JOIN_TOKEN_MS: i64 = 15 * 60 * 1_000;
/// The age of the last heartbeat, in milliseconds, above which a toolbox is unresponsive.
pub const UNRESPONSIVE_AFTER_MS: i64 = (HEARTBEAT_SECONDS * MISSED_HEARTBEATS * 1_000).cast_signed();
/// The maximum number of toolboxes of an organisation.
pub const MAX_TOOLBOXES: usize = 100;

names! {
    /// The state of a toolbox.
    ToolboxState {
        /// No machine has joined with the token, or its daemon has never run.
        Pending = "pending",
        /// The last heartbeat has arrived in time.
        Online = "online",
        /// Three heartbeats are missing.
        Unresponsive = "unresponsive",
        /// The toolbox can no longer connect.
        Revoked = "revoked",
    }
}

/// A toolbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Toolbox {
    /// The ID.
    pub id: ToolboxId,
    /// The organisation that owns the toolbox.
    pub organization_id: OrganizationId,
    /// The name, unique in the organisation.
    pub name: String,
    /// The SHA-256 of the join token in hexadecimal digits, until the daemon has connected or the token has expired.
    pub join_token_hash: Option<String>,
    /// When the join token expires. `None` without a token.
    pub join_expires_at: Option<Timestamp>,
    /// The Ed25519 public key of the daemon, in base64url without padding; `None` until a machine has joined.
    pub public_key: Option<String>,
    /// When a new key was requested; `None` after the daemon has presented one.
    pub key_rotation_requested_at: Option<Timestamp>,
    /// When a machine joined.
    pub joined_at: Option<Timestamp>,
    /// When the toolbox was revoked.
    pub revoked_at: Option<Timestamp>,
    /// The version of the daemon.
    pub version: Option<String>,
    /// The container engine.
    pub engine: Option<Engine>,
    /// The resources of the machine.
    pub capacity: Option<Capacity>,
    /// The time of the last heartbeat.
    pub last_seen_at: Option<Timestamp>,
    /// When missing heartbeats were reported; `None` after the next heartbeat.
    pub unresponsive_at: Option<Timestamp>,
    /// The number of the desired state, which increases with every change of the toolbox's instances.
    pub desired_revision: u64,
    /// The number of the last event that was stored.
    pub last_event: u64,
    /// When the toolbox was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Toolbox {
    /// Whether its daemon can connect: a machine has joined, and the toolbox is not revoked.
    #[must_use]
    pub fn can_connect(&self) -> bool {
        self.public_key.is_some() && self.revoked_at.is_none()
    }

    /// Returns the state at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> ToolboxState {
        if self.revoked_at.is_some() {
            return ToolboxState::Revoked;
        }
        match self.last_seen_at {
            None => ToolboxState::Pending,
            Some(seen) if now.0 - seen.0 <= UNRESPONSIVE_AFTER_MS => ToolboxState::Online,
            Some(_) => ToolboxState::Unresponsive,
        }
    }
}
