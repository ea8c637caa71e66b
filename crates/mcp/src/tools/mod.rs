//! The tools of a hosted server: one table, from which they are listed, checked and called.

mod arguments;
mod email;
mod schema;
mod support;
mod walkthrough;

use std::sync::{Arc, LazyLock};

use rmcp::model::{CallToolResponse, CallToolResult, ContentBlock, InputResponses, JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};
use waypost_core::email::{self as address, Email};
use waypost_core::scope::Scope;
use waypost_core::server::{AuthType, Server, Support, Toolset};
use waypost_core::{Code, Error, Result};
use waypost_ops::hosting::in_time;

pub use self::walkthrough::Answer;
use crate::target::Target;

/// A tool, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    List,
    Select,
    Next,
    Status,
    Reset,
    Details,
    Current,
    Complete,
    Steps,
    Support,
}

/// A row of the table of tools.
pub(crate) struct Entry {
    pub(crate) name: Name,
    toolset: &'static [Toolset],
    form: Form,
    /// The same on a server that asks for an address, when the tool begins something.
    collecting: Option<Form>,
    /// What a token must allow, on a server whose users sign in; none when the tool needs nobody.
    pub(crate) needs: Option<Scope>,
}

/// A tool as it is listed and as its arguments are checked.
struct Form {
    tool: Tool,
    validator: jsonschema::Validator,
}

/// What came with a call of a tool.
pub(crate) struct Asked {
    /// The arguments.
    pub(crate) arguments: Option<JsonObject>,
    /// The user's answers to what an earlier result asked for.
    pub(crate) answers: Option<InputResponses>,
    /// Whether the client can show the user a form.
    pub(crate) shows_forms: bool,
}

const GUIDED: &[Toolset] = &[Toolset::Guided, Toolset::All];
const STEPWISE: &[Toolset] = &[Toolset::Stepwise, Toolset::All];
const BOTH: &[Toolset] = &[Toolset::Guided, Toolset::Stepwise, Toolset::All];

/// What a tool does to its world (MCP, "Tool annotations").
#[derive(Clone, Copy)]
enum Effect {
    Reads,
    /// Adds; the same call again changes nothing.
    Repeatable,
    /// Adds; the same call again may add again.
    Adds,
    Destroys,
}

/// Name, title and description of a tool.
type Texts = (&'static str, &'static str, &'static str);

fn entry(
    name: Name,
    toolset: &'static [Toolset],
    (id, title, description): Texts,
    effect: Effect,
    (arguments, result): (Value, Value),
) -> Entry {
    let annotations = ToolAnnotations::from_raw(
        None,
        Some(matches!(effect, Effect::Reads)),
        Some(matches!(effect, Effect::Destroys)),
        Some(matches!(effect, Effect::Reads | Effect::Repeatable)),
        Some(false),
    );
    let result = object(result);
    let form = |arguments: Value| {
        #[expect(clippy::expect_used, reason = "the schemas are constants, and a test compiles each")]
        let validator = jsonschema::validator_for(&arguments).expect("a valid schema");
        let tool = Tool::new(id, description, object(arguments))
            .with_title(title)
            .with_raw_output_schema(Arc::clone(&result))
            .with_annotations(annotations.clone());
        Form { tool, validator }
    };
    let begins = matches!(name, Name::Select | Name::Complete);
    let collecting = begins.then(|| form(schema::with_email(arguments.clone())));
    let needs = match (name, effect) {
        (Name::List, _) => None,
        (_, Effect::Reads) => Some(Scope::WalkRead),
        _ => Some(Scope::Walk),
    };
    Entry { name, toolset, form: form(arguments), collecting, needs }
}

fn object(value: Value) -> Arc<JsonObject> {
    match value {
        Value::Object(object) => Arc::new(object),
        _ => Arc::default(),
    }
}

static TABLE: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    use schema::*;
    vec![
        entry(
            Name::List,
            BOTH,
            ("list_walkthroughs", "List walkthroughs", "Lists the walkthroughs here and how far the user is in each."),
            Effect::Reads,
            (list_arguments(), list_result()),
        ),
        entry(
            Name::Select,
            GUIDED,
            (
                "select_walkthrough",
                "Start or resume",
                "Starts or resumes a walkthrough and returns its current step. Lead the user through it: show content, \
                 follow the agent fields, and call next_walkthrough_step when the user has done it. Keep \
                 progress_handle and pass it in later calls.",
            ),
            Effect::Adds,
            (select_arguments(), step_result()),
        ),
        entry(
            Name::Next,
            GUIDED,
            (
                "next_walkthrough_step",
                "Next step",
                "Completes the current step and returns the next. Call it only after the user has done the step.",
            ),
            Effect::Adds,
            (next_arguments(), step_result()),
        ),
        entry(
            Name::Status,
            GUIDED,
            ("get_walkthrough_status", "Status", "Shows which steps of a walkthrough are completed."),
            Effect::Reads,
            (read_arguments(), status_result()),
        ),
        entry(
            Name::Reset,
            GUIDED,
            (
                "reset_walkthrough_progress",
                "Reset progress",
                "Ends the user's attempt, so that they begin again at the first step. Ask the user first.",
            ),
            Effect::Destroys,
            (reset_arguments(), reset_result()),
        ),
        entry(
            Name::Details,
            STEPWISE,
            ("get_walkthrough_details", "Details", "Shows a walkthrough and how far the user is in it."),
            Effect::Reads,
            (read_arguments(), details_result()),
        ),
        entry(
            Name::Current,
            STEPWISE,
            ("get_current_step", "Current step", "Returns the first step that is not completed, with its content."),
            Effect::Reads,
            (read_arguments(), step_result()),
        ),
        entry(
            Name::Complete,
            STEPWISE,
            (
                "complete_step",
                "Complete a step",
                "Completes any step, in any order, and returns the current one. Starts the walkthrough if need be. \
                 Keep progress_handle and pass it in later calls.",
            ),
            Effect::Repeatable,
            (complete_arguments(), step_result()),
        ),
        entry(
            Name::Steps,
            STEPWISE,
            ("get_walkthrough_steps", "Steps", "Lists the titles and states of all steps, without their content."),
            Effect::Reads,
            (read_arguments(), steps_result()),
        ),
        entry(
            Name::Support,
            BOTH,
            (
                "get_support",
                "Get support",
                "Opens a support ticket with the team behind this product. Call it when the user is stuck and wants help \
                 from a person: describe the problem, and in context what was tried and which errors came, without \
                 secrets. Ask the user first, and for their e-mail address.",
            ),
            Effect::Adds,
            (support_arguments(), support_result()),
        ),
    ]
});

/// The tools that a server lists: those of its toolset, while it offers anything; and support, where there is any.
#[must_use]
pub fn listed(target: &Target) -> Vec<Tool> {
    let server = &target.offers.server;
    TABLE.iter().filter(|entry| entry.is_listed(target)).map(|entry| entry.form(server).tool.clone()).collect()
}

/// The tool called `name`, while it is listed.
pub(crate) fn find_listed(target: &Target, name: &str) -> Option<Tool> {
    let server = &target.offers.server;
    find(name).filter(|entry| entry.is_listed(target)).map(|entry| entry.form(server).tool.clone())
}

/// The tool called `name`, listed or not; none when there is no such tool on any server.
pub(crate) fn find(name: &str) -> Option<&'static Entry> {
    TABLE.iter().find(|entry| entry.form.tool.name == name)
}

impl Entry {
    fn is_in(&self, server: &Server) -> bool {
        match self.name {
            Name::Support => server.support == Support::Tickets,
            _ => self.toolset.contains(&server.toolset),
        }
    }

    fn is_listed(&self, target: &Target) -> bool {
        self.is_in(&target.offers.server) && (self.name == Name::Support || !target.offers.list().is_empty())
    }

    /// How `server` has this tool.
    fn form(&self, server: &Server) -> &Form {
        match &self.collecting {
            Some(form) if server.auth_type == AuthType::CollectEmail => form,
            _ => &self.form,
        }
    }
}

/// Calls a tool. Every failure is a result with `isError` (MCP, "Error Handling" of tools).
pub(crate) async fn call(target: &Target, entry: &Entry, asked: Asked) -> CallToolResponse {
    let started = std::time::Instant::now();
    let tool = &entry.form(&target.offers.server).tool;
    let arguments = asked.arguments.unwrap_or_default();
    let arrival = target.arrival(&tool.name, arguments::for_record(&arguments, &tool.input_schema));
    let answered = match check(target, entry, &arguments, asked.answers.as_ref()) {
        Ok(email) if entry.name == Name::Support => in_time(support::call(target, &arguments, email, &arrival)).await,
        Ok(email) => in_time(walkthrough::call(target, entry.name, &arguments, email, &arrival)).await,
        Err(error) => Err(error),
    };
    let outcome = match &answered {
        Ok(_) => "ok",
        Err(error) => public_code(error.code),
    };
    metrics::counter!("waypost_tool_calls_total", "tool" => tool.name.to_string(), "outcome" => outcome).increment(1);
    metrics::histogram!("waypost_tool_call_seconds", "tool" => tool.name.to_string())
        .record(started.elapsed().as_secs_f64());
    match answered {
        Ok(answer) => {
            // `CallToolResult::structured` would also write the whole JSON into a text block, which is not wanted here.
            let mut result = CallToolResult::success(vec![ContentBlock::text(answer.text)]);
            result.structured_content = Some(answer.structured);
            result.into()
        }
        Err(error) => {
            target.record_failure(&arrival, &error, text(&arguments, "progress_handle")).await;
            if asked.shows_forms
                && email::is_unasked(&error, asked.answers.as_ref())
                && let Ok(question) = email::question(&target.offers.server)
            {
                return CallToolResponse::InputRequired(question);
            }
            failure(&error).into()
        }
    }
}

/// A tool of the toolset that this server does not have still answers: clients keep lists, and servers change
/// (contract, section 4). Gives the address that came with the call, where one is asked for.
fn check(
    target: &Target,
    entry: &Entry,
    arguments: &JsonObject,
    answers: Option<&InputResponses>,
) -> Result<Option<Email>> {
    let server = &target.offers.server;
    if !entry.is_in(server) && entry.name == Name::Support {
        let message = "This server offers no support through this tool. List the tools again.";
        return Err(Error::new(Code::WalkthroughNotFound, message));
    }
    if !entry.is_in(server) {
        let message = "This server offers no walkthrough through this tool. List the tools again.";
        return Err(Error::new(Code::WalkthroughNotFound, message));
    }
    arguments::check(&entry.form(server).validator, arguments)?;
    if entry.name == Name::Support {
        return text(arguments, "email").map(address::parse).transpose();
    }
    if entry.collecting.is_some() && server.auth_type == AuthType::CollectEmail {
        email::given(arguments, answers)
    } else {
        Ok(None)
    }
}

/// The code of an error as clients of a hosted server know it (contract, section 4).
fn public_code(code: Code) -> &'static str {
    match code {
        // What has no name of its own there is a fault that the client can do nothing about but try again.
        Code::Internal | Code::Conflict | Code::Forbidden | Code::NotFound | Code::PreconditionFailed => "unavailable",
        code => code.as_str(),
    }
}

fn failure(error: &Error) -> CallToolResult {
    let mut members = json!({ "code": public_code(error.code), "message": error.message });
    for (name, value) in &error.details {
        members[name] = value.clone();
    }
    let mut text = error.message.clone();
    if let Some(candidates) = error.details.get("candidates") {
        text = format!("{text} Candidates: {candidates}");
    }
    let mut result = CallToolResult::error(vec![ContentBlock::text(text)]);
    result.structured_content = Some(json!({ "error": members }));
    result
}

/// A text argument.
pub(crate) fn text<'a>(arguments: &'a JsonObject, name: &str) -> Option<&'a str> {
    arguments.get(name).and_then(Value::as_str)
}

/// A text argument that the schema requires.
///
/// # Errors
/// `invalid_arguments` when it is missing all the same.
pub(crate) fn required<'a>(arguments: &'a JsonObject, name: &str) -> Result<&'a str> {
    text(arguments, name).ok_or_else(|| Error::invalid(name, format!("`{name}` is missing.")))
}
