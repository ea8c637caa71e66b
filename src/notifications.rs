//! Emails about tickets, to teams and to the users who opened them: the words, and the sending.

use waypost_core::caller::Ctx;
use waypost_core::markdown::clean_line;
use waypost_core::ticket::Ticket;
use waypost_mail::{EmailMessage, Outbox, quote_name};
use waypost_ops::Ops;
use waypost_ops::notifications::{self, EmailText, Notification, NotificationKind, Notifier, SendFuture, SendOutcome};
use waypost_ops::public_url::PublicUrl;
use waypost_store::email_queue::QueuedEmail;

/// Characters of a title in a subject or a list at most.
const MAX_TITLE: usize = 120;
/// Characters of a problem, and of its context, in an email at most. Anybody can open a ticket: the page shows the rest.
const MAX_TEXT: usize = 2_000;
/// Rounds of emails that are sent before the job reports that it is alive.
const ROUNDS: usize = 10;

/// The [`Notifier`] that sends by email.
pub struct MailNotifier {
    mail: Outbox,
    public_url: PublicUrl,
}

impl MailNotifier {
    /// Sends with `mail`; links lead to this installation.
    #[must_use]
    pub fn new(mail: Outbox, public_url: PublicUrl) -> Self {
        Self { mail, public_url }
    }

    fn tickets_url(&self, notice: &Notification) -> String {
        format!("{}/o/{}/tickets", self.public_url.origin(), notice.organization.slug)
    }

    fn ticket_url(&self, notice: &Notification, ticket: &Ticket) -> String {
        format!("{}/{}", self.tickets_url(notice), ticket.id)
    }

    /// The text of a digest with several tickets, newest first.
    fn list(&self, notice: &Notification, (others, count): (&[Ticket], usize)) -> String {
        let product = quote_name(&notice.product);
        let mut text = format!("{count} new support tickets for {product}.\n");
        for ticket in std::iter::once(&notice.ticket).chain(others) {
            let (number, title) = (ticket.number, short(&ticket.title));
            text.push_str(&format!("\n#{number} {title}\n{}\n", self.ticket_url(notice, ticket)));
        }
        let more = count.saturating_sub(1 + others.len());
        if more > 0 {
            text.push_str(&format!("\nAnd {more} more:\n"));
        } else {
            text.push_str("\nAll tickets:\n");
        }
        text.push_str(&format!("{}\n", self.tickets_url(notice)));
        text
    }
}

impl Notifier for MailNotifier {
    fn compose(&self, notice: &Notification) -> EmailText {
        let Notification { ticket, product, organization, .. } = notice;
        let title = short(&ticket.title);
        let subject = |what: &str| format!("[#{}] {what}: {title}", ticket.number);
        let (product, organization) = (quote_name(product), quote_name(&organization.name));
        let link = self.ticket_url(notice, ticket);
        let (subject, text) = match &notice.kind {
            NotificationKind::Opened { others, count: count @ 2.. } => {
                (format!("{count} new tickets for {product}"), self.list(notice, (others, *count)))
            }
            NotificationKind::Opened { .. } => {
                let story = story(ticket);
                (
                    subject("New ticket"),
                    format!("New support ticket for {product}.\n\n{story}\nOpen the ticket: {link}\n"),
                )
            }
            NotificationKind::Assigned => {
                let story = story(ticket);
                (
                    subject("Yours"),
                    format!("You were assigned this ticket for {product}.\n\n{story}\nOpen the ticket: {link}\n"),
                )
            }
            NotificationKind::Answered { body, .. } => (
                subject("Answer"),
                format!("{body}\n\n-- \nThe team of {organization} answers your question about {product}.\n"),
            ),
            NotificationKind::Resolved => (
                subject("Resolved"),
                format!(
                    "The team of {organization} has resolved your question about {product}:\n\n    {title}\n\n\
                     If you still need help, ask your assistant to open another support ticket.\n"
                ),
            ),
        };
        EmailText { subject, text }
    }

    fn send<'a>(&'a self, email: &'a QueuedEmail) -> SendFuture<'a> {
        Box::pin(async move {
            let QueuedEmail { recipient, subject, body, .. } = email;
            let mail = EmailMessage { to: recipient.clone(), subject: subject.clone(), text: body.clone() };
            match self.mail.deliver(&mail).await {
                Ok(()) => {
                    count("sent");
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
        count("failed");
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("waypost_emails_total", "kind" => "ticket", "outcome" => outcome).increment(1);
}

/// Sends emails about tickets as they become due. Several processes share the work.
#[derive(Clone)]
pub struct NotificationSender {
    /// The operator's context.
    pub cx: Ctx,
    /// What acts are done on, with its [`Notifier`].
    pub ops: Ops,
}

impl NotificationSender {
    /// Sends what is due, some rounds of it. What a run that is cut off has not sent is sent by another process, after its lease.
    ///
    /// # Errors
    /// As [`notifications::send_due`].
    pub async fn look(&self) -> waypost_core::Result<()> {
        for _ in 0..ROUNDS {
            if self.run_once().await? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Makes the digests that are due now, and some of the attempts. Returns the number of attempts.
    ///
    /// # Errors
    /// As [`notifications::send_due`].
    pub async fn run_once(&self) -> waypost_core::Result<usize> {
        notifications::send_due(&self.cx, &self.ops).await
    }
}

/// A line for a subject or a list: without line breaks and invisible characters, and not too long.
fn short(text: &str) -> String {
    cut(&clean_line(text), MAX_TITLE)
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What a user wrote, in the marks of a quotation: no line of it reads as one of this installation.
fn quotation(text: &str) -> String {
    cut(text, MAX_TEXT).lines().map(|line| format!("> {line}\n")).collect()
}

fn story(ticket: &Ticket) -> String {
    let mut story = format!("{}>\n{}", quotation(&ticket.title), quotation(&ticket.problem));
    if let Some(context) = &ticket.context {
        story.push_str(&format!(">\n{}", quotation(context)));
    }
    if let Some(place) = &ticket.origin {
        story.push_str(&format!("\nWalkthrough: {} (version {})", short(&place.title), place.version));
        if let Some(step) = &place.step {
            story.push_str(&format!(", at step {}: {}", step.position, short(&step.title)));
        }
        story.push('\n');
    }
    match &ticket.email {
        Some(email) => story.push_str(&format!("\nAnswer to: {email}\n")),
        None => story.push_str("\nNo email address is known yet.\n"),
    }
    story
}
