//! The walkthrough tools: arguments in, acts of [`waypost_ops::progress`], structured content and text out.

use rmcp::model::JsonObject;
use serde_json::{Value, json};
pub use waypost_core::answer::Answer;
use waypost_core::answer::{self, Played};
use waypost_core::email::Email;
use waypost_core::id::StepId;
use waypost_core::progress::act::Select;
use waypost_core::progress::{Standing, Status};
use waypost_core::render::{self, ListRow};
use waypost_core::{Code, Error, Result};
use waypost_ops::offers::{Offer, Offers};
use waypost_ops::progress::{self, Listed, Play, StepAnswer};
use waypost_ops::record::Arrival;

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
    arrival: &Arrival,
) -> Result<Answer> {
    let (cx, hosting) = (&target.cx, &target.hosting);
    let presented = target.presented(text(arguments, "progress_handle"))?;
    let play = Play { offers: &target.offers, presented, email, arrival };
    let walkthrough = || required(arguments, "walkthrough_id");
    match name {
        Name::List => {
            // Before the act, which records the call as one that succeeded.
            let after = read_cursor(&target.offers, text(arguments, "cursor"))?;
            let listed = progress::list(cx, hosting, &play).await?;
            Ok(list(&listed[after..], text(arguments, "query")))
        }
        Name::Select => {
            let how = Select {
                resume: arguments.get("resume_if_exists").and_then(Value::as_bool).unwrap_or(true),
                to_latest: text(arguments, "use_version") == Some("latest"),
            };
            Ok(step(&progress::select(cx, hosting, &play, walkthrough()?, how).await?, true))
        }
        Name::Next => {
            let current = text(arguments, "current_step_id").map(step_id);
            Ok(step(&progress::advance(cx, hosting, &play, text(arguments, "walkthrough_id"), current).await?, true))
        }
        Name::Status => Ok(status(&progress::status(cx, hosting, &play, walkthrough()?).await?)),
        Name::Reset => {
            let id = walkthrough()?;
            if arguments.get("confirm").and_then(Value::as_bool) != Some(true) {
                // An unknown walkthrough is said first: nobody should confirm what cannot be done.
                target.offers.find(id)?;
                let message = "Resetting ends the user's attempt. Ask the user, then call again with confirm true.";
                return Err(Error::new(Code::ConfirmationRequired, message));
            }
            let answer = progress::reset(cx, hosting, &play, id).await?;
            let text = format!("The progress in \"{}\" is reset. Its history is kept.", answer.offer.title);
            Ok(Answer { structured: json!({ "walkthrough_id": answer.offer.walkthrough_id, "reset": true }), text })
        }
        Name::Details => {
            let answer = progress::status(cx, hosting, &play, walkthrough()?).await?;
            let structured = json!({ "walkthrough": head(&answer), "progress": progress_json(&answer.standing) });
            Ok(Answer { structured, text: details(&answer) })
        }
        Name::Current => Ok(step(&progress::status(cx, hosting, &play, walkthrough()?).await?, false)),
        Name::Complete => {
            let step_id = step_id(required(arguments, "step_id")?);
            Ok(step(&progress::complete_step(cx, hosting, &play, walkthrough()?, step_id).await?, false))
        }
        Name::Steps => {
            let answer = progress::status(cx, hosting, &play, walkthrough()?).await?;
            let structured = json!({ "walkthrough": head(&answer), "steps": steps_json(&answer.standing) });
            Ok(Answer { structured, text: render::outline(&answer.standing, &render::message(&answer.notices)) })
        }
        Name::Support => Err(Error::internal("support is none of the walkthrough tools")),
    }
}

/// A step's id as it was sent. One that is longer than any is cut: it is none, and is said back.
fn step_id(text: &str) -> StepId {
    StepId::from_store(text.chars().take(MAX_STEP_ID).collect())
}

fn played(answer: &StepAnswer) -> Played<'_> {
    Played {
        walkthrough_id: &answer.offer.walkthrough_id,
        slug: &answer.offer.slug,
        standing: &answer.standing,
        completed_step_id: answer.completed_step_id.as_ref(),
        notices: &answer.notices,
        handle: answer.handle.as_deref(),
    }
}

fn head(answer: &StepAnswer) -> Value {
    answer::walkthrough(&played(answer))
}

fn progress_json(standing: &Standing) -> Value {
    answer::progress(standing)
}

/// The step result of contract, section 4.
fn step(answer: &StepAnswer, guided: bool) -> Answer {
    answer::step(&played(answer), guided)
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

fn status(answer: &StepAnswer) -> Answer {
    let structured = json!({
        "walkthrough": head(answer),
        "progress": progress_json(&answer.standing),
        "steps": steps_json(&answer.standing),
    });
    Answer { structured, text: render::outline(&answer.standing, &render::message(&answer.notices)) }
}

fn details(answer: &StepAnswer) -> String {
    let row = row(&answer.offer, answer.standing.status(), answer.standing.percent());
    let text = render::list(&[row], false);
    // The line about select_walkthrough belongs to the other toolset.
    text.lines().filter(|line| !line.starts_with("Call select_walkthrough")).collect::<Vec<_>>().join("\n")
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

/// Every word of the query stands in the title, the description or a tag.
fn matches(offer: &Offer, words: &[String]) -> bool {
    let text = format!("{} {} {}", offer.title, offer.description, offer.tags.join(" ")).to_lowercase();
    words.iter().all(|word| text.contains(word))
}

/// How many offers stand before the page that the cursor begins.
fn read_cursor(offers: &Offers, cursor: Option<&str>) -> Result<usize> {
    let Some(cursor) = cursor else { return Ok(0) };
    match offers.list().iter().position(|offer| offer.walkthrough_id.as_str() == cursor) {
        Some(last) => Ok(last + 1),
        None => Err(Error::invalid("cursor", "`cursor` is not one that this server gave. Begin without it.")),
    }
}

fn list(listed: &[Listed<'_>], query: Option<&str>) -> Answer {
    let words: Vec<String> = query.unwrap_or_default().to_lowercase().split_whitespace().map(str::to_owned).collect();
    let found: Vec<&Listed<'_>> = listed.iter().filter(|row| matches(row.offer, &words)).collect();
    let page = &found[..found.len().min(PAGE)];
    let next_cursor = (found.len() > PAGE).then(|| page.last().map(|row| row.offer.walkthrough_id.clone())).flatten();
    let walkthroughs: Vec<Value> = page
        .iter()
        .map(|Listed { offer, status, percent }| {
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
    let text = render::list(&rows, next_cursor.is_some());
    Answer { structured: json!({ "walkthroughs": walkthroughs, "next_cursor": next_cursor }), text }
}
