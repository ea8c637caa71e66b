//! Support tickets: what an end user asked for, and how far the team is with it.

use crate::clock::Timestamp;
use crate::error::{Code, Error, Result};
use crate::id::{EndUserId, OrganizationId, ServerId, TicketCommentId, TicketId, UserId, WalkthroughId};
use crate::walkthrough::names;

/// Characters of a title at most.
pub const MAX_TITLE: usize = 200;
/// Characters of a problem and of its context at most.
pub const MAX_TEXT: usize = 8_000;
/// Characters of a comment at most.
pub const MAX_COMMENT: usize = 20_000;
/// Comments on a ticket at most.
pub const MAX_COMMENTS: usize = 500;
/// Tickets that are changed at once at most.
pub const MAX_BULK: usize = 100;
/// Tickets that one end user may open within a day.
pub const MAX_PER_DAY: i64 = 20;
/// Tickets that all those may open within a day on one server of whom nothing is known.
pub const MAX_UNKNOWN_PER_DAY: i64 = 200;

names! {
    /// How far the team is with a ticket.
    TicketStatus {
        /// Nobody knows where to answer to yet.
        NeedsEmail = "needs_email",
        /// Waits for the team.
        Pending = "pending",
        /// Somebody is at it.
        InProgress = "in_progress",
        /// Answered, as the team sees it.
        Resolved = "resolved",
        /// Done with. It can be opened again.
        Closed = "closed",
    }
}

impl TicketStatus {
    /// As people read it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NeedsEmail => "Needs e-mail",
            Self::Pending => "Pending",
            Self::InProgress => "In progress",
            Self::Resolved => "Resolved",
            Self::Closed => "Closed",
        }
    }

    /// Whether nothing is left to be done.
    #[must_use]
    pub fn is_done(self) -> bool {
        matches!(self, Self::Resolved | Self::Closed)
    }

    /// Lets a ticket with an address, or without one, go from this status to `next`.
    ///
    /// # Errors
    /// `conflict`: a closed ticket is opened again first, and only one without an address waits for one.
    pub fn check_transition(self, next: Self, has_email: bool) -> Result<()> {
        let refused = |message: &str| Err(Error::new(Code::Conflict, message).with("field", "status"));
        match (self, next) {
            (from, to) if from == to => Ok(()),
            (Self::Closed, Self::NeedsEmail | Self::Resolved) => {
                refused("The ticket is closed. Open it again first: set its status to `pending` or `in_progress`.")
            }
            (_, Self::NeedsEmail) if has_email => {
                refused("The ticket has an e-mail address, so it cannot wait for one. Set its status to `pending`.")
            }
            _ => Ok(()),
        }
    }
}

names! {
    /// How much a ticket matters.
    Priority {
        /// Can wait.
        Low = "low",
        /// As usual.
        Normal = "normal",
        /// Soon.
        High = "high",
        /// At once.
        Urgent = "urgent",
    }
}

impl Priority {
    /// As people read it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Low => "Low",
            Self::Normal => "Normal",
            Self::High => "High",
            Self::Urgent => "Urgent",
        }
    }
}

/// Where an end user was when they asked for help. It is written down then, and stays when the walkthrough goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketOrigin {
    /// The walkthrough; none when it was deleted since.
    pub walkthrough_id: Option<WalkthroughId>,
    /// Its title then.
    pub title: String,
    /// The version that they were on.
    pub version: u32,
    /// Its current step.
    pub step: Option<TicketStep>,
}

/// The step that an end user was at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketStep {
    /// The step.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Where it stands, from 1.
    pub position: u32,
}

/// A support ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The ticket.
    pub id: TicketId,
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// Its number within the organisation, for people.
    pub number: u32,
    /// The server on which it was opened; none when that was deleted since.
    pub server_id: Option<ServerId>,
    /// Who asked; none when nobody could tell.
    pub end_user_id: Option<EndUserId>,
    /// Where they were.
    pub origin: Option<TicketOrigin>,
    /// In a line.
    pub title: String,
    /// What is wrong.
    pub problem: String,
    /// What else may help.
    pub context: Option<String>,
    /// Where to answer to.
    pub email: Option<String>,
    /// Whether that address was proved; otherwise it is what somebody said.
    pub email_verified: bool,
    /// How far the team is.
    pub status: TicketStatus,
    /// How much it matters.
    pub priority: Priority,
    /// Who of the team has it.
    pub assignee_id: Option<UserId>,
    /// Counted up by every change.
    pub revision: u32,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it was resolved or closed.
    pub resolved_at: Option<Timestamp>,
}

impl Ticket {
    /// What is searched, in lower case: both databases then find the same.
    #[must_use]
    pub fn search_text(&self) -> String {
        let email = self.email.as_deref().unwrap_or_default();
        format!("#{} {}\n{}\n{email}", self.number, self.title, self.problem).to_lowercase()
    }

    /// Sets the status, and when it was resolved.
    ///
    /// # Errors
    /// As [`TicketStatus::check_transition`].
    pub fn set_status(&mut self, next: TicketStatus, now: Timestamp) -> Result<()> {
        self.status.check_transition(next, self.email.is_some())?;
        self.resolved_at = if next.is_done() { self.resolved_at.or(Some(now)) } else { None };
        self.status = next;
        Ok(())
    }

    /// Sets the address; one that is known ends the wait for it.
    pub fn set_email(&mut self, address: String, verified: bool) {
        self.email = Some(address);
        self.email_verified = verified;
        if self.status == TicketStatus::NeedsEmail {
            self.status = TicketStatus::Pending;
        }
    }
}

/// What the team wrote on a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketComment {
    /// The comment.
    pub id: TicketCommentId,
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// On which ticket.
    pub ticket_id: TicketId,
    /// Who wrote it: the id of a user or a key.
    pub author: String,
    /// Markdown.
    pub body: String,
    /// Whether it is a note for the team only.
    pub internal: bool,
    /// Where it was mailed to; none when it was not.
    pub mailed_to: Option<String>,
    /// When it was written.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A former text of a comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketCommentEdit {
    /// The comment.
    pub comment_id: TicketCommentId,
    /// The text that stood there before.
    pub body: String,
    /// Who replaced it.
    pub edited_by: String,
    /// When.
    pub edited_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_life_of_a_ticket() {
        use TicketStatus::{Closed, InProgress, NeedsEmail, Pending, Resolved};
        for (from, to, has_email, fine) in [
            (NeedsEmail, Pending, false, true),
            (Pending, InProgress, true, true),
            (InProgress, Resolved, true, true),
            (Resolved, Closed, true, true),
            (Resolved, Pending, true, true),
            (Closed, Pending, true, true),
            (Closed, InProgress, true, true),
            (Closed, Closed, true, true),
            (Closed, Resolved, true, false),
            (Closed, NeedsEmail, false, false),
            (Pending, NeedsEmail, true, false),
            (Pending, NeedsEmail, false, true),
        ] {
            let gone = from.check_transition(to, has_email);
            assert_eq!(gone.is_ok(), fine, "{from} to {to}");
            if let Err(error) = gone {
                assert_eq!((error.code, &error.details["field"]), (Code::Conflict, &"status".into()));
            }
        }
    }
}
