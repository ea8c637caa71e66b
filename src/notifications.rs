//! Emails about tickets to teams and to the users who opened them: composition and delivery.

use waypost_content::markdown::clean_line;
use waypost_core::caller::Ctx;
use waypost_core::ticket::Ticket;
use waypost_mail::{EmailMessage, Outbox, quote_name};
use waypost_ops::Ops;
use waypost_ops::notifications::{self, EmailText, Notification, NotificationKind, Notifier, SendFuture, SendOutcome};
use waypost_ops::public_url::PublicUrl;
use waypost_store::email_queue::QueuedEmail;

use crate::email_html;

/// Maximum length of a title in a subject or a list, in characters.
const MAX_TITLE_CHARS: usize = 120;
/// Maximum length in characters of a problem and of its context in an email. Limited because anyone can open a ticket;
/// the console shows the full text.
const MAX_TEXT_CHARS: usize = 2_000;
/// Maximum number of rounds per run, so that the job regularly reports success.
const MAX_ROUNDS: usize = 10;

/// The [`Notifier`] that sends by email.
pub struct MailNotifier {
    mail: Outbox,
    public_url: PublicUrl,
}

impl MailNotifier {
    /// Creates a notifier that sends with `mail`. Links are based on `public_url`.
    #[must_use]
    pub fn new(mail: Outbox, public_url: PublicUrl) -> Self {
        Self { mail, public_url }
    }

    fn tickets_url(&self, notification: &Notification) -> String {
        format!("{}/o/{}/tickets", self.public_url.origin(), notification.organization.slug)
    }

    fn ticket_url(&self, notification: &Notification, ticket: &Ticket) -> String {
        format!("{}/{}", self.tickets_url(notification), ticket.id)
    }

    /// Returns the text of a digest of several tickets, newest first.
    fn digest(&self, notification: &Notification, others: &[Ticket], count: usize) -> String {
        let product = quote_name(&notification.product);
        let mut text = format!("{count} new support tickets for {product}.\n");
        for ticket in std::iter::once(&notification.ticket).chain(others) {
            let (number, title) = (ticket.number, short_line(&ticket.title));
            text.push_str(&format!("\n#{number} {title}\n{}\n", self.ticket_url(notification, ticket)));
        }
        let more = count.saturating_sub(1 + others.len());
        if more > 0 {
            text.push_str(&format!("\nAnd {more} more:\n"));
        } else {
            text.push_str("\nAll tickets:\n");
        }
        text.push_str(&format!("{}\n", self.tickets_url(notification)));
        text
    }
}

impl Notifier for MailNotifier {
    fn compose(&self, notification: &Notification) -> EmailText {
        let Notification { ticket, product, organization, .. } = notification;
        let title = short_line(&ticket.title);
        let subject = |what: &str| format!("[#{}] {what}: {title}", ticket.number);
        let (product, organization) = (quote_name(product), quote_name(&organization.name));
        let link = self.ticket_url(notification, ticket);
        let (subject, text) = match &notification.kind {
            NotificationKind::Opened { others, count: count @ 2.. } => {
                (format!("{count} new tickets for {product}"), self.digest(notification, others, *count))
            }
            NotificationKind::Opened { .. } => {
                let summary = ticket_summary(ticket);
                (
                    subject("New ticket"),
                    format!("New support ticket for {product}.\n\n{summary}\nOpen the ticket: {link}\n"),
                )
            }
            NotificationKind::Assigned => {
                let summary = ticket_summary(ticket);
                (
                    subject("Assigned to you"),
                    format!(
                        "You were assigned this support ticket for {product}.\n\n{summary}\nOpen the ticket: {link}\n"
                    ),
                )
            }
            NotificationKind::Answered { body, is_resolved, .. } => {
                let mut note = format!("The {organization} team has replied to your question about {product}.");
                if *is_resolved {
                    note.push_str(
                        " The ticket is resolved. If you still need help, ask your assistant to open another one.",
                    );
                }
                let html = email_html::from_reply(body, &note);
                return EmailText { subject: subject("Reply"), text: format!("{body}\n\n-- \n{note}\n"), html };
            }
            NotificationKind::Resolved => (
                subject("Resolved"),
                format!(
                    "The {organization} team has resolved your question about {product}:\n\n    {title}\n\n\
                     If you still need help, ask your assistant to open another support ticket.\n"
                ),
            ),
        };
        let html = email_html::from_text(&text, &self.public_url.origin());
        EmailText { subject, text, html }
    }

    fn send<'a>(&'a self, email: &'a QueuedEmail) -> SendFuture<'a> {
        Box::pin(async move {
            let QueuedEmail { recipient, subject, body, html, reply_to, .. } = email;
            let (html, reply_to) = (html.clone(), reply_to.clone());
            let mail = EmailMessage { html, reply_to, ..EmailMessage::plain(recipient, subject, body) };
            match self.mail.deliver(&mail).await {
                Ok(()) => {
                    count_email("sent");
                    SendOutcome::Sent
                }
                Err(error) if error.is_final() => {
                    tracing::error!(%error, kind = "ticket", "failed to send an email");
                    SendOutcome::Failed
                }
                Err(error) => {
                    tracing::warn!(%error, kind = "ticket", "failed to send an email, will retry");
                    SendOutcome::Retry
                }
            }
        })
    }

    fn record_discarded(&self) {
        count_email("failed");
    }
}

fn count_email(outcome: &'static str) {
    metrics::counter!("waypost_emails_total", "kind" => "ticket", "outcome" => outcome).increment(1);
}

/// Sends emails about tickets when they are due. Several processes share the work.
#[derive(Clone)]
pub struct NotificationSender {
    /// The operator's context.
    pub cx: Ctx,
    /// The store for operations, with its [`Notifier`].
    pub ops: Ops,
}

impl NotificationSender {
    /// Sends the emails that are due, in several rounds. Emails that an aborted run has claimed but not sent are sent
    /// by another process after the claim has expired.
    ///
    /// # Errors
    /// See [`notifications::send_due`].
    pub async fn send_due(&self) -> waypost_core::Result<()> {
        for _ in 0..MAX_ROUNDS {
            if self.run_once().await? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Creates the digests that are due and makes some of the due attempts. Returns the number of attempts.
    ///
    /// # Errors
    /// See [`notifications::send_due`].
    pub async fn run_once(&self) -> waypost_core::Result<usize> {
        notifications::send_due(&self.cx, &self.ops).await
    }
}

/// Returns one line for a subject or a list: without line breaks and invisible characters, and truncated.
fn short_line(text: &str) -> String {
    truncate(&clean_line(text), MAX_TITLE_CHARS)
}

fn truncate(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Returns user-supplied text as a quotation, so that none of its lines looks like text of this installation.
fn quote(text: &str) -> String {
    truncate(text, MAX_TEXT_CHARS).lines().map(|line| format!("> {line}\n")).collect()
}

fn ticket_summary(ticket: &Ticket) -> String {
    let mut summary = format!("{}>\n{}", quote(&ticket.title), quote(&ticket.problem));
    if let Some(context) = &ticket.context {
        summary.push_str(&format!(">\n{}", quote(context)));
    }
    if let Some(place) = &ticket.origin {
        summary.push_str(&format!("\nWalkthrough: {} (version {})", short_line(&place.title), place.version));
        if let Some(step) = &place.step {
            summary.push_str(&format!(", at step {}: {}", step.position, short_line(&step.title)));
        }
        summary.push('\n');
    }
    match &ticket.email {
        Some(email) => summary.push_str(&format!("\nReply to: {email}\n")),
        None => summary.push_str("\nThe user has not provided an email yet.\n"),
    }
    summary
}
