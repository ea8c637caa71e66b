//! The definitions of the servers of instances: tools, prompts, resources, templates and instructions.
//!
//! Invariants ("rug-pull protection"):
//! 1. Every definition that a server lists is stored as received, with its digest. Text and digest never change.
//! 2. A definition is usable only while it is both listed by the server and approved with exactly this digest. A change
//!    of any member results in another digest, and so in another definition, which nobody has approved.
//! 3. A new definition is approved at once only if an admin has approved the same digest under the same kind and name
//!    for the same catalogue version, in the same organisation, or if an admin has approved what the server lists at
//!    its first check ([`check_new`]; its invariants are in `initial.rs`). A definition belongs to the catalogue
//!    version whose server has listed it last: after an upgrade, approvals of definitions that have not changed apply
//!    to the new version. A rejection ends every approval of the same kind and name for this instance, so that the
//!    server cannot list another approved definition instead. Until an admin approves one of them for this instance,
//!    approvals for other instances do not apply.
//! 4. A definition with a problem, such as `not_canonical`, cannot be approved.
//! 5. A server that keeps inventing definitions cannot fill the disk: of the definitions of an instance that it no
//!    longer lists, and about which nobody has decided, at most [`KEPT_UNDECIDED`] are kept.

pub(crate) mod decision;
mod fetch;
mod initial;
mod observe;

pub use fetch::{Listing, fetch};
pub use initial::check_new;
pub use observe::{KEPT_UNDECIDED, Observation, observe};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use waypost_core::tool_definition::DefinitionKind;
use waypost_mcp_wire::definition::{self, Definition};

/// A definition as a server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The kind.
    pub kind: DefinitionKind,
    /// The name of a tool or prompt, the URI of a resource, the URI template, or `instructions`.
    pub name: String,
    /// The SHA-256 of the canonical JSON in hexadecimal; of the text as received, if it has no canonical form.
    pub digest: String,
    /// The text as received. Empty if it is too large.
    pub text: String,
    /// The reason why it cannot be approved, such as `not_canonical`.
    pub problem: Option<&'static str>,
}

impl Listed {
    /// Reads an item of a list, or the instructions. Returns `None` if it has no readable name, because nobody could
    /// use it.
    #[must_use]
    pub fn read(kind: DefinitionKind, text: &str) -> Option<Self> {
        let (name, digest, problem) = match Definition::read(kind, text) {
            Ok(Definition { name, digest, .. }) => (name, digest.to_hex(), None),
            Err(rejected) => {
                let digest = HEXLOWER.encode(&Sha256::digest(text.as_bytes()));
                (rejected.name?, digest, Some(rejected.problem.code()))
            }
        };
        let text = if text.len() > definition::MAX_DEFINITION_BYTES { String::new() } else { text.to_owned() };
        Some(Self { kind, name, digest, text, problem })
    }
}
