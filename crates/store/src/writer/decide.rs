//! What the calls of a group change. Pure: everything here works in memory.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use waypost_core::event::EventKind;
use waypost_core::id::{EventId, ProgressId};
use waypost_core::progress::{Attempt, Outcome, ProgressChange};
use waypost_core::webhook::NewDelivery;
use waypost_core::{Error as CoreError, Random};

use super::{Decision, ProgressCall};
use crate::progress::{Batch, EventDetails, ProgressKey};
use crate::tool_call::ToolCall;

/// A decision with the rows that accompany it.
pub(super) struct Decided {
    pub(super) decision: Decision,
    record: Option<ToolCall>,
    deliveries: Vec<NewDelivery>,
}

impl Decided {
    /// Applies a call to an attempt. The record and the deliveries are created only if the call changes something.
    pub(super) fn new(call: &ProgressCall, attempt: Option<&Attempt>) -> Self {
        // A panic in one call's functions must not stop the writer.
        catch_unwind(AssertUnwindSafe(|| {
            let decision = (call.decide)(attempt);
            let changed = match &decision {
                Decision::Done(outcome) if !outcome.change.is_empty() => Some(outcome),
                _ => None,
            };
            let record = changed.zip(call.tool_call.as_ref()).map(|(outcome, record)| record(outcome));
            let deliveries =
                changed.zip(call.deliveries.as_ref()).map(|(outcome, create)| create(outcome)).unwrap_or_default();
            Self { decision, record, deliveries }
        }))
        .unwrap_or_else(|_| Self {
            decision: Decision::Rejected(CoreError::internal("a call on progress panicked")),
            record: None,
            deliveries: Vec::new(),
        })
    }

    /// Returns the outcome if the call changes something.
    fn changed(&self) -> Option<&Outcome> {
        match &self.decision {
            Decision::Done(outcome) if !outcome.change.is_empty() => Some(outcome),
            _ => None,
        }
    }

    /// Returns the new state of `attempt` if the call changes only this attempt, which keeps its version, and adds rows
    /// that refer to it: completions, events, and the record of the call.
    fn change_in_place(&self, call: &ProgressCall, attempt: &Attempt) -> Option<&Attempt> {
        let ProgressChange { close: None, upsert: Some(changed), copy_completions_from: None, .. } =
            &self.changed()?.change
        else {
            return None;
        };
        let is_in_place = changed.id == attempt.id
            && changed.version_id == attempt.version_id
            && changed.closed_at.is_none()
            && call.new_end_user.is_none()
            && call.new_session.is_none()
            && self.deliveries.is_empty();
        is_in_place.then_some(changed)
    }

    /// Adds the rows of this decision to `batch`, except those of attempts, and returns the decision.
    pub(super) fn add_rows(
        self,
        call: &ProgressCall,
        before: Option<&Attempt>,
        random: &dyn Random,
        batch: &mut Batch,
    ) -> Decision {
        if let Some(outcome) = self.changed() {
            batch.add_end_user(call.new_end_user.clone(), call.new_session.clone());
            add_details(call, outcome, before, random, batch);
            batch.add_tool_call(self.record);
            batch.add_deliveries(self.deliveries);
        }
        self.decision
    }
}

/// The calls of a group, applied to attempts that are locked or absent.
pub(super) struct DecidedGroup {
    /// The decisions, in the order of the calls.
    pub(super) decisions: Vec<Decision>,
    /// What to write.
    pub(super) batch: Batch,
    /// The open attempts afterwards.
    pub(super) open: HashMap<ProgressKey, Attempt>,
}

impl DecidedGroup {
    /// Applies the calls in order.
    pub(super) fn new(calls: &[ProgressCall], mut open: HashMap<ProgressKey, Attempt>, random: &dyn Random) -> Self {
        let mut batch = Batch::default();
        // An attempt may change several times within a group; only its final state is written.
        let mut touched: HashMap<ProgressId, (&ProgressKey, Attempt, bool)> = HashMap::new();
        let mut order = Vec::new();
        let mut decisions = Vec::with_capacity(calls.len());
        for call in calls {
            let before = open.get(&call.key);
            let decided = Decided::new(call, before);
            let change = decided.changed().map(|outcome| (outcome.change.close.clone(), outcome.change.upsert.clone()));
            if let Some((close, upsert)) = &change {
                let is_new = |put: &Attempt| before.is_none_or(|old| old.id != put.id);
                let changes = close.iter().map(|attempt| (attempt, false));
                for (attempt, is_new) in changes.chain(upsert.iter().map(|put| (put, is_new(put)))) {
                    let entry = touched.entry(attempt.id.clone()).or_insert_with(|| {
                        order.push(attempt.id.clone());
                        (&call.key, attempt.clone(), is_new)
                    });
                    entry.1 = attempt.clone();
                }
            }
            decisions.push(decided.add_rows(call, before, random, &mut batch));
            match change {
                Some((_, Some(put))) => open.insert(call.key.clone(), put),
                Some((_, None)) => open.remove(&call.key),
                None => None,
            };
        }
        for id in order {
            if let Some((key, attempt, is_new)) = touched.get(&id) {
                batch.add_attempt(key, attempt, *is_new);
            }
        }
        Self { decisions, batch, open }
    }
}

/// A decision on a cached attempt that changes it in place.
pub(super) struct DecidedInPlace {
    pub(super) decided: Decided,
    /// The state on which the call was decided.
    pub(super) before: Arc<Attempt>,
    /// The new state.
    pub(super) after: Arc<Attempt>,
}

/// Applies calls to cached attempts. Returns a decision for each call that changes its attempt in place, if all other
/// calls on the same attempt do as well.
pub(super) fn decide_on_cached<'c>(
    calls: impl Iterator<Item = &'c ProgressCall> + Clone,
    cached: Vec<Option<Arc<Attempt>>>,
) -> Vec<Option<DecidedInPlace>> {
    // The state of each attempt after the calls so far; `None` if it is not cached or not changed in place.
    let mut states: HashMap<&ProgressKey, Option<Arc<Attempt>>> = HashMap::with_capacity(cached.len());
    let decided: Vec<_> = calls
        .clone()
        .zip(cached)
        .map(|(call, cached)| {
            let state = states.entry(&call.key).or_insert(cached);
            let before = state.take()?;
            let decided = Decided::new(call, Some(&before));
            let after = Arc::new(decided.change_in_place(call, &before)?.clone());
            *state = Some(Arc::clone(&after));
            Some(DecidedInPlace { decided, before, after })
        })
        .collect();
    let is_in_place = |call: &ProgressCall| states.get(&call.key).is_some_and(Option::is_some);
    calls.zip(decided).map(|(call, decided)| decided.filter(|_| is_in_place(call))).collect()
}

/// Adds completion, events and copies of completions of one call to `batch`.
fn add_details(
    call: &ProgressCall,
    outcome: &Outcome,
    before: Option<&Attempt>,
    random: &dyn Random,
    batch: &mut Batch,
) {
    let change = &outcome.change;
    if let Some(subject) = change.upsert.as_ref().or(change.close.as_ref()) {
        if let Some(step) = &change.completion {
            batch.add_completion(subject, step.clone(), call.now);
        }
        // The attempt itself contains the time of its last activity, so no query is needed.
        let before = before.filter(|attempt| attempt.id == subject.id);
        let mut elapsed_ms = before.map(|attempt| call.now.since(attempt.last_activity_at).max(0));
        for (kind, step_id) in &change.events {
            let id = EventId::new(call.now, random);
            let (step_id, client_name) = (step_id.clone(), call.client_name.clone());
            let is_end = *kind == EventKind::Completed;
            let took_ms = is_end.then(|| call.now.since(subject.started_at).max(0));
            let details = EventDetails { kind: *kind, step_id, client_name, elapsed_ms, took_ms };
            batch.add_event(id, &call.key, subject, details, call.now);
            elapsed_ms = Some(0);
        }
    }
    if let (Some(from), Some(put)) = (&change.copy_completions_from, &change.upsert) {
        batch.copy_completions(from.clone(), put.id.clone());
    }
}
