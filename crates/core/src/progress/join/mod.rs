//! Joining anonymous progress to that of a signed-in user, and undoing a join. All functions are pure.
//!
//! Invariants (each has a property test in `tests.rs`):
//!
//! 1. Steps that were completed in either attempt are completed afterwards, and count if the pinned version has them.
//! 2. The newer of the two pinned versions wins, unless that would reopen a completed attempt: it stays completed, on
//!    the version on which it was completed.
//! 3. An attempt is completed if and only if every step of its version is.
//! 4. Undoing a join immediately restores both attempts. Undoing it later removes only the steps that were added by the
//!    anonymous attempt, and nothing that the user did.

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

/// The parts of an open attempt that can change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptSnapshot {
    version_id: VersionId,
    completed: StepSet,
    completed_at: Option<Timestamp>,
    started_at: Timestamp,
    last_activity_at: Timestamp,
}

/// A record of what a join changed in one walkthrough, sufficient to undo it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRecord {
    /// The anonymous attempt, which the join closed.
    pub from: ProgressId,
    /// The user's attempt that it was merged into.
    pub to: ProgressId,
    /// The user's attempt before the join; `None` if the join created it.
    pub before: Option<AttemptSnapshot>,
    /// The user's attempt immediately after the join.
    pub after: AttemptSnapshot,
    /// The steps that were completed only in the anonymous attempt.
    #[serde(rename = "brought")]
    pub added: StepSet,
}

/// The result of a join.
#[derive(Debug, Clone)]
pub struct JoinOutcome {
    /// The anonymous attempt, closed.
    pub from: Attempt,
    /// The user's attempt.
    pub to: Attempt,
    /// Whether the join created the user's attempt.
    pub is_new: bool,
    /// The record for undoing the join.
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

/// Merges the anonymous attempt `from` into the user's attempt `to`. If `to` is `None`, the user gets a copy of `from`.
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
        Some(to) => merge(from, to, now),
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

fn merge(from: PinnedAttempt<'_>, to: PinnedAttempt<'_>, now: Timestamp) -> Attempt {
    let completed = to.attempt.completed.union(&from.attempt.completed);
    let (newer, older) = if from.version.number > to.version.number { (from, to) } else { (to, from) };
    let is_done = |pinned: &PinnedAttempt<'_>| pinned.attempt.state != AttemptState::InProgress;
    let (version, state) = if is_complete(newer.version, &completed) {
        let same = newer.version.id == older.version.id;
        let completions = [Some(newer), Some(older).filter(|_| same)];
        let times =
            completions.into_iter().flatten().filter_map(|pinned| AttemptSnapshot::of(pinned.attempt).completed_at);
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

/// Undoes a join in `current`, the user's current attempt: the joined attempt or one that replaced it. `inherited` are
/// the steps that it still has from the anonymous attempt; of these, only the steps added by the join are removed.
///
/// The version is restored only if the user has done nothing since the join; otherwise they stay on the current
/// version.
#[must_use]
pub fn undo(record: &JoinRecord, current: PinnedAttempt<'_>, inherited: &StepSet, now: Timestamp) -> Attempt {
    let attempt = current.attempt;
    let snapshot = AttemptSnapshot::of(attempt);
    let is_joined = attempt.id == record.to;
    let is_changed =
        AttemptSnapshot { last_activity_at: record.after.last_activity_at, ..snapshot.clone() } != record.after;
    let removed = record.added.difference(&record.added.difference(inherited));
    let completed = attempt.completed.difference(&removed);
    match &record.before {
        Some(before) if is_joined && !is_changed => Attempt {
            version_id: before.version_id.clone(),
            completed: before.completed.clone(),
            state: before.state(),
            started_at: before.started_at,
            last_activity_at: if snapshot.last_activity_at == record.after.last_activity_at {
                before.last_activity_at
            } else {
                snapshot.last_activity_at
            },
            ..attempt.clone()
        },
        before => {
            let state = if is_complete(current.version, &completed) { attempt.state } else { AttemptState::InProgress };
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
