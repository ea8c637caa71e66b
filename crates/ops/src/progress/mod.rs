//! Operations of end users on hosted servers: playing walkthroughs and reading their progress.

mod write;

use std::collections::HashMap;
use std::sync::Arc;

use waypost_content::guidance::{self, ToolFlow, UserIdentity};
use waypost_core::access::authorize_play;
use waypost_core::caller::Ctx;
use waypost_core::email::Email;
use waypost_core::id::{EndUserId, StepId, WalkthroughId};
use waypost_core::progress::operations::{ProgressContext, SelectOptions};
use waypost_core::progress::{Attempt, Notice, Outcome, ProgressView, Status, VersionOffer};
use waypost_core::server::Server;
use waypost_core::version::Version;
use waypost_core::{Code, Error, Result};
use waypost_store::offer::Offer;
use waypost_store::progress::{self, OpenAttempt, ProgressKey};

use crate::call_records::{CallContext, CallOutcome};
use crate::hosting::Hosting;
use crate::identity::{self, Credentials, Identity};
use crate::joins;
use crate::offers::Offers;
use write::ProgressWrite;

/// A call of an end user.
pub struct PlayRequest<'a> {
    /// The server and its offers.
    pub offers: &'a Arc<Offers>,
    /// The credentials of the request.
    pub credentials: Credentials,
    /// The email address that the user claims to have, if they were asked for it.
    pub email: Option<Email>,
    /// The context of the call, for its record.
    pub call: &'a CallContext,
}

/// The result of an operation on a walkthrough.
#[derive(Debug)]
pub struct StepResult {
    /// The walkthrough.
    pub offer: Arc<Offer>,
    /// The user's progress.
    pub progress: ProgressView,
    /// The step that this call completed. `None` if it completed none.
    pub completed_step_id: Option<StepId>,
    /// Notices for the user.
    pub notices: Vec<Notice>,
    /// The identification of the user, with the handle of an anonymous user.
    pub user: UserIdentity,
}

/// The result of [`list`].
#[derive(Debug)]
pub struct ListResult<'a> {
    /// The offered walkthroughs, in display order.
    pub rows: Vec<OfferProgress<'a>>,
    /// The identification of the user.
    pub user: UserIdentity,
}

/// A walkthrough in a list, with the user's progress.
#[derive(Debug)]
pub struct OfferProgress<'a> {
    /// The walkthrough.
    pub offer: &'a Offer,
    /// The user's status.
    pub status: Status,
    /// The percentage of completed steps.
    pub percent: u8,
}

/// Starts or resumes a walkthrough.
///
/// # Errors
/// `walkthrough_not_found`, `confirmation_required`, `handle_unknown`, `sign_in_required`, `email_required`,
/// `rate_limited`, `unavailable`.
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
/// `sign_in_required`, `unavailable`.
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
/// `walkthrough_not_found`, `step_not_found`, `handle_unknown`, `sign_in_required`, `email_required`, `rate_limited`,
/// `unavailable`.
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
/// `walkthrough_not_found`, `no_progress`, `handle_unknown`, `sign_in_required`, `unavailable`.
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
    let (progress, notices) = view_progress(cx, hosting, server, offer, open.as_ref()).await?;
    play.call.record(cx, hosting, server, Some(&identity), CallOutcome::Read).await;
    let user = identity::describe_user(server, &play.credentials, &identity);
    Ok(StepResult { offer: Arc::clone(offer), progress, completed_step_id: None, notices, user })
}

/// Lists the offered walkthroughs with the user's status in each. Changes nothing and creates no user. Reads no steps:
/// the status is computed from sets of ordinals. On a server with sign-in, a user who is not signed in sees every
/// walkthrough as not started.
///
/// # Errors
/// `handle_unknown`; `sign_in_required` if the user of the token was deleted; `unavailable`.
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
    play.call.record(cx, hosting, server, Some(&identity), CallOutcome::Read).await;
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
) -> Result<(Arc<Offer>, Arc<Version>)> {
    let server = &offers.server;
    authorize_play(&cx.caller, &server.organization_id, &server.id)?;
    let offer = offers.get(walkthrough)?;
    Ok((Arc::clone(offer), hosting.version(&server.organization_id, &offer.version_id).await?))
}

/// The treatment of an unknown user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnknownUser {
    /// An unknown user is created.
    Create,
    /// An unknown user has no progress.
    Ignore,
}

/// Returns the offered walkthrough, after authorizing the caller.
async fn get_offer<'a>(
    cx: &Ctx,
    hosting: &Hosting,
    play: &PlayRequest<'a>,
    walkthrough: &str,
) -> Result<&'a Arc<Offer>> {
    let server = &play.offers.server;
    authorize_play(&cx.caller, &server.organization_id, &server.id)?;
    let offer = play.offers.get(walkthrough)?;
    ensure_signed_in(cx, hosting, play).await?;
    Ok(offer)
}

/// On a server with sign-in, checks that the user is signed in, and joins the progress from before the sign-in to the
/// user.
pub(crate) async fn ensure_signed_in(cx: &Ctx, hosting: &Hosting, play: &PlayRequest<'_>) -> Result<()> {
    match &play.credentials {
        Credentials::Subject(subject, beside) => {
            joins::join_credentials(cx, hosting, &play.offers.server, subject, beside).await
        }
        _ if play.offers.server.auth_type.has_sign_in() => Err(identity::sign_in_required()),
        _ => Ok(()),
    }
}

/// Returns the walkthrough of a call that does not specify one: the walkthrough in progress whose pinned version
/// contains the step, or else the only walkthrough in progress. Reads no content.
async fn infer_offer<'a>(
    cx: &Ctx,
    hosting: &Hosting,
    play: &PlayRequest<'a>,
    step: Option<&StepId>,
) -> Result<&'a Arc<Offer>> {
    let server = &play.offers.server;
    authorize_play(&cx.caller, &server.organization_id, &server.id)?;
    ensure_signed_in(cx, hosting, play).await?;
    let identity = identity::resolve(cx, hosting, server, &play.credentials).await?;
    let open = open_attempts(hosting, play, &identity).await?;
    if let (Some(step), Some(end_user_id), true) = (step, &identity.end_user_id, open.len() > 1) {
        let (organization, server_id) = (&server.organization_id, &server.id);
        let mut conn = hosting.read().await?;
        let walkthrough_id =
            progress::find_open_with_step(&mut conn, organization, end_user_id, server_id, step).await?;
        let offer = walkthrough_id.and_then(|id| play.offers.list().iter().find(|offer| offer.walkthrough_id == id));
        if let Some(offer) = offer {
            return Ok(offer);
        }
    }
    let in_progress =
        |offer: &&Arc<Offer>| open.get(&offer.walkthrough_id).is_some_and(|open| !open.summary.is_completed);
    let active: Vec<&Arc<Offer>> = play.offers.list().iter().filter(in_progress).collect();
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
    server: &Server,
    offer: &Offer,
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

fn step_result(offer: &Arc<Offer>, outcome: Outcome, user: UserIdentity) -> StepResult {
    StepResult {
        offer: Arc::clone(offer),
        progress: outcome.progress,
        completed_step_id: outcome.completed_step_id,
        notices: outcome.notices,
        user,
    }
}
