//! The results of the walkthrough tools: structured content (contract, section 4) and its text.

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::guidance::{self, Flow, Guide, User};
use crate::id::{StepId, WalkthroughId};
use crate::progress::{Notice, Standing};
use crate::render;

/// What a tool answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// For programs.
    pub structured: Value,
    /// For clients that read only text.
    pub text: String,
}

/// Where a user stands in a walkthrough, after a call.
#[derive(Debug, Clone, Copy)]
pub struct Played<'a> {
    /// The walkthrough.
    pub walkthrough_id: &'a WalkthroughId,
    /// Its slug.
    pub slug: &'a str,
    /// Where the user stands.
    pub standing: &'a Standing,
    /// The step that the call completed.
    pub completed_step_id: Option<&'a StepId>,
    /// What to tell the user.
    pub notices: &'a [Notice],
    /// How the user was identified.
    pub user: &'a User,
    /// The tools that the texts may name.
    pub flow: Flow,
}

impl Played<'_> {
    /// What the sentences for the agent refer to.
    #[must_use]
    pub fn guide(&self) -> Guide<'_> {
        Guide {
            flow: self.flow,
            user: self.user,
            walkthrough_id: self.walkthrough_id,
            title: &self.standing.version.title,
        }
    }
}

/// `walkthrough` of an answer.
#[must_use]
pub fn walkthrough(played: &Played<'_>) -> Value {
    json!({
        "id": played.walkthrough_id,
        "slug": played.slug,
        "title": played.standing.version.title,
        "version": played.standing.version.number,
        "latest_version": played.standing.latest_number,
    })
}

/// `progress` of an answer.
#[must_use]
pub fn progress(standing: &Standing) -> Value {
    json!({
        "status": standing.status().as_str(),
        "completed": standing.completed(),
        "total": standing.version.total(),
        "percent": standing.percent(),
        "started_at": standing.attempt.as_ref().map(|attempt| attempt.started_at.rfc3339()),
        "completed_at": standing.completed_at().map(Timestamp::rfc3339),
    })
}

/// The step result. `message` and the text are each sufficient for an agent that sees nothing else.
#[must_use]
pub fn step(played: &Played<'_>) -> Answer {
    let (standing, guide) = (played.standing, played.guide());
    let current = standing.current().map(|index| {
        let step = &standing.version.steps()[index];
        let content = &step.content;
        json!({
            "id": step.id,
            "position": index + 1,
            "title": content.title,
            "section_title": content.section_title,
            "content": content.content,
            "introduction_for_agent": content.introduction_for_agent,
            "context_for_agent": content.context_for_agent,
            "operations_for_agent": content.operations_for_agent,
        })
    });
    let text = render::step(standing, &guide, played.notices);
    let structured = json!({
        "walkthrough": walkthrough(played),
        "progress": progress(standing),
        "step": current,
        "completed_step_id": played.completed_step_id,
        "progress_handle": played.user.handle(),
        "message": guide.step_message(standing, played.notices),
        "notice": guidance::notice(played.notices),
    });
    Answer { structured, text }
}
