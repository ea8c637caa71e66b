//! The overview of an organisation: its setup status and current activity.

use waypost_core::Result;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, ServerId, WalkthroughId};
use waypost_store::overview as store;
pub use waypost_store::overview::OrganizationContents;

use crate::Ops;

/// End users with activity within this time count as active.
pub const ACTIVE_MS: i64 = 15 * 60 * 1_000;

/// The setup status and the current activity of an organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganizationOverview {
    /// The number of hosted servers.
    pub servers: i64,
    /// The server to continue with: one that offers a walkthrough, or else the first one created. `None` if there are
    /// no servers.
    pub server: Option<ServerId>,
    /// The number of walkthroughs, including archived ones.
    pub walkthroughs: i64,
    /// The first walkthrough created. `None` if there are no walkthroughs.
    pub walkthrough: Option<WalkthroughId>,
    /// The number of published walkthroughs.
    pub published: i64,
    /// The number of enabled assignments of published walkthroughs.
    pub offered: i64,
    /// Whether a client has ever called a tool.
    pub called: bool,
    /// The number of end users with activity in a walkthrough within [`ACTIVE_MS`].
    pub active: i64,
}

impl OrganizationOverview {
    /// Whether setup is complete: a walkthrough is offered and a client has called a tool.
    #[must_use]
    pub fn is_set_up(&self) -> bool {
        self.called && self.offered > 0
    }
}

/// Returns the overview of an organisation.
///
/// # Errors
/// `not_found` if the caller is not a member.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<OrganizationOverview> {
    authorize(&cx.caller, Operation::OrganizationRead, organization)?;
    let mut conn = ops.store.read().await?;
    let state = store::find_onboarding_state(&mut conn, organization).await?;
    let active = store::count_active_end_users(&mut conn, organization, cx.now().plus(-ACTIVE_MS)).await?;
    Ok(OrganizationOverview {
        servers: state.servers,
        server: state.offering_server.or(state.first_server).map(ServerId::from_store),
        walkthroughs: state.walkthroughs,
        walkthrough: state.first_walkthrough.map(WalkthroughId::from_store),
        published: state.published,
        offered: state.offered,
        called: state.called != 0,
        active,
    })
}

/// Returns the numbers of objects that are deleted together with the organisation.
///
/// # Errors
/// The same as for [`get`]; `forbidden` if the caller is not an owner.
pub async fn get_contents(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<OrganizationContents> {
    authorize(&cx.caller, Operation::OrganizationDelete, organization)?;
    Ok(store::count_contents(&mut ops.store.read().await?, organization).await?)
}
