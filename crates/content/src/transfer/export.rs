//! Export to the JSON envelope in version 1.1, with everything that an import needs to recreate the walkthrough.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::unknown_members;
use waypost_core::clock::Timestamp;
use waypost_core::step::{Step, StepContent};
use waypost_core::version::VersionStep;
use waypost_core::walkthrough::{WalkthroughFields, WalkthroughState};

/// A step to write.
#[derive(Debug, Clone, Copy)]
pub struct ExportStep<'a> {
    /// The key by which an import matches the step: the author's key, otherwise the step's ID. On another installation,
    /// the ID becomes the key; on the same installation, it matches the step itself.
    pub key: &'a str,
    /// The content.
    pub content: &'a StepContent,
}

impl<'a> From<&'a Step> for ExportStep<'a> {
    fn from(step: &'a Step) -> Self {
        Self { key: step.key.as_deref().unwrap_or(step.id.as_str()), content: &step.content }
    }
}

impl<'a> From<&'a VersionStep> for ExportStep<'a> {
    fn from(step: &'a VersionStep) -> Self {
        Self { key: step.id.as_str(), content: &step.content }
    }
}

/// Returns the envelope of a walkthrough with its steps in order.
#[must_use]
pub fn export_json<'a, S>(
    fields: &WalkthroughFields,
    steps: S,
    state: WalkthroughState,
    exported_at: Timestamp,
) -> Value
where
    S: IntoIterator,
    S::Item: Into<ExportStep<'a>>,
{
    let steps: Vec<ExportStep<'_>> = steps.into_iter().map(Into::into).collect();
    let (own, [envelope, envelope_metadata, unknown_walkthrough]) =
        unknown_members::split(&unknown_members::WALKTHROUGH, &fields.metadata);
    let walkthrough = json!({
        "title": fields.title,
        "description": fields.description,
        "type": fields.kind.as_str(),
        "status": state.as_str(),
        "estimatedDurationMinutes": fields.estimated_duration_minutes,
        "tags": fields.tags,
        "metadata": own,
    });
    let count = steps.len();
    let steps: Vec<_> = keys(&steps)
        .into_iter()
        .zip(&steps)
        .enumerate()
        .map(|(index, (key, step))| write_step(index, count, key, step.content))
        .collect();
    let known = json!({
        "version": "1.1",
        "exportedAt": exported_at.rfc3339(),
        "walkthrough": with_unknown(walkthrough, unknown_walkthrough),
        "steps": steps,
        "metadata": envelope_metadata,
    });
    with_unknown(known, envelope)
}

/// Returns the keys to write, without duplicates, which an import would reject. Duplicates are only possible if a key
/// equals the ID of another step; such a step is then matched by its title.
pub(super) fn keys<'a>(steps: &[ExportStep<'a>]) -> Vec<Option<&'a str>> {
    let mut seen = HashSet::new();
    steps.iter().map(|step| seen.insert(step.key).then_some(step.key)).collect()
}

fn write_step(index: usize, count: usize, key: Option<&str>, content: &StepContent) -> Value {
    let (own, [unknown_step, unknown_fields]) = unknown_members::split(&unknown_members::STEP, &content.metadata);
    let fields = json!({
        "version": "v1",
        "contentForUser": content.content,
        "introductionForAgent": content.introduction_for_agent,
        "contextForAgent": content.context_for_agent,
        "operationsForAgent": content.operations_for_agent,
    });
    let mut step = json!({
        "key": key,
        "title": content.title,
        "sectionTitle": content.section_title,
        "contentFields": with_unknown(fields, unknown_fields),
        "displayOrder": index,
        "nextStepReference": (index + 1 < count).then_some(index + 1),
    });
    if !own.is_empty() {
        step["metadata"] = own.into();
    }
    with_unknown(step, unknown_step)
}

/// Writes unknown members back to their original location. They never replace known members.
fn with_unknown(known: Value, unknown: Map<String, Value>) -> Value {
    let Value::Object(mut known) = known else { return known };
    for (name, value) in unknown {
        known.entry(name).or_insert(value);
    }
    Value::Object(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use waypost_core::id::StepId;
    use waypost_core::walkthrough::WalkthroughType;

    fn step(id: &str, key: Option<&str>, title: &str) -> Step {
        let content = StepContent { title: title.to_owned(), content: "x".to_owned(), ..StepContent::default() };
        Step {
            id: StepId::from_store(id.to_owned()),
            ordinal: 0,
            key: key.map(str::to_owned),
            next_step_id: None,
            content,
        }
    }

    fn fields() -> WalkthroughFields {
        let metadata = json!({"own": 1, "$unknown": {"envelope": {"x": 1}, "envelopeMetadata": {"y": 2}, "walkthrough": {"z": 3}}});
        WalkthroughFields {
            title: "T".to_owned(),
            description: "D".to_owned(),
            kind: WalkthroughType::Course,
            estimated_duration_minutes: None,
            tags: vec!["a".to_owned()],
            metadata: metadata.as_object().cloned().unwrap_or_default(),
        }
    }

    #[test]
    fn every_member_is_written() {
        let mut first = step("ws_000000000001", Some("k"), "A");
        let metadata = json!({"m": 1, "$unknown": {"step": {"odd": null}, "contentFields": {"more": 1}}});
        first.content.metadata = metadata.as_object().cloned().unwrap_or_default();
        let steps = [first, step("ws_000000000002", None, "B")];
        let fields_of = |extra: Value| {
            let known = json!({"version": "v1", "contentForUser": "x", "introductionForAgent": null, "contextForAgent": null,
                "operationsForAgent": null});
            with_unknown(known, extra.as_object().cloned().unwrap_or_default())
        };
        let expected = json!({
            "version": "1.1",
            "exportedAt": "1970-01-01T00:00:00.000Z",
            "walkthrough": {"title": "T", "description": "D", "type": "course", "status": "archived",
                "estimatedDurationMinutes": null, "tags": ["a"], "metadata": {"own": 1}, "z": 3},
            "steps": [
                {"key": "k", "title": "A", "sectionTitle": null, "contentFields": fields_of(json!({"more": 1})),
                    "displayOrder": 0, "nextStepReference": 1, "metadata": {"m": 1}, "odd": null},
                {"key": "ws_000000000002", "title": "B", "sectionTitle": null, "contentFields": fields_of(json!({})),
                    "displayOrder": 1, "nextStepReference": null},
            ],
            "metadata": {"y": 2},
            "x": 1,
        });
        assert_eq!(export_json(&fields(), &steps, WalkthroughState::Archived, Timestamp(0)), expected);
    }

    #[test]
    fn a_key_is_never_written_twice() {
        let steps = [step("ws_000000000001", None, "A"), step("ws_000000000002", Some("ws_000000000001"), "B")];
        let exported = export_json(&fields(), &steps, WalkthroughState::Draft, Timestamp(0));
        assert_eq!(
            (&exported["steps"][0]["key"], &exported["steps"][1]["key"]),
            (&"ws_000000000001".into(), &Value::Null)
        );
        assert!(crate::transfer::json::parse("a.json", &exported.to_string()).is_ok());
    }
}
