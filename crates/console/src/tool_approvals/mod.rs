//! `/o/{org}/tool-approvals`: definitions of tool servers that await a decision, and the decisions.

mod list;
mod show;

use waypost_core::access::Operation;
use waypost_core::tool_definition::{ApprovalState, Class, ToolDefinition};
use waypost_core::{Error, Result};
use waypost_ops::tool_approvals::ToolApproval;

use crate::grants::kind_label;
use crate::layout::CurrentOrganization;
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::PageError;

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Operation::ToolApprovalRead);
    const WRITE: Access = Access::Member(Operation::ToolApprovalWrite);
    Routes::new()
        .get("/o/{org}/tool-approvals", READ, list::show)
        .post("/o/{org}/tool-approvals/bulk", WRITE, list::approve_selected)
        .post("/o/{org}/tool-approvals/check", WRITE, list::check)
        .get("/o/{org}/tool-approvals/{approval}", READ, show::show)
        .post("/o/{org}/tool-approvals/{approval}/approve", WRITE, show::approve)
        .post("/o/{org}/tool-approvals/{approval}/reject", WRITE, show::reject)
}

/// Returns the classes with their explanations.
fn classes() -> [(Class, &'static str); 3] {
    [
        (Class::Read, "Reads only. Grants with the access “read only” cover it."),
        (Class::Write, "Changes something."),
        (Class::Destructive, "Changes something that cannot be undone."),
    ]
}

fn parse_class(text: &str) -> Result<Class> {
    text.parse().map_err(|_| Error::invalid("class", "Select what the definition does: read, write or destructive."))
}

/// Returns the class and the label of the badge of an approval.
fn badge(definition: &ToolDefinition) -> (&'static str, &'static str) {
    match definition.state {
        ApprovalState::Pending => ("warn", "pending"),
        ApprovalState::Approved => ("good", "approved"),
        ApprovalState::Rejected => ("bad", "rejected"),
    }
}

/// Returns the name of a definition for pages, with visible escapes for invisible characters.
fn display_name(definition: &ToolDefinition) -> String {
    if definition.name.is_empty() {
        return kind_label(definition.kind).to_owned();
    }
    waypost_content::invisible::escape(&definition.name).into_owned()
}

/// Returns the kind of change since the previous definition.
fn describe_change(approval: &ToolApproval) -> &'static str {
    match &approval.previous {
        None => "New",
        Some(previous) if previous.state == ApprovalState::Approved => "Changed since the last approval",
        Some(_) => "Changed",
    }
}

/// Whether the viewer can approve a definition.
fn can_approve(org: &CurrentOrganization, definition: &ToolDefinition) -> bool {
    org.is_admin()
        && definition.is_current
        && definition.problem.is_none()
        && definition.state != ApprovalState::Approved
}

fn page_error(member: &Member) -> impl Fn(Error) -> PageError + use<> {
    let layout = member.layout.clone().with_section("tool-approvals");
    move |error| PageError::from(error).with_layout(layout.clone())
}
