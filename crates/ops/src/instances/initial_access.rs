//! The approval and the grants that an admin gives when creating an instance.

use std::collections::HashSet;

use serde_json::json;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::grant::{AccessLevel, GrantedNames};
use waypost_core::id::{AgentId, OrganizationId};
use waypost_core::initial_approval::{INITIAL_APPROVAL_MS, InitialApproval};
use waypost_core::instance::Instance;
use waypost_core::tool_definition::Class;
use waypost_core::{Code, Error, Result};
use waypost_store::{Tx, initial_approval};

use crate::audit::{Entry, record};
use crate::grants::{self, NewGrant};

/// The maximum number of agents that are granted access to a new instance.
pub const MAX_INITIAL_GRANTS: usize = 50;

/// The approval and the grants for a new instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InitialAccess {
    /// The class of the tools if everything that the server lists at its first check is to be approved.
    pub approve: Option<Class>,
    /// The agents that are granted access.
    pub grants: Vec<InitialGrant>,
}

/// An agent that is granted access to a new instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialGrant {
    /// The agent.
    pub agent_id: AgentId,
    /// The access level, which is not `custom`: no names are known yet.
    pub access: AccessLevel,
}

impl InitialAccess {
    /// Authorizes the caller to approve and to grant, and validates the grants.
    ///
    /// # Errors
    /// Those of [`authorize`]; `invalid_arguments` for `grants`.
    pub(super) fn check(&self, cx: &Ctx, organization: &OrganizationId) -> Result<()> {
        if self.approve.is_some() {
            authorize(&cx.caller, Operation::ToolApprovalWrite, organization)?;
        }
        if self.grants.is_empty() {
            return Ok(());
        }
        authorize(&cx.caller, Operation::GrantWrite, organization)?;
        let invalid = |message: String| Err(Error::invalid("grants", message));
        if self.grants.len() > MAX_INITIAL_GRANTS {
            return invalid(format!(
                "A new instance can have at most {MAX_INITIAL_GRANTS} grants. Create others later."
            ));
        }
        let mut agents = HashSet::new();
        for grant in &self.grants {
            if grant.access == AccessLevel::Custom {
                let message = "A new instance has no tools that could be selected yet. Grant `read_only` or \
                               `full_access`, or create a grant with the access `custom` later.";
                return invalid(message.to_owned());
            }
            if !agents.insert(&grant.agent_id) {
                return invalid(format!("The agent `{}` is listed twice.", grant.agent_id));
            }
        }
        Ok(())
    }

    /// Stores the approval and creates the grants. Called at the end of a transaction, because a grant locks the change
    /// counter until the transaction ends.
    ///
    /// # Errors
    /// `invalid_arguments` for `grants` if an agent does not exist; `conflict` if an agent has the maximum number of grants.
    pub(super) async fn apply(&self, cx: &Ctx, tx: &mut Tx, instance: &Instance) -> Result<()> {
        let organization = &instance.organization_id;
        if let Some(class) = self.approve {
            let now = cx.now();
            let approval = InitialApproval {
                instance_id: instance.id.clone(),
                organization_id: organization.clone(),
                class,
                requested_by: cx.caller.actor().to_owned(),
                created_at: now,
                expires_at: now.plus(INITIAL_APPROVAL_MS),
            };
            initial_approval::insert(tx, &approval).await?;
            let detail = json!({ "slug": instance.slug, "class": class, "expires_at": approval.expires_at.rfc3339() });
            let entry = Entry { action: "tool_approval.request", target: instance.id.as_str(), detail };
            record(cx, tx, organization, entry).await?;
        }
        for InitialGrant { agent_id, access } in &self.grants {
            let new = NewGrant {
                agent_id: agent_id.clone(),
                instance_id: instance.id.clone(),
                access: *access,
                names: GrantedNames::default(),
                rules: Vec::new(),
                expires_at: None,
            };
            grants::create_in(cx, tx, organization, &new).await.map_err(|error| match error.code {
                Code::InvalidArguments => Error::invalid("grants", format!("There is no agent `{agent_id}`.")),
                _ => error,
            })?;
        }
        Ok(())
    }
}
