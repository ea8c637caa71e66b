//! Emails about tickets: the acts say what and to whom, the program says how they read and how they are sent.
//!
//! Emails are enqueued in the transaction of the act, so none is lost or sent for an act that did not happen. New tickets are
//! collected: a team is told about those of a server at most every five minutes, and once for all of them.
//! [`send_due`] sends what is due; call it every second or so, in every process.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use waypost_core::access::authorize_operator;
use waypost_core::caller::Ctx;
use waypost_core::id::{EmailId, OrganizationId, TicketCommentId, TicketId};
use waypost_core::organization::{Organization, Role};
use waypost_core::ticket::Ticket;
use waypost_core::{Error, Result, Timestamp};
use waypost_store::email_queue::{self, NewEmail, QueuedEmail};
use waypost_store::ticket_digest::{self, DueDigest};
use waypost_store::{Tx, organization, server, ticket, ticket_comment, user};

use crate::Ops;

/// The name of the job that calls [`send_due`].
pub const JOB: &str = "emails";
/// A team is told about new tickets of a server at most every so many milliseconds.
pub const DIGEST_EVERY_MS: i64 = 5 * 60_000;
/// Tickets that a digest names; the rest are counted.
pub const DIGEST_TICKETS: usize = 20;
/// Owners and admins who get a digest.
const MAX_TEAM: usize = 50;
/// Emails of an organisation that may wait.
const MAX_WAITING: i64 = 1_000;
/// Digests that are made at a time.
const DIGESTS_AT_ONCE: usize = 100;
/// Emails that are sent at the same time.
const EMAILS_AT_ONCE: i64 = 4;
/// How long an email belongs to the process that sends it.
const LEASE_MS: i64 = 5 * 60_000;
/// How long to wait after each failed attempt. After the last one the email is given up.
const PAUSES_MS: [i64; 7] = [10_000, 60_000, 300_000, 900_000, 3_600_000, 3 * 3_600_000, 6 * 3_600_000];

/// Something to tell people about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// What happened.
    pub kind: NotificationKind,
    /// The addresses, each of which gets its own email.
    pub to: Vec<String>,
    /// The organisation of the ticket.
    pub organization: Organization,
    /// The product that the ticket is about.
    pub product: String,
    /// The ticket; the newest one of a digest.
    pub ticket: Ticket,
}

/// What happened to a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotificationKind {
    /// To the team: new tickets.
    Opened {
        /// The newest of the others, 19 at most.
        others: Vec<Ticket>,
        /// The number of new tickets.
        count: usize,
    },
    /// To a member of the team: it is theirs now.
    Assigned,
    /// To who opened it: an answer, in Markdown.
    Answered {
        /// The comment.
        comment_id: TicketCommentId,
        /// The answer.
        body: String,
    },
    /// To who opened it: it is resolved.
    Resolved,
}

/// The words of an email.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailText {
    /// The subject, in one line.
    pub subject: String,
    /// The text.
    pub text: String,
}

/// What became of an attempt to send an email.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendOutcome {
    /// The mail server accepted it.
    Sent,
    /// It failed; another attempt may succeed.
    Retry,
    /// It failed for good.
    Failed,
}

/// An attempt that is being made.
pub type SendFuture<'a> = Pin<Box<dyn Future<Output = SendOutcome> + Send + 'a>>;

/// The words and the sending of emails.
pub trait Notifier: Send + Sync + 'static {
    /// Returns the words of a notice.
    fn compose(&self, notice: &Notification) -> EmailText;

    /// Makes one attempt to send an email.
    fn send<'a>(&'a self, email: &'a QueuedEmail) -> SendFuture<'a>;

    /// Called for an email that is given up, after its last attempt.
    fn record_discarded(&self);
}

/// The [`Notifier`] of an installation; without one, no emails are sent.
#[derive(Clone, Default)]
pub(crate) struct Notifications(Option<Arc<dyn Notifier>>);

impl Notifications {
    pub(crate) fn new(notifier: Arc<dyn Notifier>) -> Self {
        Self(Some(notifier))
    }

    /// Whether emails can be sent.
    pub(crate) fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Whether an email of an organisation can be enqueued.
    pub(crate) async fn has_room(&self, tx: &mut Tx, organization: &OrganizationId) -> Result<bool> {
        Ok(self.is_enabled() && email_queue::count(tx, organization).await? < MAX_WAITING)
    }

    /// Enqueues the emails of a notice, as far as there is room. Returns their number.
    pub(crate) async fn enqueue(&self, cx: &Ctx, tx: &mut Tx, notice: &Notification) -> Result<usize> {
        let Some(notifier) = &self.0 else { return Ok(0) };
        let organization = &notice.organization.id;
        let waiting = email_queue::count(tx, organization).await?;
        let room = usize::try_from(MAX_WAITING - waiting).unwrap_or(0);
        if room < notice.to.len() {
            tracing::warn!(%organization, "too many emails of an organisation are waiting, dropped some");
        }
        let email_text = notifier.compose(notice);
        let (ticket_id, comment_id): (Option<&TicketId>, _) = match &notice.kind {
            NotificationKind::Opened { count: 2.., .. } => (None, None),
            NotificationKind::Answered { comment_id, .. } => (Some(&notice.ticket.id), Some(comment_id)),
            _ => (Some(&notice.ticket.id), None),
        };
        for recipient in notice.to.iter().take(room) {
            let created_at = cx.now();
            let email = NewEmail {
                id: &EmailId::new(created_at, &*cx.random),
                organization_id: organization,
                ticket_id,
                comment_id,
                recipient,
                subject: &email_text.subject,
                body: &email_text.text,
                created_at,
            };
            email_queue::enqueue(tx, &email).await?;
        }
        Ok(notice.to.len().min(room))
    }
}

impl fmt::Debug for Notifications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_enabled() { "Notifications(enabled)" } else { "Notifications(disabled)" })
    }
}

/// Makes the digests that are due at the present of `cx`, and makes one attempt for some of the emails that are due. Returns the
/// number of attempts; 0 if nothing is due. Several processes share the work, and none repeats that of another.
///
/// # Errors
/// `forbidden` for everybody but the operator; `unavailable` when the database is away.
pub async fn send_due(cx: &Ctx, ops: &Ops) -> Result<usize> {
    authorize_operator(&cx.caller)?;
    let Some(notifier) = &ops.notifications.0 else { return Ok(0) };
    let now = cx.now();
    for _ in 0..DIGESTS_AT_ONCE {
        // Looking costs nobody the place of the one writer.
        if !ticket_digest::is_due(&mut ops.db.read().await?, now).await? || !digest(cx, ops, now).await? {
            break;
        }
    }
    if !email_queue::is_due(&mut ops.db.read().await?, now).await? {
        return Ok(0);
    }
    let mut tx = ops.db.begin().await?;
    let claimed = email_queue::claim(&mut tx, now, now.plus(LEASE_MS), EMAILS_AT_ONCE).await?;
    tx.commit().await?;
    let count = claimed.len();
    let mut attempts = tokio::task::JoinSet::new();
    for email in claimed {
        let notifier = Arc::clone(notifier);
        attempts.spawn(async move {
            let outcome = waypost_jobs::catch(JOB, notifier.send(&email)).await.unwrap_or(SendOutcome::Retry);
            (email, outcome)
        });
    }
    while let Some(ended) = attempts.join_next().await {
        let (email, outcome) = ended.map_err(Error::internal)?;
        finish(cx, ops, &**notifier, (&email, outcome)).await?;
    }
    Ok(count)
}

async fn finish(
    cx: &Ctx,
    ops: &Ops,
    notifier: &dyn Notifier,
    (email, outcome): (&QueuedEmail, SendOutcome),
) -> Result<()> {
    let failed = usize::try_from(email.attempts).unwrap_or(usize::MAX).saturating_sub(1);
    let pause = PAUSES_MS.get(failed).filter(|_| outcome == SendOutcome::Retry);
    let mut tx = ops.db.begin().await?;
    match (outcome, pause) {
        (SendOutcome::Sent, _) => {
            email_queue::delete(&mut tx, email).await?;
        }
        (_, Some(pause)) => {
            email_queue::postpone(&mut tx, email, cx.now().plus(*pause)).await?;
        }
        (_, None) => {
            // The page says that an answer was not sent.
            if email_queue::delete(&mut tx, email).await? {
                if let Some(comment) = &email.comment_id {
                    ticket_comment::mark_unsent(&mut tx, &email.organization_id, comment).await?;
                }
                notifier.record_discarded();
            }
        }
    }
    tx.commit().await?;
    Ok(())
}

/// Makes one digest. Returns `false` if none is due any more.
async fn digest(cx: &Ctx, ops: &Ops, now: Timestamp) -> Result<bool> {
    let mut tx = ops.db.begin().await?;
    let Some(due) = ticket_digest::claim(&mut tx, now).await? else { return Ok(false) };
    if ops.notifications.has_room(&mut tx, &due.organization_id).await? {
        if let Some(notice) = opened(&mut tx, &due).await? {
            ops.notifications.enqueue(cx, &mut tx, &notice).await?;
        }
    } else {
        ticket_digest::postpone(&mut tx, &due, now.plus(DIGEST_EVERY_MS)).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// What to tell the owners and admins about the new tickets of a server.
async fn opened(tx: &mut Tx, due: &DueDigest) -> Result<Option<Notification>> {
    let id = &due.organization_id;
    let new = ticket_digest::consume_tickets(tx, due).await?;
    let mut tickets = Vec::new();
    for ticket_id in new.iter().rev().take(DIGEST_TICKETS) {
        tickets.extend(ticket::find(tx, id, ticket_id).await?.map(|named| named.ticket));
    }
    if tickets.is_empty() {
        return Ok(None);
    }
    let Some(organization) = organization::find(tx, id).await? else { return Ok(None) };
    let members = user::list_members(tx, id).await?;
    let team = members.into_iter().filter(|member| member.role.covers(Role::Admin)).map(|member| member.email);
    let product = server::find(tx, id, &due.server_id).await?.map(|server| server.name);
    Ok(Some(Notification {
        ticket: tickets.remove(0),
        kind: NotificationKind::Opened { others: tickets, count: new.len() },
        to: team.take(MAX_TEAM).collect(),
        product: product.unwrap_or_else(|| organization.name.clone()),
        organization,
    }))
}
