//! Writes to the progress of an end user.

use std::sync::Arc;

use serde_json::json;
use waypost_content::guidance::{self, UserIdentity};
use waypost_core::caller::Ctx;
use waypost_core::event::EventKind;
use waypost_core::id::EndUserId;
use waypost_core::progress::operations::ProgressContext;
use waypost_core::progress::{Attempt, Outcome, VersionOffer};
use waypost_core::server::Server;
use waypost_core::version::Version;
use waypost_core::webhook::WebhookEvent;
use waypost_core::{Code, Error, Result};
use waypost_store::offer::Offer;
use waypost_store::writer::{Decision, DeliveriesFn, ProgressCall};

use super::{PlayRequest, StepResult, UnknownUser, key, step_result};
use crate::call_records::{self, CallOutcome};
use crate::hosting::Hosting;
use crate::identity::{self, Credentials, Identity};
use crate::webhooks::{Event, deliveries};

/// The maximum number of times that a call is sent to the writer. It is sent again if a version must be loaded first,
/// or if its user is created or deleted concurrently.
const MAX_ATTEMPTS: u32 = 8;

/// A write to the progress in one offered walkthrough.
pub(super) struct ProgressWrite<'a> {
    pub(super) cx: &'a Ctx,
    pub(super) hosting: &'a Hosting,
    pub(super) play: &'a PlayRequest<'a>,
    pub(super) offer: &'a Arc<Offer>,
}

impl ProgressWrite<'_> {
    /// Sends the operation to the writer, repeatedly if necessary, until it is decided.
    pub(super) async fn write(
        &self,
        unknown_user: UnknownUser,
        operation: impl Fn(&ProgressContext<'_>) -> Result<Outcome> + Clone + Send + Sync + 'static,
    ) -> Result<StepResult> {
        let Self { cx, hosting, play, offer } = *self;
        let server = &play.offers.server;
        let latest = hosting.version(&server.organization_id, &offer.version_id).await?;
        let mut is_counted = play.call.is_test;
        for _ in 0..MAX_ATTEMPTS {
            let identity = match unknown_user {
                UnknownUser::Create => {
                    let (credentials, client) = (&play.credentials, &play.call.client);
                    let mut identity = identity::resolve_or_prepare(cx, hosting, server, credentials, client).await?;
                    identity::claim_email(cx, hosting, server, &mut identity, play.email.as_ref()).await?;
                    identity
                }
                UnknownUser::Ignore => identity::resolve(cx, hosting, server, &play.credentials).await?,
            };
            let Some(end_user_id) = identity.end_user_id.clone() else {
                // A user who does not exist has no progress. The operation decides what that means.
                let offered = VersionOffer { latest: Arc::clone(&latest), withdrawal: None };
                let view = ProgressContext { attempt: None, offered: &offered, now: cx.now(), random: &*cx.random };
                let user = identity::describe_user(server, &play.credentials, &identity);
                let outcome = operation(&view).map_err(|error| explain_unknown_user(error, server, &user))?;
                return Ok(step_result(offer, outcome, user));
            };
            if identity.new_end_user.is_some() && !is_counted {
                hosting.new_users.check(play.call.address)?;
                is_counted = true;
            }
            match hosting.writer.call(self.writer_call(&latest, &identity, &end_user_id, operation.clone())).await {
                Ok(Decision::Done(outcome)) => {
                    let changed = !outcome.change.is_empty();
                    if changed {
                        if identity.new_end_user.is_some() {
                            identity::remember_new(hosting, server, &play.credentials, &identity);
                        }
                        let owner = call_records::call_owner(server, play.call, Some(&identity));
                        call_records::record_use(cx, hosting, server, play.call, &owner).await;
                    } else {
                        // The new user was not created.
                        let known = Some(&identity).filter(|_| identity.new_end_user.is_none());
                        play.call.record(cx, hosting, server, known, CallOutcome::Read).await;
                    }
                    let user = match identity.new_end_user.is_some() && !changed {
                        true => UserIdentity::Unknown,
                        false => identity::describe_user(server, &play.credentials, &identity),
                    };
                    return Ok(step_result(offer, *outcome, user));
                }
                Ok(Decision::Rejected(error)) => return Err(error),
                Ok(Decision::NeedVersion(id)) => {
                    hosting.version(&server.organization_id, &id).await?;
                }
                // Another call created the same user first, or the user was deleted. Try again.
                Err(error) if error.is_unique_violation() || error.is_foreign_key_violation() => {
                    identity::check_subject(hosting, server, &play.credentials).await?;
                    identity::forget(hosting, server, &play.credentials);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::new(Code::Unavailable, "Too many concurrent calls are changing the same progress. Try again."))
    }

    /// Creates the call for the writer. It contains everything that the decision needs, so that the writer needs no
    /// further query.
    fn writer_call(
        &self,
        latest: &Arc<Version>,
        identity: &Identity,
        end_user_id: &EndUserId,
        operation: impl Fn(&ProgressContext<'_>) -> Result<Outcome> + Send + Sync + 'static,
    ) -> ProgressCall {
        let server = &self.play.offers.server;
        let key = key(server, self.offer, end_user_id);
        let now = self.cx.now();
        let (versions, random) = (self.hosting.versions.clone(), Arc::clone(&self.cx.random));
        let (latest, offer) = (Arc::clone(latest), Arc::clone(self.offer));
        let decide = move |attempt: Option<&Attempt>| {
            let pinned = match attempt {
                Some(attempt) if attempt.version_id == latest.id => Some(Arc::clone(&latest)),
                Some(attempt) => match versions.get(&attempt.version_id) {
                    Some(version) => Some(version),
                    None => return Decision::NeedVersion(attempt.version_id.clone()),
                },
                None => None,
            };
            let withdrawal = attempt.and_then(|attempt| offer.withdrawn.get(&attempt.version_id).cloned());
            let offered = VersionOffer { latest: Arc::clone(&latest), withdrawal };
            let view =
                ProgressContext { attempt: attempt.zip(pinned.as_ref()), offered: &offered, now, random: &*random };
            match operation(&view) {
                Ok(outcome) => Decision::Done(Box::new(outcome)),
                Err(error) => Decision::Rejected(error),
            }
        };
        let (call, cx, offers) = (self.play.call.clone(), self.cx.clone(), Arc::clone(self.play.offers));
        let owner = call_records::call_owner(server, &call, Some(identity));
        ProgressCall {
            key,
            new_end_user: identity.new_end_user.clone(),
            new_session: identity.new_session.clone(),
            client_name: self.play.call.client.name.clone(),
            tool_call: Some(Box::new(move |_| call.row(&cx, &offers.server, &owner, "ok"))),
            deliveries: self.deliveries(end_user_id),
            decide: Box::new(decide),
            now,
        }
    }

    /// Returns a function that creates the webhook deliveries if the walkthrough is completed. Returns `None` if no
    /// webhook receives the event, or for a test.
    fn deliveries(&self, end_user_id: &EndUserId) -> Option<DeliveriesFn> {
        let offers = Arc::clone(self.play.offers);
        if offers.completion_receivers.is_empty() || self.play.call.is_test {
            return None;
        }
        let tracking_id = match &self.play.credentials {
            Credentials::Tracking(tracking_id) => Some(tracking_id.clone()),
            _ => None,
        };
        let (cx, offer, end_user_id) = (self.cx.clone(), Arc::clone(self.offer), end_user_id.clone());
        Some(Box::new(move |outcome| {
            let attempt = outcome.change.upsert.as_ref().or(outcome.change.close.as_ref());
            let completed = outcome.change.events.iter().any(|(kind, _)| *kind == EventKind::Completed);
            let Some(attempt) = attempt.filter(|_| completed) else { return Vec::new() };
            let (server, version) = (&offers.server, &outcome.progress.version);
            let text = format!("A user completed \"{}\" on {}.", version.title, server.name);
            let data = json!({
                "walkthrough": {
                    "id": offer.walkthrough_id, "slug": offer.slug, "title": version.title, "version": version.number,
                },
                "server": { "id": server.id, "slug": server.slug, "name": server.name },
                "end_user": { "id": end_user_id, "tracking_id": tracking_id },
                "progress_id": attempt.id,
                "started_at": attempt.started_at.rfc3339(),
                "completed_at": cx.now().rfc3339(),
            });
            let event = WebhookEvent::WalkthroughCompleted;
            let event = Event { event, end_user_id: Some(&end_user_id), text: &text, data };
            deliveries(&cx, &server.organization_id, &offers.completion_receivers, &event)
        }))
    }
}

/// Replaces the error for a user without progress with one that states that the user is unknown, if that is the case.
fn explain_unknown_user(error: Error, server: &Server, user: &UserIdentity) -> Error {
    match (user, error.code) {
        (UserIdentity::Unknown, code @ (Code::NoActiveWalkthrough | Code::NoProgress)) => {
            Error::new(code, guidance::unknown_user_message(server.toolset.into()))
        }
        _ => error,
    }
}
