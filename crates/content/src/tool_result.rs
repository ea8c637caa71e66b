//! Results of the walkthrough tools: structured content (contract, section 4) and its text form.

use serde_json::{Value, json};

use crate::guidance::{self, Guide, ToolFlow, UserIdentity};
use crate::render;
use waypost_core::clock::Timestamp;
use waypost_core::id::{StepId, WalkthroughId};
use waypost_core::progress::{Notice, ProgressView};

/// The result of a tool call.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolResult {
    /// The structured content.
    pub structured: Value,
    /// The text block, for clients that read only text.
    pub text: String,
}

/// A user's progress in a walkthrough after a call, and how to describe it.
#[derive(Debug, Clone, Copy)]
pub struct ResultContext<'a> {
    /// The walkthrough.
    pub walkthrough_id: &'a WalkthroughId,
    /// The walkthrough's slug.
    pub slug: &'a str,
    /// The user's progress.
    pub progress: &'a ProgressView,
    /// The step that the call completed. `None` if it completed none.
    pub completed_step_id: Option<&'a StepId>,
    /// The notices for the user.
    pub notices: &'a [Notice],
    /// The user's identity.
    pub user: &'a UserIdentity,
    /// The tools that instructions refer to.
    pub flow: ToolFlow,
}

impl ResultContext<'_> {
    /// Returns the context of the instructions for the agent.
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

/// Returns the `walkthrough` member of a result.
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

/// Returns the `progress` member of a result.
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

/// Returns the step result. `message` and the text are each sufficient for an agent that sees nothing else.
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
