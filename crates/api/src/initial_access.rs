//! What is approved and granted in the same step in which an instance is created.

use serde::Deserialize;
use utoipa::ToSchema;
use waypost_core::Error;
use waypost_core::grant::AccessLevel;
use waypost_core::tool_definition::Class;
use waypost_ops::instances::{self, InitialAccess};

/// The approval of what a new server lists at its first check.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InitialApproval {
    /// The class of the tools. Everything else is approved as `read`.
    #[serde(default = "write")]
    #[schema(default = "write")]
    class: Class,
}

fn write() -> Class {
    Class::Write
}

/// An agent that is granted access to a new instance.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InitialGrant {
    #[schema(example = "agt_0123456789abcdef")]
    agent_id: String,
    /// The access level: `read_only` or `full_access`.
    access: AccessLevel,
}

/// Reads the members of an instance to create.
///
/// # Errors
/// `invalid_arguments` for `grants` if the ID of an agent is malformed.
pub(crate) fn parse(approve: Option<InitialApproval>, grants: Vec<InitialGrant>) -> Result<InitialAccess, Error> {
    let grant = |grant: InitialGrant| {
        let agent_id = grant.agent_id.parse();
        let agent_id = agent_id.map_err(|_| Error::invalid("grants", "An `agent_id` in `grants` is not valid."))?;
        Ok(instances::InitialGrant { agent_id, access: grant.access })
    };
    Ok(InitialAccess {
        approve: approve.map(|approval| approval.class),
        grants: grants.into_iter().map(grant).collect::<Result<_, Error>>()?,
    })
}
