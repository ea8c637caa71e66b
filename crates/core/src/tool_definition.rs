//! Definitions of tool servers. The gateway lists a definition only after it has been approved.

use crate::clock::Timestamp;
use crate::id::{CatalogVersionId, InstanceId, OrganizationId, ToolApprovalId};
use crate::walkthrough::names;

/// The maximum number of definitions that the server of an instance may list.
pub const MAX_DEFINITIONS: usize = 1_000;
/// The maximum number of characters of the reason of a rejection.
pub const MAX_REASON: usize = 500;

names! {
    /// The kind of a definition.
    DefinitionKind {
        /// A tool.
        Tool = "tool",
        /// A prompt.
        Prompt = "prompt",
        /// A resource.
        Resource = "resource",
        /// A URI template of resources.
        ResourceTemplate = "resource_template",
        /// The instructions of the server.
        Instructions = "instructions",
    }
}

names! {
    /// The effect of a definition, as an admin has classified it at the approval. The hints of a server are never used.
    Class {
        /// Reads only.
        Read = "read",
        /// Changes something.
        Write = "write",
        /// Changes something that cannot be undone.
        Destructive = "destructive",
    }
}

names! {
    /// The state of an approval.
    ApprovalState {
        /// The definition is neither listed nor callable.
        Pending = "pending",
        /// The definition is listed and callable for those who were granted it.
        Approved = "approved",
        /// An admin has rejected the definition.
        Rejected = "rejected",
    }
}

/// A definition that the server of an instance has listed, with its approval. The text and its digest never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolDefinition {
    /// The ID of the approval.
    pub id: ToolApprovalId,
    /// The organisation that owns the instance.
    pub organization_id: OrganizationId,
    /// The instance.
    pub instance_id: InstanceId,
    /// The catalogue version whose server last listed the definition.
    pub catalog_version_id: Option<CatalogVersionId>,
    /// The kind.
    pub kind: DefinitionKind,
    /// The name of a tool or prompt, the URI of a resource, or the URI template. Empty for instructions.
    pub name: String,
    /// The SHA-256 of the canonical JSON in hexadecimal.
    pub digest: String,
    /// The text as received.
    pub definition: String,
    /// The reason why it cannot be approved, such as `not_canonical`. `None` if it can be approved.
    pub problem: Option<String>,
    /// Whether the server currently lists it.
    pub is_current: bool,
    /// The state of the approval.
    pub state: ApprovalState,
    /// The effect, if it was approved.
    pub class: Option<Class>,
    /// The reason for the rejection.
    pub reason: Option<String>,
    /// The user or key that decided. `None` if a decision for another instance of the same catalogue version applies.
    pub decided_by: Option<String>,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
    /// When it was first seen.
    pub first_seen_at: Timestamp,
}
