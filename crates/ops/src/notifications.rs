//! Emails about tickets. Operations on tickets create notifications; the [`Notifier`] composes and sends the emails.
//!
//! Emails are enqueued in the transaction of the operation, so that none is lost and none is sent for an operation that
//! is rolled back. New tickets are collected into digests: a team gets at most one digest per server every five
//! minutes. [`send_due`] sends the emails that are due. It must be called about once a second in every process.

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
/// The minimum time between two digests of new tickets of a server, in milliseconds.
pub const DIGEST_EVERY_MS: i64 = 5 * 60_000;
/// The maximum number of tickets that a digest lists; the others are only counted.
pub const DIGEST_TICKETS: usize = 20;
/// The maximum number of owners and admins who get a digest.
const MAX_TEAM: usize = 50;
/// The maximum number of pending emails of an organisation.
const MAX_WAITING: i64 = 1_000;
/// The maximum number of digests that are created in one call.
const DIGESTS_AT_ONCE: usize = 100;
/// The maximum number of emails that are sent at the same time.
const EMAILS_AT_ONCE: i64 = 4;
/// The time for which an email is leased to the process that sends it.
const LEASE_MS: i64 = 5 * 60_000;
/// The delay after each failed attempt. If the attempt after the last delay fails, the email is discarded.
const RETRY_DELAYS_MS: [i64; 7] = [10_000, 60_000, 300_000, 900_000, 3_600_000, 3 * 3_600_000, 6 * 3_600_000];

/// A notification about a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The event that it reports.
    pub kind: NotificationKind,
    /// The recipients' email addresses. Each recipient gets their own message.
    pub to: Vec<String>,
    /// The email address to which recipients can reply.
    pub reply_to: Option<String>,
    /// The organisation of the ticket.
    pub organization: Organization,
    /// The product that the ticket is about.
    pub product: String,
    /// The ticket; the newest one of a digest.
    pub ticket: Ticket,
}

/// The event that a notification reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotificationKind {
    /// To the team: new tickets.
    Opened {
        /// The newest of the other tickets: at most [`DIGEST_TICKETS`] together with [`Notification::ticket`].
        others: Vec<Ticket>,
        /// The number of new tickets.
        count: usize,
    },
    /// To a member of the team: the ticket was assigned to them.
    Assigned,
    /// To the end user: a reply.
    Answered {
        /// The comment.
        comment_id: TicketCommentId,
        /// The text of the reply, in Markdown.
        body: String,
        /// Whether the reply also resolves the ticket.
        is_resolved: bool,
    },
    /// To the end user: the ticket is resolved.
    Resolved,
}

/// The text of an email.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailText {
    /// The subject, on one line.
    pub subject: String,
    /// The plain-text body.
    pub text: String,
    /// The same body as HTML.
    pub html: String,
}

/// The outcome of an attempt to send an email.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendOutcome {
    /// The mail server accepted it.
    Sent,
    /// The attempt failed; another one may succeed.
    Retry,
    /// The attempt failed permanently.
    Failed,
}

/// The future returned by [`Notifier::send`].
pub type SendFuture<'a> = Pin<Box<dyn Future<Output = SendOutcome> + Send + 'a>>;

/// Composes and sends emails.
pub trait Notifier: Send + Sync + 'static {
    /// Returns the text of a notification's email.
    fn compose(&self, notification: &Notification) -> EmailText;

    /// Makes one attempt to send an email.
    fn send<'a>(&'a self, email: &'a QueuedEmail) -> SendFuture<'a>;

    /// Records that an email was discarded after its last attempt.
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

    /// Enqueues as many emails of a notification as the organisation's queue has room for. Returns the number of
    /// enqueued emails.
    pub(crate) async fn enqueue(&self, cx: &Ctx, tx: &mut Tx, notification: &Notification) -> Result<usize> {
        let Some(notifier) = &self.0 else { return Ok(0) };
        let organization = &notification.organization.id;
        let waiting = email_queue::count(tx, organization).await?;
        let room = usize::try_from(MAX_WAITING - waiting).unwrap_or(0);
        if room < notification.to.len() {
            tracing::warn!(%organization, "dropped emails because too many are waiting");
        }
        let email_text = notifier.compose(notification);
        let (ticket_id, comment_id): (Option<&TicketId>, _) = match &notification.kind {
            NotificationKind::Opened { count: 2.., .. } => (None, None),
            NotificationKind::Answered { comment_id, .. } => (Some(&notification.ticket.id), Some(comment_id)),
            _ => (Some(&notification.ticket.id), None),
        };
        for recipient in notification.to.iter().take(room) {
            let created_at = cx.now();
            let email = NewEmail {
                id: &EmailId::new(created_at, &*cx.random),
                organization_id: organization,
                ticket_id,
                comment_id,
                recipient,
                subject: &email_text.subject,
                body: &email_text.text,
                html: &email_text.html,
                reply_to: notification.reply_to.as_deref(),
                created_at,
            };
            email_queue::enqueue(tx, &email).await?;
        }
        Ok(notification.to.len().min(room))
    }
}

impl fmt::Debug for Notifications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_enabled() { "Notifications(enabled)" } else { "Notifications(disabled)" })
    }
}

/// Creates the digests that are due at the time of `cx`, and makes one attempt to send some of the emails that are due.
/// Returns the number of attempts; 0 if nothing is due. Several processes may call it at the same time: each digest and
/// each email is claimed by one of them.
///
/// # Errors
/// `forbidden` unless the caller is the operator; `unavailable` if the database cannot be reached.
pub async fn send_due(cx: &Ctx, ops: &Ops) -> Result<usize> {
    authorize_operator(&cx.caller)?;
    let Some(notifier) = &ops.notifier.0 else { return Ok(0) };
    let now = cx.now();
    for _ in 0..DIGESTS_AT_ONCE {
        // Reads first, so that SQLite's single writer is used only if something is due.
        if !ticket_digest::is_due(&mut ops.store.read().await?, now).await? || !create_digest(cx, ops, now).await? {
            break;
        }
    }
    if !email_queue::is_due(&mut ops.store.read().await?, now).await? {
        return Ok(0);
    }
    let mut tx = ops.store.begin().await?;
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
    while let Some(joined) = attempts.join_next().await {
        let (email, outcome) = joined.map_err(Error::internal)?;
        record_outcome(cx, ops, &**notifier, &email, outcome).await?;
    }
    Ok(count)
}

async fn record_outcome(
    cx: &Ctx,
    ops: &Ops,
    notifier: &dyn Notifier,
    email: &QueuedEmail,
    outcome: SendOutcome,
) -> Result<()> {
    let failed = usize::try_from(email.attempts).unwrap_or(usize::MAX).saturating_sub(1);
    let delay = RETRY_DELAYS_MS.get(failed).filter(|_| outcome == SendOutcome::Retry);
    let mut tx = ops.store.begin().await?;
    match (outcome, delay) {
        (SendOutcome::Sent, _) => {
            email_queue::delete(&mut tx, email).await?;
        }
        (_, Some(delay)) => {
            email_queue::postpone(&mut tx, email, cx.now().plus(*delay)).await?;
        }
        (_, None) => {
            // The ticket's page shows that the reply was not sent.
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

/// Creates one digest. Returns `false` if no digest is due.
async fn create_digest(cx: &Ctx, ops: &Ops, now: Timestamp) -> Result<bool> {
    let mut tx = ops.store.begin().await?;
    let Some(due) = ticket_digest::claim(&mut tx, now).await? else { return Ok(false) };
    if ops.notifier.has_room(&mut tx, &due.organization_id).await? {
        if let Some(notification) = compose_digest(&mut tx, &due).await? {
            ops.notifier.enqueue(cx, &mut tx, &notification).await?;
        }
    } else {
        ticket_digest::postpone(&mut tx, &due, now.plus(DIGEST_EVERY_MS)).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Returns the notification that tells the owners and admins about the new tickets of a server. Returns `None` if the
/// tickets no longer exist.
async fn compose_digest(tx: &mut Tx, due: &DueDigest) -> Result<Option<Notification>> {
    let id = &due.organization_id;
    let new = ticket_digest::consume_tickets(tx, due).await?;
    let mut tickets = Vec::new();
    for ticket_id in new.iter().rev().take(DIGEST_TICKETS) {
        tickets.extend(ticket::find(tx, id, ticket_id).await?.map(|details| details.ticket));
    }
    if tickets.is_empty() {
        return Ok(None);
    }
    let Some(organization) = organization::find(tx, id).await? else { return Ok(None) };
    let members = user::list_members(tx, id).await?;
    let team = members.into_iter().filter(|member| member.role.covers(Role::Admin)).map(|member| member.email);
    let product = server::find(tx, id, &due.server_id).await?.map(|server| server.name);
    let newest = tickets.remove(0);
    Ok(Some(Notification {
        // A reply to a digest of several tickets would go to only one of the users.
        reply_to: newest.email.clone().filter(|_| tickets.is_empty()),
        ticket: newest,
        kind: NotificationKind::Opened { others: tickets, count: new.len() },
        to: team.take(MAX_TEAM).collect(),
        product: product.unwrap_or_else(|| organization.name.clone()),
        organization,
    }))
}
