//! The part of the forms for new instances that approves definitions and grants access in the same step.

use waypost_core::agent::MAX_AGENTS;
use waypost_core::caller::Ctx;
use waypost_core::grant::AccessLevel;
use waypost_core::id::{CatalogVersionId, OrganizationId};
use waypost_core::tool_definition::{ApprovalState, Class, DefinitionKind};
use waypost_core::{Error, Result};
use waypost_ops::agents;
use waypost_ops::instances::{InitialAccess, InitialGrant};
use waypost_ops::tool_approvals::{self, KnownDefinition};

use crate::Console;

/// The number of empty rows for further agents.
const EMPTY_ROWS: usize = 3;

/// An agent and its access level, as selected.
#[derive(Clone, Default)]
pub(super) struct GrantRow {
    /// The ID of the agent. Empty if no agent is selected.
    pub(super) agent: String,
    pub(super) access: String,
}

/// A definition that the server is expected to list.
pub(super) struct KnownRow {
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// A note that it is already approved, or the reason why it is not approved in this step. `None` if it can be
    /// approved in this step.
    pub(super) note: Option<String>,
}

/// The fields of this part of a form.
pub(super) struct AccessForm {
    pub(super) approve: bool,
    pub(super) class: String,
    grants: Vec<GrantRow>,
    /// The agents: IDs and names.
    pub(super) agents: Vec<(String, String)>,
    /// The known definitions of the server.
    pub(super) known: Vec<KnownRow>,
}

fn kind_label(kind: DefinitionKind) -> &'static str {
    match kind {
        DefinitionKind::Tool => "Tool",
        DefinitionKind::Prompt => "Prompt",
        DefinitionKind::Resource => "Resource",
        DefinitionKind::ResourceTemplate => "Resource template",
        DefinitionKind::Instructions => "Instructions",
    }
}

fn known_row(known: KnownDefinition) -> KnownRow {
    let note = match (known.state, known.class, known.problem) {
        (ApprovalState::Approved, Some(class), _) => Some(format!("Approved already, as {class}")),
        (ApprovalState::Approved, None, _) => Some("Approved already".to_owned()),
        (_, _, Some(problem)) => Some(format!("Cannot be approved ({problem})")),
        (ApprovalState::Rejected, ..) => Some("Rejected, stays so".to_owned()),
        (ApprovalState::Pending, ..) => None,
    };
    KnownRow { kind: kind_label(known.kind), name: known.name, note }
}

impl AccessForm {
    /// Returns the empty form. `version` is `None` for a remote server.
    ///
    /// # Errors
    /// Those of [`agents::list`] and [`tool_approvals::list_known`].
    pub(super) async fn load(
        cx: &Ctx,
        console: &Console,
        organization: &OrganizationId,
        version: Option<&CatalogVersionId>,
    ) -> Result<Self> {
        let limit = u32::try_from(MAX_AGENTS).unwrap_or(u32::MAX);
        let agents = agents::list(cx, console.ops(), organization, None, limit).await?;
        let known = match version {
            Some(version) => tool_approvals::list_known(cx, console.ops(), organization, version).await?,
            None => Vec::new(),
        };
        Ok(Self {
            approve: false,
            class: Class::Write.to_string(),
            grants: Vec::new(),
            agents: agents.into_iter().map(|view| (view.agent.id.to_string(), view.agent.name)).collect(),
            known: known.into_iter().map(known_row).collect(),
        })
    }

    /// Fills in the fields of a submitted form.
    pub(super) fn with_input(self, pairs: &[(String, String)]) -> Self {
        let mut form = Self { approve: false, grants: Vec::new(), ..self };
        for (name, value) in pairs {
            match name.as_str() {
                "approve" => form.approve = true,
                "class" => form.class.clone_from(value),
                "grant_agent" => form.grants.push(GrantRow { agent: value.clone(), access: String::new() }),
                "grant_access" => {
                    if let Some(row) = form.grants.last_mut() {
                        row.access.clone_from(value);
                    }
                }
                _ => {}
            }
        }
        form.grants.retain(|row| !row.agent.is_empty());
        form
    }

    /// Returns the approval and the grants to create with the instance.
    ///
    /// # Errors
    /// `invalid_arguments` for `class` or `grants`.
    pub(super) fn parse(&self) -> Result<InitialAccess> {
        let class = |_| Error::invalid("class", "Select one of the classes.");
        let grant = |row: &GrantRow| {
            let unknown = |_| Error::invalid("grants", "Select an agent and an access level in each row.");
            Ok(InitialGrant {
                agent_id: row.agent.parse().map_err(|_| unknown(String::new()))?,
                access: row.access.parse().map_err(unknown)?,
            })
        };
        Ok(InitialAccess {
            approve: self.approve.then(|| self.class.parse().map_err(class)).transpose()?,
            grants: self.grants.iter().map(grant).collect::<Result<_>>()?,
        })
    }

    /// Returns the rows with their numbers, followed by empty ones.
    pub(super) fn rows(&self) -> Vec<(usize, GrantRow)> {
        let empty = std::iter::repeat_n(GrantRow::default(), EMPTY_ROWS);
        self.grants.iter().cloned().chain(empty).enumerate().map(|(index, row)| (index + 1, row)).collect()
    }

    pub(super) fn classes(&self) -> Vec<(String, &'static str)> {
        let label = |class: &Class| match class {
            Class::Read => "Read: reads only",
            Class::Write => "Write: changes something",
            Class::Destructive => "Destructive: changes that cannot be undone",
        };
        Class::ALL.iter().map(|class| (class.to_string(), label(class))).collect()
    }

    pub(super) fn levels(&self) -> Vec<(String, &'static str)> {
        vec![
            (AccessLevel::ReadOnly.to_string(), "Read-only: what is approved as read"),
            (AccessLevel::FullAccess.to_string(), "Full access: everything that is approved"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_approved_in_this_step_have_no_note() {
        let note = |state, class, problem: Option<&str>| {
            let problem = problem.map(str::to_owned);
            known_row(KnownDefinition { kind: DefinitionKind::Tool, name: "find".to_owned(), state, class, problem })
                .note
        };
        assert_eq!(note(ApprovalState::Pending, None, None), None);
        let text = |note: Option<String>| note.unwrap();
        assert_eq!(text(note(ApprovalState::Approved, Some(Class::Read), None)), "Approved already, as read");
        assert_eq!(text(note(ApprovalState::Rejected, None, None)), "Rejected, stays so");
        let problem = note(ApprovalState::Pending, None, Some("not_canonical"));
        assert_eq!(text(problem), "Cannot be approved (not_canonical)");
    }
}
