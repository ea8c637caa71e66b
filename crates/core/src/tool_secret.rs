//! Secrets of tool servers: values that can be written but never read back.

use crate::clock::Timestamp;
use crate::id::{InstanceId, OrganizationId, ToolSecretId};

/// The maximum size of a value in bytes.
pub const MAX_VALUE: usize = 64 * 1024;
/// The maximum number of secrets of an organisation.
pub const MAX_SECRETS: usize = 1_000;

/// A secret without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolSecret {
    /// The ID.
    pub id: ToolSecretId,
    /// The organisation that owns the secret.
    pub organization_id: OrganizationId,
    /// The name, unique in the organisation.
    pub name: String,
    /// The number of the value, which starts at 1 and increases with every rotation.
    pub version: u64,
    /// When the secret was created.
    pub created_at: Timestamp,
    /// When the value was last replaced.
    pub rotated_at: Option<Timestamp>,
    /// The instances that use the secret.
    pub used_by: Vec<InstanceId>,
}
