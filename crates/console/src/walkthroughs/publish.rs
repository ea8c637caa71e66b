//! Publishing: the changes, their impact and the findings of the check.

use askama::Template;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;
use waypost_content::transfer::lint::Severity;
use waypost_core::access::Operation;
use waypost_core::walkthrough::WalkthroughState;
use waypost_core::{Code, Error};
use waypost_ops::walkthroughs::{publish, versions};
use waypost_ops::{assignments, servers};

use super::{Changes, DraftContext, WalkthroughHeader, field_name};
use crate::Console;
use crate::form::Form;
use crate::layout::Layout;
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};
use waypost_ops::walkthroughs::impact;

pub(super) fn routes() -> Routes {
    const WRITE: Access = Access::Member(Operation::WalkthroughWrite);
    Routes::new()
        .get("/o/{org}/walkthroughs/{id}/publish", Access::Member(Operation::WalkthroughRead), show)
        .post("/o/{org}/walkthroughs/{id}/publish", WRITE, publish_draft)
        .post("/o/{org}/walkthroughs/{id}/unpublish", WRITE, unpublish)
}

/// A finding with a link to the step.
struct FindingRow {
    step: String,
    /// The path of the step in the editor. `None` for a finding about the walkthrough itself.
    href: Option<String>,
    field: String,
    message: String,
}

#[derive(Template)]
#[template(path = "walkthroughs/publish.html")]
struct PublishPage {
    layout: Layout,
    header: WalkthroughHeader,
    form_error: FormError,
    /// Whether code contains characters that change the text direction, which the author must confirm.
    needs_bidi_confirmation: bool,
    revision: u32,
    to_version: u32,
    is_first: bool,
    /// Whether publishing creates no new version.
    is_same: bool,
    is_archived: bool,
    is_published: bool,
    summary: String,
    sentences: Vec<String>,
    by_version: Vec<(u32, u64)>,
    changes: Changes,
    errors: Vec<FindingRow>,
    warnings: Vec<FindingRow>,
    /// Whether the walkthrough is assigned to a server.
    is_assigned: bool,
    /// The ID and name of each server.
    servers: Vec<(String, String)>,
}

impl PublishPage {
    async fn new(console: &Console, context: &DraftContext) -> Result<Self, PageError> {
        let Member { cx, organization_id, .. } = &context.member;
        let impact = versions::get_impact(cx, console.ops(), organization_id, &context.id).await;
        let impact = impact.map_err(|error| context.page_error(error))?;
        let assigned = assignments::list_for_walkthrough(cx, console.ops(), organization_id, &context.id).await;
        let is_assigned = !assigned.map_err(|error| context.page_error(error))?.is_empty();
        let servers =
            servers::list(cx, console.ops(), organization_id).await.map_err(|error| context.page_error(error))?;
        let (summary, sentences) = (impact::summary(&impact), impact::sentences(&impact));
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        for finding in &impact.findings {
            let step = finding.position.and_then(|position| context.draft.steps.get(position - 1));
            let list = if finding.severity == Severity::Error { &mut errors } else { &mut warnings };
            list.push(FindingRow {
                step: finding.step.clone().unwrap_or_else(|| "The walkthrough".to_owned()),
                href: step.map(|step| format!("{}?step={}", context.path, step.id)),
                field: finding.field.map(field_name).unwrap_or_default(),
                message: finding.message.clone(),
            });
        }
        Ok(Self {
            layout: context.layout(),
            header: context.header("publish"),
            form_error: FormError::default(),
            needs_bidi_confirmation: false,
            revision: impact.revision,
            to_version: impact.to_version,
            is_first: impact.from_version.is_none(),
            is_same: impact.from_version.is_some() && impact.comparison.is_empty(),
            is_archived: context.walkthrough().state == WalkthroughState::Archived,
            is_published: context.walkthrough().state == WalkthroughState::Published,
            summary,
            sentences,
            by_version: impact.by_version,
            changes: Changes::new(impact.comparison),
            errors,
            warnings,
            is_assigned,
            servers: servers.into_iter().map(|server| (server.id.to_string(), server.name)).collect(),
        })
    }

    /// Returns the label of the button.
    fn button_label(&self) -> String {
        if self.is_same { "Publish again".to_owned() } else { format!("Publish version {}", self.to_version) }
    }
}

async fn show(State(console): State<Console>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let context = DraftContext::new(&console, member, &id).await?;
    Ok(view::page(&PublishPage::new(&console, &context).await?))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PublishForm {
    revision: Option<u32>,
    confirm_bidi: String,
}

async fn publish_draft(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Form(fields): Form<PublishForm>,
) -> PageResult {
    let context = DraftContext::new(&console, member, &id).await?;
    let target = context.target(fields.revision);
    match publish::publish(&context.member.cx, console.ops(), target, fields.confirm_bidi == "true").await {
        Ok(published) => {
            let message = match published.created {
                true => format!("Version {} published. End users who start now get this version.", published.number),
                false => format!("Version {} published. There were no changes.", published.number),
            };
            let Member { cx, organization_id, .. } = &context.member;
            let assigned = assignments::list_for_walkthrough(cx, console.ops(), organization_id, &context.id).await;
            if assigned.map_err(|error| context.page_error(error))?.is_empty() {
                let message = format!(
                    "Version {} published. The walkthrough is not assigned to a server yet, so no one can start it. \
                     Assign it to a server.",
                    published.number
                );
                return Ok(view::redirect_with_flash(&format!("{}/assignments", context.path), &message));
            }
            Ok(view::redirect_with_flash(&format!("{}/versions", context.path), &message))
        }
        Err(error) => {
            let needs_bidi_confirmation = error.code == Code::ConfirmationRequired;
            let error = match error.code {
                // The page shows the current state of the draft.
                Code::PreconditionFailed => Error::new(
                    Code::PreconditionFailed,
                    "The draft has changed in the meantime, so nothing was published. Review the updated summary below.",
                ),
                _ => error,
            };
            let (status, form_error): (StatusCode, FormError) =
                FormError::from_error(error).map_err(|error| context.page_error(error))?;
            // The findings are shown in their own section, with links.
            let form_error = FormError { field: String::new(), ..form_error };
            let page =
                PublishPage { form_error, needs_bidi_confirmation, ..PublishPage::new(&console, &context).await? };
            Ok(view::html(status, &page))
        }
    }
}

async fn unpublish(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let context = DraftContext::new(&console, member, &id).await?;
    let unpublished = publish::unpublish(&context.member.cx, console.ops(), context.target(None)).await;
    unpublished.map_err(|error| context.page_error(error))?;
    let message = "Walkthrough unpublished. Versions and progress are kept. Publish it again to make it available.";
    Ok(view::redirect_with_flash(&format!("{}/publish", context.path), message))
}
