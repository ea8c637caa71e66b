//! The tools of a hosted server: one table, from which they are listed, checked and called.

mod arguments;
mod email;
mod schema;
mod support;
mod table;
mod walkthrough;

use std::sync::{Arc, LazyLock};

use rmcp::model::{CallToolResponse, CallToolResult, ContentBlock, InputResponses, JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};
use waypost_core::email::{self as address, Email};
use waypost_core::guidance::PASS_HANDLE;
use waypost_core::scope::Scope;
use waypost_core::server::{AuthType, Server, Support, Toolset};
use waypost_core::{Code, Error, Result};
use waypost_ops::hosting::with_timeout;

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
    Move,
    Steps,
    Support,
}

/// A row of the table of tools.
pub(crate) struct Entry {
    pub(crate) name: Name,
    toolset: &'static [Toolset],
    forms: Vec<(Audience, Form)>,
    /// The scope that a token needs on a server whose users sign in; `None` if the tool needs no user.
    pub(crate) needs: Option<Scope>,
}

/// A tool as it is listed and as its arguments are checked.
struct Form {
    tool: Tool,
    validator: jsonschema::Validator,
}

/// What the description and the arguments of a tool depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Audience {
    /// The user is identified by a handle: there is no sign-in and no personal URL.
    pub(super) by_handle: bool,
    /// The server asks for an e-mail address.
    pub(super) asks_email: bool,
}

impl Audience {
    const ALL: [Self; 4] = [
        Self { by_handle: true, asks_email: false },
        Self { by_handle: true, asks_email: true },
        Self { by_handle: false, asks_email: false },
        Self { by_handle: false, asks_email: true },
    ];

    fn of(target: &Target) -> Self {
        let auth_type = target.offers.server.auth_type;
        Self { by_handle: target.is_by_handle(), asks_email: auth_type == AuthType::CollectEmail }
    }
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

/// Name, title and description of a tool. The description does not mention handles: [`describe`] does.
type Texts = (&'static str, &'static str, String);

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
    let form = |audience: Audience| {
        let is_start = matches!(name, Name::Select | Name::Complete);
        let arguments = schema::for_audience(arguments.clone(), audience, is_start);
        #[expect(clippy::expect_used, reason = "the schemas are constants, and a test compiles each")]
        let validator = jsonschema::validator_for(&schema::checked(arguments.clone())).expect("a valid schema");
        let tool = Tool::new(id, describe(name, &description, audience), object(arguments))
            .with_title(title)
            .with_raw_output_schema(Arc::clone(&result))
            .with_annotations(annotations.clone());
        (audience, Form { tool, validator })
    };
    let needs = match (name, effect) {
        (Name::List, _) => None,
        (_, Effect::Reads) => Some(Scope::WalkRead),
        _ => Some(Scope::Walk),
    };
    Entry { name, toolset, forms: Audience::ALL.map(form).into(), needs }
}

/// The description of a tool, with the rule about the handle if the user is identified by one.
fn describe(name: Name, description: &str, audience: Audience) -> String {
    match name {
        _ if !audience.by_handle => description.to_owned(),
        Name::Support => description.to_owned(),
        Name::Select | Name::Complete => {
            format!("{description} {PASS_HANDLE}, and keep it in your notes to resume after a restart.")
        }
        _ => format!("{description} {PASS_HANDLE}."),
    }
}

fn object(value: Value) -> Arc<JsonObject> {
    match value {
        Value::Object(object) => Arc::new(object),
        _ => Arc::default(),
    }
}

static TABLE: LazyLock<Vec<Entry>> = LazyLock::new(table::entries);

/// The tools that a server lists: those of its toolset, while it offers anything; and support, where there is any.
#[must_use]
pub fn listed(target: &Target) -> Vec<Tool> {
    TABLE.iter().filter(|entry| entry.is_listed(target)).map(|entry| entry.form(target).tool.clone()).collect()
}

/// The tool called `name`, while it is listed.
pub(crate) fn find_listed(target: &Target, name: &str) -> Option<Tool> {
    find(name).filter(|entry| entry.is_listed(target)).map(|entry| entry.form(target).tool.clone())
}

/// The tool called `name`, listed or not; none when there is no such tool on any server.
pub(crate) fn find(name: &str) -> Option<&'static Entry> {
    TABLE.iter().find(|entry| entry.forms.iter().any(|(_, form)| form.tool.name == name))
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

    /// The tool as `target` has it.
    fn form(&self, target: &Target) -> &Form {
        let audience = Audience::of(target);
        let found = self.forms.iter().find(|(known, _)| *known == audience);
        #[expect(clippy::expect_used, reason = "`entry` makes a form for every audience")]
        let (_, form) = found.expect("a form for every audience");
        form
    }
}

/// Calls a tool. Every failure is a result with `isError` (MCP, "Error Handling" of tools).
pub(crate) async fn call(target: &Target, entry: &Entry, asked: Asked) -> CallToolResponse {
    let started = std::time::Instant::now();
    let Form { tool, validator } = entry.form(target);
    let mut arguments = asked.arguments.unwrap_or_default();
    arguments::drop_absent(&mut arguments, &tool.input_schema);
    let call = target.call(&tool.name, arguments::for_record(&arguments, &tool.input_schema));
    let answered = match check((target, entry, validator), &arguments, asked.answers.as_ref()) {
        Ok(email) if entry.name == Name::Support => with_timeout(support::call(target, &arguments, email, &call)).await,
        Ok(email) => with_timeout(walkthrough::call(target, entry.name, &arguments, email, &call)).await,
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
            target.record_failure(&call, &error, text(&arguments, "progress_handle")).await;
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
    (target, entry, validator): (&Target, &Entry, &jsonschema::Validator),
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
    arguments::check(validator, arguments)?;
    if entry.name == Name::Support {
        return text(arguments, "email").map(address::parse).transpose();
    }
    if matches!(entry.name, Name::Select | Name::Complete) && server.auth_type == AuthType::CollectEmail {
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
