//! Overrides: names and descriptions of tools that agents see in place of those that the server lists.

use crate::id::{InstanceId, OrganizationId};

/// The maximum number of characters of [`ToolOverride::name`]. Clients reject longer names, and a tool set without a
/// prefix lists this name unchanged.
pub const MAX_NAME: usize = 64;
/// The maximum number of characters of [`ToolOverride::description`].
pub const MAX_DESCRIPTION: usize = 4_000;
/// The maximum number of overrides of an instance.
pub const MAX_OVERRIDES: usize = 500;

/// The name and the description of a tool that agents see. Grants, rules, approvals and the call log refer to the
/// original name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOverride {
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The instance.
    pub instance_id: InstanceId,
    /// The original name of the tool.
    pub tool: String,
    /// The name that replaces the original one. `None` keeps the original name.
    pub name: Option<String>,
    /// The description that replaces the original one. `None` keeps the original description.
    pub description: Option<String>,
}
