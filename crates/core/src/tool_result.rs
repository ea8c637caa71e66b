//! The results of the walkthrough tools: structured content (contract, section 4) and its text.

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::guidance::{self, Guide, ToolFlow, UserIdentity};
use crate::id::{StepId, WalkthroughId};
use crate::progress::{Notice, ProgressView};
use crate::render;

/// What a tool answers.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolResult {
    /// For programs.
    pub structured: Value,
    /// For clients that read only text.
    pub text: String,
}

/// Where a user stands in a walkthrough, after a call.
#[derive(Debug, Clone, Copy)]
pub struct ResultContext<'a> {
    /// The walkthrough.
    pub walkthrough_id: &'a WalkthroughId,
    /// Its slug.
    pub slug: &'a str,
    /// Where the user stands.
    pub progress: &'a ProgressView,
    /// The step that the call completed.
    pub completed_step_id: Option<&'a StepId>,
    /// What to tell the user.
    pub notices: &'a [Notice],
    /// How the user was identified.
    pub user: &'a UserIdentity,
    /// The tools that the texts may name.
    pub flow: ToolFlow,
}

impl ResultContext<'_> {
    /// What the sentences for the agent refer to.
    #[must_use]
    pub fn guide(&self) -> Guide<'_> {
        Guide {
            flow: self.flow,
            user: self.user,
            walkthrough_id: self.walkthrough_id,
            title: &self.progress.version.title,
        }
    }
}

/// `walkthrough` of an answer.
#[must_use]
pub fn walkthrough_json(context: &ResultContext<'_>) -> Value {
    json!({
        "id": context.walkthrough_id,
        "slug": context.slug,
        "title": context.progress.version.title,
        "version": context.progress.version.number,
        "latest_version": context.progress.latest_number,
    })
}

/// `progress` of an answer.
#[must_use]
pub fn progress_json(progress: &ProgressView) -> Value {
    json!({
        "status": progress.status().as_str(),
        "completed": progress.completed(),
        "total": progress.version.step_count(),
        "percent": progress.percent(),
        "started_at": progress.attempt.as_ref().map(|attempt| attempt.started_at.rfc3339()),
        "completed_at": progress.completed_at().map(Timestamp::rfc3339),
    })
}

/// The step result. `message` and the text are each sufficient for an agent that sees nothing else.
#[must_use]
pub fn step_result(context: &ResultContext<'_>) -> ToolResult {
    let (progress, guide) = (context.progress, context.guide());
    let current = progress.current().map(|index| {
        let step = &progress.version.steps()[index];
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
    let text = render::step(progress, &guide, context.notices);
    let structured = json!({
        "walkthrough": walkthrough_json(context),
        "progress": progress_json(progress),
        "step": current,
        "completed_step_id": context.completed_step_id,
        "progress_handle": context.user.handle(),
        "message": guide.step_message(progress, context.notices),
        "notice": guidance::user_notice(context.notices),
    });
    ToolResult { structured, text }
}
