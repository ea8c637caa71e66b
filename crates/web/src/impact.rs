//! What publishing changes and whom it affects, in sentences.

use waypost_core::impact::{Consequence, Consequences};
use waypost_ops::walkthroughs::versions::PublishImpact;

/// `1 step`, `2 steps`.
fn steps(count: u32) -> String {
    if count == 1 { "one step".to_owned() } else { format!("{count} steps") }
}

/// How many people, with what they do: `1 goes`, `2 go`.
fn people(count: u64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

/// Sentences for the author: who stays where, and what moving would mean.
#[must_use]
pub fn sentences(impact: &PublishImpact) -> Vec<String> {
    let it = &impact.consequences;
    if it.people == 0 {
        return vec!["Nobody is in the midst of this walkthrough.".to_owned()];
    }
    let who = people(it.people, "person in progress stays", "people in progress stay");
    let mut said = vec![format!("{who} on their version until they ask for the newest one.")];
    said.push(format!("On moving, {}.", groups(it).join(", ")));
    said
}

/// Groups that are named one by one; the people of all others are counted together.
const MAX_GROUPS: usize = 6;

/// What moving means for how many people. Everybody is in one group, so that the numbers add up to `people`.
fn groups(consequences: &Consequences) -> Vec<String> {
    let (completing, others): (Vec<_>, Vec<_>) = consequences.groups.iter().partition(|(it, _)| it.completes);
    let mut parts: Vec<String> = others.iter().take(MAX_GROUPS).map(|(it, count)| group(**it, **count)).collect();
    let rest: u64 = others.iter().skip(MAX_GROUPS).map(|(_, count)| **count).sum();
    if rest > 0 {
        parts.push(people(rest, "loses or repeats other numbers of steps", "lose or repeat other numbers of steps"));
    }
    let complete: u64 = completing.iter().map(|(_, count)| **count).sum();
    if complete > 0 {
        parts.push(people(complete, "completes the walkthrough", "complete the walkthrough"));
    }
    parts
}

fn group(it: Consequence, count: u64) -> String {
    let completed = |count| format!("{} that they completed", steps(count));
    match (it.lost, it.again) {
        (0, 0) => people(count, "loses nothing", "lose nothing"),
        (0, again) => format!("{} {}", people(count, "repeats", "repeat"), steps(again)),
        (lost, 0) => format!("{} {}", people(count, "loses", "lose"), completed(lost)),
        (lost, again) => {
            let (lost, again) = (completed(lost), steps(again));
            let repeat = if count == 1 { "repeats" } else { "repeat" };
            format!("{} {lost} and {repeat} {again}", people(count, "loses", "lose"))
        }
    }
}

/// What would change, in one sentence.
#[must_use]
pub fn summary(impact: &PublishImpact) -> String {
    let [added, removed, changed, moved] = impact.comparison.counts();
    let Some(from) = impact.from_version else {
        return format!("This is the first version, with {}.", steps(u32::try_from(added).unwrap_or(u32::MAX)));
    };
    if impact.comparison.is_empty() {
        return format!("Nothing has changed since version {from}: publishing makes no new version.");
    }
    let count = |number: usize, what: &str| (number > 0).then(|| format!("{number} {what}"));
    let step_parts =
        [count(added, "added"), count(removed, "removed"), count(changed, "changed"), count(moved, "moved")];
    let mut parts: Vec<String> = step_parts.into_iter().flatten().collect();
    if !parts.is_empty() {
        parts = vec![format!("steps: {}", parts.join(", "))];
    }
    if !impact.comparison.head.is_empty() {
        let fields: Vec<_> = impact.comparison.head.iter().map(|field| field.field.replace('_', " ")).collect();
        parts.push(format!("also changed: {}", fields.join(", ")));
    }
    format!("Since version {from}, {}.", parts.join("; "))
}

#[cfg(test)]
mod tests {
    use waypost_core::compare::Comparison;

    use super::*;

    #[test]
    fn reads_like_this() {
        let mut consequences = Consequences::default();
        consequences.add(Consequence::default(), 380);
        consequences.add(Consequence { again: 1, ..Consequence::default() }, 32);
        let mut impact = PublishImpact {
            revision: 1,
            from_version: Some(1),
            to_version: 2,
            comparison: Comparison::default(),
            by_version: vec![(1, 412)],
            consequences,
            findings: Vec::new(),
        };
        assert_eq!(
            sentences(&impact),
            [
                "412 people in progress stay on their version until they ask for the newest one.",
                "On moving, 380 lose nothing, 32 repeat one step."
            ]
        );
        assert_eq!(summary(&impact), "Nothing has changed since version 1: publishing makes no new version.");
        impact.consequences = Consequences::default();
        assert_eq!(sentences(&impact), ["Nobody is in the midst of this walkthrough."]);
    }

    fn told(groups: &[(u32, u32, bool, u64)]) -> String {
        let mut consequences = Consequences::default();
        for (lost, again, completes, count) in groups {
            consequences.add(Consequence { lost: *lost, again: *again, completes: *completes }, *count);
        }
        super::groups(&consequences).join(", ")
    }

    #[test]
    fn everybody_is_in_one_group() {
        assert_eq!(
            told(&[
                (0, 0, false, 1),
                (2, 1, false, 1),
                (1, 0, false, 3),
                (0, 2, false, 4),
                (0, 0, true, 1),
                (1, 0, true, 1)
            ]),
            "1 loses nothing, 4 repeat 2 steps, 3 lose one step that they completed, 1 loses 2 steps that they completed and \
             repeats one step, 2 complete the walkthrough"
        );
    }

    proptest::proptest! {
        #[test]
        fn the_groups_add_up(groups in proptest::collection::vec((0_u32..9, 0_u32..9, proptest::bool::ANY, 1_u64..50), 0..40)) {
            let said = told(&groups);
            let first = |part: &str| part.split(' ').next().unwrap().parse::<u64>().unwrap();
            let sum: u64 = said.split(", ").filter(|part| !part.is_empty()).map(first).sum();
            proptest::prop_assert_eq!(sum, groups.iter().map(|(.., count)| *count).sum::<u64>(), "{}", said);
        }
    }
}
