//! Writing a walkthrough out as a file that an import makes the same thing of.

use serde_json::Value;
use waypost_core::Result;
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, WalkthroughId};
use waypost_core::transfer::export::export_json;
use waypost_core::transfer::export_markdown::export_markdown;

use crate::Ops;

/// The draft as a JSON envelope of version 1.1.
///
/// # Errors
/// `not_found`.
pub async fn export(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &WalkthroughId) -> Result<Value> {
    let draft = super::get_draft(cx, ops, organization, id).await?;
    Ok(export_json(&draft.walkthrough.fields(), &draft.steps, draft.walkthrough.state, cx.now()))
}

/// The draft as one Markdown file, as its author typed it.
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
