//! Leases: which of several processes runs a job.
//!
//! A lease lasts for [`LEASE`] and is renewed while the job runs, so the lease of a process that crashed expires by itself.
//! Clocks of different machines differ, and a process may stand still after it has renewed: two processes can run a job at
//! the same time for a moment. Jobs are therefore correct without a lease, which only saves work.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::state::{self, Entry};
use crate::{Error, job};

/// How long a lease lasts after it was acquired or renewed.
pub const LEASE: Duration = Duration::from_secs(60);
/// How often it is renewed during a run.
const RENEW: Duration = Duration::from_secs(20);
/// How long acquiring may take.
const ACQUIRE: Duration = Duration::from_secs(10);
/// How long releasing may take, at the end of the process.
pub(crate) const RELEASE: Duration = Duration::from_secs(1);

/// The answer of [`Leases`], when it comes.
pub type LeaseResult<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Leases that several processes share, for one of the processes.
pub trait Leases: Send + Sync {
    /// Acquires the lease of `job` for `lifetime`, or renews it. Returns `false` if another process holds it.
    fn acquire<'a>(&'a self, job: &'static str, lifetime: Duration) -> LeaseResult<'a, bool>;

    /// Releases the lease of `job` if this process holds it.
    fn release<'a>(&'a self, job: &'static str) -> LeaseResult<'a, ()>;
}

/// Whether this process may run a job.
pub(crate) enum Held {
    Yes,
    No,
    Failed,
}

/// Acquires or renews the lease, if the job has one.
pub(crate) async fn acquire(entry: &Entry, leases: Option<&dyn Leases>) -> Held {
    let Some(leases) = leases else { return Held::Yes };
    let name = entry.job.name;
    let acquired = job::catch(tokio::time::timeout(ACQUIRE, leases.acquire(name, LEASE))).await;
    match acquired {
        Ok(Ok(Ok(true))) => Held::Yes,
        Ok(Ok(Ok(false))) => Held::No,
        Ok(Ok(Err(error))) => {
            tracing::warn!(job = name, %error, "failed to acquire the lease of a job");
            Held::Failed
        }
        Ok(Err(_)) => {
            tracing::warn!(job = name, "acquiring the lease of a job took too long");
            Held::Failed
        }
        Err(message) => {
            state::count_panic(name, &message);
            Held::Failed
        }
    }
}

/// Renews the lease during a run; returns when it is lost, which is never for a job without one.
pub(crate) async fn lost(entry: &Entry, leases: Option<&dyn Leases>) {
    if leases.is_none() {
        return std::future::pending().await;
    }
    let mut renewed_at = Instant::now();
    loop {
        tokio::time::sleep(RENEW).await;
        let asked_at = Instant::now();
        match acquire(entry, leases).await {
            Held::Yes => renewed_at = asked_at,
            Held::No => return,
            // The database may be away for a moment. The lease is lost when it has expired.
            Held::Failed if renewed_at.elapsed() >= LEASE => return,
            Held::Failed => {}
        }
    }
}

/// Releases the lease at the end, so that another process need not wait until it expires.
pub(crate) async fn release(entry: &Entry, leases: Option<&dyn Leases>) {
    let Some(leases) = leases else { return };
    let name = entry.job.name;
    match job::catch(tokio::time::timeout(RELEASE, leases.release(name))).await {
        Ok(Ok(Ok(()))) => {}
        // It expires by itself.
        Ok(Ok(Err(error))) => tracing::debug!(job = name, %error, "failed to release the lease of a job"),
        Ok(Err(_)) | Err(_) => tracing::debug!(job = name, "failed to release the lease of a job"),
    }
}
