//! Assignments of walkthroughs to servers.

use crate::clock::Timestamp;
use crate::id::{AssignmentId, OrganizationId, ServerId, WalkthroughId};
use crate::walkthrough::WalkthroughState;

/// A walkthrough assigned to a server, with its display order and whether it is enabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The assignment's ID.
    pub id: AssignmentId,
    /// The organisation that owns the assignment.
    pub organization_id: OrganizationId,
    /// The server.
    pub server_id: ServerId,
    /// The walkthrough.
    pub walkthrough_id: WalkthroughId,
    /// Position in the list; smaller numbers come first.
    pub display_order: i64,
    /// Whether the walkthrough is offered on the server.
    pub enabled: bool,
    /// When the assignment was created.
    pub created_at: Timestamp,
}

/// An assignment with the names shown in lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignmentView {
    /// The assignment.
    pub assignment: Assignment,
    /// The walkthrough's title.
    pub title: String,
    /// The walkthrough's slug.
    pub slug: String,
    /// The walkthrough's state. Only published walkthroughs are offered.
    pub state: WalkthroughState,
    /// The server's name.
    pub server_name: String,
    /// The server's slug.
    pub server_slug: String,
}

/// A walkthrough that can be assigned to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignmentCandidate {
    /// The walkthrough.
    pub id: WalkthroughId,
    /// The walkthrough's title.
    pub title: String,
    /// The walkthrough's state. Never archived.
    pub state: WalkthroughState,
}
