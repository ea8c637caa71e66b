//! Approvals that are given when an instance is created, for what its server lists at its first check.

use crate::clock::Timestamp;
use crate::id::{InstanceId, OrganizationId};
use crate::tool_definition::Class;

/// The time after which an initial approval has no effect any more, in milliseconds: one hour.
pub const INITIAL_APPROVAL_MS: i64 = 60 * 60 * 1_000;

/// The approval of everything that a new server lists at its first check. It works once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialApproval {
    /// The instance.
    pub instance_id: InstanceId,
    /// The organisation that owns the instance.
    pub organization_id: OrganizationId,
    /// The class of the tools.
    pub class: Class,
    /// The user or key that has given it, or `operator`.
    pub requested_by: String,
    /// When it was given.
    pub created_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
}
