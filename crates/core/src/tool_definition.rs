//! Definitions of tool servers: their tools, prompts, resources, resource templates and instructions.

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
        /// A template for the URIs of resources (RFC 6570).
        ResourceTemplate = "resource_template",
        /// The instructions of the server.
        Instructions = "instructions",
    }
}

names! {
    /// The class of a definition, chosen by the admin who approves it. Never derived from the hints of the server.
    Class {
        /// Reads only.
        Read = "read",
        /// Changes something.
        Write = "write",
        /// Deletes or overwrites something.
        Destructive = "destructive",
    }
}
