//! The operations on progress, as pure functions.

use std::sync::Arc;

use super::{Attempt, AttemptState, Notice, Outcome, ProgressChange, ProgressView, Status, StepSet, VersionOffer};
use crate::clock::Timestamp;
use crate::error::{Code, Error, Result};
use crate::event::EventKind;
use crate::id::{ProgressId, StepId};
use crate::random::Random;
use crate::version::Version;

/// The input of every operation.
pub struct ProgressContext<'a> {
    /// The user's current attempt with its pinned version; `None` before the first attempt and after a reset.
    pub attempt: Option<(&'a Attempt, &'a Arc<Version>)>,
    /// The version that is offered.
    pub offered: &'a VersionOffer,
    /// The current time.
    pub now: Timestamp,
    /// The random number generator for the ID of a new attempt.
    pub random: &'a dyn Random,
}

/// Options for starting or resuming a walkthrough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelectOptions {
    /// Whether to resume an existing attempt instead of starting a new one.
    pub resume: bool,
    /// Whether to move an existing attempt to the newest version.
    pub to_latest: bool,
    /// Whether the user has confirmed replacing an attempt that has progress.
    pub confirmed: bool,
}

impl Default for SelectOptions {
    /// Resumes an existing attempt on its pinned version.
    fn default() -> Self {
        Self { resume: true, to_latest: false, confirmed: false }
    }
}

impl ProgressContext<'_> {
    /// Returns the user's progress, for read-only operations. An attempt whose version was withdrawn is returned as it
    /// will be after the move, so that withdrawn steps are never shown.
    #[must_use]
    pub fn read(&self) -> (ProgressView, Vec<Notice>) {
        match self.move_from_withdrawn() {
            Some(outcome) => (outcome.progress, outcome.notices),
            None => {
                let progress = self.current();
                let completed = progress.status() == Status::Completed;
                let notices = completed
                    .then_some(Notice::AlreadyCompleted)
                    .into_iter()
                    .chain(newer_version_notice(&progress))
                    .collect();
                (progress, notices)
            }
        }
    }

    /// Starts or resumes the walkthrough.
    ///
    /// # Errors
    /// `confirmation_required` if this would replace an attempt with a completed step without confirmation. This
    /// includes completed attempts, because the walkthrough would no longer be shown as completed.
    pub fn select(&self, options: SelectOptions) -> Result<Outcome> {
        let Some((attempt, version)) = self.attempt else {
            return Ok(self.open(EventKind::Started, Notice::Started));
        };
        if !options.resume {
            return self.replace(attempt, options.confirmed);
        }
        if let Some(moved) = self.move_from_withdrawn() {
            return Ok(moved);
        }
        if options.to_latest && self.offered.latest.id != version.id {
            return Ok(self.change_to_latest(attempt, version));
        }
        let progress = self.current();
        if progress.status() == Status::Completed {
            return Ok(unchanged(progress, Notice::AlreadyCompleted));
        }
        let attempt = Attempt { last_activity_at: self.now, ..attempt.clone() };
        let notices = [vec![Notice::Resumed], newer_version_notice(&progress)].concat();
        let change = ProgressChange {
            upsert: Some(attempt.clone()),
            events: vec![(EventKind::Resumed, None)],
            ..ProgressChange::default()
        };
        let progress = ProgressView { attempt: Some(attempt), ..progress };
        Ok(Outcome { change, progress, completed_step_id: None, notices })
    }

    /// Moves the attempt to the newest version. For a completed attempt, opens a new one that keeps its completed
    /// steps.
    ///
    /// # Errors
    /// `no_active_walkthrough` if the walkthrough has not been started.
    pub fn move_to_latest(&self) -> Result<Outcome> {
        let Some((attempt, version)) = self.attempt else {
            return Err(Error::new(
                Code::NoActiveWalkthrough,
                "This walkthrough has not been started, so there is nothing to move. Call get_current_step to start it.",
            ));
        };
        if let Some(moved) = self.move_from_withdrawn() {
            return Ok(moved);
        }
        if self.offered.latest.id == version.id {
            let progress = self.current();
            let completed = progress.status() == Status::Completed;
            let notice = if completed { Notice::AlreadyCompleted } else { Notice::AlreadyNewest };
            return Ok(unchanged(progress, notice));
        }
        Ok(self.change_to_latest(attempt, version))
    }

    /// Completes the current step if `current_step_id` is absent or names it.
    ///
    /// # Errors
    /// `no_active_walkthrough` if the walkthrough has not been started; `step_mismatch` if `current_step_id` names a
    /// step that is neither current nor completed.
    pub fn advance(&self, current_step_id: Option<&StepId>) -> Result<Outcome> {
        let Some((attempt, version)) = self.attempt else {
            return Err(Error::new(
                Code::NoActiveWalkthrough,
                "This walkthrough has not been started. Call select_walkthrough first.",
            ));
        };
        if let Some(moved) = self.move_from_withdrawn() {
            return Ok(moved);
        }
        let progress = self.current();
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
                    let message = format!(
                        "{claimed} is not the current step. The current step is {} (\"{}\").",
                        step.id, step.content.title
                    );
                    return Err(Error::new(Code::StepMismatch, message).with("current_step_id", step.id.as_str()));
                }
            }
        }
        Ok(self.complete_step(attempt, version, current, Vec::new()))
    }

    /// Completes any step of the pinned version, and starts the walkthrough if necessary.
    ///
    /// # Errors
    /// `step_not_found` if the version has no such step.
    pub fn complete(&self, step_id: &StepId) -> Result<Outcome> {
        if let Some(moved) = self.move_from_withdrawn() {
            return Ok(moved);
        }
        let new_attempt = self.new_attempt(StepSet::default());
        let (attempt, version, events) = match self.attempt {
            Some((attempt, version)) => (attempt, version, Vec::new()),
            None => (&new_attempt, &self.offered.latest, vec![(EventKind::Started, None)]),
        };
        let Some(index) = version.position_of(step_id) else {
            let message = format!("Version {} of this walkthrough has no step {step_id}.", version.number);
            return Err(Error::new(Code::StepNotFound, message).with("step_id", step_id.as_str()));
        };
        let progress = self.current();
        if progress.is_completed(index) {
            return Ok(unchanged(progress, Notice::StepAlreadyCompleted));
        }
        Ok(self.complete_step(attempt, version, index, events))
    }

    /// Closes the current attempt; its history is kept.
    ///
    /// # Errors
    /// `no_progress` if there is no attempt.
    pub fn reset(&self) -> Result<Outcome> {
        let Some((attempt, _)) = self.attempt else {
            return Err(Error::new(Code::NoProgress, "There is no progress to reset in this walkthrough."));
        };
        let closed = Attempt { closed_at: Some(self.now), last_activity_at: self.now, ..attempt.clone() };
        let change =
            ProgressChange { close: Some(closed), events: vec![(EventKind::Reset, None)], ..ProgressChange::default() };
        let progress = self.progress_of(None, Arc::clone(&self.offered.latest));
        Ok(Outcome { change, progress, completed_step_id: None, notices: vec![Notice::Reset] })
    }

    /// Replaces the existing attempt with a new one.
    fn replace(&self, attempt: &Attempt, is_confirmed: bool) -> Result<Outcome> {
        let progress = self.current();
        let (percent, completed, total) = (progress.percent(), progress.completed(), progress.version.step_count());
        // Completed steps of earlier versions count too: a later version may contain them again.
        if !attempt.completed.is_empty() && !is_confirmed {
            let message = format!(
                "This would replace the attempt at {percent}% ({completed} of {total} steps) with a new one. Ask the user, \
                 then call again with confirm set to true, or omit resume_if_exists to continue the existing attempt."
            );
            return Err(Error::new(Code::ConfirmationRequired, message).with("progress_percent", percent));
        }
        Ok(self.open(EventKind::Restarted, Notice::Replaced { percent, completed, total }))
    }

    fn change_to_latest(&self, attempt: &Attempt, version: &Version) -> Outcome {
        let notice = Notice::Moved { from: version.number };
        match attempt.state {
            AttemptState::Completed { .. } => self.open_keeping(attempt, notice),
            AttemptState::InProgress => self.repin(attempt, EventKind::Moved, notice),
        }
    }

    fn current(&self) -> ProgressView {
        match self.attempt {
            Some((attempt, version)) => self.progress_of(Some(attempt.clone()), Arc::clone(version)),
            None => self.progress_of(None, Arc::clone(&self.offered.latest)),
        }
    }

    fn progress_of(&self, attempt: Option<Attempt>, version: Arc<Version>) -> ProgressView {
        ProgressView { attempt, version, latest_number: self.offered.latest.number }
    }

    fn new_attempt(&self, completed: StepSet) -> Attempt {
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

    fn closed_attempt(&self) -> Option<Attempt> {
        let (attempt, _) = self.attempt?;
        Some(Attempt { closed_at: Some(self.now), ..attempt.clone() })
    }

    /// Opens a new, empty attempt at the newest version.
    fn open(&self, event: EventKind, notice: Notice) -> Outcome {
        let attempt = self.new_attempt(StepSet::default());
        let change = ProgressChange {
            close: self.closed_attempt(),
            upsert: Some(attempt.clone()),
            events: vec![(event, None)],
            ..ProgressChange::default()
        };
        let progress = self.progress_of(Some(attempt), Arc::clone(&self.offered.latest));
        Outcome { change, progress, completed_step_id: None, notices: vec![notice] }
    }

    /// Opens a new attempt at the newest version that keeps the completed steps of `old`.
    fn open_keeping(&self, old: &Attempt, notice: Notice) -> Outcome {
        let attempt = self.new_attempt(old.completed.clone());
        let mut outcome = self.finish(attempt, Arc::clone(&self.offered.latest), vec![(EventKind::Moved, None)]);
        outcome.change.close = self.closed_attempt();
        outcome.change.copy_completions_from = Some(old.id.clone());
        outcome.notices.insert(0, notice);
        outcome
    }

    /// Pins the same attempt to the newest version.
    fn repin(&self, attempt: &Attempt, event: EventKind, notice: Notice) -> Outcome {
        let latest = &self.offered.latest;
        let attempt = Attempt { version_id: latest.id.clone(), last_activity_at: self.now, ..attempt.clone() };
        let mut outcome = self.finish(attempt, Arc::clone(latest), vec![(event, None)]);
        outcome.notices.insert(0, notice);
        outcome
    }

    /// Moves the attempt if it is in progress and pinned to a withdrawn version. The move completes no step, because
    /// the user has not seen the steps of the new version.
    fn move_from_withdrawn(&self) -> Option<Outcome> {
        let (attempt, version) = self.attempt?;
        let reason = self.offered.withdrawal.clone()?;
        if attempt.state != AttemptState::InProgress || version.id == self.offered.latest.id {
            return None;
        }
        let notice = Notice::Withdrawn { from: version.number, reason };
        Some(self.repin(attempt, EventKind::MovedFromWithdrawn, notice))
    }

    fn complete_step(
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
        let mut outcome = self.finish(attempt, Arc::clone(version), events);
        outcome.change.completion = Some(step.id.clone());
        outcome.completed_step_id = Some(step.id.clone());
        outcome.notices.extend(newer_version_notice(&outcome.progress));
        outcome
    }

    /// Builds the outcome for `attempt` and marks it as completed if no step is left.
    fn finish(&self, attempt: Attempt, version: Arc<Version>, events: Vec<(EventKind, Option<StepId>)>) -> Outcome {
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

fn newer_version_notice(progress: &ProgressView) -> Vec<Notice> {
    if progress.attempt.is_some() && progress.version.number < progress.latest_number {
        vec![Notice::NewerVersion { number: progress.latest_number }]
    } else {
        Vec::new()
    }
}

fn unchanged(progress: ProgressView, notice: Notice) -> Outcome {
    let notices = [vec![notice], newer_version_notice(&progress)].concat();
    Outcome { change: ProgressChange::default(), progress, completed_step_id: None, notices }
}
