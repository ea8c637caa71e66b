//! What was done, by whom: the audit log.

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::id::{AuditEventId, OrganizationId};

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEvent {
    /// The entry.
    pub id: AuditEventId,
    /// In which organisation; it may be gone, the entry stays.
    pub organization_id: OrganizationId,
    /// Who: a user's or a key's id, or `operator`.
    pub actor: String,
    /// What was done, such as `server.update`.
    pub act: String,
    /// What it was done to: an id.
    pub target: String,
    /// What changed. Never a secret.
    pub detail: Map<String, Value>,
    /// When.
    pub created_at: Timestamp,
}
