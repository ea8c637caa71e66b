//! Each walkthrough that is offered is a resource, its outline; each step that a user has reached is one, too.

use rmcp::model::{Resource, ResourceContents, ResourceTemplate};
use waypost_core::id::StepId;
use waypost_core::progress::Standing;
use waypost_core::{Code, Result, render};
use waypost_ops::offers::Offers;
use waypost_ops::progress::{self, PlayRequest};

use crate::target::Target;

const SCHEME: &str = "walkthrough://";
/// Between the id of a walkthrough and that of a step.
const STEPS: &str = "/steps/";
const MARKDOWN: &str = "text/markdown";
/// The address of a step.
pub(crate) const STEP_TEMPLATE: &str = "walkthrough://{walkthrough_id}/steps/{step_id}";

/// Every outline, in display order.
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

/// The template of the steps' addresses.
#[must_use]
pub(crate) fn templates() -> Vec<ResourceTemplate> {
    vec![
        ResourceTemplate::new(STEP_TEMPLATE, "step")
            .with_title("Step of a walkthrough")
            .with_description("A step that the user has completed or is at.")
            .with_mime_type(MARKDOWN),
    ]
}

/// The walkthrough whose outline is at `uri`; `None` if `uri` is no outline.
#[must_use]
pub(crate) fn outline_id(uri: &str) -> Option<&str> {
    uri.strip_prefix(SCHEME).filter(|path| !path.contains('/'))
}

/// Whether `uri` is that of a step: what is there depends on who asks.
#[must_use]
pub(crate) fn is_step(uri: &str) -> bool {
    uri.strip_prefix(SCHEME).is_some_and(|path| path.contains(STEPS))
}

/// A resource that was read.
pub(crate) struct Read {
    /// What it holds.
    pub(crate) contents: ResourceContents,
    /// Whether it is the same for everybody.
    pub(crate) public: bool,
}

/// Reads `uri`; none when there is no such resource, or the user has not come to that step yet.
///
/// # Errors
/// `unavailable` when the database is away.
pub(crate) async fn read(target: &Target, uri: &str) -> Result<Option<Read>> {
    let Some(path) = uri.strip_prefix(SCHEME) else { return Ok(None) };
    let (walkthrough, step) = match path.split_once(STEPS) {
        Some((walkthrough, step)) => (walkthrough, Some(StepId::from_store(step.to_owned()))),
        None => (path, None),
    };
    // A slug is a name for tools; the address of a resource is the id alone.
    if !target.offers.list().iter().any(|offer| offer.walkthrough_id.as_str() == walkthrough) {
        return Ok(None);
    }
    match step {
        None => {
            let (offer, version) =
                progress::get_latest_version(&target.cx, &target.hosting, &target.offers, walkthrough).await?;
            let standing = Standing { attempt: None, latest_number: version.number, version };
            let mut text = format!("# {}\n\n", offer.title);
            if !offer.description.is_empty() {
                text.push_str(&format!("{}\n\n", offer.description));
            }
            text.push_str(&render::outline(&standing, ""));
            Ok(Some(Read { contents: ResourceContents::text(text, uri).with_mime_type(MARKDOWN), public: true }))
        }
        Some(step) => read_step(target, uri, walkthrough, &step).await,
    }
}

async fn read_step(target: &Target, uri: &str, walkthrough: &str, step: &StepId) -> Result<Option<Read>> {
    let call = target.call("resources/read", "{}".to_owned());
    let play = PlayRequest { offers: &target.offers, credentials: target.credentials(None)?, email: None, call: &call };
    let answer = match progress::get_status(&target.cx, &target.hosting, &play, walkthrough).await {
        Ok(answer) => answer,
        Err(error) if error.code == Code::Unavailable => return Err(error),
        Err(_) => return Ok(None),
    };
    let standing = &answer.standing;
    let Some(index) = standing.version.find(step) else { return Ok(None) };
    if standing.attempt.is_none() || !(standing.is_completed(index) || standing.current() == Some(index)) {
        return Ok(None);
    }
    let content = &standing.version.steps()[index].content;
    let text = format!("# {}\n\n{}\n", content.title, content.content);
    Ok(Some(Read { contents: ResourceContents::text(text, uri).with_mime_type(MARKDOWN), public: false }))
}
