//! The tool table. Descriptions state the rules, because some clients ignore the server's `instructions`.

use waypost_content::guidance::{FIELD_USAGE, WAIT_RULE};

use super::schema::{
    complete_arguments, details_result, list_arguments, list_result, next_arguments, read_arguments, reset_arguments,
    reset_result, select_arguments, status_result, step_result, steps_result, support_arguments, support_result,
};
use super::{BOTH, Effect, GUIDED, STEPWISE, ToolEntry, ToolName, entry};

/// Returns all tools, in the order of `tools/list`.
pub(super) fn entries() -> Vec<ToolEntry> {
    [guided(), stepwise(), vec![support()]].into_iter().flatten().collect()
}

fn guided() -> Vec<ToolEntry> {
    let list = "Lists the walkthroughs on this server and the user's progress in each. Call it first.";
    let select = format!(
        "Starts or resumes a walkthrough and returns its current step. Show it, then stop and wait; call \
         next_walkthrough_step only when the user says it is done. In a step, {FIELD_USAGE}."
    );
    let next = format!(
        "Completes the current step and returns the next one. Call it only when the user says it is done. {WAIT_RULE}. In a \
         step, {FIELD_USAGE}."
    );
    let reset = "Ends the user's attempt; they start again at the first step. Ask the user first.";
    vec![
        entry(
            ToolName::List,
            BOTH,
            ("list_walkthroughs", "List walkthroughs", list.to_owned()),
            Effect::Reads,
            list_arguments(),
            list_result(),
        ),
        entry(
            ToolName::Select,
            GUIDED,
            ("select_walkthrough", "Start or resume", select),
            Effect::Destroys,
            select_arguments(),
            step_result(),
        ),
        entry(
            ToolName::Next,
            GUIDED,
            ("next_walkthrough_step", "Next step", next),
            Effect::Adds,
            next_arguments(),
            step_result(),
        ),
        entry(
            ToolName::Status,
            GUIDED,
            ("get_walkthrough_status", "Status", "Shows which steps of a walkthrough are completed.".to_owned()),
            Effect::Reads,
            read_arguments(),
            status_result(),
        ),
        entry(
            ToolName::Reset,
            BOTH,
            ("reset_walkthrough_progress", "Reset progress", reset.to_owned()),
            Effect::Destroys,
            reset_arguments(),
            reset_result(),
        ),
    ]
}

fn stepwise() -> Vec<ToolEntry> {
    let details = "Shows a walkthrough and the user's progress in it.";
    let current = format!(
        "Returns the first step that is not completed, with its content. Show the content, then stop and wait; call \
         complete_step only when the user says that the step is done. In a step, {FIELD_USAGE}."
    );
    let complete = format!(
        "Completes a step, in any order, and returns the current one. Starts the walkthrough if needed. Call it only when \
         the user says that the step is done. {WAIT_RULE}. In a step, {FIELD_USAGE}."
    );
    let latest = "Moves the user to the newest version of a walkthrough and returns the current step. Completed steps that \
                  still exist stay completed. Ask the user first.";
    vec![
        entry(
            ToolName::Details,
            STEPWISE,
            ("get_walkthrough_details", "Details", details.to_owned()),
            Effect::Reads,
            read_arguments(),
            details_result(),
        ),
        entry(
            ToolName::Current,
            STEPWISE,
            ("get_current_step", "Current step", current),
            Effect::Reads,
            read_arguments(),
            step_result(),
        ),
        entry(
            ToolName::Complete,
            STEPWISE,
            ("complete_step", "Complete a step", complete),
            Effect::Idempotent,
            complete_arguments(),
            step_result(),
        ),
        entry(
            ToolName::Move,
            STEPWISE,
            ("move_to_latest_version", "Move to the newest version", latest.to_owned()),
            Effect::Idempotent,
            read_arguments(),
            step_result(),
        ),
        entry(
            ToolName::Steps,
            STEPWISE,
            (
                "get_walkthrough_steps",
                "Steps",
                "Lists the titles and states of all steps, without their content.".to_owned(),
            ),
            Effect::Reads,
            read_arguments(),
            steps_result(),
        ),
    ]
}

fn support() -> ToolEntry {
    let description = "Opens a support ticket with the team behind this product. Call it when the user is stuck and wants \
                       help from a person: describe the problem, and in context what was tried and which errors occurred, \
                       without secrets. Ask the user first, and ask for their email address. With ticket_id, it returns the team's \
                       replies to a ticket that this user opened.";
    entry(
        ToolName::Support,
        BOTH,
        ("get_support", "Get support", description.to_owned()),
        Effect::Adds,
        support_arguments(),
        support_result(),
    )
}
