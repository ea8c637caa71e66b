//! The chain of a draft's steps: each names the next, so that a change touches its neighbours only.

use std::collections::HashMap;

use crate::error::{Code, Error, Result};
use crate::id::StepId;
use crate::step::Step;

/// Where to put a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Before all others.
    First,
    /// After this step.
    After(StepId),
    /// After all others.
    Last,
}

/// A pointer that changes: the step whose `next_step_id` is set, or none for the walkthrough's `first_step_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The step that points; none means the head of the chain.
    pub from: Option<StepId>,
    /// What it points to from now on.
    pub to: Option<StepId>,
}

fn broken(step: &Step, why: &str) -> Error {
    let message = format!("The chain of steps {why} at step {} (\"{}\").", step.id, step.content.title);
    Error::new(Code::Conflict, message).with("step_id", step.id.as_str())
}

/// The steps in order, each exactly once.
///
/// # Errors
/// `conflict` naming the step at which the chain is broken (points to a step that is not there), cyclic, forked
/// (two steps point to one) or not reached from the head.
pub fn order(first: Option<&StepId>, steps: Vec<Step>) -> Result<Vec<Step>> {
    let by_id: HashMap<StepId, usize> = steps.iter().enumerate().map(|(at, step)| (step.id.clone(), at)).collect();
    let mut pointed_at: HashMap<&StepId, &Step> = HashMap::new();
    for step in &steps {
        let Some(next) = &step.next_step_id else { continue };
        if !by_id.contains_key(next) {
            return Err(broken(step, "is broken"));
        }
        if Some(next) == first {
            return Err(broken(step, "is cyclic"));
        }
        if pointed_at.insert(next, step).is_some() {
            return Err(broken(step, "is forked"));
        }
    }
    let mut sequence = Vec::with_capacity(steps.len());
    let mut seen = vec![false; steps.len()];
    let mut next = first;
    while let Some(id) = next {
        let Some(&at) = by_id.get(id) else {
            return Err(Error::new(Code::Conflict, format!("The chain of steps begins at {id}, which is not there.")));
        };
        // Nobody points to the first step and nobody is pointed to twice, so the walk cannot return; the check costs
        // nothing and keeps the loop finite whatever the reasoning above is worth.
        if std::mem::replace(&mut seen[at], true) {
            return Err(broken(&steps[at], "is cyclic"));
        }
        sequence.push(at);
        next = steps[at].next_step_id.as_ref();
    }
    if let Some(lost) = seen.iter().position(|seen| !seen) {
        return Err(broken(&steps[lost], "is not connected"));
    }
    let mut slots: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
    Ok(sequence.into_iter().filter_map(|at| slots[at].take()).collect())
}

/// The pointers that change when `step` is put at `place` in the ordered chain `steps`, which does not hold it.
///
/// # Errors
/// `step_not_found` when `place` names a step that is not in the chain.
pub fn insert(steps: &[Step], step: &StepId, place: &Place) -> Result<Vec<Link>> {
    let before = match place {
        Place::First => None,
        Place::Last => steps.last().map(|last| last.id.clone()),
        Place::After(id) => Some(find(steps, id)?.id.clone()),
    };
    let next = match &before {
        None => steps.first().map(|first| first.id.clone()),
        Some(id) => find(steps, id)?.next_step_id.clone(),
    };
    Ok(vec![Link { from: before, to: Some(step.clone()) }, Link { from: Some(step.clone()), to: next }])
}

/// The pointers that change when `step` is taken out of the ordered chain `steps`.
///
/// # Errors
/// `step_not_found` when the chain does not hold it.
pub fn remove(steps: &[Step], step: &StepId) -> Result<Vec<Link>> {
    let gone = find(steps, step)?;
    let before = steps.iter().find(|other| other.next_step_id.as_ref() == Some(step)).map(|other| other.id.clone());
    Ok(vec![Link { from: before, to: gone.next_step_id.clone() }])
}

/// The pointers that change when `step` moves to `place` within the ordered chain `steps`.
///
/// # Errors
/// `step_not_found` when either is not in the chain; `conflict` when a step is to follow itself.
pub fn relocate(steps: &[Step], step: &StepId, place: &Place) -> Result<Vec<Link>> {
    if *place == Place::After(step.clone()) {
        return Err(Error::new(Code::Conflict, "A step cannot follow itself."));
    }
    let mut links = remove(steps, step)?;
    let mut rest: Vec<Step> = steps.to_vec();
    apply(&mut rest, &links);
    rest.retain(|other| other.id != *step);
    links.extend(insert(&rest, step, place)?);
    Ok(links)
}

/// Writes `links` into `steps`; the link of the head comes back.
pub fn apply(steps: &mut [Step], links: &[Link]) -> Option<Option<StepId>> {
    let mut head = None;
    for link in links {
        match &link.from {
            None => head = Some(link.to.clone()),
            Some(from) => {
                if let Some(step) = steps.iter_mut().find(|step| step.id == *from) {
                    step.next_step_id.clone_from(&link.to);
                }
            }
        }
    }
    head
}

fn find<'a>(steps: &'a [Step], id: &StepId) -> Result<&'a Step> {
    steps.iter().find(|step| step.id == *id).ok_or_else(|| {
        Error::new(Code::StepNotFound, format!("The walkthrough has no step {id}.")).with("step_id", id.as_str())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::step::StepContent;

    fn id(n: usize) -> StepId {
        StepId::from_store(format!("ws_{n}"))
    }

    fn step(n: usize, next: Option<usize>) -> Step {
        let content = StepContent { title: format!("Step {n}"), ..StepContent::default() };
        Step { id: id(n), ordinal: u32::try_from(n).unwrap(), key: None, next_step_id: next.map(id), content }
    }

    fn names(steps: &[Step]) -> Vec<String> {
        steps.iter().map(|step| step.id.to_string()).collect()
    }

    #[test]
    fn orders_and_names_the_fault() {
        let ordered = order(Some(&id(2)), vec![step(1, None), step(2, Some(3)), step(3, Some(1))]).unwrap();
        assert_eq!(names(&ordered), ["ws_2", "ws_3", "ws_1"]);
        assert!(order(None, vec![]).unwrap().is_empty());

        let cases = [
            ("is broken at step ws_1", Some(1), vec![step(1, Some(9))]),
            ("is cyclic at step ws_2", Some(1), vec![step(1, Some(2)), step(2, Some(1))]),
            ("is forked at step ws_2", Some(1), vec![step(1, Some(3)), step(2, Some(3)), step(3, None)]),
            ("is not connected at step ws_2", Some(1), vec![step(1, None), step(2, None)]),
            ("is not connected at step ws_2", Some(1), vec![step(1, None), step(2, Some(3)), step(3, Some(2))]),
            ("begins at ws_7", Some(7), vec![step(1, None)]),
            ("is not connected at step ws_1", None, vec![step(1, None)]),
        ];
        for (expected, first, steps) in cases {
            let error = order(first.map(id).as_ref(), steps).unwrap_err();
            assert!(error.message.contains(expected), "{} does not say `{expected}`", error.message);
        }
    }

    proptest! {
        /// Random insertions, moves and removals do to the chain what they do to a plain list, and touch at most three
        /// pointers besides the step's own.
        #[test]
        fn behaves_like_a_list(acts in prop::collection::vec((0_u8..3, 0_usize..30, 0_usize..30), 0..60)) {
            let mut list: Vec<StepId> = Vec::new();
            let mut head: Option<StepId> = None;
            let mut steps: Vec<Step> = Vec::new();
            for (made, (act, a, b)) in acts.into_iter().enumerate() {
                let ordered = order(head.as_ref(), steps.clone()).unwrap();
                let place = match b {
                    0..5 => Place::First,
                    5..10 => Place::Last,
                    _ if list.is_empty() => Place::Last,
                    _ => Place::After(list[b % list.len()].clone()),
                };
                let links = match act {
                    0 => {
                        let new = id(made);
                        steps.push(step(made, None));
                        put(&mut list, new.clone(), &place);
                        insert(&ordered, &new, &place).unwrap()
                    }
                    _ if list.is_empty() => continue,
                    1 => {
                        let moved = list[a % list.len()].clone();
                        if place == Place::After(moved.clone()) { continue; }
                        list.retain(|other| *other != moved);
                        put(&mut list, moved.clone(), &place);
                        relocate(&ordered, &moved, &place).unwrap()
                    }
                    _ => {
                        let gone = list.remove(a % list.len());
                        let links = remove(&ordered, &gone).unwrap();
                        steps.retain(|step| step.id != gone);
                        links
                    }
                };
                prop_assert!(links.len() <= 3);
                if let Some(new_head) = apply(&mut steps, &links) {
                    head = new_head;
                }
                let ordered = order(head.as_ref(), steps.clone()).unwrap();
                prop_assert_eq!(ordered.iter().map(|step| step.id.clone()).collect::<Vec<_>>(), list.clone());
            }
        }
    }

    fn put(list: &mut Vec<StepId>, new: StepId, place: &Place) {
        let at = match place {
            Place::First => 0,
            Place::Last => list.len(),
            Place::After(id) => list.iter().position(|other| other == id).unwrap() + 1,
        };
        list.insert(at, new);
    }
}
