//! Leases, which decide which of several processes runs a job.
//!
//! A lease lasts for [`LEASE`] and is renewed while the job runs, so the lease of a crashed process expires on its own.
//! Because of clock skew between machines, or a process that stalls after a renewal, two processes can briefly run the
//! same job at the same time. Jobs must therefore be correct without a lease; the lease only avoids duplicate work.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::state::{self, Entry};
use crate::{Error, job};

/// Lifetime of a lease after it was acquired or renewed.
pub const LEASE: Duration = Duration::from_secs(60);
/// Interval between renewals during a run.
const RENEW: Duration = Duration::from_secs(20);
/// Timeout for acquiring a lease.
const ACQUIRE: Duration = Duration::from_secs(10);
/// Timeout for releasing a lease when the process shuts down.
pub(crate) const RELEASE: Duration = Duration::from_secs(1);

/// The future returned by the methods of [`Leases`].
pub type LeaseResult<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Leases shared by several processes, as seen by one of them.
pub trait Leases: Send + Sync {
    /// Acquires the lease of `job` for `lifetime`, or renews it. Returns `false` if another process holds it.
    fn acquire<'a>(&'a self, job: &'static str, lifetime: Duration) -> LeaseResult<'a, bool>;

    /// Releases the lease of `job` if this process holds it.
    fn release<'a>(&'a self, job: &'static str) -> LeaseResult<'a, ()>;
}

/// The result of trying to acquire a lease.
pub(crate) enum LeaseAttempt {
    Acquired,
    HeldElsewhere,
    Failed,
}

/// Acquires or renews the lease. A job without leases can always run.
pub(crate) async fn acquire(entry: &Entry, leases: Option<&dyn Leases>) -> LeaseAttempt {
    let Some(leases) = leases else { return LeaseAttempt::Acquired };
    let name = entry.job.name;
    let acquired = job::catch(tokio::time::timeout(ACQUIRE, leases.acquire(name, LEASE))).await;
    match acquired {
        Ok(Ok(Ok(true))) => LeaseAttempt::Acquired,
        Ok(Ok(Ok(false))) => LeaseAttempt::HeldElsewhere,
        Ok(Ok(Err(error))) => {
            tracing::warn!(job = name, %error, "failed to acquire the lease of a job");
            LeaseAttempt::Failed
        }
        Ok(Err(_)) => {
            tracing::warn!(job = name, "timed out acquiring the lease of a job");
            LeaseAttempt::Failed
        }
        Err(message) => {
            state::count_panic(name, &message);
            LeaseAttempt::Failed
        }
    }
}

/// Renews the lease during a run and returns when it is lost. Never returns for a job without a lease.
pub(crate) async fn lost(entry: &Entry, leases: Option<&dyn Leases>) {
    if leases.is_none() {
        return std::future::pending().await;
    }
    let mut renewed_at = Instant::now();
    loop {
        tokio::time::sleep(RENEW).await;
        let requested_at = Instant::now();
        match acquire(entry, leases).await {
            LeaseAttempt::Acquired => renewed_at = requested_at,
            LeaseAttempt::HeldElsewhere => return,
            // The database may be briefly unavailable. The lease is lost only after it has expired.
            LeaseAttempt::Failed if renewed_at.elapsed() >= LEASE => return,
            LeaseAttempt::Failed => {}
        }
    }
}

/// Releases the lease on shutdown so that another process does not have to wait until it expires.
pub(crate) async fn release(entry: &Entry, leases: Option<&dyn Leases>) {
    let Some(leases) = leases else { return };
    let name = entry.job.name;
    match job::catch(tokio::time::timeout(RELEASE, leases.release(name))).await {
        Ok(Ok(Ok(()))) => {}
        // The lease expires on its own.
        Ok(Ok(Err(error))) => tracing::debug!(job = name, %error, "failed to release the lease of a job"),
        Ok(Err(_)) | Err(_) => tracing::debug!(job = name, "failed to release the lease of a job"),
    }
}
