//! Definitions of tool servers: what the gateway lists, and only after an approval.

use crate::walkthrough::names;

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
