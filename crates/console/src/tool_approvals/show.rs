//! The page of a definition, with the difference from the previous one, and the decision.

use askama::Template;
use axum::extract::{Path, State};
use serde::Deserialize;
use waypost_content::diff::DiffLine;
use waypost_core::id::ToolApprovalId;
use waypost_core::tool_definition::{ApprovalState, Class};
use waypost_core::{Code, Error, Result};
use waypost_ops::instances;
use waypost_ops::tool_approvals::{self, ToolApproval, readable_definition};

use super::{badge, can_approve, classes, describe_change, display_name, page_error, parse_class};
use crate::Console;
use crate::form::Form;
use crate::grants::kind_label;
use crate::layout::{CurrentOrganization, Layout};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};

#[derive(Template)]
#[template(path = "tool_approvals/show.html")]
struct ApprovalPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    approval: ToolApproval,
    name: String,
    instance: String,
    /// The difference from the previous definition. Empty if there is none.
    lines: Vec<DiffLine>,
    /// The whole definition, indented.
    text: String,
    reason: String,
}

impl ApprovalPage {
    fn path(&self) -> String {
        self.org.path(&format!("tool-approvals/{}", self.approval.definition.id))
    }

    /// Returns the path of the list of the instance's pending definitions.
    fn newest_path(&self) -> String {
        self.org.path(&format!("tool-approvals?instance={}", self.approval.definition.instance_id))
    }

    fn kind(&self) -> &'static str {
        kind_label(self.approval.definition.kind)
    }

    fn badge(&self) -> (&'static str, &'static str) {
        badge(&self.approval.definition)
    }

    fn change(&self) -> &'static str {
        describe_change(&self.approval)
    }

    fn can_approve(&self) -> bool {
        can_approve(&self.org, &self.approval.definition)
    }

    fn can_reject(&self) -> bool {
        self.org.is_admin() && self.approval.definition.state != ApprovalState::Rejected
    }

    fn class_options(&self) -> [(Class, &'static str); 3] {
        classes()
    }

    fn previous_is_approved(&self) -> bool {
        self.approval.previous.as_ref().is_some_and(|previous| previous.state == ApprovalState::Approved)
    }

    /// Returns the reason why the definition cannot be approved, if any.
    fn problem(&self) -> Option<&'static str> {
        self.approval.definition.problem.as_deref().map(|problem| match problem {
            "not_canonical" => "Programs could read this definition in different ways, so it cannot be approved.",
            "invalid_name" => "The name is too long or has control characters, so it cannot be approved.",
            _ => "This definition is too large to be approved.",
        })
    }
}

async fn load(console: &Console, member: &Member, id: &str) -> Result<ApprovalPage> {
    let Member { cx, organization_id, org, layout } = member;
    let id: ToolApprovalId = id.parse().map_err(|_| Error::not_found("definition"))?;
    let approval = tool_approvals::get(cx, console.ops(), organization_id, &id).await?;
    let instance = instances::get(cx, console.ops(), organization_id, &approval.definition.instance_id).await?;
    Ok(ApprovalPage {
        layout: layout.clone().with_section("tool-approvals"),
        org: org.clone(),
        form_error: FormError::default(),
        name: display_name(&approval.definition),
        instance: instance.instance.slug,
        lines: approval.diff(),
        text: readable_definition(&approval.definition),
        approval,
        reason: String::new(),
    })
}

pub(super) async fn show(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    Ok(view::page(&load(&console, &member, &id).await.map_err(page_error(&member))?))
}

/// The decision of an admin.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Decision {
    /// The digest that the page showed.
    digest: String,
    class: String,
    reason: String,
}

pub(super) async fn approve(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Form(decision): Form<Decision>,
) -> PageResult {
    let page = load(&console, &member, &id).await.map_err(page_error(&member))?;
    let approved = async {
        let decision = (decision.digest.as_str(), parse_class(&decision.class)?);
        let id = &page.approval.definition.id;
        tool_approvals::approve(&member.cx, console.ops(), &member.organization_id, id, decision).await
    };
    match approved.await {
        Ok(definition) => {
            let class = definition.class.map_or("", Class::as_str);
            let message = format!("{} approved as {class}.", page.name);
            Ok(view::redirect_with_flash(&member.org.path("tool-approvals"), &message))
        }
        Err(error) => render_error(&member, page, error),
    }
}

pub(super) async fn reject(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Form(Decision { reason, .. }): Form<Decision>,
) -> PageResult {
    let page = load(&console, &member, &id).await.map_err(page_error(&member))?;
    let id = &page.approval.definition.id;
    match tool_approvals::reject(&member.cx, console.ops(), &member.organization_id, id, &reason).await {
        Ok(_) => {
            let message = format!("{} rejected. No agent can use it.", page.name);
            Ok(view::redirect_with_flash(&member.org.path("tool-approvals"), &message))
        }
        Err(error) => render_error(&member, ApprovalPage { reason, ..page }, error),
    }
}

fn render_error(member: &Member, page: ApprovalPage, error: Error) -> Result<axum::response::Response, PageError> {
    let is_conflict = error.code == Code::Conflict;
    let (status, mut form_error) = FormError::from_error(error).map_err(page_error(member))?;
    if is_conflict {
        form_error.field = "digest".to_owned();
    }
    Ok(view::html(status, &ApprovalPage { form_error, ..page }))
}
