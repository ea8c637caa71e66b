//! Operations of end users on hosted servers: they play walkthroughs.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;
use waypost_content::guidance::{self, ToolFlow, UserIdentity};
use waypost_core::access::authorize_play;
use waypost_core::caller::Ctx;
use waypost_core::email::Email;
use waypost_core::event::EventKind;
use waypost_core::id::{EndUserId, StepId, WalkthroughId};
use waypost_core::progress::operations::{ProgressContext, SelectOptions};
use waypost_core::progress::{Attempt, Notice, Outcome, ProgressView, Status, VersionOffer};
use waypost_core::server::Server;
use waypost_core::version::Version;
use waypost_core::webhook::WebhookEvent;
use waypost_core::{Code, Error, Result};
use waypost_store::offer::Offer;
use waypost_store::progress::{self, OpenAttempt, ProgressKey};
use waypost_store::writer::{Decision, DeliveriesFn, ProgressCall};

use crate::call_records::{self, CallContext, CallOutcome};
use crate::hosting::Hosting;
use crate::identity::{self, Credentials, Identity};
use crate::joins;
use crate::offers::Offers;
use crate::webhooks::{Event, deliveries};

/// How many times a call is attempted if its user is created, changed or deleted concurrently.
const MAX_ATTEMPTS: u32 = 8;

/// A call of an end user.
pub struct PlayRequest<'a> {
    /// The server and what it offers.
    pub offers: &'a Arc<Offers>,
    /// The credentials of the request.
    pub credentials: Credentials,
    /// The email that the user claims to have, if they were asked for it.
    pub email: Option<Email>,
    /// The context of the call, for its record.
    pub call: &'a CallContext,
}

/// The result of an operation on a walkthrough.
#[derive(Debug)]
pub struct StepResult {
    /// The walkthrough.
    pub offer: Offer,
    /// The user's progress.
    pub progress: ProgressView,
    /// The step that this call completed.
    pub completed_step_id: Option<StepId>,
    /// Notices for the user.
    pub notices: Vec<Notice>,
    /// How the user was identified, with the handle of an anonymous user.
    pub user: UserIdentity,
}

/// The result of [`list`].
#[derive(Debug)]
pub struct ListResult<'a> {
    /// What the server offers, in display order.
    pub rows: Vec<OfferProgress<'a>>,
    /// How the user was identified.
    pub user: UserIdentity,
}

/// A walkthrough in a list, with the user's progress.
#[derive(Debug)]
pub struct OfferProgress<'a> {
    /// The walkthrough.
    pub offer: &'a Offer,
    /// The user's status.
    pub status: Status,
    /// The user's percentage.
    pub percent: u8,
}

/// Starts or resumes a walkthrough.
///
/// # Errors
/// `walkthrough_not_found`, `confirmation_required`, `handle_unknown`, `sign_in_required`, `email_required`,
/// `unavailable`.
pub async fn select(
    cx: &Ctx,
    hosting: &Hosting,
    play: &PlayRequest<'_>,
    walkthrough: &str,
    how: SelectOptions,
) -> Result<StepResult> {
    let offer = get_offer(cx, hosting, play, walkthrough).await?;
    ProgressWrite { cx, hosting, play, offer }.write(UnknownUser::Create, move |view| view.select(how)).await
}

/// Completes the current step and moves to the next.
///
/// # Errors
/// `walkthrough_not_found`, `no_active_walkthrough`, `ambiguous_walkthrough`, `step_mismatch`, `handle_unknown`,
/// `unavailable`.
pub async fn advance(
    cx: &Ctx,
    hosting: &Hosting,
    play: &PlayRequest<'_>,
    walkthrough: Option<&str>,
    current_step_id: Option<StepId>,
) -> Result<StepResult> {
    let offer = match walkthrough {
        Some(walkthrough) => get_offer(cx, hosting, play, walkthrough).await?,
        None => infer_offer(cx, hosting, play, current_step_id.as_ref()).await?,
    };
    ProgressWrite { cx, hosting, play, offer }
        .write(UnknownUser::Ignore, move |view| view.advance(current_step_id.as_ref()))
        .await
}

/// Completes any step, and starts the walkthrough if necessary.
///
/// # Errors
/// `walkthrough_not_found`, `step_not_found`, `handle_unknown`, `sign_in_required`, `email_required`, `unavailable`.
pub async fn complete_step(
    cx: &Ctx,
    hosting: &Hosting,
    play: &PlayRequest<'_>,
    walkthrough: &str,
    step_id: StepId,
) -> Result<StepResult> {
    let offer = get_offer(cx, hosting, play, walkthrough).await?;
    ProgressWrite { cx, hosting, play, offer }.write(UnknownUser::Create, move |view| view.complete(&step_id)).await
}

/// Ends the current attempt. Its history is kept.
///
/// # Errors
/// `walkthrough_not_found`, `no_progress`, `handle_unknown`, `unavailable`.
pub async fn reset(cx: &Ctx, hosting: &Hosting, play: &PlayRequest<'_>, walkthrough: &str) -> Result<StepResult> {
    let offer = get_offer(cx, hosting, play, walkthrough).await?;
    ProgressWrite { cx, hosting, play, offer }.write(UnknownUser::Ignore, |view| view.reset()).await
}

/// Moves the user's attempt to the newest version; completed steps that still exist stay completed.
///
/// # Errors
/// `walkthrough_not_found`, `no_active_walkthrough`, `handle_unknown`, `sign_in_required`, `unavailable`.
pub async fn move_to_latest(
    cx: &Ctx,
    hosting: &Hosting,
    play: &PlayRequest<'_>,
    walkthrough: &str,
) -> Result<StepResult> {
    let offer = get_offer(cx, hosting, play, walkthrough).await?;
    ProgressWrite { cx, hosting, play, offer }.write(UnknownUser::Ignore, |view| view.move_to_latest()).await
}

/// Returns the user's progress in a walkthrough. Changes nothing and creates no user.
///
/// # Errors
/// `walkthrough_not_found`, `handle_unknown`, `sign_in_required`, `unavailable`.
pub async fn get_status(cx: &Ctx, hosting: &Hosting, play: &PlayRequest<'_>, walkthrough: &str) -> Result<StepResult> {
    let offer = get_offer(cx, hosting, play, walkthrough).await?;
    let server = &play.offers.server;
    let identity = identity::resolve(cx, hosting, server, &play.credentials).await?;
    let open = match &identity.end_user_id {
        Some(end_user_id) => progress::find_open(&mut hosting.read().await?, &key(server, offer, end_user_id)).await?,
        None => None,
    };
    let (progress, notices) = view_progress(cx, hosting, (server, offer), open.as_ref()).await?;
    play.call.record(cx, hosting, server, (Some(&identity), CallOutcome::Read)).await;
    let user = identity::describe_user(server, &play.credentials, &identity);
    Ok(StepResult { offer: offer.clone(), progress, completed_step_id: None, notices, user })
}

/// Lists the offered walkthroughs with the user's status in each. Changes nothing and creates no user. Reads no steps: the
/// status is computed from sets of ordinals. On a server with sign-in, a user who is not signed in sees every walkthrough as
/// not started.
///
/// # Errors
/// `handle_unknown`, `unavailable`.
pub async fn list<'a>(cx: &Ctx, hosting: &Hosting, play: &PlayRequest<'a>) -> Result<ListResult<'a>> {
    let server = &play.offers.server;
    authorize_play(&cx.caller, &server.organization_id, &server.id)?;
    if matches!(play.credentials, Credentials::Subject(..)) {
        ensure_signed_in(cx, hosting, play).await?;
    }
    let identity = identity::resolve(cx, hosting, server, &play.credentials).await?;
    let open = open_attempts(hosting, play, &identity).await?;
    let offers = play.offers.list().iter();
    let rows = offers
        .map(|offer| {
            let (status, percent) = match open.get(&offer.walkthrough_id) {
                None => (Status::NotStarted, 0),
                Some(open) => {
                    let is_moved =
                        open.version_id != offer.version_id && offer.withdrawn.contains_key(&open.version_id);
                    open.summary.status_and_percent(is_moved.then_some(&offer.step_set))
                }
            };
            OfferProgress { offer, status, percent }
        })
        .collect();
    play.call.record(cx, hosting, server, (Some(&identity), CallOutcome::Read)).await;
    Ok(ListResult { rows, user: identity::describe_user(server, &play.credentials, &identity) })
}

/// Returns the newest version of an offered walkthrough, with its steps.
///
/// # Errors
/// `walkthrough_not_found`, `unavailable`.
pub async fn get_latest_version(
    cx: &Ctx,
    hosting: &Hosting,
    offers: &Offers,
    walkthrough: &str,
) -> Result<(Offer, Arc<Version>)> {
    let server = &offers.server;
    authorize_play(&cx.caller, &server.organization_id, &server.id)?;
    let offer = offers.get(walkthrough)?;
    Ok((offer.clone(), hosting.version(&server.organization_id, &offer.version_id).await?))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnknownUser {
    /// An unknown user is created.
    Create,
    /// An unknown user has no progress.
    Ignore,
}

/// Returns the offered walkthrough, after authorizing the caller.
async fn get_offer<'a>(cx: &Ctx, hosting: &Hosting, play: &PlayRequest<'a>, walkthrough: &str) -> Result<&'a Offer> {
    let server = &play.offers.server;
    authorize_play(&cx.caller, &server.organization_id, &server.id)?;
    let offer = play.offers.get(walkthrough)?;
    ensure_signed_in(cx, hosting, play).await?;
    Ok(offer)
}

/// On a server with sign-in, checks that the user is signed in, and joins the progress from before the sign-in to the user.
pub(crate) async fn ensure_signed_in(cx: &Ctx, hosting: &Hosting, play: &PlayRequest<'_>) -> Result<()> {
    match &play.credentials {
        Credentials::Subject(subject, beside) => {
            joins::join_credentials(cx, hosting, &play.offers.server, subject, beside).await
        }
        _ if play.offers.server.auth_type.has_sign_in() => Err(identity::sign_in_required()),
        _ => Ok(()),
    }
}

/// Returns the walkthrough of a call that names none: the one whose pinned version has the step, else the only one in
/// progress. Reads no content.
async fn infer_offer<'a>(
    cx: &Ctx,
    hosting: &Hosting,
    play: &PlayRequest<'a>,
    step: Option<&StepId>,
) -> Result<&'a Offer> {
    let server = &play.offers.server;
    authorize_play(&cx.caller, &server.organization_id, &server.id)?;
    ensure_signed_in(cx, hosting, play).await?;
    let identity = identity::resolve(cx, hosting, server, &play.credentials).await?;
    let open = open_attempts(hosting, play, &identity).await?;
    if let (Some(step), Some(end_user_id), true) = (step, &identity.end_user_id, open.len() > 1) {
        let ids = (&server.organization_id, end_user_id, &server.id);
        let found = progress::find_open_with_step(&mut hosting.read().await?, ids, step).await?;
        let offer = found.and_then(|id| play.offers.list().iter().find(|offer| offer.walkthrough_id == id));
        if let Some(offer) = offer {
            return Ok(offer);
        }
    }
    let in_progress = |offer: &&Offer| open.get(&offer.walkthrough_id).is_some_and(|open| !open.summary.is_completed);
    let active: Vec<&Offer> = play.offers.list().iter().filter(in_progress).collect();
    match active.as_slice() {
        [offer] => Ok(offer),
        [] if identity::describe_user(server, &play.credentials, &identity) == UserIdentity::Unknown => {
            Err(Error::new(Code::NoActiveWalkthrough, guidance::unknown_user_message(ToolFlow::Guided)))
        }
        [] => Err(Error::new(
            Code::NoActiveWalkthrough,
            "No walkthrough is in progress. Call list_walkthroughs, then select_walkthrough.",
        )),
        several => {
            let candidates: Vec<_> = several
                .iter()
                .map(|offer| serde_json::json!({ "id": offer.walkthrough_id, "title": offer.title }))
                .collect();
            let message = "Several walkthroughs are in progress. Call again with the walkthrough_id of one of them.";
            Err(Error::new(Code::AmbiguousWalkthrough, message).with("candidates", candidates))
        }
    }
}

/// Returns the user's open attempts, without content.
async fn open_attempts(
    hosting: &Hosting,
    play: &PlayRequest<'_>,
    identity: &Identity,
) -> Result<HashMap<WalkthroughId, OpenAttempt>> {
    let Some(end_user_id) = &identity.end_user_id else { return Ok(HashMap::new()) };
    let server = &play.offers.server;
    let mut conn = hosting.read().await?;
    Ok(progress::summarize_open(&mut conn, &server.organization_id, end_user_id, &server.id).await?)
}

fn key(server: &Server, offer: &Offer, end_user_id: &EndUserId) -> ProgressKey {
    ProgressKey {
        organization_id: server.organization_id.clone(),
        end_user_id: end_user_id.clone(),
        server_id: server.id.clone(),
        walkthrough_id: offer.walkthrough_id.clone(),
    }
}

/// Returns the progress of a user with this attempt.
async fn view_progress(
    cx: &Ctx,
    hosting: &Hosting,
    (server, offer): (&Server, &Offer),
    attempt: Option<&Attempt>,
) -> Result<(ProgressView, Vec<Notice>)> {
    let organization = &server.organization_id;
    let latest = hosting.version(organization, &offer.version_id).await?;
    let pinned = match attempt {
        Some(attempt) => Some(hosting.version(organization, &attempt.version_id).await?),
        None => None,
    };
    let withdrawal = attempt.and_then(|attempt| offer.withdrawn.get(&attempt.version_id).cloned());
    let offered = VersionOffer { latest, withdrawal };
    let view = ProgressContext {
        attempt: attempt.zip(pinned.as_ref()),
        offered: &offered,
        now: cx.now(),
        random: &*cx.random,
    };
    Ok(view.read())
}

/// A write to the progress in one offered walkthrough.
struct ProgressWrite<'a> {
    cx: &'a Ctx,
    hosting: &'a Hosting,
    play: &'a PlayRequest<'a>,
    offer: &'a Offer,
}

impl ProgressWrite<'_> {
    /// Sends the operation through the writer until it is decided.
    async fn write(
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
                        call_records::record_use(cx, hosting, server, (play.call, &owner)).await;
                    } else {
                        // The new user was not created.
                        let known = Some(&identity).filter(|_| identity.new_end_user.is_none());
                        play.call.record(cx, hosting, server, (known, CallOutcome::Read)).await;
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
                // Another call created the same user first, or the user was deleted: try again.
                Err(error) if error.is_unique_violation() || error.is_foreign_key_violation() => {
                    identity::check_subject(hosting, server, &play.credentials).await?;
                    identity::forget(hosting, server, &play.credentials);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::new(Code::Unavailable, "Too many concurrent calls are changing the same progress. Try again."))
    }

    /// Creates the call for the writer. It contains everything that the decision needs, so that the writer needs no further
    /// query.
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
        let (latest, withdrawn) = (Arc::clone(latest), self.offer.withdrawn.clone());
        let decide = move |attempt: Option<&Attempt>| {
            let pinned = match attempt {
                Some(attempt) if attempt.version_id == latest.id => Some(Arc::clone(&latest)),
                Some(attempt) => match versions.get(&attempt.version_id) {
                    Some(version) => Some(version),
                    None => return Decision::NeedVersion(attempt.version_id.clone()),
                },
                None => None,
            };
            let withdrawal = attempt.and_then(|attempt| withdrawn.get(&attempt.version_id).cloned());
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

    /// Returns a function that enqueues webhook deliveries if the walkthrough is completed. `None` if no webhook receives the
    /// event, or for a test.
    fn deliveries(&self, end_user_id: &EndUserId) -> Option<DeliveriesFn> {
        let offers = Arc::clone(self.play.offers);
        if offers.completion_receivers.is_empty() || self.play.call.is_test {
            return None;
        }
        let tracking_id = match &self.play.credentials {
            Credentials::Tracking(tracking_id) => Some(tracking_id.clone()),
            _ => None,
        };
        let (cx, offer, end_user_id) = (self.cx.clone(), self.offer.clone(), end_user_id.clone());
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

/// Replaces the error that an unknown user has no progress with one that says that the user is unknown.
fn explain_unknown_user(error: Error, server: &Server, user: &UserIdentity) -> Error {
    match (user, error.code) {
        (UserIdentity::Unknown, code @ (Code::NoActiveWalkthrough | Code::NoProgress)) => {
            Error::new(code, guidance::unknown_user_message(server.toolset.into()))
        }
        _ => error,
    }
}

fn step_result(offer: &Offer, outcome: Outcome, user: UserIdentity) -> StepResult {
    StepResult {
        offer: offer.clone(),
        progress: outcome.progress,
        completed_step_id: outcome.completed_step_id,
        notices: outcome.notices,
        user,
    }
}
