//! Anonymous progress that became that of a signed-in user.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{EndUserId, JoinId, OrganizationId, ServerId, WalkthroughId};
use crate::progress::join::Taken;
use crate::walkthrough::names;

names! {
    /// By what the anonymous user was known.
    JoinKind {
        /// A handle in the arguments of the signed-in user's own client.
        Handle = "handle",
        /// The session of that client.
        Session = "session",
        /// The tracking id of a personal URL, which the user claimed.
        Tracking = "tracking",
    }
}

/// One join: of one anonymous user, on one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The join.
    pub id: JoinId,
    /// Whose users.
    pub organization_id: OrganizationId,
    /// The only server whose progress was taken over.
    pub server_id: ServerId,
    /// The anonymous user.
    pub from_end_user_id: EndUserId,
    /// The signed-in user.
    pub to_end_user_id: EndUserId,
    /// By what the anonymous user was known.
    pub kind: JoinKind,
    /// When.
    pub created_at: Timestamp,
    /// When it was taken back.
    pub undone_at: Option<Timestamp>,
}

/// How to take a join back, walkthrough by walkthrough.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    /// What was done to each.
    #[serde(default)]
    pub walkthroughs: Vec<(WalkthroughId, Taken)>,
}
