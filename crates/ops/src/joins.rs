//! Joins: the progress of an anonymous end user is joined to that of a signed-in end user, and the join can be undone.
//!
//! The signed-in user's own client presents the anonymous user (by a handle or a session in addition to the token), or
//! the signed-in user claims it by consenting on a personal URL with a generated ID or a claim link. Each anonymous
//! user is joined once per server; a join that an admin has undone is not repeated for the same two users, because
//! their client continues to present the same session.

use serde_json::json;
use waypost_core::access::{Operation, authorize, authorize_play};
use waypost_core::authorization::ProgressClaim;
use waypost_core::caller::Ctx;
use waypost_core::claim_link::ClaimLink;
use waypost_core::id::{EndUserId, EventId, JoinId, OrganizationId, VersionId, WalkthroughId};
use waypost_core::join::{Join, JoinKind, JoinUndo};
use waypost_core::personal::{self, PersonalId};
use waypost_core::progress::join::{self as rules, JoinRecord, PinnedAttempt};
use waypost_core::scope::Scope;
use waypost_core::server::Server;
use waypost_core::version::Version;
use waypost_core::webhook::WebhookEvent;
use waypost_core::{Code, Error, Result, Timestamp};
pub use waypost_store::join::JoinSummary;
use waypost_store::progress::ProgressKey;
use waypost_store::{Conn, Tx, end_user, join as store, session};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::hosting::{Hosting, load_version};
use crate::identity::{self, Credentials, Subject};
use crate::try_it;
use crate::webhooks::{self, Event};

/// The maximum number of attempts if the same progress is changed concurrently.
const MAX_ATTEMPTS: u32 = 8;
/// The time for which a claim counts as recent: seven days, in milliseconds.
const RECENT_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

/// Joins the anonymous user that the request of a signed-in user presents in addition to its token, before the request
/// is processed.
///
/// # Errors
/// The same as for [`join`].
pub(crate) async fn join_credentials(
    cx: &Ctx,
    hosting: &Hosting,
    server: &Server,
    subject: &Subject,
    credentials: &Credentials,
) -> Result<()> {
    if let Some(id) = join(cx, hosting, server, subject, credentials).await? {
        tracing::info!(request_id = cx.request_id, join = id.as_str(), "joined anonymous progress");
    }
    Ok(())
}

/// Joins the progress on `server` of the anonymous user identified by `anonymous` to that of `subject`. Returns `None`
/// if there is no such user, or if it can no longer be joined.
///
/// # Errors
/// `sign_in_required` if the subject was deleted; `unavailable` if the database cannot be reached.
pub async fn join(
    cx: &Ctx,
    hosting: &Hosting,
    server: &Server,
    subject: &Subject,
    anonymous: &Credentials,
) -> Result<Option<JoinId>> {
    authorize_play(&cx.caller, &server.organization_id, &server.id)?;
    let Some(handle_hash) = identity::handle_hash(anonymous) else { return Ok(None) };
    // A token with a read-only scope changes nothing.
    if !server.auth_type.has_sign_in() || !subject.scopes.includes(Scope::Walk) {
        return Ok(None);
    }
    let key = (subject.grant_id.clone(), handle_hash);
    if hosting.unknown_accounts.0.contains_key(&key) {
        return Ok(None);
    }
    let kind = if matches!(anonymous, Credentials::Session(_)) { JoinKind::Session } else { JoinKind::Handle };
    let mut conn = hosting.read().await?;
    let found = session::find(&mut conn, &server.organization_id, &server.id, &key.1, cx.now()).await?;
    drop(conn);
    let joined = match found {
        Some(session) => {
            let (from, to) = (session.end_user_id, subject.end_user_id.clone());
            JoinOperation { cx, hosting, server, from, to, kind, claim: None }.run_with_retries().await?
        }
        None => None,
    };
    identity::forget(hosting, server, anonymous);
    hosting.unknown_accounts.0.insert(key, ());
    Ok(joined)
}

/// Returns the progress that `segment` of a personal URL of `server` entitles its holder to claim: that of a personal
/// ID, which is a secret, or that of the label of a valid claim link. Returns `None` for everything else: labels can be
/// guessed, so the result must not reveal whether they exist.
///
/// # Errors
/// `not_found` for a server other than the caller's; `unavailable` if the database cannot be reached.
pub async fn verify_claim(
    cx: &Ctx,
    hosting: &Hosting,
    server: &Server,
    segment: &str,
) -> Result<Option<ProgressClaim>> {
    authorize_play(&cx.caller, &server.organization_id, &server.id)?;
    let organization = &server.organization_id;
    if PersonalId::parse(segment).is_some() {
        return Ok(Some(ProgressClaim { tracking_id: personal::stored_form(segment).into_owned(), issued_at: None }));
    }
    let Some(link) = ClaimLink::parse(segment) else { return Ok(rejected("unsigned")) };
    if try_it::is_test_id(&link.label) || !link.is_valid(&hosting.keys, organization, &server.id, cx.now()) {
        return Ok(rejected("invalid"));
    }
    let mut conn = hosting.read().await?;
    let claim = ProgressClaim { tracking_id: link.label, issued_at: Some(link.issued_at) };
    let Some(from) = end_user::find_by_tracking_id(&mut conn, organization, &claim.tracking_id).await? else {
        return Ok(Some(claim));
    };
    Ok(if is_spent(&mut conn, server, &from, &claim).await? { rejected("spent") } else { Some(claim) })
}

/// Counts a tracking ID that does not prove a claim, and returns `None`.
fn rejected(reason: &'static str) -> Option<ProgressClaim> {
    metrics::counter!("waypost_claims_rejected_total", "reason" => reason).increment(1);
    None
}

/// Joins the progress on `server` that [`verify_claim`] returned to that of `end_user`. The first claim applies to the
/// whole organisation: returns `None` if another user has made it, if a claim was undone after the link was signed, or
/// if there is nothing to claim.
///
/// # Errors
/// `sign_in_required` if the end user was deleted; `unavailable` if the database cannot be reached.
pub async fn claim_progress(
    cx: &Ctx,
    hosting: &Hosting,
    server: &Server,
    end_user: &EndUserId,
    claim: &ProgressClaim,
) -> Result<Option<JoinId>> {
    authorize_play(&cx.caller, &server.organization_id, &server.id)?;
    if try_it::is_test_id(&claim.tracking_id) {
        // The progress of a test from the console cannot be claimed.
        return Ok(None);
    }
    let mut conn = hosting.read().await?;
    let found = end_user::find_by_tracking_id(&mut conn, &server.organization_id, &claim.tracking_id).await?;
    drop(conn);
    let Some(from) = found else { return Ok(None) };
    let claim = Some(claim);
    JoinOperation { cx, hosting, server, from, to: end_user.clone(), kind: JoinKind::Tracking, claim }
        .run_with_retries()
        .await
}

/// Whether a user who signs in can claim the progress that [`verify_claim`] returned.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub async fn is_claimable(cx: &Ctx, hosting: &Hosting, server: &Server, claim: &ProgressClaim) -> Result<bool> {
    authorize_play(&cx.caller, &server.organization_id, &server.id)?;
    if try_it::is_test_id(&claim.tracking_id) {
        return Ok(false);
    }
    let organization = &server.organization_id;
    let mut conn = hosting.read().await?;
    let Some(from) = end_user::find_by_tracking_id(&mut conn, organization, &claim.tracking_id).await? else {
        return Ok(false);
    };
    if !is_secret(&claim.tracking_id) && is_spent(&mut conn, server, &from, claim).await? {
        return Ok(false);
    }
    Ok(store::find_claimant(&mut conn, organization, &from).await?.is_none())
}

/// Whether a tracking ID in its stored form belongs to a personal ID, which only its holder knows.
fn is_secret(tracking_id: &str) -> bool {
    tracking_id.starts_with(personal::STORED_PREFIX)
}

/// Whether a label can no longer be claimed. Links that were signed before a claim was undone may have fallen into the
/// wrong hands. The time at which a link was presented is not sufficient, because an undo may be committing at that
/// moment.
async fn is_spent(conn: &mut Conn, server: &Server, from: &EndUserId, claim: &ProgressClaim) -> Result<bool> {
    let Some(issued_at) = claim.issued_at else { return Ok(true) };
    Ok(store::is_claim_link_spent(conn, &server.organization_id, &server.id, from, issued_at).await?)
}

/// A join in progress.
struct JoinOperation<'a> {
    cx: &'a Ctx,
    hosting: &'a Hosting,
    server: &'a Server,
    from: EndUserId,
    to: EndUserId,
    kind: JoinKind,
    /// `None` for handles and sessions.
    claim: Option<&'a ProgressClaim>,
}

impl JoinOperation<'_> {
    async fn run_with_retries(&self) -> Result<Option<JoinId>> {
        for _ in 1..MAX_ATTEMPTS {
            match self.run_once().await {
                // The user started the same walkthrough concurrently, or two transactions conflicted.
                Err(error) if error.code == Code::Conflict => {}
                done => return done,
            }
        }
        self.run_once().await
    }

    async fn run_once(&self) -> Result<Option<JoinId>> {
        let Self { cx, server, from, to, .. } = self;
        let (organization, now) = (&server.organization_id, cx.now());
        let mut tx = self.hosting.ops.store.begin().await?;
        let existing = store::lock_end_users(&mut tx, organization, from, to).await?;
        if !existing.contains(to) {
            return Err(identity::sign_in_required());
        }
        if from == to || !existing.contains(from) || !self.is_free(&mut tx).await? {
            return Ok(None);
        }
        let mut undo = JoinUndo::default();
        for (walkthrough, from, to) in store::lock_open_attempts(&mut tx, organization, &server.id, from, to).await? {
            let from_version = self.version(&mut tx, &from.version_id).await?;
            let to_version = match &to {
                Some(to) => Some(self.version(&mut tx, &to.version_id).await?),
                None => None,
            };
            let from = PinnedAttempt { attempt: &from, version: &from_version };
            let before = to.as_ref().map(|attempt| now.since(attempt.last_activity_at).max(0));
            let to =
                to.as_ref().zip(to_version.as_deref()).map(|(attempt, version)| PinnedAttempt { attempt, version });
            let joined = rules::join(from, to, now, &*cx.random);
            self.write(&mut tx, &walkthrough, &joined, before).await?;
            undo.walkthroughs.push((walkthrough, joined.record));
        }
        let join = Join {
            id: JoinId::new(now, &*cx.random),
            organization_id: organization.clone(),
            server_id: server.id.clone(),
            from_end_user_id: from.clone(),
            to_end_user_id: to.clone(),
            kind: self.kind,
            created_at: now,
            undone_at: None,
        };
        store::insert(&mut tx, &join, &undo).await?;
        session::set_joined(&mut tx, organization, &server.id, from, Some(now)).await?;
        let entry = Entry { action: "join.create", target: join.id.as_str(), detail: audit_detail(&join, &undo) };
        record(cx, &mut tx, organization, entry).await?;
        self.report(&mut tx, &join).await?;
        tx.commit().await?;
        Ok(Some(join.id))
    }

    /// Enqueues the webhook event of a claim, in its transaction.
    async fn report(&self, tx: &mut Tx, join: &Join) -> Result<()> {
        let Some(claim) = &self.claim else { return Ok(()) };
        let text = format!("A signed-in user claimed the progress of a tracking ID on {}.", self.server.name);
        let data = json!({
            "join_id": join.id,
            "server": { "id": self.server.id, "slug": self.server.slug, "name": self.server.name },
            "from_end_user": { "id": join.from_end_user_id, "tracking_id": claim.tracking_id },
            "to_end_user": { "id": join.to_end_user_id },
            "created_at": join.created_at.rfc3339(),
        });
        let (event, end_user_id) = (WebhookEvent::ProgressClaimed, Some(&join.to_end_user_id));
        webhooks::enqueue(self.cx, tx, &join.organization_id, &Event { event, end_user_id, text: &text, data }).await
    }

    /// Whether the anonymous user can still be joined to this user.
    async fn is_free(&self, tx: &mut Tx) -> Result<bool> {
        let organization = &self.server.organization_id;
        let is_taken = match self.claim.filter(|claim| !is_secret(&claim.tracking_id)) {
            // A link that the organisation signed after it undid a claim is valid, even for the same two users.
            Some(claim) => is_spent(tx, self.server, &self.from, claim).await?,
            None => store::is_settled(tx, organization, &self.server.id, &self.from, &self.to).await?,
        };
        if is_taken {
            return Ok(false);
        }
        // A tracking ID that another user has claimed on another server belongs to that user on this server, too.
        let owner = match self.kind {
            JoinKind::Tracking => store::find_claimant(tx, organization, &self.from).await?,
            JoinKind::Handle | JoinKind::Session => None,
        };
        Ok(owner.is_none_or(|owner| owner == self.to))
    }

    async fn write(
        &self,
        tx: &mut Tx,
        walkthrough: &WalkthroughId,
        joined: &rules::JoinOutcome,
        elapsed_ms: Option<i64>,
    ) -> Result<()> {
        let (organization, now) = (&self.server.organization_id, self.cx.now());
        let key = ProgressKey {
            organization_id: organization.clone(),
            end_user_id: self.to.clone(),
            server_id: self.server.id.clone(),
            walkthrough_id: walkthrough.clone(),
        };
        store::update_attempt(tx, organization, &joined.from).await?;
        if joined.is_new {
            store::insert_attempt(tx, &key, &joined.to).await?;
        } else {
            store::update_attempt(tx, organization, &joined.to).await?;
        }
        store::copy_completions(tx, organization, &joined.from.id, &joined.to.id).await?;
        let event = EventId::new(now, &*self.cx.random);
        store::insert_event(tx, &event, &key, &joined.to, now, elapsed_ms).await?;
        Ok(())
    }

    /// Returns a version from the cache, or reads it in this transaction: a second connection per transaction could
    /// exhaust the pool.
    async fn version(&self, tx: &mut Tx, id: &VersionId) -> Result<std::sync::Arc<Version>> {
        match self.hosting.versions.get(id) {
            Some(version) => Ok(version),
            None => Ok(load_version(tx, &self.server.organization_id, id).await?.into()),
        }
    }
}

/// Lists the joins of an organisation, newest first, including undone ones.
///
/// # Errors
/// `not_found` for an organisation that the caller cannot access; `forbidden` for members below admin.
pub async fn list(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<Vec<Join>> {
    authorize(&cx.caller, Operation::JoinRead, organization)?;
    Ok(store::list(&mut ops.store.read().await?, organization).await?)
}

/// Returns at most `limit` joins of an organisation with their users, newest first. With `before`, returns only older
/// ones.
///
/// # Errors
/// The same as for [`list`].
pub async fn list_page(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    before: Option<&JoinId>,
    limit: u32,
) -> Result<Vec<JoinSummary>> {
    authorize(&cx.caller, Operation::JoinRead, organization)?;
    Ok(store::list_page(&mut ops.store.read().await?, organization, before, i64::from(limit)).await?)
}

/// Returns the number of claims of tracking IDs within the last seven days that were not undone.
///
/// # Errors
/// The same as for [`list`].
pub async fn count_recent_claims(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<i64> {
    authorize(&cx.caller, Operation::JoinRead, organization)?;
    let since = cx.now().plus(-RECENT_MS);
    Ok(store::count_claims(&mut ops.store.read().await?, organization, since).await?)
}

/// Returns a join.
///
/// # Errors
/// The same as for [`list`]; `not_found` if there is none.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &JoinId) -> Result<Join> {
    authorize(&cx.caller, Operation::JoinRead, organization)?;
    store::find(&mut ops.store.read().await?, organization, id).await?.ok_or_else(not_found)
}

/// Undoes a join: the signed-in user loses the progress that came only from the anonymous user, and the anonymous
/// user's progress and handles become active again. The signed-in user's own progress remains. If the join was already
/// undone, returns it unchanged.
///
/// # Errors
/// `not_found` if there is no such join; `forbidden` for members below admin.
pub async fn undo(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &JoinId) -> Result<Join> {
    authorize(&cx.caller, Operation::JoinUndo, organization)?;
    for _ in 1..MAX_ATTEMPTS {
        match undo_once(cx, ops, organization, id).await {
            // Two transactions conflicted.
            Err(error) if error.code == Code::Conflict => {}
            done => return done,
        }
    }
    undo_once(cx, ops, organization, id).await
}

async fn undo_once(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &JoinId) -> Result<Join> {
    let now = cx.now();
    let mut tx = ops.store.begin().await?;
    let mut join = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    store::lock_end_users(&mut tx, organization, &join.from_end_user_id, &join.to_end_user_id).await?;
    let Some(undo) = store::mark_undone(&mut tx, organization, id, now).await? else {
        // Read again, because it may have been undone since it was read above.
        return store::find(&mut tx, organization, id).await?.ok_or_else(not_found);
    };
    for (walkthrough, taken) in &undo.walkthroughs {
        let key = ProgressKey {
            organization_id: organization.clone(),
            end_user_id: join.to_end_user_id.clone(),
            server_id: join.server_id.clone(),
            walkthrough_id: walkthrough.clone(),
        };
        undo_walkthrough(&mut tx, &key, taken, now).await?;
    }
    session::set_joined(&mut tx, organization, &join.server_id, &join.from_end_user_id, None).await?;
    join.undone_at = Some(now);
    let entry = Entry { action: "join.undo", target: id.as_str(), detail: audit_detail(&join, &undo) };
    record(cx, &mut tx, organization, entry).await?;
    tx.commit().await?;
    Ok(join)
}

/// Undoes a join of one walkthrough. Attempts that the user has completed since then remain.
async fn undo_walkthrough(tx: &mut Tx, key: &ProgressKey, taken: &JoinRecord, now: Timestamp) -> Result<()> {
    let organization = &key.organization_id;
    if let Some(present) = store::lock_open_attempt(tx, key).await? {
        let version = load_version(tx, organization, &present.version_id).await?;
        let shared = store::list_shared_completions(tx, organization, &taken.from, &present.id).await?;
        let remaining = shared.iter().map(|(_, ordinal)| *ordinal).collect();
        let pinned = PinnedAttempt { attempt: &present, version: &version };
        let restored = rules::undo(taken, pinned, &remaining, now);
        for (step, ordinal) in shared {
            if taken.added.contains(ordinal) {
                store::delete_completion(tx, organization, &present.id, &step).await?;
            }
        }
        if restored != present {
            store::update_attempt(tx, organization, &restored).await?;
        }
    }
    store::reopen_attempt(tx, organization, &taken.from).await?;
    Ok(())
}

fn audit_detail(join: &Join, undo: &JoinUndo) -> serde_json::Value {
    let walkthroughs: Vec<_> = undo.walkthroughs.iter().map(|(walkthrough, _)| walkthrough).collect();
    json!({
        "server_id": join.server_id,
        "from_end_user_id": join.from_end_user_id,
        "to_end_user_id": join.to_end_user_id,
        "kind": join.kind.as_str(),
        "walkthroughs": walkthroughs,
    })
}

fn not_found() -> Error {
    Error::not_found("join")
}
