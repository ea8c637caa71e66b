//! Each walkthrough that is offered is a prompt, named by its slug.

use rmcp::model::{GetPromptResult, Prompt, PromptMessage, Role};
use waypost_core::guidance::{FIELDS, Flow, PASS_HANDLE, WAIT};
use waypost_ops::offers::{Offer, Offers};

use crate::target::Target;

/// Every prompt, in display order.
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

/// The description of a prompt. Clients show it in menus, and some refuse a prompt without one.
fn description(offer: &Offer) -> String {
    match offer.description.as_str() {
        "" => format!("Guides you through \"{}\" ({} steps), one step at a time.", offer.title, offer.step_count),
        description => description.to_owned(),
    }
}

/// The prompt named `slug`; `None` if nothing of that name is offered.
#[must_use]
pub(crate) fn get(target: &Target, slug: &str) -> Option<GetPromptResult> {
    let offer = target.offers.list().iter().find(|offer| offer.slug == slug)?;
    let text = instruction(offer, target.offers.server.toolset.into(), target.is_by_handle());
    Some(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)]).with_description(description(offer)))
}

/// The text of a prompt. It states the rules, because some hosts use nothing but prompts.
fn instruction(offer: &Offer, flow: Flow, is_by_handle: bool) -> String {
    let (id, title, steps) = (&offer.walkthrough_id, &offer.title, offer.step_count);
    let (first, next) = match flow {
        Flow::Guided => ("select_walkthrough", "next_walkthrough_step(walkthrough_id, current_step_id)"),
        Flow::Stepwise => ("get_current_step", "complete_step(walkthrough_id, step_id)"),
    };
    let handle = if is_by_handle {
        format!(
            " {PASS_HANDLE}, and keep it in your notes (for example AGENTS.md or a .waypost file) to resume after a restart; \
             if your notes have one already, pass it from the first call."
        )
    } else {
        String::new()
    };
    format!(
        "Guide me through the walkthrough \"{title}\" ({steps} steps), one step at a time. Call \
         {first}(walkthrough_id: \"{id}\"), show me the content of the step, and stop. Only when I say that the step is \
         done, call {next}. {WAIT}. In a step, {FIELDS}.{handle}"
    )
}
