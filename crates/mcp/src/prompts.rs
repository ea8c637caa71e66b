//! Each walkthrough that is offered is a prompt, named by its slug.

use rmcp::model::{GetPromptResult, Prompt, PromptMessage, Role};
use waypost_ops::offers::Offer;
use waypost_ops::offers::Offers;

/// Every prompt, in display order.
#[must_use]
pub(crate) fn list(offers: &Offers) -> Vec<Prompt> {
    offers
        .list()
        .iter()
        .map(|offer| {
            let description = (!offer.description.is_empty()).then(|| offer.description.clone());
            Prompt::new(&offer.slug, description, None).with_title(&offer.title)
        })
        .collect()
}

/// The prompt named `slug`; none when nothing of that name is offered.
#[must_use]
pub(crate) fn get(offers: &Offers, slug: &str) -> Option<GetPromptResult> {
    let offer = offers.list().iter().find(|offer| offer.slug == slug)?;
    let text = instruction(offer, offers.server.toolset == waypost_core::server::Toolset::Stepwise);
    Some(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)]).with_description(&offer.title))
}

fn instruction(offer: &Offer, stepwise: bool) -> String {
    let (id, title, steps) = (&offer.walkthrough_id, &offer.title, offer.step_count);
    let how = if stepwise {
        format!("Call get_current_step with walkthrough_id {id}; after each step that I have done, call complete_step")
    } else {
        format!(
            "Call select_walkthrough with walkthrough_id {id}; after each step that I have done, call \
             next_walkthrough_step with its id"
        )
    };
    format!(
        "Guide me through the walkthrough \"{title}\" ({steps} steps), one step at a time. {how}. Show me the content of \
         the step, follow its instructions for the agent, and wait until I have done it."
    )
}
