//! The walkthrough tools: they read arguments, call the operations of [`waypost_ops::progress`], and return structured
//! content and text.

use rmcp::model::JsonObject;
use serde_json::{Value, json};
use waypost_content::guidance::{self, ToolFlow, UserIdentity, WalkthroughChoice};
use waypost_content::render::{self, DetailsView, ListRow};
pub use waypost_content::tool_result::ToolResult;
use waypost_content::tool_result::{self, ResultContext};
use waypost_core::email::Email;
use waypost_core::id::StepId;
use waypost_core::progress::operations::SelectOptions;
use waypost_core::progress::{ProgressView, Status};
use waypost_core::{Code, Error, Result};
use waypost_ops::call_records::CallContext;
use waypost_ops::offers::Offer;
use waypost_ops::progress::{self, ListResult, OfferProgress, PlayRequest, StepResult};
use waypost_ops::search;

use super::{ToolName, required, text};
use crate::context::HandlerContext;

/// The maximum number of walkthroughs on a page.
const PAGE_SIZE: usize = 200;
/// The maximum number of characters of a step ID. The rest is ignored.
const MAX_STEP_ID: usize = 64;

/// Calls the tool `name`.
///
/// # Errors
/// Those of the operation.
pub(super) async fn call(
    context: &HandlerContext,
    name: ToolName,
    arguments: &JsonObject,
    email: Option<Email>,
    call: &CallContext,
) -> Result<ToolResult> {
    let (cx, hosting) = (&context.cx, &context.hosting);
    let credentials = context.credentials(text(arguments, "progress_handle"))?;
    let play = PlayRequest { offers: &context.offers, credentials, email, call };
    let walkthrough = || required(arguments, "walkthrough_id");
    let flow = match name {
        ToolName::List | ToolName::Reset | ToolName::Support => context.offers.server.toolset.into(),
        ToolName::Select | ToolName::Next | ToolName::Status => ToolFlow::Guided,
        ToolName::Details | ToolName::Current | ToolName::Complete | ToolName::Move | ToolName::Steps => {
            ToolFlow::Stepwise
        }
    };
    match name {
        ToolName::List => {
            // Must precede the operation, which records the call as successful.
            let page = Page::read(context, arguments).await?;
            Ok(list(&progress::list(cx, hosting, &play).await?, flow, &page))
        }
        ToolName::Select => {
            let options = SelectOptions {
                resume: arguments.get("resume_if_exists").and_then(Value::as_bool).unwrap_or(true),
                to_latest: text(arguments, "use_version") == Some("latest"),
                confirmed: is_confirmed(arguments),
            };
            Ok(step(&progress::select(cx, hosting, &play, walkthrough()?, options).await?, flow))
        }
        ToolName::Next => {
            let current = text(arguments, "current_step_id").map(step_id);
            Ok(step(&progress::advance(cx, hosting, &play, text(arguments, "walkthrough_id"), current).await?, flow))
        }
        ToolName::Status => Ok(status(&progress::get_status(cx, hosting, &play, walkthrough()?).await?, flow)),
        ToolName::Reset => {
            let id = walkthrough()?;
            if !is_confirmed(arguments) {
                // Report an unknown walkthrough first: the user should not confirm what cannot be done.
                context.offers.get(id)?;
                let message = "Resetting ends the user's attempt. Ask the user, then call again with confirm true.";
                return Err(Error::new(Code::ConfirmationRequired, message));
            }
            Ok(reset(&progress::reset(cx, hosting, &play, id).await?, flow))
        }
        ToolName::Details => Ok(details(&progress::get_status(cx, hosting, &play, walkthrough()?).await?, flow)),
        ToolName::Current => Ok(step(&progress::get_status(cx, hosting, &play, walkthrough()?).await?, flow)),
        ToolName::Complete => {
            let step_id = step_id(required(arguments, "step_id")?);
            Ok(step(&progress::complete_step(cx, hosting, &play, walkthrough()?, step_id).await?, flow))
        }
        ToolName::Move => Ok(step(&progress::move_to_latest(cx, hosting, &play, walkthrough()?).await?, flow)),
        ToolName::Steps => Ok(steps(&progress::get_status(cx, hosting, &play, walkthrough()?).await?, flow)),
        ToolName::Support => Err(Error::internal("get_support is not a walkthrough tool")),
    }
}

/// Whether the user has confirmed.
fn is_confirmed(arguments: &JsonObject) -> bool {
    arguments.get("confirm").and_then(Value::as_bool) == Some(true)
}

/// Returns the step ID that the client sent. An ID that is too long to exist is truncated, because it is echoed.
fn step_id(text: &str) -> StepId {
    StepId::from_store(text.chars().take(MAX_STEP_ID).collect())
}

fn result_context(result: &StepResult, flow: ToolFlow) -> ResultContext<'_> {
    ResultContext {
        walkthrough_id: &result.offer.walkthrough_id,
        slug: &result.offer.slug,
        progress: &result.progress,
        completed_step_id: result.completed_step_id.as_ref(),
        notices: &result.notices,
        user: &result.user,
        flow,
    }
}

/// Returns the result of a tool that shows a step.
fn step(result: &StepResult, flow: ToolFlow) -> ToolResult {
    tool_result::step_result(&result_context(result, flow))
}

/// Adds the members that every result of a walkthrough tool has.
fn with_message(mut structured: Value, user: &UserIdentity, message: String) -> Value {
    structured["progress_handle"] = user.handle().into();
    structured["message"] = message.into();
    structured
}

fn steps_json(progress: &ProgressView) -> Vec<Value> {
    let current = progress.current();
    let steps = progress.version.steps().iter().enumerate();
    steps
        .map(|(index, step)| {
            let state = match index {
                _ if progress.is_completed(index) => "completed",
                index if Some(index) == current => "current",
                _ => "pending",
            };
            json!({
                "id": step.id,
                "title": step.content.title,
                "section_title": step.content.section_title,
                "position": index + 1,
                "state": state,
            })
        })
        .collect()
}

fn status(result: &StepResult, flow: ToolFlow) -> ToolResult {
    let context = result_context(result, flow);
    let message = context.guide().status_message(&result.progress, &result.notices);
    let text = render::outline(&result.progress, &message);
    let structured = json!({
        "walkthrough": tool_result::walkthrough_json(&context),
        "progress": tool_result::progress_json(&result.progress),
        "steps": steps_json(&result.progress),
    });
    ToolResult { structured: with_message(structured, &result.user, message), text }
}

fn steps(result: &StepResult, flow: ToolFlow) -> ToolResult {
    let context = result_context(result, flow);
    let message = context.guide().status_message(&result.progress, &result.notices);
    let text = render::outline(&result.progress, &message);
    let structured =
        json!({ "walkthrough": tool_result::walkthrough_json(&context), "steps": steps_json(&result.progress) });
    ToolResult { structured: with_message(structured, &result.user, message), text }
}

fn reset(result: &StepResult, flow: ToolFlow) -> ToolResult {
    let message = result_context(result, flow).guide().reset_message();
    let structured = json!({ "walkthrough_id": result.offer.walkthrough_id, "reset": true });
    ToolResult { structured: with_message(structured, &result.user, message.clone()), text: message }
}

/// Returns the details of a walkthrough. The steps are those of the user's version; the description is that of the
/// latest version.
fn details(result: &StepResult, flow: ToolFlow) -> ToolResult {
    let (offer, progress, context) = (&result.offer, &result.progress, result_context(result, flow));
    let message = context.guide().status_message(progress, &result.notices);
    let mut row = row(offer, progress.status(), progress.percent());
    row.steps = u32::try_from(progress.version.step_count()).unwrap_or(u32::MAX);
    row.title = &progress.version.title;
    let view = DetailsView { row: &row, kind: offer.kind.as_str(), tags: &offer.tags, progress };
    let text = render::details(&view, &message);
    let mut walkthrough = tool_result::walkthrough_json(&context);
    walkthrough["description"] = json!(offer.description);
    walkthrough["type"] = json!(offer.kind.as_str());
    walkthrough["tags"] = json!(offer.tags);
    walkthrough["step_count"] = json!(row.steps);
    walkthrough["estimated_duration_minutes"] = json!(offer.estimated_duration_minutes);
    let current = progress.current().map(|index| {
        let step = &progress.version.steps()[index];
        let (title, section_title) = (&step.content.title, &step.content.section_title);
        json!({ "id": step.id, "position": index + 1, "title": title, "section_title": section_title })
    });
    let progress = tool_result::progress_json(progress);
    let structured = json!({ "walkthrough": walkthrough, "progress": progress, "current_step": current });
    ToolResult { structured: with_message(structured, &result.user, message), text }
}

fn row(offer: &Offer, status: Status, percent: u8) -> ListRow<'_> {
    ListRow {
        id: offer.walkthrough_id.as_str(),
        title: &offer.title,
        description: &offer.description,
        steps: offer.step_count,
        minutes: offer.estimated_duration_minutes,
        status,
        percent,
    }
}

/// The page of the list that a call requests.
struct Page<'a> {
    /// The query, if it contains a word.
    query: Option<&'a str>,
    /// The positions of the matching walkthroughs: best match first, or in display order without a query.
    matches: Vec<usize>,
    /// The number of matches before this page.
    offset: usize,
}

impl<'a> Page<'a> {
    /// Reads the page from the arguments of a call.
    ///
    /// # Errors
    /// `invalid_arguments` for an invalid cursor; `unavailable` if the search fails.
    async fn read(context: &HandlerContext, arguments: &'a JsonObject) -> Result<Self> {
        let (offers, query) = (&context.offers, text(arguments, "query"));
        let ranked = match query {
            Some(query) => search::rank_offers(&context.cx, &context.hosting, offers, query).await?,
            None => None,
        };
        let query = query.filter(|_| ranked.is_some());
        let matches = ranked.unwrap_or_else(|| (0..offers.list().len()).collect());
        let Some(cursor) = text(arguments, "cursor") else { return Ok(Self { query, matches, offset: 0 }) };
        let id = |position: &usize| offers.list().get(*position).map(|offer| offer.walkthrough_id.as_str());
        match matches.iter().position(|position| id(position) == Some(cursor)) {
            Some(last) => Ok(Self { query, matches, offset: last + 1 }),
            None => Err(Error::invalid("cursor", "`cursor` is invalid. Start again without it.")),
        }
    }
}

fn list(listed: &ListResult<'_>, flow: ToolFlow, request: &Page<'_>) -> ToolResult {
    let rest: Vec<&OfferProgress<'_>> =
        request.matches.iter().skip(request.offset).filter_map(|position| listed.rows.get(*position)).collect();
    let page = &rest[..rest.len().min(PAGE_SIZE)];
    let next_cursor =
        (rest.len() > PAGE_SIZE).then(|| page.last().map(|row| row.offer.walkthrough_id.clone())).flatten();
    let walkthroughs: Vec<Value> = page
        .iter()
        .map(|OfferProgress { offer, status, percent }| {
            json!({
                "id": offer.walkthrough_id,
                "slug": offer.slug,
                "title": offer.title,
                "description": offer.description,
                "type": offer.kind.as_str(),
                "step_count": offer.step_count,
                "estimated_duration_minutes": offer.estimated_duration_minutes,
                "tags": offer.tags,
                "version": offer.version,
                "status": status.as_str(),
                "progress_percent": percent,
            })
        })
        .collect();
    let rows: Vec<ListRow<'_>> = page.iter().map(|listed| row(listed.offer, listed.status, listed.percent)).collect();
    let choices: Vec<WalkthroughChoice<'_>> = page
        .iter()
        .map(|OfferProgress { offer, status, .. }| WalkthroughChoice {
            walkthrough_id: &offer.walkthrough_id,
            title: &offer.title,
            status: *status,
        })
        .collect();
    let message = match (choices.is_empty(), request.query) {
        (false, _) => guidance::list_message(flow, &listed.user, &choices, next_cursor.is_some()),
        (true, Some(query)) if !listed.rows.is_empty() => guidance::no_match_message(query, listed.rows.len()),
        (true, _) => "No walkthroughs are available at the moment.".to_owned(),
    };
    let text = render::list(&rows, &message);
    let structured = json!({ "walkthroughs": walkthroughs, "next_cursor": next_cursor });
    ToolResult { structured: with_message(structured, &listed.user, message), text }
}
