//! What people are told of by mail: tickets, to the team and to who opened them. The acts say what; the words are here.

use waypost_core::markdown::clean_line;
use waypost_core::ticket::Ticket;
use waypost_mail::{Kind, Mail, Outbox};
use waypost_ops::address::PublicUrl;
use waypost_ops::notices::{Notice, NoticeKind, Post};

/// Characters of what others wrote that a subject holds at most.
const SUBJECT: usize = 120;

/// Tells people by mail.
pub struct MailPost {
    mail: Outbox,
    public_url: PublicUrl,
}

impl MailPost {
    /// Through `mail`, with links to this installation.
    #[must_use]
    pub fn new(mail: Outbox, public_url: PublicUrl) -> Self {
        Self { mail, public_url }
    }

    fn ticket_url(&self, notice: &Notice) -> String {
        format!("{}/o/{}/tickets/{}", self.public_url.origin(), notice.organization.slug, notice.ticket.id)
    }

    fn words(&self, notice: &Notice) -> (String, String) {
        let Notice { ticket, product, organization, .. } = notice;
        let title = short(&ticket.title);
        let subject = |what: &str| format!("[#{}] {what}: {title}", ticket.number);
        let (product, organization) = (short(product), short(&organization.name));
        match &notice.kind {
            NoticeKind::Opened => (
                subject("New ticket"),
                format!(
                    "Somebody asks for help with {product}.\n\n{}\nWork on it: {}\n",
                    story(ticket),
                    self.ticket_url(notice)
                ),
            ),
            NoticeKind::Assigned => (
                subject("Yours"),
                format!(
                    "This ticket of {product} is yours now.\n\n{}\nWork on it: {}\n",
                    story(ticket),
                    self.ticket_url(notice)
                ),
            ),
            NoticeKind::Answered { body } => (
                subject("Answer"),
                format!("{body}\n\n-- \nThe team of {organization} answers your question about {product}.\n"),
            ),
            NoticeKind::Resolved => (
                subject("Resolved"),
                format!(
                    "Your question about {product} is resolved, as far as the team of {organization} can tell:\n\n    {title}\n\n\
                     When it is not, ask your assistant to open another support ticket.\n"
                ),
            ),
        }
    }
}

impl Post for MailPost {
    fn post(&self, notice: &Notice) -> bool {
        let (subject, text) = self.words(notice);
        let mut all = true;
        for to in &notice.to {
            let mail = Mail { to: to.clone(), subject: subject.clone(), text: text.clone() };
            if let Err(error) = self.mail.enqueue(Kind::Ticket, notice.organization.id.as_str(), mail) {
                tracing::warn!(%error, "a mail about a ticket could not be queued");
                all = false;
            }
        }
        all
    }
}

/// A line for a subject: nothing that could begin another header, and not too long.
fn short(text: &str) -> String {
    let line = clean_line(text);
    match line.char_indices().nth(SUBJECT) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn story(ticket: &Ticket) -> String {
    let mut story = format!("{}\n\n{}\n", ticket.title, ticket.problem);
    if let Some(context) = &ticket.context {
        story.push_str(&format!("\n{context}\n"));
    }
    if let Some(place) = &ticket.place {
        story.push_str(&format!("\nWalkthrough: {} (version {})", place.title, place.version));
        if let Some(step) = &place.step {
            story.push_str(&format!(", at step {}: {}", step.position, step.title));
        }
        story.push('\n');
    }
    match &ticket.email {
        Some(email) => story.push_str(&format!("\nAnswer to: {email}\n")),
        None => story.push_str("\nNo e-mail address is known yet.\n"),
    }
    story
}
