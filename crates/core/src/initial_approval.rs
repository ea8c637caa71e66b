//! Approvals that are given when an instance is created, for all definitions that its server lists at its first check.

use crate::clock::Timestamp;
use crate::id::{InstanceId, OrganizationId};
use crate::tool_definition::Class;

/// The lifetime of an initial approval, in milliseconds: one hour.
pub const INITIAL_APPROVAL_MS: i64 = 60 * 60 * 1_000;

/// The approval of all definitions that a new server lists at its first check. It applies only once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialApproval {
    /// The instance.
    pub instance_id: InstanceId,
    /// The organisation that owns the instance.
    pub organization_id: OrganizationId,
    /// The class of the tools.
    pub class: Class,
    /// The ID of the user or the key that gave the approval, or `operator`.
    pub requested_by: String,
    /// When the approval was given.
    pub created_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
}
