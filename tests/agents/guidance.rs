//! Measures which texts of the server a model receives, and checks that they tell the model to wait for the user.

use serde_json::Value;

use crate::agent::Agent;
use crate::model::{Request, ToolResult};
use crate::table;

/// The rule in the description of `next_walkthrough_step`.
const RULE: &str = "Never call it twice in a row without a reply from the user";
/// The instruction in every result with a step.
const WAIT: &str = "only when the user says it is done";

/// Measures which texts the model received over a whole walkthrough, records them in the table, and checks that the
/// model was told to wait for the user.
pub fn check(agent: &Agent, requests: &[Request], calls: &[Value], instructions: &str) {
    let revision = calls[0]["protocol_version"].as_str().expect("the log entry has the member");
    assert!(calls.iter().all(|call| call["protocol_version"] == revision), "{calls:#?}");
    table::record(agent, "Revision", revision);

    let last = requests.last().expect("the model received a request");
    let results = last.results();
    // Excludes the list of walkthroughs before the steps and the completion message after them.
    let steps = &results[1..results.len() - 1];
    let forms = [
        (steps.iter().all(|step| step.structured().is_some()), "`structuredContent`"),
        (steps.iter().all(|step| step.block().is_some()), "text"),
    ];
    let received: Vec<_> = forms.iter().filter(|(is_shown, _)| *is_shown).map(|(_, form)| *form).collect();
    assert!(!received.is_empty(), "{}", results[1].text());
    table::record(agent, "Model receives", &received.join(" and "));

    let shown = words(last.system());
    let is_shown = shown.contains(&words(instructions));
    table::record(agent, "Shows `instructions`", if is_shown { "yes" } else { "no" });

    let by_description = words(last.description("next_walkthrough_step")).contains(&RULE.to_lowercase());
    let by_result = steps.iter().all(|step| tells_to_wait(*step));
    let by = [
        (is_shown && words(instructions).contains(WAIT), "instructions"),
        (by_description, "description"),
        (by_result, "result"),
    ];
    let by: Vec<_> = by.iter().filter(|(is_told, _)| *is_told).map(|(_, by)| *by).collect();
    assert!(by_description || by_result, "nothing tells the model to wait:\n{}", results[1].text());
    table::record(agent, "Told to wait by", &by.join(", "));
    // Each form must be sufficient alone.
    for step in steps {
        if let Some(structured) = step.structured() {
            assert!(
                structured["message"].as_str().is_some_and(|message| words(message).contains(WAIT)),
                "{structured}"
            );
        }
        if let Some(block) = step.block() {
            assert!(words(block).contains(WAIT), "{block}");
        }
    }
}

fn tells_to_wait(step: ToolResult<'_>) -> bool {
    words(step.text()).contains(WAIT)
}

/// Returns a text in lower case with single spaces, because agents wrap and indent text.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}
