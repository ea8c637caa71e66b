//! What is different between two states of a walkthrough: versions, or a version and the draft.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::id::StepId;
use crate::step::{Step, StepContent};
use crate::transfer::plan::find_moved;
use crate::walkthrough::WalkthroughFields;

/// A field that is other than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldDifference {
    /// By name, as in the model.
    pub field: &'static str,
    /// What it was.
    pub before: String,
    /// What it is.
    pub after: String,
}

/// A step on one side or on both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepDifference {
    /// The step.
    pub id: StepId,
    /// Its title: that of the later state, when it is there.
    pub title: String,
    /// Where it stood, from 1; none for a step that is new.
    pub before: Option<usize>,
    /// Where it stands, from 1; none for a step that is gone.
    pub after: Option<usize>,
    /// Whether it stands elsewhere among the steps that stayed.
    pub moved: bool,
    /// Its fields that are different.
    pub fields: Vec<FieldDifference>,
}

impl StepDifference {
    /// Whether it is on both sides, at the same place, and the same.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.before.is_some() && self.after.is_some() && !self.moved && self.fields.is_empty()
    }

    /// Whether it is new.
    #[must_use]
    pub fn is_added(&self) -> bool {
        self.before.is_none()
    }

    /// Whether it is gone.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.after.is_none()
    }

    /// Whether it stayed and has other fields.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.before.is_some() && self.after.is_some() && !self.fields.is_empty()
    }
}

/// What is different.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Fields of the head.
    pub head: Vec<FieldDifference>,
    /// Every step of either side, in the order of the later one; one that is gone stands where it stood.
    pub steps: Vec<StepDifference>,
}

impl Comparison {
    /// Whether there is no difference.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.steps.iter().all(StepDifference::is_unchanged)
    }

    /// How many steps are new, gone, changed, and moved.
    #[must_use]
    pub fn counts(&self) -> [usize; 4] {
        let count = |wanted: fn(&StepDifference) -> bool| self.steps.iter().filter(|step| wanted(step)).count();
        [
            count(StepDifference::is_added),
            count(StepDifference::is_removed),
            count(StepDifference::is_changed),
            count(|step| step.moved),
        ]
    }
}

/// Compares two states; steps are told apart by their ids.
#[must_use]
pub fn compare(before: (&WalkthroughFields, &[Step]), after: (&WalkthroughFields, &[Step])) -> Comparison {
    let places: HashMap<&StepId, usize> = before.1.iter().enumerate().map(|(at, step)| (&step.id, at)).collect();
    let found: Vec<Option<usize>> = after.1.iter().map(|step| places.get(&step.id).copied()).collect();
    let mut steps: Vec<StepDifference> = Vec::with_capacity(after.1.len());
    for (((at, step), found), moved) in (1..).zip(after.1).zip(&found).zip(find_moved(&found)) {
        let was = found.map(|place| &before.1[place].content);
        steps.push(StepDifference {
            id: step.id.clone(),
            title: step.content.title.clone(),
            before: found.map(|place| place + 1),
            after: Some(at),
            moved,
            fields: was.map_or_else(Vec::new, |was| different(&content(was), &content(&step.content))),
        });
    }
    for (place, step) in before.1.iter().enumerate() {
        if found.contains(&Some(place)) {
            continue;
        }
        let gone = StepDifference {
            id: step.id.clone(),
            title: step.content.title.clone(),
            before: Some(place + 1),
            after: None,
            moved: false,
            fields: Vec::new(),
        };
        let behind = steps.iter().rposition(|other| place > 0 && other.id == before.1[place - 1].id);
        steps.insert(behind.map_or(0, |behind| behind + 1), gone);
    }
    Comparison { head: different(&head(before.0), &head(after.0)), steps }
}

fn different(before: &[(&'static str, String)], after: &[(&'static str, String)]) -> Vec<FieldDifference> {
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

fn head(fields: &WalkthroughFields) -> [(&'static str, String); 6] {
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
    use crate::walkthrough::WalkthroughType;

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
    fn tells_what_happened_to_each_step() {
        let before = ["a", "b", "c", "d"].map(|name| step(name, "text"));
        let after = [step("d", "text"), step("a", "text"), step("new", "x"), step("c", "other")];
        let found = compare((&fields(), &before), (&WalkthroughFields { title: "U".to_owned(), ..fields() }, &after));
        let names: Vec<_> = found.steps.iter().map(|step| (step.title.as_str(), step.before, step.after)).collect();
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
        assert_eq!(found.counts(), [1, 1, 1, 1]);
        assert!(found.steps[0].moved && found.steps[1].is_unchanged());
        let field = |field, before: &str, after: &str| FieldDifference {
            field,
            before: before.to_owned(),
            after: after.to_owned(),
        };
        assert_eq!(found.steps[4].fields, [field("content", "text", "other")]);
        assert_eq!(found.head, [field("title", "T", "U")]);
        assert!(compare((&fields(), &before), (&fields(), &before)).is_empty());
        assert_eq!(compare((&fields(), &before), (&fields(), &[])).counts(), [0, 4, 0, 0]);
    }
}
