//! Storage of unknown members of imported files in `metadata`, so that an export can write them back.
//!
//! A reserved member, [`RESERVED`], holds them by their original location: the slots `envelope`, `envelopeMetadata` and
//! `walkthrough` in the metadata of a walkthrough, `step` and `contentFields` in that of a step. All other members of
//! `metadata` are the author's own and are written to the file's `metadata` unchanged.
//!
//! An author's own member with the reserved name is kept in an additional slot, `own`, if it conflicts with the
//! reserved member or could be mistaken for it; otherwise it is unchanged. Reading and writing are therefore inverses
//! of each other.

use serde_json::{Map, Value};

/// The reserved member of `metadata`.
pub const RESERVED: &str = "$unknown";

/// A slot of the reserved member: its name, and the members that are known at its location.
pub(super) struct Slot {
    name: &'static str,
    known: &'static [&'static str],
}

/// Slots of a walkthrough.
pub(super) const WALKTHROUGH: [Slot; 3] = [
    Slot { name: "envelope", known: &["version", "exportedAt", "walkthrough", "steps", "metadata"] },
    Slot { name: "envelopeMetadata", known: &[] },
    Slot {
        name: "walkthrough",
        known: &["title", "description", "type", "status", "estimatedDurationMinutes", "tags", "metadata"],
    },
];

/// Slots of a step. The `metadata` of a step is known only if it is an object (see [`super::json`]).
pub(super) const STEP: [Slot; 2] = [
    Slot {
        name: "step",
        known: &["key", "title", "sectionTitle", "contentFields", "displayOrder", "nextStepReference"],
    },
    Slot {
        name: "contentFields",
        known: &["version", "contentForUser", "introductionForAgent", "contextForAgent", "operationsForAgent"],
    },
];

/// The slot for the author's own member with the reserved name.
const OWN: &str = "own";

/// Combines the author's own members and the unknown members of each slot into metadata.
pub(super) fn join<const N: usize>(
    slots: &[Slot; N],
    mut own: Map<String, Value>,
    unknown: [Map<String, Value>; N],
) -> Map<String, Value> {
    let mut reserved = Map::new();
    for (slot, members) in slots.iter().zip(unknown) {
        if !members.is_empty() {
            reserved.insert(slot.name.to_owned(), members.into());
        }
    }
    let is_conflict = own.get(RESERVED).is_some_and(|value| !reserved.is_empty() || is_ours(slots, value));
    if is_conflict && let Some(value) = own.shift_remove(RESERVED) {
        reserved.insert(OWN.to_owned(), value);
    }
    if !reserved.is_empty() {
        own.insert(RESERVED.to_owned(), reserved.into());
    }
    own
}

/// Splits metadata into the author's own members and the unknown members of each slot. The inverse of [`join`].
pub(super) fn split<const N: usize>(
    slots: &[Slot; N],
    metadata: &Map<String, Value>,
) -> (Map<String, Value>, [Map<String, Value>; N]) {
    let mut own = metadata.clone();
    let mut unknown = std::array::from_fn(|_| Map::new());
    if !own.get(RESERVED).is_some_and(|value| is_ours(slots, value)) {
        return (own, unknown);
    }
    if let Some(Value::Object(mut reserved)) = own.shift_remove(RESERVED) {
        for (slot, members) in slots.iter().zip(&mut unknown) {
            if let Some(Value::Object(kept)) = reserved.shift_remove(slot.name) {
                *members = kept;
            }
        }
        if let Some(value) = reserved.shift_remove(OWN) {
            own.insert(RESERVED.to_owned(), value);
        }
    }
    (own, unknown)
}

/// Whether a value could have been created by [`join`]: it contains only non-empty slots without known members, and the
/// author's own member only if [`join`] would have moved it.
fn is_ours<const N: usize>(slots: &[Slot; N], value: &Value) -> bool {
    let Some(reserved) = value.as_object() else { return false };
    let fits = |(name, value): (&String, &Value)| {
        slots.iter().find(|slot| slot.name == name).is_some_and(|slot| {
            let members = value.as_object().filter(|members| !members.is_empty());
            members.is_some_and(|members| !members.keys().any(|member| slot.known.contains(&member.as_str())))
        })
    };
    match reserved.get(OWN) {
        Some(own) if reserved.len() == 1 => is_ours(slots, own),
        _ => !reserved.is_empty() && reserved.iter().filter(|(name, _)| *name != OWN).all(fits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is not an object"),
        }
    }

    #[test]
    fn unknown_members_are_separate_from_the_authors_own() {
        let unknown = [map(json!({"x": 1})), Map::new(), map(json!({"x": 2}))];
        let metadata = join(&WALKTHROUGH, map(json!({"x": 3})), unknown.clone());
        assert_eq!(
            Value::Object(metadata.clone()),
            json!({"x": 3, "$unknown": {"envelope": {"x": 1}, "walkthrough": {"x": 2}}})
        );
        assert_eq!(split(&WALKTHROUGH, &metadata), (map(json!({"x": 3})), unknown));
    }

    #[test]
    fn an_authors_member_with_the_reserved_name_is_preserved() {
        let ours = json!({"step": {"x": 1}});
        let values =
            [ours.clone(), json!(5), json!({}), json!({"own": ours}), json!({"own": 5}), json!({"step": {"key": 1}})];
        for value in values {
            for members in [Map::new(), map(json!({"y": 1}))] {
                let own = map(json!({"a": 1, "$unknown": value}));
                let unknown = [members, Map::new()];
                let joined = join(&STEP, own.clone(), unknown.clone());
                assert_eq!(split(&STEP, &joined), (own.clone(), unknown));
                let (again, slots) = split(&STEP, &own);
                assert_eq!(join(&STEP, again, slots), own);
            }
        }
    }
}
