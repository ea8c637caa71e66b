//! Shows which definitions of an instance an agent sees, and why.

use askama::Template;
use axum::extract::{Query, State};
use serde::Deserialize;
use waypost_core::grant::Grant;
use waypost_core::instance::{DesiredRun, Instance};
use waypost_core::tool_definition::{Class, DefinitionKind};
use waypost_core::{Error, Timestamp};
use waypost_ops::visibility::{self, ExplainedDefinition, Visibility, VisibleInstance};

use super::{AgentContext, AgentHeader};
use crate::Console;
use crate::grants::{access_label, kind_label};
use crate::layout::{CurrentOrganization, Layout};
use crate::view::{self, PageResult};

/// The instance to explain. By default, the first one to which the agent has a grant.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct VisibleQuery {
    instance: String,
}

/// A definition with the reason why the agent does or does not see it.
struct DefinitionRow {
    /// The path of the approval.
    href: String,
    name: String,
    kind: &'static str,
    class: Option<Class>,
    is_visible: bool,
    /// The name under which the agent sees it. `None` if the agent does not see it, and for instructions.
    public: Option<String>,
    reason: String,
    /// The paths and labels of the grants that are the reason.
    grants: Vec<(String, String)>,
}

#[derive(Template)]
#[template(path = "agents/visible.html")]
struct VisiblePage {
    layout: Layout,
    header: AgentHeader,
    /// All instances as options: ID and label.
    options: Vec<(String, String)>,
    selected: Option<VisibleInstance>,
    rows: Vec<DefinitionRow>,
    new_grant: String,
}

impl VisiblePage {
    /// Whether calls to the selected instance are rejected because an admin has stopped it.
    fn is_stopped(&self) -> bool {
        self.selected.as_ref().is_some_and(|selected| selected.instance.desired == DesiredRun::Stopped)
    }

    fn selected_id(&self) -> String {
        self.selected.as_ref().map(|selected| selected.instance.id.to_string()).unwrap_or_default()
    }
}

pub(super) async fn show(
    State(console): State<Console>,
    at: AgentContext,
    Query(query): Query<VisibleQuery>,
) -> PageResult {
    let (cx, ops, organization) = (&at.cx, console.ops(), &at.organization_id);
    let instances = visibility::list(cx, ops, organization, at.id()).await.map_err(|error| at.page_error(error))?;
    let options = instances.iter().map(|one| (one.instance.id.to_string(), option_label(one))).collect();
    let selected = select(instances, &query.instance).map_err(|error| at.page_error(error))?;
    let explained = match &selected {
        Some(selected) => visibility::explain(cx, ops, organization, at.id(), &selected.instance.id).await,
        None => Ok(Vec::new()),
    };
    let explained = explained.map_err(|error| at.page_error(error))?;
    let grants = selected.as_ref().map(|selected| selected.grants.as_slice()).unwrap_or_default();
    let rows = explained.into_iter().map(|one| definition_row(&at.org, one, grants, cx.now())).collect();
    let new_grant = at.org.path(&format!("grants/new?agent={}", at.id()));
    let header = at.header("visible");
    Ok(view::page(&VisiblePage { layout: at.layout, header, options, selected, rows, new_grant }))
}

/// Returns the instance with the ID `text`; without an ID, the first one to which the agent has a grant.
fn select(instances: Vec<VisibleInstance>, text: &str) -> Result<Option<VisibleInstance>, Error> {
    if text.is_empty() {
        let position = instances.iter().position(|one| !one.grants.is_empty()).unwrap_or_default();
        return Ok(instances.into_iter().nth(position));
    }
    let found = instances.into_iter().find(|one| one.instance.id.as_str() == text);
    found.map(Some).ok_or_else(|| Error::not_found("instance"))
}

fn option_label(one: &VisibleInstance) -> String {
    let Instance { slug, .. } = &one.instance;
    match one.visible {
        _ if one.grants.is_empty() => format!("{slug} (no grant)"),
        1 => format!("{slug} (1 visible)"),
        count => format!("{slug} ({count} visible)"),
    }
}

fn definition_row(
    org: &CurrentOrganization,
    ExplainedDefinition { definition, visibility }: ExplainedDefinition,
    grants: &[Grant],
    now: Timestamp,
) -> DefinitionRow {
    let link = |grant: &Grant| {
        let expired = if grant.is_expired(now) { ", expired" } else { "" };
        (org.path(&format!("grants/{}", grant.id)), format!("{}{expired}", access_label(grant.access)))
    };
    let reasons = match &visibility {
        Visibility::Visible { grants, .. } | Visibility::Expired(grants) => grants.as_slice(),
        _ => &[],
    };
    let reasons = reasons.iter().filter_map(|id| grants.iter().find(|grant| grant.id == *id)).map(link).collect();
    DefinitionRow {
        href: org.path(&format!("tool-approvals/{}", definition.id)),
        kind: kind_label(definition.kind),
        class: definition.class,
        is_visible: matches!(visibility, Visibility::Visible { .. }),
        reason: explain(&visibility, definition.kind).to_owned(),
        public: match visibility {
            Visibility::Visible { public, .. } if definition.kind != DefinitionKind::Instructions => Some(public),
            _ => None,
        },
        name: definition.name,
        grants: reasons,
    }
}

/// Returns the reason why a definition is or is not visible, in words.
fn explain(visibility: &Visibility, kind: DefinitionKind) -> &'static str {
    match visibility {
        Visibility::Visible { .. } if kind == DefinitionKind::Instructions => {
            "Approved. Every agent with a grant for the instance gets the instructions."
        }
        Visibility::Visible { is_restricted: true, .. } => {
            "Approved and granted. Calls are rejected unless their arguments match the rules of the grant."
        }
        Visibility::Visible { .. } => "Approved and granted.",
        Visibility::NotListed => "The server no longer lists it.",
        Visibility::NotApproved => "Not approved yet.",
        Visibility::Changed => "Changed since its approval. The change has not been approved yet.",
        Visibility::Rejected => "Rejected by an admin.",
        Visibility::NotGranted => "Not granted: the agent has no grant for this instance.",
        Visibility::Expired(_) => "The grant has expired.",
        Visibility::NotCovered => "Not granted: none of the agent's grants for this instance covers it.",
        Visibility::NameTaken => "Another definition has the same public name.",
    }
}
