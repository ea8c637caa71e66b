//! How far an organisation is, and what goes on there.

use waypost_core::Result;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, ServerId, WalkthroughId};
use waypost_store::overview as store;
pub use waypost_store::overview::OrganizationContents;

use crate::Ops;

/// Who did something within this time is at it.
pub const ACTIVE_MS: i64 = 15 * 60 * 1_000;

/// How far an organisation is, and what goes on there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganizationOverview {
    /// Its hosted servers.
    pub servers: i64,
    /// The server to go on with: one that offers something, else the one that was made first.
    pub server: Option<ServerId>,
    /// Its walkthroughs, archived ones too.
    pub walkthroughs: i64,
    /// The walkthrough that was made first.
    pub walkthrough: Option<WalkthroughId>,
    /// Walkthroughs that are published.
    pub published: i64,
    /// Assignments that are switched on, of published walkthroughs.
    pub offered: i64,
    /// Whether a client has ever called a tool.
    pub called: bool,
    /// People who did something in a walkthrough within [`ACTIVE_MS`].
    pub active: i64,
}

impl OrganizationOverview {
    /// Whether the first run is over: something is offered, and a client has come.
    #[must_use]
    pub fn is_set_up(&self) -> bool {
        self.called && self.offered > 0
    }
}

/// Reads how far an organisation is.
///
/// # Errors
/// `not_found` in an organisation that the caller may not know of.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<OrganizationOverview> {
    authorize(&cx.caller, Operation::OrganizationRead, organization)?;
    let mut conn = ops.db.read().await?;
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

/// What goes with the organisation when it is deleted.
///
/// # Errors
/// As [`get`]; `forbidden` for members below owner.
pub async fn get_contents(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<OrganizationContents> {
    authorize(&cx.caller, Operation::OrganizationDelete, organization)?;
    Ok(store::count_contents(&mut ops.db.read().await?, organization).await?)
}
