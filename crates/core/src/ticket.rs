//! Support tickets of end users.

use crate::clock::Timestamp;
use crate::error::{Code, Error, Result};
use crate::id::{EndUserId, OrganizationId, ServerId, TicketCommentId, TicketId, UserId, WalkthroughId};
use crate::walkthrough::names;

/// Maximum length of a title in characters.
pub const MAX_TITLE: usize = 200;
/// Maximum length of the problem and of the context in characters.
pub const MAX_TEXT: usize = 8_000;
/// Maximum length of a comment in characters.
pub const MAX_COMMENT: usize = 20_000;
/// Maximum number of comments on a ticket.
pub const MAX_COMMENTS: usize = 500;
/// Maximum number of tickets in a bulk update.
pub const MAX_BULK: usize = 100;
/// Maximum number of tickets that one end user can open per day.
pub const MAX_PER_DAY: i64 = 20;
/// Maximum number of tickets that all unidentified users of a server can open per day.
pub const MAX_UNKNOWN_PER_DAY: i64 = 200;

names! {
    /// The status of a ticket.
    TicketStatus {
        /// There is no email to reply to yet.
        NeedsEmail = "needs_email",
        /// Waiting for the team.
        Pending = "pending",
        /// The team is working on it.
        InProgress = "in_progress",
        /// The team considers it resolved.
        Resolved = "resolved",
        /// Closed. It can be reopened.
        Closed = "closed",
    }
}

impl TicketStatus {
    /// Returns the label shown to users.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NeedsEmail => "Needs email",
            Self::Pending => "Pending",
            Self::InProgress => "In progress",
            Self::Resolved => "Resolved",
            Self::Closed => "Closed",
        }
    }

    /// Whether the ticket is resolved or closed.
    #[must_use]
    pub fn is_done(self) -> bool {
        matches!(self, Self::Resolved | Self::Closed)
    }

    /// Checks that a ticket can change from this status to `next`.
    ///
    /// # Errors
    /// `conflict` if a closed ticket is not reopened first, or if a ticket that already has an email would become
    /// `needs_email`.
    pub fn check_transition(self, next: Self, has_email: bool) -> Result<()> {
        let conflict = |message: &str| Err(Error::new(Code::Conflict, message).with("field", "status"));
        match (self, next) {
            (from, to) if from == to => Ok(()),
            (Self::Closed, Self::NeedsEmail | Self::Resolved) => {
                conflict("The ticket is closed. Reopen it first: set its status to `pending` or `in_progress`.")
            }
            (_, Self::NeedsEmail) if has_email => {
                conflict("The ticket already has an email. Set its status to `pending`.")
            }
            _ => Ok(()),
        }
    }
}

names! {
    /// The priority of a ticket.
    Priority {
        /// Low.
        Low = "low",
        /// Normal.
        Normal = "normal",
        /// High.
        High = "high",
        /// Urgent.
        Urgent = "urgent",
    }
}

impl Priority {
    /// Returns the label shown to users.
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

/// The end user's position when they opened the ticket. Stored with the ticket and kept if the walkthrough is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketOrigin {
    /// The walkthrough; `None` if it has been deleted.
    pub walkthrough_id: Option<WalkthroughId>,
    /// The walkthrough's title at that time.
    pub title: String,
    /// The version that the user was on.
    pub version: u32,
    /// The current step.
    pub step: Option<TicketStep>,
}

/// The current step of the end user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketStep {
    /// The step's ID.
    pub id: String,
    /// The step's title.
    pub title: String,
    /// The step's position, from 1.
    pub position: u32,
}

/// A support ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The ticket's ID.
    pub id: TicketId,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The number within the organisation, shown to users.
    pub number: u32,
    /// The server on which the ticket was opened; `None` if it has been deleted.
    pub server_id: Option<ServerId>,
    /// The end user who opened the ticket; `None` if unknown.
    pub end_user_id: Option<EndUserId>,
    /// The end user's position in a walkthrough.
    pub origin: Option<TicketOrigin>,
    /// A one-line summary.
    pub title: String,
    /// The problem.
    pub problem: String,
    /// Additional context.
    pub context: Option<String>,
    /// The email to reply to.
    pub email: Option<String>,
    /// Whether the email is verified.
    pub email_verified: bool,
    /// The status.
    pub status: TicketStatus,
    /// The priority.
    pub priority: Priority,
    /// The team member that the ticket is assigned to.
    pub assignee_id: Option<UserId>,
    /// Incremented by every change.
    pub revision: u32,
    /// When the ticket was opened.
    pub created_at: Timestamp,
    /// When the ticket was last changed.
    pub updated_at: Timestamp,
    /// When the ticket was resolved or closed.
    pub resolved_at: Option<Timestamp>,
}

impl Ticket {
    /// Returns the searchable text in lowercase, so that both databases return the same results.
    #[must_use]
    pub fn search_text(&self) -> String {
        let email = self.email.as_deref().unwrap_or_default();
        format!("#{} {}\n{}\n{email}", self.number, self.title, self.problem).to_lowercase()
    }

    /// Sets the status and the time of resolution.
    ///
    /// # Errors
    /// See [`TicketStatus::check_transition`].
    pub fn set_status(&mut self, next: TicketStatus, now: Timestamp) -> Result<()> {
        self.status.check_transition(next, self.email.is_some())?;
        self.resolved_at = if next.is_done() { self.resolved_at.or(Some(now)) } else { None };
        self.status = next;
        Ok(())
    }

    /// Updates the status after a reply by the team: a ticket that was waiting for the team is now in progress.
    pub fn mark_answered(&mut self) {
        if self.status == TicketStatus::Pending {
            self.status = TicketStatus::InProgress;
        }
    }

    /// Sets the email. A ticket that was waiting for an email becomes pending.
    pub fn set_email(&mut self, address: String, verified: bool) {
        self.email = Some(address);
        self.email_verified = verified;
        if self.status == TicketStatus::NeedsEmail {
            self.status = TicketStatus::Pending;
        }
    }
}

/// A comment by the team on a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketComment {
    /// The comment's ID.
    pub id: TicketCommentId,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The ticket.
    pub ticket_id: TicketId,
    /// The author: the ID of a user or an API key.
    pub author: String,
    /// The text, in Markdown.
    pub body: String,
    /// Whether the comment is only visible to the team.
    pub internal: bool,
    /// The email that the comment was sent to; `None` if it was not sent.
    pub mailed_to: Option<String>,
    /// When the comment was created.
    pub created_at: Timestamp,
    /// When the comment was last changed.
    pub updated_at: Timestamp,
}

/// A previous version of a comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketCommentEdit {
    /// The comment.
    pub comment_id: TicketCommentId,
    /// The text of this version.
    pub body: String,
    /// The ID of the user or API key that replaced it.
    pub edited_by: String,
    /// The time at which it was replaced.
    pub edited_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_status_transitions_are_accepted() {
        use TicketStatus::{Closed, InProgress, NeedsEmail, Pending, Resolved};
        for (from, to, has_email, is_valid) in [
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
            let result = from.check_transition(to, has_email);
            assert_eq!(result.is_ok(), is_valid, "{from} to {to}");
            if let Err(error) = result {
                assert_eq!((error.code, &error.details["field"]), (Code::Conflict, &"status".into()));
            }
        }
    }
}
