//! Joins: anonymous progress that was transferred to a signed-in user.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{EndUserId, JoinId, OrganizationId, ServerId, WalkthroughId};
use crate::progress::join::JoinRecord;
use crate::walkthrough::names;

names! {
    /// The credential that identified the anonymous end user.
    JoinKind {
        /// A handle in the arguments sent by the signed-in user's own client.
        Handle = "handle",
        /// The session of that client.
        Session = "session",
        /// The tracking ID of a personal URL that the user claimed.
        Tracking = "tracking",
    }
}

/// The transfer of one anonymous user's progress on one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The join's ID.
    pub id: JoinId,
    /// The organisation that both users belong to.
    pub organization_id: OrganizationId,
    /// The only server whose progress was transferred.
    pub server_id: ServerId,
    /// The anonymous user.
    pub from_end_user_id: EndUserId,
    /// The signed-in user.
    pub to_end_user_id: EndUserId,
    /// The credential that identified the anonymous end user.
    pub kind: JoinKind,
    /// When the progress was joined.
    pub created_at: Timestamp,
    /// When the join was undone.
    pub undone_at: Option<Timestamp>,
}

/// The data needed to undo a join.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinUndo {
    /// The change made to each walkthrough.
    #[serde(default)]
    pub walkthroughs: Vec<(WalkthroughId, JoinRecord)>,
}
