//! The order of the steps in a JSON file: by the chain of `nextStepReference`, otherwise by `displayOrder`, otherwise by
//! array order.

use std::collections::HashMap;

use super::source::SourceRef;
use waypost_core::Result;

/// A step's reference to the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// The member is absent.
    Absent,
    /// `null`: this is the last step.
    End,
    /// The step at this array index, from 0.
    Index(i64),
    /// The step with this key.
    Key(String),
}

/// A step's members that determine the order.
pub(super) struct Hint {
    pub(super) source: SourceRef,
    pub(super) key: Option<String>,
    pub(super) next: Next,
    pub(super) display_order: Option<i64>,
}

const NEXT: &str = "nextStepReference";
const ORDER: &str = "displayOrder";

/// Returns the array indices in step order, and a warning if necessary.
///
/// # Errors
/// `invalid_arguments` naming the step if the hints are contradictory.
pub(super) fn order(hints: &[Hint]) -> Result<(Vec<usize>, Option<String>)> {
    let keys = index_keys(hints)?;
    let displayed = by_display_order(hints)?;
    // If no step has a next step, there is no chain. Members can be absent or null, because some exporters write null
    // for absent values.
    if hints.iter().all(|hint| matches!(hint.next, Next::Absent | Next::End)) {
        if let Some(order) = displayed {
            return Ok((order, None));
        }
        if let Some(hint) = hints.iter().find(|hint| hint.display_order.is_none())
            && hints.iter().any(|hint| hint.display_order.is_some())
        {
            return Err(hint
                .source
                .reject(ORDER, "is missing, but other steps have one. Set it for every step or for none."));
        }
        return Ok(((0..hints.len()).collect(), None));
    }
    let chain = by_chain(hints, &keys)?;
    let warning = displayed
        .filter(|order| *order != chain)
        .map(|_| "`displayOrder` contradicts the chain of `nextStepReference`. The chain is used.".to_owned());
    Ok((chain, warning))
}

fn index_keys(hints: &[Hint]) -> Result<HashMap<&str, usize>> {
    let mut keys = HashMap::new();
    for (index, hint) in hints.iter().enumerate() {
        let Some(key) = hint.key.as_deref() else { continue };
        if let Some(earlier) = keys.insert(key, index) {
            let message =
                format!("is {key:?}, which is also the key of {}. Keys must be unique.", name(hints, earlier));
            return Err(hint.source.reject("key", message));
        }
    }
    Ok(keys)
}

/// Returns the order by `displayOrder`, or `None` unless every step has one. Equal numbers are rejected even if a chain
/// determines the order, because they indicate a malformed file.
fn by_display_order(hints: &[Hint]) -> Result<Option<Vec<usize>>> {
    let mut numbered: Vec<_> =
        hints.iter().enumerate().filter_map(|(index, hint)| hint.display_order.map(|number| (number, index))).collect();
    numbered.sort_unstable();
    if let Some(pair) = numbered.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let (number, earlier, later) = (pair[0].0, pair[0].1, pair[1].1);
        let message =
            format!("is {number}, which is also the number of {}. Numbers must be unique.", name(hints, earlier));
        return Err(hints[later].source.reject(ORDER, message));
    }
    let complete = !hints.is_empty() && numbered.len() == hints.len();
    Ok(complete.then(|| numbered.into_iter().map(|(_, at)| at).collect()))
}

fn by_chain(hints: &[Hint], keys: &HashMap<&str, usize>) -> Result<Vec<usize>> {
    let next = hints.iter().map(|hint| resolve(hint, hints.len(), keys)).collect::<Result<Vec<_>>>()?;
    let mut before = vec![None; hints.len()];
    for (index, target) in next.iter().enumerate() {
        let Some(target) = *target else { continue };
        if let Some(earlier) = before[target].replace(index) {
            let target = name(hints, target);
            let message = format!(
                "refers to {target}, and so does {}. A step can follow only one other step.",
                name(hints, earlier)
            );
            return Err(hints[index].source.reject(NEXT, message));
        }
    }
    let first_steps: Vec<_> = (0..hints.len()).filter(|&at| before[at].is_none()).collect();
    let first = match first_steps[..] {
        [first] => first,
        [] => {
            return Err(hints[0]
                .source
                .reject(NEXT, "forms a cycle, so there is no first step. Set it to null on the last step."));
        }
        [first, second, ..] => {
            let message = format!(
                "of no step refers to this step or to {}, but only one step can be the first. Connect them, or omit `{NEXT}` \
                 from every step.",
                name(hints, first)
            );
            return Err(hints[second].source.reject(NEXT, message));
        }
    };
    let order: Vec<_> = std::iter::successors(Some(first), |&at| next[at]).collect();
    if order.len() < hints.len() {
        let mut reached = vec![false; hints.len()];
        order.iter().for_each(|&at| reached[at] = true);
        let unreached = reached.iter().position(|reached| !reached).unwrap_or_default();
        let message = format!(
            "never leads from {} to this step, which is part of a cycle. Connect it to the chain.",
            name(hints, first)
        );
        return Err(hints[unreached].source.reject(NEXT, message));
    }
    Ok(order)
}

fn resolve(hint: &Hint, count: usize, keys: &HashMap<&str, usize>) -> Result<Option<usize>> {
    match &hint.next {
        Next::Absent | Next::End => Ok(None),
        Next::Index(index) => usize::try_from(*index).ok().filter(|&index| index < count).map(Some).ok_or_else(|| {
            let message = format!("is {index}, but the steps are numbered from 0 to {}.", count - 1);
            hint.source.reject(NEXT, message)
        }),
        Next::Key(key) => keys
            .get(key.as_str())
            .copied()
            .map(Some)
            .ok_or_else(|| hint.source.reject(NEXT, format!("refers to the key {key:?}, but no step has it."))),
    }
}

fn name(hints: &[Hint], index: usize) -> &str {
    hints[index].source.step_label().unwrap_or("another step")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row<'a> = (Option<&'a str>, Next, Option<i64>);

    fn run(rows: &[Row<'_>]) -> Result<(Vec<usize>, Option<String>)> {
        let hint = |(index, (key, next, display_order)): (usize, &Row<'_>)| Hint {
            source: SourceRef::file("a.json").step(index + 1, None, "here"),
            key: key.map(str::to_owned),
            next: next.clone(),
            display_order: *display_order,
        };
        order(&rows.iter().enumerate().map(hint).collect::<Vec<_>>())
    }

    #[test]
    fn the_chain_takes_precedence_over_numbers_and_array_order() {
        use Next::{Absent, End, Index, Key};
        let plain = |next: &[Next]| next.iter().map(|next| (None, next.clone(), None)).collect::<Vec<_>>();
        let numbers = |numbers: &[i64]| numbers.iter().map(|n| (None, Absent, Some(*n))).collect::<Vec<_>>();
        let table = [
            (plain(&[]), vec![]),
            (plain(&[Absent, Absent]), vec![0, 1]),
            (plain(&[End]), vec![0]),
            (plain(&[End, Index(0)]), vec![1, 0]),
            (plain(&[Index(2), Absent, Index(1)]), vec![0, 2, 1]),
            (numbers(&[7, -3, 5]), vec![1, 2, 0]),
            (vec![(Some("a"), End, None), (None, Key("a".to_owned()), None)], vec![1, 0]),
        ];
        for (rows, expected) in table {
            assert_eq!(run(&rows).expect("a valid order"), (expected, None), "{rows:?}");
        }
    }

    #[test]
    fn contradicting_numbers_produce_a_warning() {
        let rows = [(None, Next::End, Some(1)), (None, Next::Index(0), Some(2))];
        let (order, warning) = run(&rows).expect("a valid chain");
        assert_eq!((order, warning.is_some()), (vec![1, 0], true));
    }

    #[test]
    fn invalid_chains_are_rejected() {
        use Next::{Absent, End, Index, Key};
        let row = |next: Next| (None, next, None);
        let table: Vec<(&str, Vec<Row<'_>>, &str, &str)> = vec![
            ("fork", vec![row(Index(2)), row(Index(2)), row(End)], NEXT, "step 2"),
            ("cycle", vec![row(Index(1)), row(Index(0))], NEXT, "step 1"),
            ("self", vec![row(Index(0))], NEXT, "step 1"),
            ("two first steps", vec![row(Index(2)), row(End), row(End)], NEXT, "step 2"),
            ("unreached", vec![row(End), row(Index(2)), row(Index(1))], NEXT, "step 2"),
            ("far", vec![row(Index(2)), row(End)], NEXT, "step 1"),
            ("negative", vec![row(Index(-1)), row(End)], NEXT, "step 1"),
            ("key", vec![row(Key("x".to_owned())), row(End)], NEXT, "step 1"),
            ("keys", vec![(Some("a"), Absent, None), (Some("a"), Absent, None)], "key", "step 2"),
            ("numbers", vec![(None, Absent, Some(1)), (None, Absent, Some(1))], ORDER, "step 2"),
            ("gap", vec![(None, Absent, Some(1)), (None, Absent, None)], ORDER, "step 2"),
        ];
        for (name, rows, field, step) in table {
            let error = run(&rows).expect_err(name);
            assert_eq!(
                (&error.details["field"], &error.details["step"]),
                (&field.into(), &step.into()),
                "{name}: {error}"
            );
        }
    }
}
