//! What the servers of instances define: tools, prompts, resources, templates and instructions.
//!
//! Invariants ("rug-pull protection"):
//! 1. Every definition that a server lists is stored as received, with its digest. Text and digest never change.
//! 2. A definition is usable only while it is both listed by the server and approved with exactly this digest. A change of
//!    any member is another digest, and so another definition, which nobody has approved.
//! 3. A new definition is approved at once only if an admin has approved the same digest under the same kind and name for
//!    the same catalogue version, in the same organisation.
//! 4. A definition with a problem, such as `not_canonical`, cannot be approved.
//! 5. A server that invents definitions fills no disk: at most [`KEPT_UNDECIDED`] definitions of an instance that it no longer
//!    lists, and about which nobody has decided, are kept.

mod fetch;
mod observe;

pub use fetch::fetch;
pub use observe::{KEPT_UNDECIDED, Observation, observe};

use waypost_core::tool_definition::DefinitionKind;
use waypost_mcp_wire::definition::Definition;

/// A definition as a server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The kind.
    pub kind: DefinitionKind,
    /// The definition.
    pub definition: Definition,
}
