//! What people are told of by mail: the acts say what and whom, whoever runs the acts says how.

use std::fmt;
use std::sync::Arc;

use waypost_core::organization::Organization;
use waypost_core::ticket::Ticket;

/// Something that people should know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What happened.
    pub kind: NoticeKind,
    /// The addresses that it goes to, each in a mail of its own.
    pub to: Vec<String>,
    /// Whose ticket it is.
    pub organization: Organization,
    /// The product that the ticket is about.
    pub product: String,
    /// The ticket.
    pub ticket: Ticket,
}

/// What happened to a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticeKind {
    /// To the team: somebody opened it.
    Opened,
    /// To a member of the team: it is theirs now.
    Assigned,
    /// To who opened it: an answer, in Markdown.
    Answered {
        /// The answer.
        body: String,
    },
    /// To who opened it: it is resolved.
    Resolved,
}

/// A way to tell people.
pub trait Post: Send + Sync + 'static {
    /// Sends it on its way; false when that was not possible for every address.
    fn post(&self, notice: &Notice) -> bool;
}

/// The way of an installation; without one nobody is told anything.
#[derive(Clone, Default)]
pub(crate) struct Way(Option<Arc<dyn Post>>);

impl Way {
    pub(crate) fn new(post: Arc<dyn Post>) -> Self {
        Self(Some(post))
    }

    /// Whether anybody can be told anything.
    pub(crate) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Tells whom the notice names; false when they were not told.
    pub(crate) fn post(&self, notice: &Notice) -> bool {
        !notice.to.is_empty() && self.0.as_ref().is_some_and(|post| post.post(notice))
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_open() { "Way(open)" } else { "Way(closed)" })
    }
}
