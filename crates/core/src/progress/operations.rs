//! The acts on progress, as functions from what is to what shall be.

use std::sync::Arc;

use super::{Attempt, AttemptState, Notice, Outcome, ProgressChange, ProgressView, Status, StepSet, VersionOffer};
use crate::clock::Timestamp;
use crate::error::{Code, Error, Result};
use crate::event::EventKind;
use crate::id::{ProgressId, StepId};
use crate::random::Random;
use crate::version::Version;

/// What every act sees.
pub struct ProgressContext<'a> {
    /// The user's present attempt with its pinned version; none before the first and after a reset.
    pub attempt: Option<(&'a Attempt, &'a Arc<Version>)>,
    /// What is offered.
    pub offered: &'a VersionOffer,
    /// The present.
    pub now: Timestamp,
    /// For the id of a new attempt.
    pub random: &'a dyn Random,
}

/// How to take up a walkthrough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelectOptions {
    /// Go on with an attempt that exists; otherwise begin a new one.
    pub resume: bool,
    /// Move an attempt that exists to the newest version.
    pub to_latest: bool,
    /// The user has agreed to replace an attempt that has progress.
    pub confirmed: bool,
}

impl Default for SelectOptions {
    /// Resumes, at the version that the attempt has.
    fn default() -> Self {
        Self { resume: true, to_latest: false, confirmed: false }
    }
}

impl ProgressContext<'_> {
    /// Where the user stands, for acts that only read: an attempt whose version was withdrawn is seen as it will be
    /// after the move, so that nobody is shown a withdrawn step.
    #[must_use]
    pub fn read(&self) -> (ProgressView, Vec<Notice>) {
        match self.moved_from_withdrawn() {
            Some(outcome) => (outcome.progress, outcome.notices),
            None => {
                let progress = self.present();
                let completed = progress.status() == Status::Completed;
                let notices =
                    completed.then_some(Notice::AlreadyCompleted).into_iter().chain(newer(&progress)).collect();
                (progress, notices)
            }
        }
    }

    /// Starts or resumes the walkthrough.
    ///
    /// # Errors
    /// `confirmation_required` if an attempt with a completed step would be replaced and that is not confirmed. A completed
    /// attempt counts, too: the user is no longer shown as having completed the walkthrough.
    pub fn select(&self, how: SelectOptions) -> Result<Outcome> {
        let Some((attempt, version)) = self.attempt else {
            return Ok(self.open(EventKind::Started, Notice::Started));
        };
        if !how.resume {
            return self.replace(attempt, how.confirmed);
        }
        if let Some(moved) = self.moved_from_withdrawn() {
            return Ok(moved);
        }
        if how.to_latest && self.offered.latest.id != version.id {
            return Ok(self.moved_to_latest(attempt, version));
        }
        let progress = self.present();
        if progress.status() == Status::Completed {
            return Ok(unchanged(progress, Notice::AlreadyCompleted));
        }
        let attempt = Attempt { last_activity_at: self.now, ..attempt.clone() };
        let notices = [vec![Notice::Resumed], newer(&progress)].concat();
        let change = ProgressChange {
            upsert: Some(attempt.clone()),
            events: vec![(EventKind::Resumed, None)],
            ..ProgressChange::default()
        };
        let progress = ProgressView { attempt: Some(attempt), ..progress };
        Ok(Outcome { change, progress, completed_step_id: None, notices })
    }

    /// Moves the attempt to the newest version; a completed attempt is followed by a new one that keeps its steps.
    ///
    /// # Errors
    /// `no_active_walkthrough` before the first attempt.
    pub fn move_to_latest(&self) -> Result<Outcome> {
        let Some((attempt, version)) = self.attempt else {
            return Err(Error::new(
                Code::NoActiveWalkthrough,
                "This walkthrough has not been started, so there is nothing to move. Call get_current_step.",
            ));
        };
        if let Some(moved) = self.moved_from_withdrawn() {
            return Ok(moved);
        }
        if self.offered.latest.id == version.id {
            let progress = self.present();
            let completed = progress.status() == Status::Completed;
            let notice = if completed { Notice::AlreadyCompleted } else { Notice::AlreadyNewest };
            return Ok(unchanged(progress, notice));
        }
        Ok(self.moved_to_latest(attempt, version))
    }

    /// Completes the current step, when `current_step_id` is absent or names it.
    ///
    /// # Errors
    /// `no_active_walkthrough` before the first attempt; `step_mismatch` when `current_step_id` names a step that is
    /// neither the current one nor completed.
    pub fn advance(&self, current_step_id: Option<&StepId>) -> Result<Outcome> {
        let Some((attempt, version)) = self.attempt else {
            return Err(Error::new(
                Code::NoActiveWalkthrough,
                "This walkthrough has not been started. Call select_walkthrough first.",
            ));
        };
        if let Some(moved) = self.moved_from_withdrawn() {
            return Ok(moved);
        }
        let progress = self.present();
        let Some(current) = progress.current() else {
            return Ok(unchanged(progress, Notice::AlreadyCompleted));
        };
        if let Some(claimed) = current_step_id {
            let step = &version.steps()[current];
            match version.position_of(claimed) {
                Some(index) if index == current => {}
                Some(index) if progress.is_completed(index) => {
                    return Ok(unchanged(progress, Notice::StepAlreadyCompleted));
                }
                _ => {
                    let message =
                        format!("{claimed} is not the current step; {} (\"{}\") is.", step.id, step.content.title);
                    return Err(Error::new(Code::StepMismatch, message).with("current_step_id", step.id.as_str()));
                }
            }
        }
        Ok(self.completed(attempt, version, current, Vec::new()))
    }

    /// Completes any step of the pinned version, and starts the walkthrough if need be.
    ///
    /// # Errors
    /// `step_not_found` when the version has no such step.
    pub fn complete(&self, step_id: &StepId) -> Result<Outcome> {
        if let Some(moved) = self.moved_from_withdrawn() {
            return Ok(moved);
        }
        let fresh = self.fresh_attempt(StepSet::default());
        let (attempt, version, events) = match self.attempt {
            Some((attempt, version)) => (attempt, version, Vec::new()),
            None => (&fresh, &self.offered.latest, vec![(EventKind::Started, None)]),
        };
        let Some(index) = version.position_of(step_id) else {
            let message = format!("Version {} of this walkthrough has no step {step_id}.", version.number);
            return Err(Error::new(Code::StepNotFound, message).with("step_id", step_id.as_str()));
        };
        let progress = self.present();
        if progress.is_completed(index) {
            return Ok(unchanged(progress, Notice::StepAlreadyCompleted));
        }
        Ok(self.completed(attempt, version, index, events))
    }

    /// Ends the present attempt; its history stays.
    ///
    /// # Errors
    /// `no_progress` when there is none.
    pub fn reset(&self) -> Result<Outcome> {
        let Some((attempt, _)) = self.attempt else {
            return Err(Error::new(Code::NoProgress, "There is no progress in this walkthrough that could be reset."));
        };
        let closed = Attempt { closed_at: Some(self.now), last_activity_at: self.now, ..attempt.clone() };
        let change =
            ProgressChange { close: Some(closed), events: vec![(EventKind::Reset, None)], ..ProgressChange::default() };
        let progress = self.progress_of(None, Arc::clone(&self.offered.latest));
        Ok(Outcome { change, progress, completed_step_id: None, notices: vec![Notice::Reset] })
    }

    /// A new attempt in place of one that exists.
    fn replace(&self, attempt: &Attempt, is_confirmed: bool) -> Result<Outcome> {
        let progress = self.present();
        let (percent, completed, total) = (progress.percent(), progress.completed(), progress.version.step_count());
        // Steps of earlier versions count: they come back when a later version has them again.
        if !attempt.completed.is_empty() && !is_confirmed {
            let message = format!(
                "This would replace the attempt at {percent} % ({completed} of {total} steps) by a new one. Ask the user, \
                 then call again with confirm true; or leave out resume_if_exists to go on."
            );
            return Err(Error::new(Code::ConfirmationRequired, message).with("progress_percent", percent));
        }
        Ok(self.open(EventKind::Restarted, Notice::Replaced { percent, completed, total }))
    }

    fn moved_to_latest(&self, attempt: &Attempt, version: &Version) -> Outcome {
        let notice = Notice::Moved { from: version.number };
        match attempt.state {
            AttemptState::Completed { .. } => self.open_keeping(attempt, notice),
            AttemptState::InProgress => self.moved(attempt, EventKind::Moved, notice),
        }
    }

    fn present(&self) -> ProgressView {
        match self.attempt {
            Some((attempt, version)) => self.progress_of(Some(attempt.clone()), Arc::clone(version)),
            None => self.progress_of(None, Arc::clone(&self.offered.latest)),
        }
    }

    fn progress_of(&self, attempt: Option<Attempt>, version: Arc<Version>) -> ProgressView {
        ProgressView { attempt, version, latest_number: self.offered.latest.number }
    }

    fn fresh_attempt(&self, completed: StepSet) -> Attempt {
        Attempt {
            id: ProgressId::new(self.now, self.random),
            version_id: self.offered.latest.id.clone(),
            completed,
            state: AttemptState::InProgress,
            started_at: self.now,
            last_activity_at: self.now,
            closed_at: None,
            metadata: serde_json::Map::new(),
        }
    }

    fn closing(&self) -> Option<Attempt> {
        let (attempt, _) = self.attempt?;
        Some(Attempt { closed_at: Some(self.now), ..attempt.clone() })
    }

    /// A new attempt at the newest version with nothing done.
    fn open(&self, event: EventKind, notice: Notice) -> Outcome {
        let attempt = self.fresh_attempt(StepSet::default());
        let change = ProgressChange {
            close: self.closing(),
            upsert: Some(attempt.clone()),
            events: vec![(event, None)],
            ..ProgressChange::default()
        };
        let progress = self.progress_of(Some(attempt), Arc::clone(&self.offered.latest));
        Outcome { change, progress, completed_step_id: None, notices: vec![notice] }
    }

    /// A new attempt at the newest version that takes over what `old` has completed.
    fn open_keeping(&self, old: &Attempt, notice: Notice) -> Outcome {
        let attempt = self.fresh_attempt(old.completed.clone());
        let mut outcome = self.settle(attempt, Arc::clone(&self.offered.latest), vec![(EventKind::Moved, None)]);
        outcome.change.close = self.closing();
        outcome.change.copy_completions_from = Some(old.id.clone());
        outcome.notices.insert(0, notice);
        outcome
    }

    /// The same attempt pinned to the newest version.
    fn moved(&self, attempt: &Attempt, event: EventKind, notice: Notice) -> Outcome {
        let latest = &self.offered.latest;
        let attempt = Attempt { version_id: latest.id.clone(), last_activity_at: self.now, ..attempt.clone() };
        let mut outcome = self.settle(attempt, Arc::clone(latest), vec![(event, None)]);
        outcome.notices.insert(0, notice);
        outcome
    }

    /// The move that a withdrawn version asks for, when the present attempt is pinned to one and not completed. It
    /// completes nothing: the user has not seen the steps of the version that they come to.
    fn moved_from_withdrawn(&self) -> Option<Outcome> {
        let (attempt, version) = self.attempt?;
        let reason = self.offered.withdrawal.clone()?;
        if attempt.state != AttemptState::InProgress || version.id == self.offered.latest.id {
            return None;
        }
        let notice = Notice::Withdrawn { from: version.number, reason };
        Some(self.moved(attempt, EventKind::MovedFromWithdrawn, notice))
    }

    fn completed(
        &self,
        attempt: &Attempt,
        version: &Arc<Version>,
        index: usize,
        mut events: Vec<(EventKind, Option<StepId>)>,
    ) -> Outcome {
        let step = &version.steps()[index];
        let mut attempt = Attempt { last_activity_at: self.now, ..attempt.clone() };
        attempt.completed.insert(step.ordinal);
        events.push((EventKind::StepCompleted, Some(step.id.clone())));
        let mut outcome = self.settle(attempt, Arc::clone(version), events);
        outcome.change.completion = Some(step.id.clone());
        outcome.completed_step_id = Some(step.id.clone());
        outcome.notices.extend(newer(&outcome.progress));
        outcome
    }

    /// Writes `attempt` down, as completed when nothing is missing.
    fn settle(&self, attempt: Attempt, version: Arc<Version>, events: Vec<(EventKind, Option<StepId>)>) -> Outcome {
        let mut progress = self.progress_of(Some(attempt.clone()), version);
        let mut change = ProgressChange { upsert: Some(attempt), events, ..ProgressChange::default() };
        let mut notices = Vec::new();
        if progress.current().is_none() {
            let state = AttemptState::Completed { at: self.now };
            progress.attempt.iter_mut().chain(&mut change.upsert).for_each(|attempt| attempt.state = state);
            change.events.push((EventKind::Completed, None));
            notices.push(Notice::JustCompleted);
        }
        Outcome { change, progress, completed_step_id: None, notices }
    }
}

fn newer(progress: &ProgressView) -> Vec<Notice> {
    if progress.attempt.is_some() && progress.version.number < progress.latest_number {
        vec![Notice::NewerVersion { number: progress.latest_number }]
    } else {
        Vec::new()
    }
}

fn unchanged(progress: ProgressView, notice: Notice) -> Outcome {
    let notices = [vec![notice], newer(&progress)].concat();
    Outcome { change: ProgressChange::default(), progress, completed_step_id: None, notices }
}
