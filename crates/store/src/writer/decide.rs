//! Decides what the calls of a group change. All functions work in memory and do no I/O.

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
pub(super) struct DecidedCall {
    pub(super) decision: Decision,
    record: Option<ToolCall>,
    deliveries: Vec<NewDelivery>,
}

impl DecidedCall {
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

    /// Returns the attempt that the call opens if it closes no attempt, copies no completions and has no deliveries.
    /// The call must create its end user.
    fn first_attempt(&self) -> Option<&Attempt> {
        let ProgressChange { close: None, upsert: Some(opened), copy_completions_from: None, .. } =
            &self.changed()?.change
        else {
            return None;
        };
        (opened.closed_at.is_none() && self.deliveries.is_empty()).then_some(opened)
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
    /// The rows to write.
    pub(super) batch: Batch,
    /// The open attempts after the calls.
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
            let decided = DecidedCall::new(call, before);
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

/// A decision on an attempt that was not read: a cached attempt that is changed in place, or the first attempt of a new
/// end user.
pub(super) struct UnreadDecision {
    pub(super) decided: DecidedCall,
    /// The state on which the call was decided; `None` if it opens the attempt.
    pub(super) before: Option<Arc<Attempt>>,
    /// The new state.
    pub(super) after: Arc<Attempt>,
}

/// The known state of an attempt that has not been read.
enum KnownAttempt {
    /// The attempt is open in this state.
    Open(Arc<Attempt>),
    /// The attempt does not exist, because the call creates its end user.
    Absent,
    /// A call of the group opens the attempt.
    Opened,
    /// Nothing is known, or a call of the group has to read the attempt.
    Unknown,
}

impl KnownAttempt {
    fn new(call: &ProgressCall, cached: Option<Arc<Attempt>>, can_open: bool) -> Self {
        match (cached, &call.new_end_user) {
            (Some(attempt), _) => Self::Open(attempt),
            (None, Some(user)) if can_open && user.id == call.key.end_user_id => Self::Absent,
            (None, _) => Self::Unknown,
        }
    }
}

/// Applies calls to cached attempts and, if `can_open`, to the first attempts of new end users. Returns a decision for
/// each call that changes its attempt in place or opens the first one, if all other calls on the same attempt do so as
/// well.
pub(super) fn decide_unread<'c>(
    calls: impl Iterator<Item = &'c ProgressCall> + Clone,
    cached: Vec<Option<Arc<Attempt>>>,
    can_open: bool,
) -> Vec<Option<UnreadDecision>> {
    // What is known about each attempt after the calls so far.
    let mut known: HashMap<&ProgressKey, KnownAttempt> = HashMap::with_capacity(cached.len());
    let decided: Vec<_> = calls
        .clone()
        .zip(cached)
        .map(|(call, cached)| {
            let known = known.entry(&call.key).or_insert_with(|| KnownAttempt::new(call, cached, can_open));
            let before = match std::mem::replace(known, KnownAttempt::Unknown) {
                KnownAttempt::Open(before) => Some(before),
                KnownAttempt::Absent => None,
                KnownAttempt::Opened | KnownAttempt::Unknown => return None,
            };
            let decided = DecidedCall::new(call, before.as_deref());
            let after = match &before {
                Some(before) => decided.change_in_place(call, before),
                None => decided.first_attempt(),
            };
            let after = Arc::new(after?.clone());
            *known = if before.is_some() { KnownAttempt::Open(Arc::clone(&after)) } else { KnownAttempt::Opened };
            Some(UnreadDecision { decided, before, after })
        })
        .collect();
    let is_unread =
        |call: &ProgressCall| matches!(known.get(&call.key), Some(KnownAttempt::Open(_) | KnownAttempt::Opened));
    calls.zip(decided).map(|(call, decided)| decided.filter(|_| is_unread(call))).collect()
}

/// Adds the completion, the events and the copied completions of one call to `batch`.
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
