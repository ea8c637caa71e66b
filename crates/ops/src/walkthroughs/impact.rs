//! Sentences about what publishing changes and whom it affects.

use serde::Serialize;
use utoipa::ToSchema;
use waypost_content::transfer::lint::Severity;
use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_core::impact::{AttemptImpact, MoveImpact};
use waypost_core::walkthrough::WalkthroughState;
use waypost_core::{Code, Error, Result};

use super::versions::{self, PublishImpact};
use crate::Ops;

/// Formats a number of steps: `one step`, `2 steps`.
fn steps(count: u32) -> String {
    if count == 1 { "one step".to_owned() } else { format!("{count} steps") }
}

/// Formats a number of end users with a verb: `1 repeats`, `2 repeat`.
fn users(count: u64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

/// Returns sentences for the author: how many end users are in progress, and what moving to the new version means for
/// them.
#[must_use]
pub fn sentences(impact: &PublishImpact) -> Vec<String> {
    let consequences = &impact.consequences;
    if consequences.users == 0 {
        return vec!["No one is currently in progress.".to_owned()];
    }
    let staying = users(consequences.users, "end user in progress stays", "end users in progress stay");
    vec![
        format!("{staying} on their current version until they ask for the newest one."),
        format!("If they move to version {}: {}.", impact.to_version, describe_groups(consequences).join(", ")),
    ]
}

/// The number of groups listed individually. The users of all others are counted together.
const MAX_GROUPS: usize = 6;

/// Describes what moving means for each group. Each user is in exactly one group, so the numbers add up to
/// `consequences.users`.
fn describe_groups(consequences: &MoveImpact) -> Vec<String> {
    let (completing, others): (Vec<_>, Vec<_>) = consequences.groups.iter().partition(|(group, _)| group.completes);
    let mut parts: Vec<String> =
        others.iter().take(MAX_GROUPS).map(|(group, count)| describe_group(**group, **count)).collect();
    let rest: u64 = others.iter().skip(MAX_GROUPS).map(|(_, count)| **count).sum();
    if rest > 0 {
        parts.push(users(rest, "loses or repeats other numbers of steps", "lose or repeat other numbers of steps"));
    }
    let complete: u64 = completing.iter().map(|(_, count)| **count).sum();
    if complete > 0 {
        parts.push(users(complete, "completes the walkthrough", "complete the walkthrough"));
    }
    parts
}

fn describe_group(impact: AttemptImpact, count: u64) -> String {
    let completed =
        |count: u32| if count == 1 { "one completed step".to_owned() } else { format!("{count} completed steps") };
    match (impact.lost, impact.repeat) {
        (0, 0) => users(count, "loses nothing", "lose nothing"),
        (0, again) => format!("{} {}", users(count, "repeats", "repeat"), steps(again)),
        (lost, 0) => format!("{} {}", users(count, "loses", "lose"), completed(lost)),
        (lost, again) => {
            let (lost, again) = (completed(lost), steps(again));
            let repeat = if count == 1 { "repeats" } else { "repeat" };
            format!("{} {lost} and {repeat} {again}", users(count, "loses", "lose"))
        }
    }
}

/// Returns one sentence about what publishing would change.
#[must_use]
pub fn summary(impact: &PublishImpact) -> String {
    let [added, removed, changed, moved] = impact.comparison.counts();
    let Some(from) = impact.from_version else {
        return format!("This is the first version, with {}.", steps(u32::try_from(added).unwrap_or(u32::MAX)));
    };
    if impact.comparison.is_empty() {
        return format!("Nothing has changed since version {from}. Publishing will not create a new version.");
    }
    let count = |number: usize, what: &str| (number > 0).then(|| format!("{number} {what}"));
    let step_parts =
        [count(added, "added"), count(removed, "removed"), count(changed, "changed"), count(moved, "moved")];
    let mut parts: Vec<String> = step_parts.into_iter().flatten().collect();
    if !parts.is_empty() {
        parts = vec![format!("steps: {}", parts.join(", "))];
    }
    if !impact.comparison.fields.is_empty() {
        let fields: Vec<_> = impact.comparison.fields.iter().map(|field| field.field.replace('_', " ")).collect();
        parts.push(format!("also changed: {}", fields.join(", ")));
    }
    format!("Since version {from}, {}.", parts.join("; "))
}

/// A summary of the impact of publishing a walkthrough.
#[derive(Debug, Serialize, ToSchema)]
pub struct PublishImpactSummary {
    /// The ID from the request.
    pub id: String,
    /// The title. Null if the walkthrough does not exist.
    pub title: Option<String>,
    /// The revision of the draft that the summary describes.
    pub revision: Option<u32>,
    /// Sentences about what would change and whom it would affect.
    pub sentences: Vec<String>,
    /// The reason why the walkthrough cannot be published. Null if it can.
    pub problem: Option<String>,
}

impl PublishImpactSummary {
    /// Returns the impact of publishing the walkthrough with the ID `text`. If it does not exist, `problem` says so.
    ///
    /// # Errors
    /// `forbidden`; `conflict` if the chain of steps is broken.
    async fn find(cx: &Ctx, ops: &Ops, organization: &OrganizationId, text: &str) -> Result<Self> {
        match Self::find_existing(cx, ops, organization, text).await {
            Err(error) if matches!(error.code, Code::NotFound | Code::WalkthroughNotFound) => Ok(Self {
                id: text.to_owned(),
                title: None,
                revision: None,
                sentences: Vec::new(),
                problem: Some(error.message),
            }),
            found => found,
        }
    }

    async fn find_existing(cx: &Ctx, ops: &Ops, organization: &OrganizationId, text: &str) -> Result<Self> {
        let id = text.parse().map_err(|_| Error::not_found("walkthrough"))?;
        let walkthrough = super::get(cx, ops, organization, &id).await?;
        let impact = versions::get_impact(cx, ops, organization, &id).await?;
        let error = impact.findings.iter().find(|finding| finding.severity == Severity::Error);
        let problem = match error {
            _ if walkthrough.state == WalkthroughState::Archived => {
                Some("The walkthrough is archived. Unarchive it first.".to_owned())
            }
            error => error.map(|error| error.to_string().trim_start_matches("error: ").to_owned()),
        };
        let mut sentences = vec![self::summary(&impact)];
        sentences.extend(self::sentences(&impact));
        Ok(Self {
            id: text.to_owned(),
            title: Some(walkthrough.title),
            revision: Some(impact.revision),
            sentences,
            problem,
        })
    }
}

/// Returns a summary for each of `ids`.
///
/// # Errors
/// `forbidden`; `conflict` if a chain of steps is broken.
pub async fn summarize(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    ids: &[String],
) -> Result<Vec<PublishImpactSummary>> {
    let mut summaries = Vec::with_capacity(ids.len());
    for id in ids {
        summaries.push(PublishImpactSummary::find(cx, ops, organization, id).await?);
    }
    Ok(summaries)
}

#[cfg(test)]
mod tests {
    use waypost_content::compare::Comparison;

    use super::*;

    #[test]
    fn sentences_state_numbers_and_consequences() {
        let mut consequences = MoveImpact::default();
        consequences.add(AttemptImpact::default(), 380);
        consequences.add(AttemptImpact { repeat: 1, ..AttemptImpact::default() }, 32);
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
                "412 end users in progress stay on their current version until they ask for the newest one.",
                "If they move to version 2: 380 lose nothing, 32 repeat one step."
            ]
        );
        assert_eq!(summary(&impact), "Nothing has changed since version 1. Publishing will not create a new version.");
        impact.consequences = MoveImpact::default();
        assert_eq!(sentences(&impact), ["No one is currently in progress."]);
    }

    fn describe(groups: &[(u32, u32, bool, u64)]) -> String {
        let mut consequences = MoveImpact::default();
        for (lost, repeat, completes, count) in groups {
            consequences.add(AttemptImpact { lost: *lost, repeat: *repeat, completes: *completes }, *count);
        }
        super::describe_groups(&consequences).join(", ")
    }

    #[test]
    fn each_user_is_in_exactly_one_group() {
        assert_eq!(
            describe(&[
                (0, 0, false, 1),
                (2, 1, false, 1),
                (1, 0, false, 3),
                (0, 2, false, 4),
                (0, 0, true, 1),
                (1, 0, true, 1)
            ]),
            "1 loses nothing, 4 repeat 2 steps, 3 lose one completed step, 1 loses 2 completed steps and repeats one step, \
             2 complete the walkthrough"
        );
    }

    proptest::proptest! {
        #[test]
        fn the_groups_add_up(groups in proptest::collection::vec((0_u32..9, 0_u32..9, proptest::bool::ANY, 1_u64..50), 0..40)) {
            let sentence = describe(&groups);
            let first = |part: &str| part.split(' ').next().unwrap().parse::<u64>().unwrap();
            let sum: u64 = sentence.split(", ").filter(|part| !part.is_empty()).map(first).sum();
            proptest::prop_assert_eq!(sum, groups.iter().map(|(.., count)| *count).sum::<u64>(), "{}", sentence);
        }
    }
}
