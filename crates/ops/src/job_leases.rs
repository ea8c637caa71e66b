//! Leases of background jobs in the database, shared by all replicas.

use std::sync::Arc;
use std::time::Duration;

use waypost_core::id::base32;
use waypost_core::{Clock, Random};
use waypost_jobs::{LeaseResult, Leases};
use waypost_store::{Db, Dialect, job_lease};

/// The job leases of one process.
pub struct JobLeases {
    db: Db,
    clock: Arc<dyn Clock>,
    owner: String,
}

impl JobLeases {
    /// Creates the leases of a process, with a random owner name.
    #[must_use]
    pub fn new(db: Db, clock: Arc<dyn Clock>, random: &dyn Random) -> Self {
        let mut bytes = [0; 10];
        random.fill(&mut bytes);
        Self { db, clock, owner: base32(&bytes) }
    }

    /// Whether this is the only process. Only one `serve` can run per SQLite database, so it holds every lease and
    /// writes none.
    fn is_single(&self) -> bool {
        self.db.dialect() == Dialect::Sqlite
    }

    async fn write(&self, job: &str, lifetime: Option<Duration>) -> waypost_store::Result<bool> {
        let mut tx = self.db.begin().await?;
        let held = match lifetime {
            Some(lifetime) => {
                let now = self.clock.now();
                let expires_at = now.plus(i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX));
                job_lease::acquire(&mut tx, job, &self.owner, now, expires_at).await?
            }
            None => {
                job_lease::release(&mut tx, job, &self.owner).await?;
                false
            }
        };
        tx.commit().await?;
        Ok(held)
    }
}

impl Leases for JobLeases {
    fn acquire<'a>(&'a self, job: &'static str, lifetime: Duration) -> LeaseResult<'a, bool> {
        Box::pin(async move { Ok(self.is_single() || self.db.with_timeout(self.write(job, Some(lifetime))).await?) })
    }

    fn release<'a>(&'a self, job: &'static str) -> LeaseResult<'a, ()> {
        Box::pin(async move {
            if !self.is_single() {
                self.db.with_timeout(self.write(job, None)).await?;
            }
            Ok(())
        })
    }
}
