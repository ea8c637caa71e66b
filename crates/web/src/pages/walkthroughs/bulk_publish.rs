//! Publishing several walkthroughs: the page that says what it means for each of them, before it is done.

use askama::Template;
use waypost_core::transfer::lint::Severity;
use waypost_core::walkthrough::WalkthroughState;
use waypost_core::{Error, Result};
use waypost_ops::walkthroughs::{self, history};

use super::walkthrough_id;
use crate::pages::frame::{Frame, Place};
use crate::pages::session::Member;
use crate::{Web, impact};

/// Walkthroughs on the page at most: as many as the act takes.
const MAX_IDS: usize = 100;

/// A walkthrough that is to be published.
struct Impact {
    id: String,
    title: String,
    revision: u32,
    summary: String,
    /// Who is affected, in sentences.
    sentences: Vec<String>,
    /// Why it cannot be published. Empty if it can.
    problem: String,
}

/// The page.
#[derive(Template)]
#[template(path = "walkthroughs/bulk_publish.html")]
pub(super) struct BulkPublishPage {
    frame: Frame,
    place: Place,
    ready: Vec<Impact>,
    refused: Vec<Impact>,
}

/// Makes the page for these walkthroughs.
///
/// # Errors
/// `invalid_arguments` if there are none or more than 100; `not_found`.
pub(super) async fn confirm(web: &Web, member: &Member, ids: &[String]) -> Result<BulkPublishPage> {
    if ids.is_empty() || ids.len() > MAX_IDS {
        return Err(Error::invalid("ids", format!("Tick 1 to {MAX_IDS} walkthroughs to publish.")));
    }
    let mut all = Vec::with_capacity(ids.len());
    for text in ids {
        all.push(read(web, member, text).await?);
    }
    let (ready, refused) = all.into_iter().partition(|it| it.problem.is_empty());
    let (frame, place) = (member.frame.clone().at("walkthroughs"), member.place.clone());
    Ok(BulkPublishPage { frame, place, ready, refused })
}

async fn read(web: &Web, member: &Member, text: &str) -> Result<Impact> {
    let (cx, ops, org) = (&member.cx, web.ops(), &member.organization_id);
    let id = walkthrough_id(text)?;
    let head = walkthroughs::show(cx, ops, org, &id).await?.walkthrough;
    let found = history::impact(cx, ops, org, &id).await?;
    let error = found.findings.iter().find(|finding| finding.severity == Severity::Error);
    let problem = match error {
        _ if head.state == WalkthroughState::Archived => "It is archived. Take it out of the archive first.".to_owned(),
        Some(error) => error.to_string().trim_start_matches("error: ").to_owned(),
        None => String::new(),
    };
    Ok(Impact {
        id: id.to_string(),
        title: head.title,
        revision: found.revision,
        summary: impact::summary(&found),
        sentences: impact::sentences(&found),
        problem,
    })
}
