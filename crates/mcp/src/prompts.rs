//! Prompts: one for each offered walkthrough, named by its slug.

use rmcp::model::{GetPromptResult, Prompt, PromptMessage, Role};
use waypost_content::guidance::{FIELD_USAGE, HANDLE_RULE, ToolFlow, WAIT_RULE};
use waypost_ops::offers::{Offer, Offers};

use crate::context::HandlerContext;

/// Returns all prompts, in display order.
#[must_use]
pub(crate) fn list(offers: &Offers) -> Vec<Prompt> {
    offers
        .list()
        .iter()
        .map(|offer| {
            let description = Some(description(offer));
            Prompt::new(&offer.slug, description, None).with_title(&offer.title)
        })
        .collect()
}

/// Returns the description of a prompt. Clients show it in menus, and some reject a prompt without one.
fn description(offer: &Offer) -> String {
    match offer.description.as_str() {
        "" => format!("Guides you through \"{}\" ({} steps), one step at a time.", offer.title, offer.step_count),
        description => description.to_owned(),
    }
}

/// Returns the prompt named `slug`, or `None` if no walkthrough with this slug is offered.
#[must_use]
pub(crate) fn get(context: &HandlerContext, slug: &str) -> Option<GetPromptResult> {
    let offer = context.offers.list().iter().find(|offer| offer.slug == slug)?;
    let text = instruction(offer, context.offers.server.toolset.into(), context.is_identified_by_handle());
    Some(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)]).with_description(description(offer)))
}

/// Returns the text of a prompt. It states the rules, because some hosts use only prompts.
fn instruction(offer: &Offer, flow: ToolFlow, is_by_handle: bool) -> String {
    let (id, title, steps) = (&offer.walkthrough_id, &offer.title, offer.step_count);
    let (first, next) = match flow {
        ToolFlow::Guided => ("select_walkthrough", "next_walkthrough_step(walkthrough_id, current_step_id)"),
        ToolFlow::Stepwise => ("get_current_step", "complete_step(walkthrough_id, step_id)"),
    };
    let handle = if is_by_handle {
        format!(
            " {HANDLE_RULE}, and keep it in your notes (for example AGENTS.md or a .waypost file) to resume after a restart; \
             if your notes already have one, pass it from the first call on."
        )
    } else {
        String::new()
    };
    format!(
        "Guide me through the walkthrough \"{title}\" ({steps} steps), one step at a time. Call \
         {first}(walkthrough_id: \"{id}\"), show me the content of the step, and stop. Only when I say that the step is \
         done, call {next}. {WAIT_RULE}. In a step, {FIELD_USAGE}.{handle}"
    )
}
