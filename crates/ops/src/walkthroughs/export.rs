//! Export of a draft to a file. Importing the file recreates the same draft.

use serde_json::Value;
use waypost_content::transfer::export::export_json;
use waypost_content::transfer::export_markdown::export_markdown;
use waypost_core::Result;
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, WalkthroughId};

use crate::Ops;

/// Returns the draft in the JSON envelope format, version 1.1.
///
/// # Errors
/// `not_found`.
pub async fn export(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &WalkthroughId) -> Result<Value> {
    let draft = super::get_draft(cx, ops, organization, id).await?;
    Ok(export_json(&draft.walkthrough.fields(), &draft.steps, draft.walkthrough.state, cx.now()))
}

/// Returns the draft as one Markdown file, with the text as the author entered it.
///
/// # Errors
/// `not_found`; `invalid_arguments` if there are no steps.
pub async fn export_as_markdown(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &WalkthroughId,
) -> Result<String> {
    let draft = super::get_draft(cx, ops, organization, id).await?;
    export_markdown(&draft.walkthrough.fields(), &draft.steps)
}
