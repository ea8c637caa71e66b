//! The audit log.

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::id::{AuditEventId, OrganizationId};

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEvent {
    /// The entry's ID.
    pub id: AuditEventId,
    /// The organisation. The entry is kept if the organisation is deleted.
    pub organization_id: OrganizationId,
    /// The ID of a user or an API key, or `operator`.
    pub actor: String,
    /// The operation, such as `server.update`.
    pub act: String,
    /// The ID of the object that was changed.
    pub target: String,
    /// Details of the change. Never contains secrets.
    pub detail: Map<String, Value>,
    /// When the operation was performed.
    pub created_at: Timestamp,
}
