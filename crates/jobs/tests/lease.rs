//! Of several processes one runs a job with a lease. Time is paused: nothing here waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use waypost_jobs::{Job, Jobs, LEASE, LeaseResult, Leases};

const SECOND: Duration = Duration::from_secs(1);

/// The leases in the database.
type Table = Arc<Mutex<HashMap<&'static str, (&'static str, Instant)>>>;

/// A process.
struct Replica {
    owner: &'static str,
    table: Table,
    is_cut_off: Arc<AtomicBool>,
}

impl Leases for Replica {
    fn acquire<'a>(&'a self, job: &'static str, lifetime: Duration) -> LeaseResult<'a, bool> {
        Box::pin(async move {
            if self.is_cut_off.load(Ordering::SeqCst) {
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
    at_work: Arc<AtomicU64>,
    is_cut_off: Arc<AtomicBool>,
}

struct AtWork(Arc<AtomicU64>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A process with a job that takes `takes`, every ten seconds.
fn process(owner: &'static str, table: &Table, takes: Duration) -> Process {
    let (jobs, runs, at_work) = (Jobs::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let is_cut_off = Arc::new(AtomicBool::new(false));
    let replica = Replica { owner, table: Arc::clone(table), is_cut_off: Arc::clone(&is_cut_off) };
    let (count, working) = (Arc::clone(&runs), Arc::clone(&at_work));
    jobs.start_leased(Job::new("packing", 10 * SECOND), Arc::new(replica), move || {
        count.fetch_add(1, Ordering::SeqCst);
        working.fetch_add(1, Ordering::SeqCst);
        let at_work = AtWork(Arc::clone(&working));
        async move {
            let _at_work = at_work;
            tokio::time::sleep(takes).await;
            Ok(())
        }
    });
    Process { jobs, runs, at_work, is_cut_off }
}

impl Process {
    fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_processes_one_runs_and_neither_is_late() {
    let table = Table::default();
    let (a, b) = (process("a", &table, SECOND), process("b", &table, SECOND));
    tokio::time::sleep(3_600 * SECOND).await;
    assert!(a.runs() > 300);
    assert_eq!(b.runs(), 0);
    assert!(a.jobs.late().is_empty() && b.jobs.late().is_empty());
    assert!(a.jobs.statuses()[0].is_active && !b.jobs.statuses()[0].is_active);
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_process_that_crashed_expires() {
    let table = Table::default();
    let a = process("a", &table, SECOND);
    tokio::time::sleep(SECOND).await;
    let b = process("b", &table, SECOND);
    // It cannot release anything any more, and nothing of it runs.
    a.is_cut_off.store(true, Ordering::SeqCst);
    let runs = a.runs();
    tokio::time::sleep(LEASE - 5 * SECOND).await;
    assert_eq!(b.runs(), 0, "not before the lease has expired");
    tokio::time::sleep(20 * SECOND).await;
    assert!(b.runs() > 0);
    assert_eq!(a.runs(), runs);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stops_hands_over_at_once() {
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
async fn a_process_that_cannot_renew_stops_before_another_begins() {
    let table = Table::default();
    let a = process("a", &table, 290 * SECOND);
    tokio::time::sleep(SECOND / 2).await;
    let b = process("b", &table, 290 * SECOND);
    a.is_cut_off.store(true, Ordering::SeqCst);
    for second in 1..80 {
        tokio::time::sleep(SECOND).await;
        let at_work = [&a, &b].map(|process| process.at_work.load(Ordering::SeqCst));
        assert!(at_work.iter().sum::<u64>() <= 1, "{at_work:?} after {second} s");
        assert!(second >= 60 || at_work == [1, 0], "the run goes on while the lease lasts");
    }
    assert_eq!(b.at_work.load(Ordering::SeqCst), 1);
    assert_eq!(a.jobs.statuses()[0].failures, 2, "the run, and the attempt to acquire the lease again");
}
