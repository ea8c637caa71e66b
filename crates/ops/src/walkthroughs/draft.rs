//! Editing the steps of a draft. The chain is read without contents; an edit writes the step and its neighbours.

use serde_json::json;
use waypost_core::access::{Act, authorize};
use waypost_core::caller::Ctx;
use waypost_core::chain::{self, Link, Place};
use waypost_core::id::StepId;
use waypost_core::step::{MAX_STEPS, Step, StepContent};
use waypost_core::walkthrough::Walkthrough;
use waypost_core::{Code, Error, Result};
use waypost_store::{Tx, step};

use super::{Target, clean, note, open, save_edit};
use crate::Ops;

/// A step to add.
#[derive(Debug, Clone)]
pub struct NewStep {
    /// The author's own name of it, unique in the walkthrough.
    pub key: Option<String>,
    /// The author's part.
    pub content: StepContent,
    /// Where to put it.
    pub place: Place,
}

/// What to change of a step; what is absent stays.
#[derive(Debug, Clone, Default)]
pub struct StepChange {
    /// The author's own name of it; `Some(None)` clears it.
    pub key: Option<Option<String>>,
    /// The author's part, as a whole.
    pub content: Option<StepContent>,
}

/// A step after an edit.
#[derive(Debug, Clone, PartialEq)]
pub struct Edited {
    /// The revision of the walkthrough, for the next edit.
    pub revision: u32,
    /// The step.
    pub step: Step,
}

/// Adds a step.
///
/// # Errors
/// `invalid_arguments` naming the field; `step_not_found` when the place names none; `conflict` when the key is taken or
/// there are 500 steps; `precondition_failed` when the draft has changed meanwhile.
pub async fn add_step(cx: &Ctx, ops: &Ops, target: Target<'_>, new: NewStep) -> Result<Edited> {
    authorize(&cx.caller, Act::WalkthroughWrite, target.organization_id)?;
    let content = clean::step(new.content, &clean::argument)?;
    let key = clean::key(new.key, &clean::argument)?;
    let mut tx = ops.db.begin().await?;
    let (mut head, chain) = open_chain(&mut tx, target).await?;
    if chain.len() >= MAX_STEPS {
        let message = format!("A walkthrough has {MAX_STEPS} steps at most. Delete one, or split the walkthrough.");
        return Err(Error::new(Code::Conflict, message));
    }
    key_is_free(&chain, key.as_deref(), None)?;
    let id = StepId::new(&*cx.random);
    let links = chain::insert(&chain, &id, &new.place)?;
    let mut steps = [Step { id, ordinal: head.next_ordinal, key, next_step_id: None, content }];
    chain::apply(&mut steps, &links);
    head.next_ordinal += 1;
    step::insert(&mut tx, target.organization_id, target.walkthrough_id, &steps).await?;
    // The new step's own link was inserted with it.
    let links: Vec<_> = links.into_iter().filter(|link| link.from.as_ref() != Some(&steps[0].id)).collect();
    relink(&mut tx, &mut head, &links).await?;
    let [step] = steps;
    finish(cx, tx, head, "step.add", step).await
}

/// Changes what a step holds.
///
/// # Errors
/// As [`add_step`].
pub async fn update_step(cx: &Ctx, ops: &Ops, target: Target<'_>, id: &StepId, change: StepChange) -> Result<Edited> {
    authorize(&cx.caller, Act::WalkthroughWrite, target.organization_id)?;
    let content = change.content.map(|content| clean::step(content, &clean::argument)).transpose()?;
    let key = change.key.map(|key| clean::key(key, &clean::argument)).transpose()?;
    let mut tx = ops.db.begin().await?;
    let head = open(&mut tx, target).await?;
    let found = step::find(&mut tx, target.organization_id, target.walkthrough_id, id).await?;
    let before = found.ok_or_else(|| no_step(id))?;
    let after = Step {
        key: key.unwrap_or_else(|| before.key.clone()),
        content: content.unwrap_or_else(|| before.content.clone()),
        ..before.clone()
    };
    if after == before {
        return Ok(Edited { revision: head.revision, step: after });
    }
    if after.key != before.key {
        let others = step::outline(&mut tx, target.organization_id, target.walkthrough_id).await?;
        key_is_free(&others, after.key.as_deref(), Some(id))?;
    }
    step::update(&mut tx, target.organization_id, target.walkthrough_id, [&after]).await?;
    finish(cx, tx, head, "step.update", after).await
}

/// Moves a step to another place.
///
/// # Errors
/// As [`add_step`]; `conflict` when the step is to follow itself.
pub async fn move_step(cx: &Ctx, ops: &Ops, target: Target<'_>, id: &StepId, place: &Place) -> Result<Edited> {
    authorize(&cx.caller, Act::WalkthroughWrite, target.organization_id)?;
    let mut tx = ops.db.begin().await?;
    let (mut head, chain) = open_chain(&mut tx, target).await?;
    let links = chain::relocate(&chain, id, place)?;
    let mut after = chain.clone();
    let first = chain::apply(&mut after, &links).unwrap_or_else(|| head.first_step_id.clone());
    let moved = after != chain || first != head.first_step_id;
    if moved {
        relink(&mut tx, &mut head, &links).await?;
    }
    let step = step::find(&mut tx, target.organization_id, target.walkthrough_id, id).await?;
    let step = step.ok_or_else(|| no_step(id))?;
    if moved { finish(cx, tx, head, "step.move", step).await } else { Ok(Edited { revision: head.revision, step }) }
}

/// Deletes a step from the draft. Versions that have it keep it, and so does who completed it. Gives the walkthrough's
/// revision.
///
/// # Errors
/// As [`add_step`].
pub async fn delete_step(cx: &Ctx, ops: &Ops, target: Target<'_>, id: &StepId) -> Result<u32> {
    authorize(&cx.caller, Act::WalkthroughWrite, target.organization_id)?;
    let mut tx = ops.db.begin().await?;
    let (mut head, mut chain) = open_chain(&mut tx, target).await?;
    let links = chain::remove(&chain, id)?;
    relink(&mut tx, &mut head, &links).await?;
    step::delete(&mut tx, target.organization_id, target.walkthrough_id, [id]).await?;
    let at = chain.iter().position(|step| step.id == *id).ok_or_else(|| no_step(id))?;
    Ok(finish(cx, tx, head, "step.delete", chain.swap_remove(at)).await?.revision)
}

fn no_step(id: &StepId) -> Error {
    Error::new(Code::StepNotFound, format!("The walkthrough has no step {id}.")).with("step_id", id.as_str())
}

/// Locks the head and reads the chain without contents.
async fn open_chain(tx: &mut Tx, target: Target<'_>) -> Result<(Walkthrough, Vec<Step>)> {
    let head = open(tx, target).await?;
    let steps = step::outline(tx, target.organization_id, target.walkthrough_id).await?;
    let steps = chain::order(head.first_step_id.as_ref(), steps)?;
    Ok((head, steps))
}

/// Writes the links between steps; that of the head goes into `head`, which is written at the end.
async fn relink(tx: &mut Tx, head: &mut Walkthrough, links: &[Link]) -> Result<()> {
    step::relink(tx, &head.organization_id, &head.id, links).await?;
    if let Some(first) = links.iter().rev().find(|link| link.from.is_none()) {
        head.first_step_id.clone_from(&first.to);
    }
    Ok(())
}

fn key_is_free(steps: &[Step], key: Option<&str>, own: Option<&StepId>) -> Result<()> {
    let Some(key) = key else { return Ok(()) };
    match steps.iter().find(|step| step.key.as_deref() == Some(key) && Some(&step.id) != own) {
        Some(other) => {
            let message = format!("The step {} (\"{}\") has the key `{key}` already.", other.id, other.content.title);
            Err(Error::new(Code::Conflict, message).with("field", "key").with("step_id", other.id.as_str()))
        }
        None => Ok(()),
    }
}

async fn finish(cx: &Ctx, mut tx: Tx, mut head: Walkthrough, act: &'static str, step: Step) -> Result<Edited> {
    save_edit(cx, &mut tx, &mut head).await?;
    let detail = json!({ "revision": head.revision, "step_id": step.id, "title": step.content.title });
    note(cx, &mut tx, &head, act, detail).await?;
    tx.commit().await?;
    Ok(Edited { revision: head.revision, step })
}
