//! The impact of publishing each of several walkthroughs, for the API and for the confirmation page.

use serde::Serialize;
use utoipa::ToSchema;
use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_core::transfer::lint::Severity;
use waypost_core::walkthrough::WalkthroughState;
use waypost_core::{Code, Result};
use waypost_ops::walkthroughs::{self, versions};

use super::walkthrough_id;
use crate::{Web, impact};

/// A summary of the impact of publishing a walkthrough.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PublishImpactSummary {
    /// The ID from the request.
    pub id: String,
    /// The title. Null if the walkthrough does not exist.
    pub title: Option<String>,
    /// The revision of the draft that the summary describes.
    pub revision: Option<u32>,
    /// Sentences about what would change and whom it would affect.
    pub sentences: Vec<String>,
    /// Why the walkthrough cannot be published. Null if it can.
    pub problem: Option<String>,
}

impl PublishImpactSummary {
    /// Returns the impact of publishing the walkthrough with the ID `text`. If it does not exist, that is the `problem`.
    ///
    /// # Errors
    /// `forbidden`; `conflict` if the chain of steps is broken.
    pub(crate) async fn find(web: &Web, (cx, organization): (&Ctx, &OrganizationId), text: &str) -> Result<Self> {
        match Self::find_existing(web, (cx, organization), text).await {
            Err(error) if matches!(error.code, Code::NotFound | Code::WalkthroughNotFound) => Ok(Self {
                id: text.to_owned(),
                title: None,
                revision: None,
                sentences: Vec::new(),
                problem: Some(error.message),
            }),
            found => found,
        }
    }

    async fn find_existing(web: &Web, (cx, organization): (&Ctx, &OrganizationId), text: &str) -> Result<Self> {
        let id = walkthrough_id(text)?;
        let head = walkthroughs::get_draft(cx, web.ops(), organization, &id).await?.walkthrough;
        let found = versions::get_impact(cx, web.ops(), organization, &id).await?;
        let error = found.findings.iter().find(|finding| finding.severity == Severity::Error);
        let problem = match error {
            _ if head.state == WalkthroughState::Archived => {
                Some("The walkthrough is archived. Unarchive it first.".to_owned())
            }
            error => error.map(|error| error.to_string().trim_start_matches("error: ").to_owned()),
        };
        let mut sentences = vec![impact::summary(&found)];
        sentences.extend(impact::sentences(&found));
        Ok(Self { id: text.to_owned(), title: Some(head.title), revision: Some(found.revision), sentences, problem })
    }
}
