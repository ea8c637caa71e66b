//! The place in `metadata` where members that this version does not know wait to be written back.
//!
//! One reserved member, [`RESERVED`], holds them by where they stood: in the metadata of a walkthrough the slots
//! `envelope`, `envelopeMetadata` and `walkthrough`, in that of a step `step` and `contentFields`. All other members
//! of `metadata` are the author's own and stand in the file's `metadata` as they are.
//!
//! Should an author's own member have that very name, it waits in a further slot, `own`, whenever it would be taken for
//! ours or would be in our way; else it stands as it is. So reading and writing are each other's inverse.

use serde_json::{Map, Value};

/// The reserved member of `metadata`.
pub const RESERVED: &str = "$unknown";

/// A slot of the reserved member: its name, and the members that are known there and so cannot be unknown.
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

/// Slots of a step. `metadata` of a step is known only as an object, see [`super::json`].
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

/// Where the author's own member of the reserved name waits.
const OWN: &str = "own";

/// Metadata to keep: the author's own members and, by slot, the unknown ones.
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
    let in_the_way = own.get(RESERVED).is_some_and(|value| !reserved.is_empty() || is_ours(slots, value));
    if in_the_way && let Some(value) = own.shift_remove(RESERVED) {
        reserved.insert(OWN.to_owned(), value);
    }
    if !reserved.is_empty() {
        own.insert(RESERVED.to_owned(), reserved.into());
    }
    own
}

/// The author's own members and, by slot, the unknown ones: the inverse of [`join`].
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

/// Whether a value could have been made by [`join`]: slots only, none empty, no known member in them, and the author's
/// own member only where it would have been moved.
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
            other => panic!("{other} is no object"),
        }
    }

    #[test]
    fn keeps_unknown_members_apart_from_the_authors() {
        let unknown = [map(json!({"x": 1})), Map::new(), map(json!({"x": 2}))];
        let metadata = join(&WALKTHROUGH, map(json!({"x": 3})), unknown.clone());
        assert_eq!(
            Value::Object(metadata.clone()),
            json!({"x": 3, "$unknown": {"envelope": {"x": 1}, "walkthrough": {"x": 2}}})
        );
        assert_eq!(split(&WALKTHROUGH, &metadata), (map(json!({"x": 3})), unknown));
    }

    #[test]
    fn an_authors_member_of_the_reserved_name_survives() {
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
