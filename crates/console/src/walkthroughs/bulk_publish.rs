//! The confirmation page for publishing several walkthroughs.

use askama::Template;
use waypost_core::{Error, Result};

use crate::Console;
use crate::layout::{CurrentOrganization, Layout};
use crate::session::Member;
use waypost_ops::walkthroughs::bulk::MAX_IDS;
use waypost_ops::walkthroughs::impact::{self, PublishImpactSummary};

/// The confirmation page.
#[derive(Template)]
#[template(path = "walkthroughs/bulk_publish.html")]
pub(super) struct BulkPublishPage {
    layout: Layout,
    org: CurrentOrganization,
    ready: Vec<PublishImpactSummary>,
    blocked: Vec<PublishImpactSummary>,
}

/// Creates the page for these walkthroughs.
///
/// # Errors
/// `invalid_arguments` if `ids` is empty or contains more than [`MAX_IDS`] IDs.
pub(super) async fn confirm(console: &Console, member: &Member, ids: &[String]) -> Result<BulkPublishPage> {
    if ids.is_empty() || ids.len() > MAX_IDS {
        return Err(Error::invalid("ids", format!("Select 1 to {MAX_IDS} walkthroughs to publish.")));
    }
    let all = impact::summarize(&member.cx, console.ops(), &member.organization_id, ids).await?;
    let (ready, blocked) = all.into_iter().partition(|summary: &PublishImpactSummary| summary.problem.is_none());
    let (layout, org) = (member.layout.clone().with_section("walkthroughs"), member.org.clone());
    Ok(BulkPublishPage { layout, org, ready, blocked })
}

impl BulkPublishPage {
    /// Returns the title, or the ID if the walkthrough does not exist.
    fn title(summary: &PublishImpactSummary) -> &str {
        summary.title.as_deref().unwrap_or(&summary.id)
    }
}
