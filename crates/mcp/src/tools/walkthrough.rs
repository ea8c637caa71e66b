//! The walkthrough tools: arguments in, acts of [`waypost_ops::progress`], structured content and text out.

use rmcp::model::JsonObject;
use serde_json::{Value, json};
pub use waypost_core::answer::Answer;
use waypost_core::answer::{self, Played};
use waypost_core::email::Email;
use waypost_core::guidance::{self, Choice, Flow, User};
use waypost_core::id::StepId;
use waypost_core::progress::act::Select;
use waypost_core::progress::{Standing, Status};
use waypost_core::render::{self, DetailsView, ListRow};
use waypost_core::{Code, Error, Result};
use waypost_ops::call_records::CallContext;
use waypost_ops::offers::Offer;
use waypost_ops::progress::{self, ListResult, OfferProgress, PlayRequest, StepResult};
use waypost_ops::search;

use super::{Name, required, text};
use crate::target::Target;

/// Walkthroughs on a page of the list.
const PAGE: usize = 200;
/// Characters of a step's id that are looked at.
const MAX_STEP_ID: usize = 64;

/// Calls the tool `name`.
///
/// # Errors
/// As the act behind it.
pub(super) async fn call(
    target: &Target,
    name: Name,
    arguments: &JsonObject,
    email: Option<Email>,
    call: &CallContext,
) -> Result<Answer> {
    let (cx, hosting) = (&target.cx, &target.hosting);
    let credentials = target.credentials(text(arguments, "progress_handle"))?;
    let play = PlayRequest { offers: &target.offers, credentials, email, call };
    let walkthrough = || required(arguments, "walkthrough_id");
    let flow = match name {
        Name::List | Name::Reset | Name::Support => target.offers.server.toolset.into(),
        Name::Select | Name::Next | Name::Status => Flow::Guided,
        Name::Details | Name::Current | Name::Complete | Name::Move | Name::Steps => Flow::Stepwise,
    };
    match name {
        Name::List => {
            // Before the act, which records the call as one that succeeded.
            let page = Page::read(target, arguments).await?;
            Ok(list(&progress::list(cx, hosting, &play).await?, flow, &page))
        }
        Name::Select => {
            let how = Select {
                resume: arguments.get("resume_if_exists").and_then(Value::as_bool).unwrap_or(true),
                to_latest: text(arguments, "use_version") == Some("latest"),
                confirmed: is_confirmed(arguments),
            };
            Ok(step(&progress::select(cx, hosting, &play, walkthrough()?, how).await?, flow))
        }
        Name::Next => {
            let current = text(arguments, "current_step_id").map(step_id);
            Ok(step(&progress::advance(cx, hosting, &play, text(arguments, "walkthrough_id"), current).await?, flow))
        }
        Name::Status => Ok(status(&progress::get_status(cx, hosting, &play, walkthrough()?).await?, flow)),
        Name::Reset => {
            let id = walkthrough()?;
            if !is_confirmed(arguments) {
                // An unknown walkthrough is reported first: nobody should confirm what cannot be done.
                target.offers.get(id)?;
                let message = "Resetting ends the user's attempt. Ask the user, then call again with confirm true.";
                return Err(Error::new(Code::ConfirmationRequired, message));
            }
            Ok(reset(&progress::reset(cx, hosting, &play, id).await?, flow))
        }
        Name::Details => Ok(details(&progress::get_status(cx, hosting, &play, walkthrough()?).await?, flow)),
        Name::Current => Ok(step(&progress::get_status(cx, hosting, &play, walkthrough()?).await?, flow)),
        Name::Complete => {
            let step_id = step_id(required(arguments, "step_id")?);
            Ok(step(&progress::complete_step(cx, hosting, &play, walkthrough()?, step_id).await?, flow))
        }
        Name::Move => Ok(step(&progress::move_to_latest(cx, hosting, &play, walkthrough()?).await?, flow)),
        Name::Steps => Ok(steps(&progress::get_status(cx, hosting, &play, walkthrough()?).await?, flow)),
        Name::Support => Err(Error::internal("support is none of the walkthrough tools")),
    }
}

/// Whether the user has agreed.
fn is_confirmed(arguments: &JsonObject) -> bool {
    arguments.get("confirm").and_then(Value::as_bool) == Some(true)
}

/// A step's id as it was sent. One that is longer than any is cut: it is none, and is said back.
fn step_id(text: &str) -> StepId {
    StepId::from_store(text.chars().take(MAX_STEP_ID).collect())
}

fn played(answer: &StepResult, flow: Flow) -> Played<'_> {
    Played {
        walkthrough_id: &answer.offer.walkthrough_id,
        slug: &answer.offer.slug,
        standing: &answer.standing,
        completed_step_id: answer.completed_step_id.as_ref(),
        notices: &answer.notices,
        user: &answer.user,
        flow,
    }
}

/// The step result of contract, section 4.
fn step(answer: &StepResult, flow: Flow) -> Answer {
    answer::step(&played(answer, flow))
}

/// A result with the members that every walkthrough tool has.
fn with_message(mut structured: Value, user: &User, message: String) -> Value {
    structured["progress_handle"] = user.handle().into();
    structured["message"] = message.into();
    structured
}

fn steps_json(standing: &Standing) -> Vec<Value> {
    let current = standing.current();
    let steps = standing.version.steps().iter().enumerate();
    steps
        .map(|(index, step)| {
            let state = match index {
                _ if standing.is_completed(index) => "completed",
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

fn status(answer: &StepResult, flow: Flow) -> Answer {
    let played = played(answer, flow);
    let message = played.guide().status_message(&answer.standing, &answer.notices);
    let text = render::outline(&answer.standing, &message);
    let structured = json!({
        "walkthrough": answer::walkthrough(&played),
        "progress": answer::progress(&answer.standing),
        "steps": steps_json(&answer.standing),
    });
    Answer { structured: with_message(structured, &answer.user, message), text }
}

fn steps(answer: &StepResult, flow: Flow) -> Answer {
    let played = played(answer, flow);
    let message = played.guide().status_message(&answer.standing, &answer.notices);
    let text = render::outline(&answer.standing, &message);
    let structured = json!({ "walkthrough": answer::walkthrough(&played), "steps": steps_json(&answer.standing) });
    Answer { structured: with_message(structured, &answer.user, message), text }
}

fn reset(answer: &StepResult, flow: Flow) -> Answer {
    let message = played(answer, flow).guide().reset_message();
    let structured = json!({ "walkthrough_id": answer.offer.walkthrough_id, "reset": true });
    Answer { structured: with_message(structured, &answer.user, message.clone()), text: message }
}

/// What there is to know about a walkthrough. The steps are those of the user's version; what describes the walkthrough is
/// as published last.
fn details(answer: &StepResult, flow: Flow) -> Answer {
    let (offer, standing, played) = (&answer.offer, &answer.standing, played(answer, flow));
    let message = played.guide().status_message(standing, &answer.notices);
    let mut row = row(offer, standing.status(), standing.percent());
    row.steps = u32::try_from(standing.version.total()).unwrap_or(u32::MAX);
    row.title = &standing.version.title;
    let view = DetailsView { row: &row, kind: offer.kind.as_str(), tags: &offer.tags, standing };
    let text = render::details(&view, &message);
    let mut walkthrough = answer::walkthrough(&played);
    walkthrough["description"] = json!(offer.description);
    walkthrough["type"] = json!(offer.kind.as_str());
    walkthrough["tags"] = json!(offer.tags);
    walkthrough["step_count"] = json!(row.steps);
    walkthrough["estimated_duration_minutes"] = json!(offer.estimated_duration_minutes);
    let current = standing.current().map(|index| {
        let step = &standing.version.steps()[index];
        let (title, section_title) = (&step.content.title, &step.content.section_title);
        json!({ "id": step.id, "position": index + 1, "title": title, "section_title": section_title })
    });
    let progress = answer::progress(standing);
    let structured = json!({ "walkthrough": walkthrough, "progress": progress, "current_step": current });
    Answer { structured: with_message(structured, &answer.user, message), text }
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

/// Which walkthroughs a call asks for.
struct Page<'a> {
    /// The query, if it has a word.
    query: Option<&'a str>,
    /// The positions of the matching walkthroughs, best first; in display order without a query.
    found: Vec<usize>,
    /// How many of them come before this page.
    after: usize,
}

impl<'a> Page<'a> {
    /// # Errors
    /// `invalid_arguments` for a cursor that is not one of this list; `unavailable`.
    async fn read(target: &Target, arguments: &'a JsonObject) -> Result<Self> {
        let (offers, query) = (&target.offers, text(arguments, "query"));
        let ranked = match query {
            Some(query) => search::rank_offers(&target.cx, &target.hosting, offers, query).await?,
            None => None,
        };
        let query = query.filter(|_| ranked.is_some());
        let found = ranked.unwrap_or_else(|| (0..offers.list().len()).collect());
        let Some(cursor) = text(arguments, "cursor") else { return Ok(Self { query, found, after: 0 }) };
        let id = |position: &usize| offers.list().get(*position).map(|offer| offer.walkthrough_id.as_str());
        match found.iter().position(|position| id(position) == Some(cursor)) {
            Some(last) => Ok(Self { query, found, after: last + 1 }),
            None => Err(Error::invalid("cursor", "`cursor` is not one that this server gave. Begin without it.")),
        }
    }
}

fn list(listed: &ListResult<'_>, flow: Flow, asked: &Page<'_>) -> Answer {
    let rest: Vec<&OfferProgress<'_>> =
        asked.found.iter().skip(asked.after).filter_map(|position| listed.rows.get(*position)).collect();
    let page = &rest[..rest.len().min(PAGE)];
    let next_cursor = (rest.len() > PAGE).then(|| page.last().map(|row| row.offer.walkthrough_id.clone())).flatten();
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
    let choices: Vec<Choice<'_>> = page
        .iter()
        .map(|OfferProgress { offer, status, .. }| Choice {
            walkthrough_id: &offer.walkthrough_id,
            title: &offer.title,
            status: *status,
        })
        .collect();
    let message = match (choices.is_empty(), asked.query) {
        (false, _) => guidance::list_message(flow, &listed.user, &choices, next_cursor.is_some()),
        (true, Some(query)) if !listed.rows.is_empty() => guidance::no_match(query, listed.rows.len()),
        (true, _) => "There are no walkthroughs here at the moment.".to_owned(),
    };
    let text = render::list(&rows, &message);
    let structured = json!({ "walkthroughs": walkthroughs, "next_cursor": next_cursor });
    Answer { structured: with_message(structured, &listed.user, message), text }
}
