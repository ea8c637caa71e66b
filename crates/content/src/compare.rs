//! Differences between two states of a walkthrough: two versions, or a version and the draft.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::transfer::plan::find_moved;
use waypost_core::id::StepId;
use waypost_core::step::{Step, StepContent};
use waypost_core::walkthrough::WalkthroughFields;

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldDifference {
    /// The field's name in the model.
    pub field: &'static str,
    /// The earlier value.
    pub before: String,
    /// The later value.
    pub after: String,
}

/// A step that exists in one or both states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepDifference {
    /// The step's ID.
    pub id: StepId,
    /// The title, in the later state if the step exists there.
    pub title: String,
    /// The earlier position, from 1; `None` if the step was added.
    pub before: Option<usize>,
    /// The later position, from 1; `None` if the step was removed.
    pub after: Option<usize>,
    /// Whether the step was moved relative to the other steps that exist in both states.
    pub moved: bool,
    /// The fields that differ.
    pub fields: Vec<FieldDifference>,
}

impl StepDifference {
    /// Whether the step exists in both states without any change.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.before.is_some() && self.after.is_some() && !self.moved && self.fields.is_empty()
    }

    /// Whether the step was added.
    #[must_use]
    pub fn is_added(&self) -> bool {
        self.before.is_none()
    }

    /// Whether the step was removed.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.after.is_none()
    }

    /// Whether the step exists in both states and a field differs.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.before.is_some() && self.after.is_some() && !self.fields.is_empty()
    }
}

/// The differences between two states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The differing fields of the walkthrough.
    pub fields: Vec<FieldDifference>,
    /// The steps of both states in the order of the later one. Removed steps appear at their earlier position.
    pub steps: Vec<StepDifference>,
}

impl Comparison {
    /// Whether there is no difference.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.steps.iter().all(StepDifference::is_unchanged)
    }

    /// Returns the number of added, removed, changed and moved steps, in this order.
    #[must_use]
    pub fn counts(&self) -> [usize; 4] {
        let count = |matches: fn(&StepDifference) -> bool| self.steps.iter().filter(|step| matches(step)).count();
        [
            count(StepDifference::is_added),
            count(StepDifference::is_removed),
            count(StepDifference::is_changed),
            count(|step| step.moved),
        ]
    }
}

/// Compares two states. Steps are matched by ID.
#[must_use]
pub fn compare(before: (&WalkthroughFields, &[Step]), after: (&WalkthroughFields, &[Step])) -> Comparison {
    let indices: HashMap<&StepId, usize> = before.1.iter().enumerate().map(|(index, step)| (&step.id, index)).collect();
    let matches: Vec<Option<usize>> = after.1.iter().map(|step| indices.get(&step.id).copied()).collect();
    let mut steps: Vec<StepDifference> = Vec::with_capacity(after.1.len());
    for (((position, step), earlier), moved) in (1..).zip(after.1).zip(&matches).zip(find_moved(&matches)) {
        let previous = earlier.map(|index| &before.1[index].content);
        steps.push(StepDifference {
            id: step.id.clone(),
            title: step.content.title.clone(),
            before: earlier.map(|index| index + 1),
            after: Some(position),
            moved,
            fields: previous.map_or_else(Vec::new, |previous| differences(&content(previous), &content(&step.content))),
        });
    }
    for (index, step) in before.1.iter().enumerate() {
        if matches.contains(&Some(index)) {
            continue;
        }
        let removed = StepDifference {
            id: step.id.clone(),
            title: step.content.title.clone(),
            before: Some(index + 1),
            after: None,
            moved: false,
            fields: Vec::new(),
        };
        let previous = steps.iter().rposition(|other| index > 0 && other.id == before.1[index - 1].id);
        steps.insert(previous.map_or(0, |previous| previous + 1), removed);
    }
    Comparison { fields: differences(&describe(before.0), &describe(after.0)), steps }
}

fn differences(before: &[(&'static str, String)], after: &[(&'static str, String)]) -> Vec<FieldDifference> {
    let pairs = before.iter().zip(after).filter(|(before, after)| before.1 != after.1);
    pairs
        .map(|(before, after)| FieldDifference { field: before.0, before: before.1.clone(), after: after.1.clone() })
        .collect()
}

fn metadata(members: &Map<String, Value>) -> String {
    if members.is_empty() { String::new() } else { serde_json::to_string_pretty(members).unwrap_or_default() }
}

fn content(step: &StepContent) -> [(&'static str, String); 7] {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    [
        ("title", step.title.clone()),
        ("section_title", text(&step.section_title)),
        ("content", step.content.clone()),
        ("introduction_for_agent", text(&step.introduction_for_agent)),
        ("context_for_agent", text(&step.context_for_agent)),
        ("operations_for_agent", text(&step.operations_for_agent)),
        ("metadata", metadata(&step.metadata)),
    ]
}

fn describe(fields: &WalkthroughFields) -> [(&'static str, String); 6] {
    [
        ("title", fields.title.clone()),
        ("description", fields.description.clone()),
        ("type", fields.kind.to_string()),
        (
            "estimated_duration_minutes",
            fields.estimated_duration_minutes.map(|minutes| minutes.to_string()).unwrap_or_default(),
        ),
        ("tags", fields.tags.join("\n")),
        ("metadata", metadata(&fields.metadata)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use waypost_core::walkthrough::WalkthroughType;

    fn step(name: &str, text: &str) -> Step {
        let content = StepContent { title: name.to_owned(), content: text.to_owned(), ..StepContent::default() };
        Step { id: StepId::from_store(format!("ws_{name}")), ordinal: 0, key: None, next_step_id: None, content }
    }

    fn fields() -> WalkthroughFields {
        WalkthroughFields {
            title: "T".to_owned(),
            description: String::new(),
            kind: WalkthroughType::Course,
            estimated_duration_minutes: None,
            tags: Vec::new(),
            metadata: Map::new(),
        }
    }

    #[test]
    fn each_step_is_compared() {
        let before = ["a", "b", "c", "d"].map(|name| step(name, "text"));
        let after = [step("d", "text"), step("a", "text"), step("new", "x"), step("c", "other")];
        let comparison =
            compare((&fields(), &before), (&WalkthroughFields { title: "U".to_owned(), ..fields() }, &after));
        let names: Vec<_> =
            comparison.steps.iter().map(|step| (step.title.as_str(), step.before, step.after)).collect();
        assert_eq!(
            names,
            [
                ("d", Some(4), Some(1)),
                ("a", Some(1), Some(2)),
                ("b", Some(2), None),
                ("new", None, Some(3)),
                ("c", Some(3), Some(4)),
            ]
        );
        assert_eq!(comparison.counts(), [1, 1, 1, 1]);
        assert!(comparison.steps[0].moved && comparison.steps[1].is_unchanged());
        let field = |field, before: &str, after: &str| FieldDifference {
            field,
            before: before.to_owned(),
            after: after.to_owned(),
        };
        assert_eq!(comparison.steps[4].fields, [field("content", "text", "other")]);
        assert_eq!(comparison.fields, [field("title", "T", "U")]);
        assert!(compare((&fields(), &before), (&fields(), &before)).is_empty());
        assert_eq!(compare((&fields(), &before), (&fields(), &[])).counts(), [0, 4, 0, 0]);
    }
}
