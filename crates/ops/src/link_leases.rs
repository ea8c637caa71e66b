//! Leases on the links to toolboxes: which replica holds the link to a toolbox. Used only on PostgreSQL; on SQLite,
//! there is only one process.
//!
//! Invariants:
//! 1. A lease ends [`LIFETIME`] after its holder last renewed it, so a replica that dies loses its links.
//! 2. A toolbox has one lease. The newest link wins: its replica replaces the lease, and the previous holder closes its
//!    link when it notices this.
//! 3. A replica never forwards a request to itself.

use std::sync::Arc;
use std::time::Duration;

use waypost_core::id::{ToolboxId, base32};
use waypost_core::{Clock, Random, Result, Timestamp};
use waypost_store::toolbox_link::{self as store, Holder};
use waypost_store::{Db, Tx};

/// The time after which a lease ends unless it is renewed.
pub const LIFETIME: Duration = Duration::from_secs(30);
/// The interval at which leases must be renewed.
pub const RENEWAL_INTERVAL: Duration = Duration::from_secs(10);

/// The leases of one process. Cheap to clone.
#[derive(Clone)]
pub struct LinkLeases(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Arc<dyn Clock>,
    replica: String,
    internal_url: String,
}

impl LinkLeases {
    /// Creates the leases of a process, with a random name. Other replicas reach it at `internal_url`.
    #[must_use]
    pub fn new(db: Db, clock: Arc<dyn Clock>, random: &dyn Random, internal_url: String) -> Self {
        let mut bytes = [0; 10];
        random.fill(&mut bytes);
        Self(Arc::new(Inner { db, clock, replica: base32(&bytes), internal_url }))
    }

    /// Returns the internal URL of the replica that holds the link to a toolbox, or `None` if no other replica holds
    /// it.
    ///
    /// # Errors
    /// Any error of the store.
    pub async fn find_other(&self, toolbox: &ToolboxId) -> Result<Option<String>> {
        let Inner { db, clock, replica, .. } = &*self.0;
        Ok(store::find_other(&mut db.read().await?, toolbox, replica, clock.now()).await?)
    }

    /// Records that this process holds the link to a toolbox.
    ///
    /// # Errors
    /// Any error of the store.
    pub(crate) async fn claim(&self, toolbox: &ToolboxId) -> Result<()> {
        let holder = Holder { replica: &self.0.replica, internal_url: &self.0.internal_url };
        let mut tx = self.begin().await?;
        store::claim(&mut tx, toolbox, holder, self.end()).await?;
        Ok(tx.commit().await?)
    }

    /// Records that this process no longer holds the link to a toolbox.
    ///
    /// # Errors
    /// Any error of the store.
    pub(crate) async fn release(&self, toolbox: &ToolboxId) -> Result<()> {
        let mut tx = self.begin().await?;
        store::release(&mut tx, toolbox, &self.0.replica).await?;
        Ok(tx.commit().await?)
    }

    /// Extends the leases of links that this process still holds.
    ///
    /// # Errors
    /// Any error of the store.
    pub async fn renew(&self, toolboxes: &[ToolboxId]) -> Result<()> {
        if toolboxes.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        store::renew(&mut tx, &self.0.replica, &toolboxes.iter().collect::<Vec<_>>(), self.end()).await?;
        Ok(tx.commit().await?)
    }

    /// Returns the toolboxes in `toolboxes` whose link another replica has claimed.
    ///
    /// # Errors
    /// Any error of the store.
    pub(crate) async fn list_lost(&self, toolboxes: &[&ToolboxId]) -> Result<Vec<ToolboxId>> {
        let mut conn = self.0.db.read().await?;
        Ok(store::list_claimed_by_others(&mut conn, &self.0.replica, toolboxes).await?)
    }

    async fn begin(&self) -> Result<Tx> {
        Ok(self.0.db.begin().await?)
    }

    fn end(&self) -> Timestamp {
        self.0.clock.now().plus(i64::try_from(LIFETIME.as_millis()).unwrap_or(i64::MAX))
    }
}
