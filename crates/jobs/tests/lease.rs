//! Checks that only one of several processes runs a job with a lease. Time is paused, so the tests do not actually
//! wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use waypost_jobs::{Job, Jobs, LEASE, LeaseResult, Leases};

const SECOND: Duration = Duration::from_secs(1);

/// The shared leases: owner and expiry by job.
type Table = Arc<Mutex<HashMap<&'static str, (&'static str, Instant)>>>;

/// The leases as seen by one process.
struct Replica {
    owner: &'static str,
    table: Table,
    is_disconnected: Arc<AtomicBool>,
}

impl Leases for Replica {
    fn acquire<'a>(&'a self, job: &'static str, lifetime: Duration) -> LeaseResult<'a, bool> {
        Box::pin(async move {
            if self.is_disconnected.load(Ordering::SeqCst) {
                return Err("no database".into());
            }
            let (now, mut table) = (Instant::now(), self.table.lock().unwrap());
            let (owner, expires_at) = table.entry(job).or_insert((self.owner, now));
            let is_free = *owner == self.owner || *expires_at <= now;
            if is_free {
                (*owner, *expires_at) = (self.owner, now + lifetime);
            }
            Ok(is_free)
        })
    }

    fn release<'a>(&'a self, job: &'static str) -> LeaseResult<'a, ()> {
        Box::pin(async move {
            let mut table = self.table.lock().unwrap();
            if table.get(job).is_some_and(|(owner, _)| *owner == self.owner) {
                table.remove(job);
            }
            Ok(())
        })
    }
}

struct Process {
    jobs: Jobs,
    runs: Arc<AtomicU64>,
    active_runs: Arc<AtomicU64>,
    is_disconnected: Arc<AtomicBool>,
}

struct RunGuard(Arc<AtomicU64>);

impl Drop for RunGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Starts a process with a job that takes `duration` and runs every ten seconds.
fn process(owner: &'static str, table: &Table, duration: Duration) -> Process {
    let (jobs, runs, active_runs) = (Jobs::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let is_disconnected = Arc::new(AtomicBool::new(false));
    let replica = Replica { owner, table: Arc::clone(table), is_disconnected: Arc::clone(&is_disconnected) };
    let (count, working) = (Arc::clone(&runs), Arc::clone(&active_runs));
    jobs.start_leased(Job::new("archive", 10 * SECOND), Arc::new(replica), move || {
        count.fetch_add(1, Ordering::SeqCst);
        working.fetch_add(1, Ordering::SeqCst);
        let active_runs = RunGuard(Arc::clone(&working));
        async move {
            let _active_runs = active_runs;
            tokio::time::sleep(duration).await;
            Ok(())
        }
    });
    Process { jobs, runs, active_runs, is_disconnected }
}

impl Process {
    fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn only_one_of_two_processes_runs_the_job_and_neither_is_late() {
    let table = Table::default();
    let (a, b) = (process("a", &table, SECOND), process("b", &table, SECOND));
    tokio::time::sleep(3_600 * SECOND).await;
    assert!(a.runs() > 300);
    assert_eq!(b.runs(), 0);
    assert!(a.jobs.late_jobs().is_empty() && b.jobs.late_jobs().is_empty());
    assert!(a.jobs.statuses()[0].is_active && !b.jobs.statuses()[0].is_active);
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_crashed_process_expires() {
    let table = Table::default();
    let a = process("a", &table, SECOND);
    tokio::time::sleep(SECOND).await;
    let b = process("b", &table, SECOND);
    // The process can no longer release its lease, and its job no longer runs.
    a.is_disconnected.store(true, Ordering::SeqCst);
    let runs = a.runs();
    tokio::time::sleep(LEASE - 5 * SECOND).await;
    assert_eq!(b.runs(), 0, "the job must not run before the lease has expired");
    tokio::time::sleep(20 * SECOND).await;
    assert!(b.runs() > 0);
    assert_eq!(a.runs(), runs);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stops_releases_its_lease_immediately() {
    let table = Table::default();
    let a = process("a", &table, SECOND);
    tokio::time::sleep(SECOND).await;
    let b = process("b", &table, SECOND);
    tokio::time::sleep(SECOND).await;
    a.jobs.stop().await;
    assert!(table.lock().unwrap().is_empty());
    tokio::time::sleep(10 * SECOND).await;
    assert!(b.runs() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_long_run_keeps_its_lease() {
    let table = Table::default();
    let (a, b) = (process("a", &table, 250 * SECOND), process("b", &table, 250 * SECOND));
    tokio::time::sleep(1_000 * SECOND).await;
    assert_eq!((a.runs(), b.runs()), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_cannot_renew_stops_before_another_starts() {
    let table = Table::default();
    let a = process("a", &table, 290 * SECOND);
    tokio::time::sleep(SECOND / 2).await;
    let b = process("b", &table, 290 * SECOND);
    a.is_disconnected.store(true, Ordering::SeqCst);
    for second in 1..80 {
        tokio::time::sleep(SECOND).await;
        let active_runs = [&a, &b].map(|process| process.active_runs.load(Ordering::SeqCst));
        assert!(active_runs.iter().sum::<u64>() <= 1, "{active_runs:?} after {second} s");
        assert!(second >= 60 || active_runs == [1, 0], "the run continues while the lease is valid");
    }
    assert_eq!(b.active_runs.load(Ordering::SeqCst), 1);
    assert_eq!(a.jobs.statuses()[0].failures, 2, "one failed run and one failed attempt to acquire the lease");
}
