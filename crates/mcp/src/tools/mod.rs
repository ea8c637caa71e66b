//! The tools of hosted servers: one table, from which tools are listed, validated and called.

mod arguments;
mod email;
mod schema;
mod support;
mod table;
mod walkthrough;

use std::sync::{Arc, LazyLock};

use rmcp::model::{CallToolResponse, CallToolResult, ContentBlock, InputResponses, JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};
use waypost_content::guidance::HANDLE_RULE;
use waypost_core::email::{self as address, Email};
use waypost_core::scope::Scope;
use waypost_core::server::{AuthType, Server, Support, Toolset};
use waypost_core::{Code, Error, Result};
use waypost_ops::hosting::with_timeout;

pub use self::walkthrough::ToolResult;
use crate::context::HandlerContext;

/// The name of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToolName {
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

/// An entry of the tool table.
pub(crate) struct ToolEntry {
    pub(crate) name: ToolName,
    toolset: &'static [Toolset],
    variants: Vec<(Audience, Tool)>,
    /// The scope that a token needs on a server whose users sign in; `None` if the tool needs no user.
    pub(crate) needs: Option<Scope>,
}

/// The properties of a request that the description and the arguments of a tool depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Audience {
    /// Whether a handle identifies the user: there is neither sign-in nor a personal URL.
    pub(super) by_handle: bool,
    /// Whether the server asks for an email.
    pub(super) asks_email: bool,
}

impl Audience {
    const ALL: [Self; 4] = [
        Self { by_handle: true, asks_email: false },
        Self { by_handle: true, asks_email: true },
        Self { by_handle: false, asks_email: false },
        Self { by_handle: false, asks_email: true },
    ];

    fn of(context: &HandlerContext) -> Self {
        let auth_type = context.offers.server.auth_type;
        Self { by_handle: context.is_identified_by_handle(), asks_email: auth_type == AuthType::CollectEmail }
    }
}

/// The input of a tool call.
pub(crate) struct CallInput {
    /// The arguments.
    pub(crate) arguments: Option<JsonObject>,
    /// The user's responses to the input requests of an earlier result.
    pub(crate) responses: Option<InputResponses>,
    /// Whether the client can show forms to the user.
    pub(crate) supports_forms: bool,
}

const GUIDED: &[Toolset] = &[Toolset::Guided, Toolset::All];
const STEPWISE: &[Toolset] = &[Toolset::Stepwise, Toolset::All];
const BOTH: &[Toolset] = &[Toolset::Guided, Toolset::Stepwise, Toolset::All];

/// The effect of a tool (MCP, "Tool annotations").
#[derive(Clone, Copy)]
enum Effect {
    Reads,
    /// Adds data; a repeated call changes nothing.
    Idempotent,
    /// Adds data; a repeated call may add more.
    Adds,
    Destroys,
}

/// The name, title and description of a tool. [`describe`] adds the rule about handles.
type Texts = (&'static str, &'static str, String);

fn entry(
    name: ToolName,
    toolset: &'static [Toolset],
    (id, title, description): Texts,
    effect: Effect,
    arguments: Value,
    result: Value,
) -> ToolEntry {
    let annotations = ToolAnnotations::from_raw(
        None,
        Some(matches!(effect, Effect::Reads)),
        Some(matches!(effect, Effect::Destroys)),
        Some(matches!(effect, Effect::Reads | Effect::Idempotent)),
        Some(false),
    );
    let result = object(result);
    let variant = |audience: Audience| {
        let is_start = matches!(name, ToolName::Select | ToolName::Complete);
        let arguments = schema::for_audience(arguments.clone(), audience, is_start);
        let tool = Tool::new(id, describe(name, &description, audience), object(arguments))
            .with_title(title)
            .with_raw_output_schema(Arc::clone(&result))
            .with_annotations(annotations.clone());
        (audience, tool)
    };
    let needs = match (name, effect) {
        (ToolName::List, _) => None,
        (_, Effect::Reads) => Some(Scope::WalkRead),
        _ => Some(Scope::Walk),
    };
    ToolEntry { name, toolset, variants: Audience::ALL.map(variant).into(), needs }
}

/// Returns the description of a tool, with the rule about handles if a handle identifies the user (except for
/// `get_support`).
fn describe(name: ToolName, description: &str, audience: Audience) -> String {
    match name {
        _ if !audience.by_handle => description.to_owned(),
        ToolName::Support => description.to_owned(),
        ToolName::Select | ToolName::Complete => {
            format!("{description} {HANDLE_RULE}, and keep it in your notes to resume after a restart.")
        }
        _ => format!("{description} {HANDLE_RULE}."),
    }
}

fn object(value: Value) -> Arc<JsonObject> {
    match value {
        Value::Object(object) => Arc::new(object),
        _ => Arc::default(),
    }
}

static TABLE: LazyLock<Vec<ToolEntry>> = LazyLock::new(table::entries);

/// Returns the tools that a server lists: those of its toolset if it offers a walkthrough, and support if enabled.
#[must_use]
pub fn list(context: &HandlerContext) -> Vec<Tool> {
    TABLE.iter().filter(|entry| entry.is_listed(context)).map(|entry| entry.variant(context).clone()).collect()
}

/// Returns the tool called `name` if it is listed.
pub(crate) fn find_listed(context: &HandlerContext, name: &str) -> Option<Tool> {
    find(name).filter(|entry| entry.is_listed(context)).map(|entry| entry.variant(context).clone())
}

/// Returns the tool called `name`, listed or not. `None` if no server has such a tool.
pub(crate) fn find(name: &str) -> Option<&'static ToolEntry> {
    TABLE.iter().find(|entry| entry.variants.iter().any(|(_, variant)| variant.name == name))
}

impl ToolEntry {
    fn is_enabled(&self, server: &Server) -> bool {
        match self.name {
            ToolName::Support => server.support == Support::Tickets,
            _ => self.toolset.contains(&server.toolset),
        }
    }

    fn is_listed(&self, context: &HandlerContext) -> bool {
        self.is_enabled(&context.offers.server) && (self.name == ToolName::Support || !context.offers.list().is_empty())
    }

    /// Returns the variant of the tool for `context`.
    fn variant(&self, context: &HandlerContext) -> &Tool {
        let audience = Audience::of(context);
        let found = self.variants.iter().find(|(known, _)| *known == audience);
        #[expect(clippy::expect_used, reason = "`entry` creates a variant for every audience")]
        let (_, variant) = found.expect("a variant for every audience");
        variant
    }
}

/// Calls a tool. Every failure is a result with `isError` (MCP, "Error Handling" of tools).
pub(crate) async fn call(context: &HandlerContext, entry: &ToolEntry, input: CallInput) -> CallToolResponse {
    let started = tokio::time::Instant::now();
    let tool = entry.variant(context);
    let mut arguments = input.arguments.unwrap_or_default();
    arguments::drop_absent(&mut arguments, &tool.input_schema);
    let call = context.call_context(&tool.name, arguments::redact(&arguments, &tool.input_schema));
    let result = match check(context, entry, tool, &arguments, input.responses.as_ref()) {
        Ok(email) if entry.name == ToolName::Support => {
            with_timeout(support::call(context, &arguments, email, &call)).await
        }
        Ok(email) => with_timeout(walkthrough::call(context, entry.name, &arguments, email, &call)).await,
        Err(error) => Err(error),
    };
    let outcome = match &result {
        Ok(_) => "ok",
        Err(error) => public_code(error.code),
    };
    metrics::counter!("waypost_tool_calls_total", "tool" => tool.name.to_string(), "outcome" => outcome).increment(1);
    metrics::histogram!("waypost_tool_call_seconds", "tool" => tool.name.to_string())
        .record(started.elapsed().as_secs_f64());
    match result {
        Ok(answer) => {
            // `CallToolResult::structured` would also copy the JSON into a text block.
            let mut result = CallToolResult::success(vec![ContentBlock::text(answer.text)]);
            result.structured_content = Some(answer.structured);
            result.into()
        }
        Err(error) => {
            context.record_failure(&call, &error, text(&arguments, "progress_handle")).await;
            if input.supports_forms
                && email::can_ask(&error, input.responses.as_ref())
                && let Ok(form) = email::form(&context.offers.server)
            {
                return CallToolResponse::InputRequired(form);
            }
            failure(&error).into()
        }
    }
}

/// Checks whether the tool is enabled and its arguments are valid. Returns the email of the call, if it has one that
/// the tool uses. A disabled tool fails with `walkthrough_not_found`, because clients cache lists and settings change
/// (docs/mcp.md, "Tools").
fn check(
    context: &HandlerContext,
    entry: &ToolEntry,
    tool: &Tool,
    arguments: &JsonObject,
    responses: Option<&InputResponses>,
) -> Result<Option<Email>> {
    let server = &context.offers.server;
    if !entry.is_enabled(server) && entry.name == ToolName::Support {
        let message = "Support tickets are disabled on this server. List the tools again.";
        return Err(Error::new(Code::WalkthroughNotFound, message));
    }
    if !entry.is_enabled(server) {
        let message = "This tool is disabled on this server. List the tools again.";
        return Err(Error::new(Code::WalkthroughNotFound, message));
    }
    arguments::check(&tool.input_schema, arguments)?;
    if entry.name == ToolName::Support {
        return text(arguments, "email").map(address::parse).transpose();
    }
    if matches!(entry.name, ToolName::Select | ToolName::Complete) && server.auth_type == AuthType::CollectEmail {
        email::read(arguments, responses)
    } else {
        Ok(None)
    }
}

/// Returns the public code of an error (docs/mcp.md, "Tools").
fn public_code(code: Code) -> &'static str {
    match code {
        // Errors without a public code: the client can only retry.
        Code::Internal
        | Code::Conflict
        | Code::Forbidden
        | Code::NotFound
        | Code::PreconditionFailed
        | Code::ImageNotFound
        | Code::ImageDenied
        | Code::ToolServerError => "unavailable",
        Code::InvalidArguments
        | Code::WalkthroughNotFound
        | Code::WalkthroughEmpty
        | Code::NoActiveWalkthrough
        | Code::AmbiguousWalkthrough
        | Code::StepMismatch
        | Code::StepNotFound
        | Code::ConfirmationRequired
        | Code::HandleUnknown
        | Code::EmailRequired
        | Code::SignInRequired
        | Code::NoProgress
        | Code::RateLimited
        | Code::Unavailable => code.as_str(),
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

/// Returns a text argument.
pub(crate) fn text<'a>(arguments: &'a JsonObject, name: &str) -> Option<&'a str> {
    arguments.get(name).and_then(Value::as_str)
}

/// Returns a required text argument.
///
/// # Errors
/// `invalid_arguments` if it is missing.
pub(crate) fn required<'a>(arguments: &'a JsonObject, name: &str) -> Result<&'a str> {
    text(arguments, name).ok_or_else(|| Error::invalid(name, format!("`{name}` is missing.")))
}
