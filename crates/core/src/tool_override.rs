//! Names and descriptions of tools for agents, in place of those that the server lists.

use crate::id::{InstanceId, OrganizationId};

/// The maximum number of characters of [`ToolOverride::name`]: clients of tool sets without a prefix reject longer ones.
pub const MAX_NAME: usize = 64;
/// The maximum number of characters of [`ToolOverride::description`].
pub const MAX_DESCRIPTION: usize = 4_000;
/// The maximum number of overrides of an instance.
pub const MAX_OVERRIDES: usize = 500;

/// The name and the description of a tool for agents. Grants, rules, approvals and the call log refer to the original name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOverride {
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The instance.
    pub instance_id: InstanceId,
    /// The original name of the tool.
    pub tool: String,
    /// The name in place of the original one. `None` for the original one.
    pub name: Option<String>,
    /// The description in place of the original one. `None` for the original one.
    pub description: Option<String>,
}
