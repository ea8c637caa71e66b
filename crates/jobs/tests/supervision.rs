//! Checks that jobs run at their interval and are retried after failures. Time is paused, so the tests do not actually
//! wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use waypost_jobs::{Impact, Job, JobStatus, Jobs};

const SECOND: Duration = Duration::from_secs(1);

fn status(jobs: &Jobs) -> JobStatus {
    jobs.statuses().into_iter().next().unwrap()
}

/// Starts a job that calls `run` with the number of the run, and returns the start times of its runs in seconds.
fn record(
    jobs: &Jobs,
    job: Job,
    run: impl Fn(u64) -> waypost_jobs::Result + Send + Sync + 'static,
) -> mpsc::UnboundedReceiver<u64> {
    let (sender, times) = mpsc::unbounded_channel();
    let start = Instant::now();
    let run = Arc::new(run);
    let count = Arc::new(AtomicU64::new(0));
    jobs.start(job, move || {
        let (sender, run) = (sender.clone(), Arc::clone(&run));
        let n = count.fetch_add(1, Ordering::SeqCst);
        async move {
            let _ = sender.send(start.elapsed().as_secs());
            run(n)
        }
    });
    times
}

async fn take(times: &mut mpsc::UnboundedReceiver<u64>, count: usize) -> Vec<u64> {
    let mut taken = Vec::new();
    for _ in 0..count {
        taken.push(times.recv().await.unwrap());
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_immediately_and_then_at_its_interval() {
    let jobs = Jobs::default();
    let mut times = record(&jobs, Job::new("heartbeat", 5 * SECOND), |_| Ok(()));
    assert_eq!(take(&mut times, 4).await, [0, 5, 10, 15]);
    assert!(jobs.late_jobs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_panicking_job_is_counted_and_restarted_with_increasing_pauses() {
    let jobs = Jobs::default();
    let mut times = record(&jobs, Job::new("unstable", SECOND), |n| if n < 9 { panic!("run {n}") } else { Ok(()) });
    // Pauses of 1, 2, 4, … seconds up to one minute, and the interval again after a success.
    assert_eq!(take(&mut times, 11).await, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 244]);
    let status = status(&jobs);
    assert_eq!((status.panics, status.failures), (9, 9));
}

#[tokio::test(start_paused = true)]
async fn a_failed_run_is_counted_and_retried() {
    let jobs = Jobs::default();
    let job = Job { max_pause: SECOND, ..Job::new("poll", SECOND) };
    let mut times = record(&jobs, job, |n| if n < 3 { Err("unavailable".into()) } else { Ok(()) });
    assert_eq!(take(&mut times, 5).await, [0, 1, 2, 3, 4]);
    let status = status(&jobs);
    assert_eq!((status.panics, status.failures), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_hangs_is_dropped_at_the_time_limit() {
    let jobs = Jobs::default();
    let runs = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&runs);
    jobs.start(Job { limit: 30 * SECOND, ..Job::new("stuck", SECOND) }, move || {
        counter.fetch_add(1, Ordering::SeqCst);
        std::future::pending()
    });
    tokio::time::sleep(100 * SECOND).await;
    // Runs start at 0, 31, 63 and 97 seconds.
    assert_eq!(runs.load(Ordering::SeqCst), 4);
    assert_eq!(status(&jobs).failures, 3);
}

#[tokio::test(start_paused = true)]
async fn a_job_without_success_is_late_and_recovers() {
    let jobs = Jobs::default();
    let is_failing = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&is_failing);
    let job = Job { max_pause: SECOND, ..Job::new("archive", SECOND) };
    let mut times =
        record(&jobs, job, move |_| if failing.load(Ordering::SeqCst) { Err("unavailable".into()) } else { Ok(()) });
    take(&mut times, 3).await;
    is_failing.store(true, Ordering::SeqCst);
    tokio::time::sleep(590 * SECOND).await;
    assert!(jobs.late_jobs().is_empty(), "the job is not late yet");
    tokio::time::sleep(20 * SECOND).await;
    let late = jobs.late_jobs();
    assert_eq!(
        late.iter().map(|status| (status.name, status.impact)).collect::<Vec<_>>(),
        [("archive", Impact::Housekeeping)]
    );
    is_failing.store(false, Ordering::SeqCst);
    tokio::time::sleep(2 * SECOND).await;
    assert!(jobs.late_jobs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_job_that_never_finishes_a_run_is_late() {
    let jobs = Jobs::default();
    jobs.start(Job { limit: Duration::MAX / 4, ..Job::new("stuck", SECOND).serving() }, std::future::pending);
    tokio::time::sleep(601 * SECOND).await;
    assert_eq!(jobs.late_jobs()[0].impact, Impact::Serving);
}

#[tokio::test(start_paused = true)]
async fn stopping_lets_a_short_run_finish_and_drops_a_long_one() {
    for (duration, is_done) in [(SECOND / 4, true), (SECOND, false)] {
        let jobs = Jobs::default();
        let done = Arc::new(AtomicBool::new(false));
        let (set, mut starts) = (Arc::clone(&done), record(&jobs, Job::new("other", SECOND), |_| Ok(())));
        jobs.start(Job::new("slow", SECOND), move || {
            let set = Arc::clone(&set);
            async move {
                tokio::time::sleep(duration).await;
                set.store(true, Ordering::SeqCst);
                Ok(())
            }
        });
        take(&mut starts, 1).await;
        tokio::task::yield_now().await;
        jobs.stop().await;
        assert_eq!(done.load(Ordering::SeqCst), is_done);
        assert!(starts.recv().await.is_none(), "no run starts after the stop");
        tokio::time::sleep(3_600 * SECOND).await;
        assert!(jobs.late_jobs().is_empty(), "a job that was told to stop is not late");
    }
}

#[tokio::test(start_paused = true)]
async fn jobs_stop_when_their_owner_is_dropped() {
    let jobs = Jobs::default();
    let mut times = record(&jobs, Job::new("heartbeat", SECOND), |_| Ok(()));
    take(&mut times, 1).await;
    drop(jobs);
    assert!(times.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_worker_continues_after_a_panic_and_is_late_only_while_processing() {
    let jobs = Jobs::default();
    let (queue, items) = mpsc::channel::<&'static str>(8);
    let items = Arc::new(tokio::sync::Mutex::new(items));
    let (done, mut finished) = mpsc::unbounded_channel();
    let job = Job { late_after: 30 * SECOND, ..Job::new("writer", Duration::ZERO) };
    let task = jobs.start_worker(job, move |handle| {
        let (items, done) = (Arc::clone(&items), done.clone());
        async move {
            loop {
                let Some(item) = items.lock().await.recv().await else { return };
                let _item = handle.begin_item();
                match item {
                    "panic" => panic!("this item cannot be processed"),
                    "slow" => tokio::time::sleep(40 * SECOND).await,
                    _ => {}
                }
                done.send(item).unwrap();
            }
        }
    });
    tokio::time::sleep(3_600 * SECOND).await;
    assert!(jobs.late_jobs().is_empty(), "a waiting worker is not late");
    for item in ["a", "panic", "b", "slow"] {
        queue.send(item).await.unwrap();
    }
    assert_eq!([finished.recv().await, finished.recv().await], [Some("a"), Some("b")]);
    assert_eq!(status(&jobs).panics, 1);
    tokio::time::sleep(35 * SECOND).await;
    assert_eq!(jobs.late_jobs()[0].name, "writer");
    assert_eq!(finished.recv().await, Some("slow"));
    assert!(jobs.late_jobs().is_empty());
    jobs.stop().await;
    queue.send("c").await.unwrap();
    assert_eq!(finished.recv().await, Some("c"), "a worker ends with its queue");
    drop(queue);
    task.await.unwrap();
    assert!(jobs.statuses().is_empty());
}

#[tokio::test]
async fn panics_in_background_tasks_are_caught() {
    waypost_jobs::spawn("probe", async { panic!("no response") }).await.unwrap();
    assert_eq!(waypost_jobs::catch("probe", async { panic!("no response") }).await, None::<()>);
    assert_eq!(waypost_jobs::catch("probe", async { 1 }).await, Some(1));
}
