//! Resources: the outline of each offered walkthrough, and each step that the user has reached.

use rmcp::model::{Resource, ResourceContents, ResourceTemplate};
use waypost_content::render;
use waypost_core::id::StepId;
use waypost_core::progress::ProgressView;
use waypost_core::{Code, Result};
use waypost_ops::offers::Offers;
use waypost_ops::progress::{self, PlayRequest};

use crate::context::HandlerContext;

const SCHEME: &str = "walkthrough://";
/// Separates the ID of a walkthrough from the ID of a step.
const STEPS: &str = "/steps/";
const MARKDOWN: &str = "text/markdown";
/// The URI template of a step.
pub(crate) const STEP_TEMPLATE: &str = "walkthrough://{walkthrough_id}/steps/{step_id}";

/// Returns all outlines, in display order.
#[must_use]
pub(crate) fn list(offers: &Offers) -> Vec<Resource> {
    offers
        .list()
        .iter()
        .map(|offer| {
            let resource = Resource::new(format!("{SCHEME}{}", offer.walkthrough_id), &offer.slug)
                .with_title(&offer.title)
                .with_mime_type(MARKDOWN);
            if offer.description.is_empty() { resource } else { resource.with_description(&offer.description) }
        })
        .collect()
}

/// Returns the template of step URIs.
#[must_use]
pub(crate) fn templates() -> Vec<ResourceTemplate> {
    vec![
        ResourceTemplate::new(STEP_TEMPLATE, "step")
            .with_title("Step of a walkthrough")
            .with_description("A step that the user has completed, or the current one.")
            .with_mime_type(MARKDOWN),
    ]
}

/// Returns the ID of the walkthrough whose outline is at `uri`, or `None` if `uri` is not an outline.
#[must_use]
pub(crate) fn outline_id(uri: &str) -> Option<&str> {
    uri.strip_prefix(SCHEME).filter(|path| !path.contains('/'))
}

/// Whether `uri` identifies a step. The content of a step depends on the user.
#[must_use]
pub(crate) fn is_step(uri: &str) -> bool {
    uri.strip_prefix(SCHEME).is_some_and(|path| path.contains(STEPS))
}

/// A resource that was read.
pub(crate) struct ResourceContent {
    /// The contents.
    pub(crate) contents: ResourceContents,
    /// Whether the contents are the same for all users.
    pub(crate) is_public: bool,
}

/// Reads `uri`. Returns `None` if there is no such resource, or the user has not reached that step.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub(crate) async fn read(context: &HandlerContext, uri: &str) -> Result<Option<ResourceContent>> {
    let Some(path) = uri.strip_prefix(SCHEME) else { return Ok(None) };
    let (walkthrough, step) = match path.split_once(STEPS) {
        Some((walkthrough, step)) => (walkthrough, Some(StepId::from_store(step.to_owned()))),
        None => (path, None),
    };
    // Slugs are for tools only; the URI of a resource contains the ID.
    if !context.offers.list().iter().any(|offer| offer.walkthrough_id.as_str() == walkthrough) {
        return Ok(None);
    }
    match step {
        None => {
            let (offer, version) =
                progress::get_latest_version(&context.cx, &context.hosting, &context.offers, walkthrough).await?;
            let progress = ProgressView { attempt: None, latest_number: version.number, version };
            let mut text = format!("# {}\n\n", offer.title);
            if !offer.description.is_empty() {
                text.push_str(&format!("{}\n\n", offer.description));
            }
            text.push_str(&render::outline(&progress, ""));
            Ok(Some(ResourceContent {
                contents: ResourceContents::text(text, uri).with_mime_type(MARKDOWN),
                is_public: true,
            }))
        }
        Some(step) => read_step(context, uri, walkthrough, &step).await,
    }
}

async fn read_step(
    context: &HandlerContext,
    uri: &str,
    walkthrough: &str,
    step: &StepId,
) -> Result<Option<ResourceContent>> {
    let call = context.call_context("resources/read", "{}".to_owned());
    let play =
        PlayRequest { offers: &context.offers, credentials: context.credentials(None)?, email: None, call: &call };
    let answer = match progress::get_status(&context.cx, &context.hosting, &play, walkthrough).await {
        Ok(answer) => answer,
        Err(error) if error.code == Code::Unavailable => return Err(error),
        Err(_) => return Ok(None),
    };
    let progress = &answer.progress;
    let Some(index) = progress.version.position_of(step) else { return Ok(None) };
    if progress.attempt.is_none() || !(progress.is_completed(index) || progress.current() == Some(index)) {
        return Ok(None);
    }
    let content = &progress.version.steps()[index].content;
    let text = format!("# {}\n\n{}\n", content.title, content.content);
    Ok(Some(ResourceContent { contents: ResourceContents::text(text, uri).with_mime_type(MARKDOWN), is_public: false }))
}
