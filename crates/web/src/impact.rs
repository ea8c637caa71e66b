//! What publishing changes and whom it affects, in sentences.

use waypost_ops::walkthroughs::history::Impact;

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
pub fn sentences(impact: &Impact) -> Vec<String> {
    let it = &impact.consequences;
    if it.people == 0 {
        return vec!["Nobody is in the midst of this walkthrough.".to_owned()];
    }
    let who = people(it.people, "person in progress stays", "people in progress stay");
    let mut said = vec![format!("{who} on their version until they ask for the newest one.")];
    let mut parts = Vec::new();
    if it.lose_nothing > 0 {
        parts.push(people(it.lose_nothing, "loses nothing", "lose nothing"));
    }
    for (count, who) in &it.again {
        parts.push(format!("{} {}", people(*who, "repeats", "repeat"), steps(*count)));
    }
    for (count, who) in &it.lose {
        parts.push(format!("{} {} that they completed", people(*who, "loses", "lose"), steps(*count)));
    }
    if !parts.is_empty() {
        said.push(format!("On moving, {}.", parts.join(", ")));
    }
    if it.complete > 0 {
        said.push(format!("Moving completes the walkthrough for {}.", people(it.complete, "person", "people")));
    }
    said
}

/// What would change, in one sentence.
#[must_use]
pub fn summary(impact: &Impact) -> String {
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
    use waypost_core::impact::{Consequence, Consequences};

    use super::*;

    #[test]
    fn reads_like_this() {
        let mut consequences = Consequences::default();
        consequences.add(Consequence::default(), 380);
        consequences.add(Consequence { again: 1, ..Consequence::default() }, 32);
        let mut impact = Impact {
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
}
