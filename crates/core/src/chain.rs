//! The linked list of a draft's steps. Each step points to the next, so an edit only affects its neighbours.

use std::collections::HashMap;

use crate::error::{Code, Error, Result};
use crate::id::StepId;
use crate::step::Step;

/// Where to put a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepPosition {
    /// Before all others.
    First,
    /// After this step.
    After(StepId),
    /// After all others.
    Last,
}

/// A pointer to update: the `next_step_id` of a step, or the walkthrough's `first_step_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkUpdate {
    /// The step whose pointer changes; `None` is the start of the chain.
    pub from: Option<StepId>,
    /// The new target.
    pub to: Option<StepId>,
}

fn chain_error(step: &Step, problem: &str) -> Error {
    let message = format!("The chain of steps {problem} at step {} (\"{}\").", step.id, step.content.title);
    Error::new(Code::Conflict, message).with("step_id", step.id.as_str())
}

/// Returns the steps in chain order, each exactly once.
///
/// # Errors
/// `conflict`, naming the step at which the chain is broken (it points to a missing step), cyclic, forked (two steps
/// point to the same step) or not connected to the start.
pub fn order(first: Option<&StepId>, steps: Vec<Step>) -> Result<Vec<Step>> {
    let by_id: HashMap<StepId, usize> =
        steps.iter().enumerate().map(|(index, step)| (step.id.clone(), index)).collect();
    let mut pointed_at: HashMap<&StepId, &Step> = HashMap::new();
    for step in &steps {
        let Some(next) = &step.next_step_id else { continue };
        if !by_id.contains_key(next) {
            return Err(chain_error(step, "is broken"));
        }
        if Some(next) == first {
            return Err(chain_error(step, "is cyclic"));
        }
        if pointed_at.insert(next, step).is_some() {
            return Err(chain_error(step, "is forked"));
        }
    }
    let mut sequence = Vec::with_capacity(steps.len());
    let mut seen = vec![false; steps.len()];
    let mut next = first;
    while let Some(id) = next {
        let Some(&at) = by_id.get(id) else {
            return Err(Error::new(
                Code::Conflict,
                format!("The chain of steps begins at {id}, which does not exist."),
            ));
        };
        // No step points to the first step and no step has two predecessors, so the traversal cannot revisit a step. The
        // check is cheap and guarantees termination even if the checks above are wrong.
        if std::mem::replace(&mut seen[at], true) {
            return Err(chain_error(&steps[at], "is cyclic"));
        }
        sequence.push(at);
        next = steps[at].next_step_id.as_ref();
    }
    if let Some(unreachable) = seen.iter().position(|seen| !seen) {
        return Err(chain_error(&steps[unreachable], "is not connected"));
    }
    let mut slots: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
    Ok(sequence.into_iter().filter_map(|at| slots[at].take()).collect())
}

/// Returns the updates that insert the new `step` at `position` in the ordered chain `steps`.
///
/// # Errors
/// `step_not_found` if `position` names a step that is not in the chain.
pub fn insert(steps: &[Step], step: &StepId, position: &StepPosition) -> Result<Vec<LinkUpdate>> {
    let before = match position {
        StepPosition::First => None,
        StepPosition::Last => steps.last().map(|last| last.id.clone()),
        StepPosition::After(id) => Some(find(steps, id)?.id.clone()),
    };
    let next = match &before {
        None => steps.first().map(|first| first.id.clone()),
        Some(id) => find(steps, id)?.next_step_id.clone(),
    };
    Ok(vec![LinkUpdate { from: before, to: Some(step.clone()) }, LinkUpdate { from: Some(step.clone()), to: next }])
}

/// Returns the updates that remove `step` from the ordered chain `steps`.
///
/// # Errors
/// `step_not_found` if the step is not in the chain.
pub fn remove(steps: &[Step], step: &StepId) -> Result<Vec<LinkUpdate>> {
    let removed = find(steps, step)?;
    let before = steps.iter().find(|other| other.next_step_id.as_ref() == Some(step)).map(|other| other.id.clone());
    Ok(vec![LinkUpdate { from: before, to: removed.next_step_id.clone() }])
}

/// Returns the updates that move `step` to `position` within the ordered chain `steps`.
///
/// # Errors
/// `step_not_found` if either step is not in the chain; `conflict` if the step would follow itself.
pub fn relocate(steps: &[Step], step: &StepId, position: &StepPosition) -> Result<Vec<LinkUpdate>> {
    if *position == StepPosition::After(step.clone()) {
        return Err(Error::new(Code::Conflict, "A step cannot follow itself."));
    }
    let mut links = remove(steps, step)?;
    let mut rest: Vec<Step> = steps.to_vec();
    apply(&mut rest, &links);
    rest.retain(|other| other.id != *step);
    links.extend(insert(&rest, step, position)?);
    Ok(links)
}

/// Applies `links` to `steps`. Returns the new first step if it changes.
pub fn apply(steps: &mut [Step], links: &[LinkUpdate]) -> Option<Option<StepId>> {
    let mut first_step = None;
    for link in links {
        match &link.from {
            None => first_step = Some(link.to.clone()),
            Some(from) => {
                if let Some(step) = steps.iter_mut().find(|step| step.id == *from) {
                    step.next_step_id.clone_from(&link.to);
                }
            }
        }
    }
    first_step
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
    fn steps_are_ordered_and_errors_name_the_problem() {
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
            assert!(error.message.contains(expected), "{} does not contain `{expected}`", error.message);
        }
    }

    fn chain(length: usize) -> Vec<Step> {
        (1..=length).map(|n| step(n, (n < length).then_some(n + 1))).collect()
    }

    fn link(from: Option<usize>, to: Option<usize>) -> LinkUpdate {
        LinkUpdate { from: from.map(id), to: to.map(id) }
    }

    #[test]
    fn edits_update_only_the_neighbours() {
        let steps = chain(3);
        let insert = |position| insert(&steps, &id(9), &position).unwrap();
        assert_eq!(insert(StepPosition::First), [link(None, Some(9)), link(Some(9), Some(1))]);
        assert_eq!(insert(StepPosition::After(id(1))), [link(Some(1), Some(9)), link(Some(9), Some(2))]);
        assert_eq!(insert(StepPosition::Last), [link(Some(3), Some(9)), link(Some(9), None)]);
        assert_eq!(remove(&steps, &id(1)).unwrap(), [link(None, Some(2))]);
        assert_eq!(remove(&steps, &id(2)).unwrap(), [link(Some(1), Some(3))]);
        assert_eq!(
            relocate(&steps, &id(3), &StepPosition::First).unwrap(),
            [link(Some(2), None), link(None, Some(3)), link(Some(3), Some(1))]
        );
    }

    #[test]
    fn edits_of_missing_steps_are_rejected() {
        let steps = chain(3);
        let missing = StepPosition::After(id(9));
        let results = [
            insert(&steps, &id(8), &missing),
            remove(&steps, &id(9)),
            relocate(&steps, &id(9), &StepPosition::First),
            relocate(&steps, &id(1), &missing),
        ];
        for result in results {
            let error = result.unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (Code::StepNotFound, "The walkthrough has no step ws_9."));
        }
        let error = relocate(&steps, &id(2), &StepPosition::After(id(2))).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Code::Conflict, "A step cannot follow itself."));
    }

    #[test]
    fn only_updates_of_the_start_return_a_new_first_step() {
        let mut steps = chain(2);
        assert_eq!(apply(&mut steps, &[link(Some(1), None)]), None);
        assert_eq!((&steps[0].next_step_id, &steps[1].next_step_id), (&None, &None));
        assert_eq!(apply(&mut steps, &[link(None, Some(2)), link(Some(2), Some(1))]), Some(Some(id(2))));
        assert_eq!((&steps[0].next_step_id, &steps[1].next_step_id), (&None, &Some(id(1))));
        assert_eq!(apply(&mut steps, &[link(None, None)]), Some(None));
    }

    proptest! {
        /// Random insertions, moves and removals have the same effect on the chain as on a plain list and update at most
        /// three pointers.
        #[test]
        fn behaves_like_a_list(operations in prop::collection::vec((0_u8..3, 0_usize..30, 0_usize..30), 0..60)) {
            let mut list: Vec<StepId> = Vec::new();
            let mut first_step: Option<StepId> = None;
            let mut steps: Vec<Step> = Vec::new();
            for (number, (operation, a, b)) in operations.into_iter().enumerate() {
                let ordered = order(first_step.as_ref(), steps.clone()).unwrap();
                let position = match b {
                    0..5 => StepPosition::First,
                    5..10 => StepPosition::Last,
                    _ if list.is_empty() => StepPosition::Last,
                    _ => StepPosition::After(list[b % list.len()].clone()),
                };
                let links = match operation {
                    0 => {
                        let new = id(number);
                        steps.push(step(number, None));
                        put(&mut list, new.clone(), &position);
                        insert(&ordered, &new, &position).unwrap()
                    }
                    _ if list.is_empty() => continue,
                    1 => {
                        let moved = list[a % list.len()].clone();
                        if position == StepPosition::After(moved.clone()) { continue; }
                        list.retain(|other| *other != moved);
                        put(&mut list, moved.clone(), &position);
                        relocate(&ordered, &moved, &position).unwrap()
                    }
                    _ => {
                        let removed = list.remove(a % list.len());
                        let links = remove(&ordered, &removed).unwrap();
                        steps.retain(|step| step.id != removed);
                        links
                    }
                };
                prop_assert!(links.len() <= 3);
                if let Some(new_first_step) = apply(&mut steps, &links) {
                    first_step = new_first_step;
                }
                let ordered = order(first_step.as_ref(), steps.clone()).unwrap();
                prop_assert_eq!(ordered.iter().map(|step| step.id.clone()).collect::<Vec<_>>(), list.clone());
            }
        }
    }

    fn put(list: &mut Vec<StepId>, new: StepId, position: &StepPosition) {
        let at = match position {
            StepPosition::First => 0,
            StepPosition::Last => list.len(),
            StepPosition::After(id) => list.iter().position(|other| other == id).unwrap() + 1,
        };
        list.insert(at, new);
    }
}
