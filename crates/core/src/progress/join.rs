//! Joining anonymous progress to that of a signed-in user, and taking that back, as functions from what is to what
//! shall be.
//!
//! Invariants (each has a property test below):
//!
//! 1. What either of the two had completed is completed afterwards, and counts where the pinned version has the step.
//! 2. The newer of the two pinned versions wins, unless that would make a completed attempt an open one: completed stays
//!    completed, on the version that it was completed on.
//! 3. An attempt is completed exactly when every step of its version is.
//! 4. A join that is undone at once leaves both as they were. One that is undone later takes back what only the
//!    anonymous attempt had added, and nothing that the user did.

use serde::{Deserialize, Serialize};

use super::{Attempt, AttemptState, StepSet};
use crate::clock::Timestamp;
use crate::id::{ProgressId, VersionId};
use crate::random::Random;
use crate::version::Version;

/// An attempt with its pinned version.
#[derive(Debug, Clone, Copy)]
pub struct PinnedAttempt<'a> {
    /// The attempt.
    pub attempt: &'a Attempt,
    /// The version that it is pinned to.
    pub version: &'a Version,
}

/// What can change of an attempt that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptSnapshot {
    version_id: VersionId,
    completed: StepSet,
    completed_at: Option<Timestamp>,
    started_at: Timestamp,
    last_activity_at: Timestamp,
}

/// What a join did to one walkthrough: enough to take it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRecord {
    /// The anonymous attempt, which the join closed.
    pub from: ProgressId,
    /// The user's attempt that it went into.
    pub to: ProgressId,
    /// The user's attempt before; none when the join made it.
    pub before: Option<AttemptSnapshot>,
    /// The user's attempt right after.
    pub after: AttemptSnapshot,
    /// The steps that only the anonymous attempt had completed.
    #[serde(rename = "brought")]
    pub added: StepSet,
}

/// What comes of a join.
#[derive(Debug, Clone)]
pub struct JoinOutcome {
    /// The anonymous attempt, closed.
    pub from: Attempt,
    /// The user's attempt.
    pub to: Attempt,
    /// Whether the user had none before.
    pub is_new: bool,
    /// How to take it back.
    pub record: JoinRecord,
}

impl AttemptSnapshot {
    fn of(attempt: &Attempt) -> Self {
        let completed_at = match attempt.state {
            AttemptState::Completed { at } => Some(at),
            AttemptState::InProgress => None,
        };
        Self {
            version_id: attempt.version_id.clone(),
            completed: attempt.completed.clone(),
            completed_at,
            started_at: attempt.started_at,
            last_activity_at: attempt.last_activity_at,
        }
    }

    fn state(&self) -> AttemptState {
        self.completed_at.map_or(AttemptState::InProgress, |at| AttemptState::Completed { at })
    }
}

fn is_complete(version: &Version, completed: &StepSet) -> bool {
    version.steps().iter().all(|step| completed.contains(step.ordinal))
}

/// Joins the anonymous attempt `from` to the user's `to`; without one the user gets an attempt that is like `from`.
#[must_use]
pub fn join(
    from: PinnedAttempt<'_>,
    to: Option<PinnedAttempt<'_>>,
    now: Timestamp,
    random: &dyn Random,
) -> JoinOutcome {
    let closed = Attempt { closed_at: Some(now), ..from.attempt.clone() };
    let attempt = match to {
        None => Attempt { id: ProgressId::new(now, random), closed_at: None, ..from.attempt.clone() },
        Some(to) => merged(from, to, now),
    };
    let before = to.map(|to| to.attempt);
    let added = before
        .map_or_else(|| from.attempt.completed.clone(), |before| from.attempt.completed.difference(&before.completed));
    let record = JoinRecord {
        from: from.attempt.id.clone(),
        to: attempt.id.clone(),
        before: before.map(AttemptSnapshot::of),
        after: AttemptSnapshot::of(&attempt),
        added,
    };
    JoinOutcome { from: closed, to: attempt, is_new: to.is_none(), record }
}

fn merged(from: PinnedAttempt<'_>, to: PinnedAttempt<'_>, now: Timestamp) -> Attempt {
    let completed = to.attempt.completed.union(&from.attempt.completed);
    let (newer, older) = if from.version.number > to.version.number { (from, to) } else { (to, from) };
    let is_done = |pinned: &PinnedAttempt<'_>| pinned.attempt.state != AttemptState::InProgress;
    let (version, state) = if is_complete(newer.version, &completed) {
        let same = newer.version.id == older.version.id;
        let on_it = [Some(newer), Some(older).filter(|_| same)];
        let times = on_it.into_iter().flatten().filter_map(|pinned| AttemptSnapshot::of(pinned.attempt).completed_at);
        (newer.version, AttemptState::Completed { at: times.min().unwrap_or(now) })
    } else if is_done(&older) {
        (older.version, older.attempt.state)
    } else {
        (newer.version, AttemptState::InProgress)
    };
    Attempt {
        version_id: version.id.clone(),
        completed,
        state,
        started_at: to.attempt.started_at.min(from.attempt.started_at),
        last_activity_at: to.attempt.last_activity_at.max(from.attempt.last_activity_at),
        ..to.attempt.clone()
    }
}

/// Takes a join back from `present`, the attempt that the user has now: the joined one, or one that came of it. `still`
/// are the steps that it has from the anonymous attempt; among them only those that the join added are record away.
///
/// The version goes back only when the user has done nothing since: otherwise they stay where they have gone on.
#[must_use]
pub fn undo(record: &JoinRecord, present: PinnedAttempt<'_>, still: &StepSet, now: Timestamp) -> Attempt {
    let attempt = present.attempt;
    let seen = AttemptSnapshot::of(attempt);
    let is_joined = attempt.id == record.to;
    let touched = AttemptSnapshot { last_activity_at: record.after.last_activity_at, ..seen.clone() } != record.after;
    let lost = record.added.difference(&record.added.difference(still));
    let completed = attempt.completed.difference(&lost);
    match &record.before {
        Some(before) if is_joined && !touched => Attempt {
            version_id: before.version_id.clone(),
            completed: before.completed.clone(),
            state: before.state(),
            started_at: before.started_at,
            last_activity_at: if seen.last_activity_at == record.after.last_activity_at {
                before.last_activity_at
            } else {
                seen.last_activity_at
            },
            ..attempt.clone()
        },
        before => {
            let state = if is_complete(present.version, &completed) { attempt.state } else { AttemptState::InProgress };
            let started_at = match before {
                Some(before) if is_joined => before.started_at,
                _ => attempt.started_at,
            };
            let is_empty = is_joined && before.is_none() && completed.is_empty();
            let closed_at = if is_empty { Some(now) } else { attempt.closed_at };
            Attempt { completed, state, started_at, closed_at, ..attempt.clone() }
        }
    }
}

#[cfg(test)]
mod tests;
