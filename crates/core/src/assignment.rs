//! A walkthrough placed on a server.

use crate::clock::Timestamp;
use crate::id::{AssignmentId, OrganizationId, ServerId, WalkthroughId};
use crate::walkthrough::WalkthroughState;

/// A walkthrough on a server, with its place in the list and its switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The assignment.
    pub id: AssignmentId,
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// Where it is placed.
    pub server_id: ServerId,
    /// What is placed.
    pub walkthrough_id: WalkthroughId,
    /// Smaller numbers stand first.
    pub display_order: i64,
    /// Whether it is offered.
    pub enabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An assignment as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignmentView {
    /// The assignment.
    pub assignment: Assignment,
    /// The walkthrough's title.
    pub title: String,
    /// The walkthrough's slug.
    pub slug: String,
    /// Where the walkthrough is in its life: only a published one is offered.
    pub state: WalkthroughState,
    /// The server's name.
    pub server_name: String,
    /// The server's slug.
    pub server_slug: String,
}

/// A walkthrough that could be placed on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignmentCandidate {
    /// The walkthrough.
    pub id: WalkthroughId,
    /// Its title.
    pub title: String,
    /// Where it is in its life: not archived.
    pub state: WalkthroughState,
}
