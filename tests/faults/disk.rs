//! A full disk, or a disk that fails to sync: writing calls fail, no acknowledged call is lost, and the program
//! recovers once the disk works.

use std::process::Stdio;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::client::Failure;
use crate::installation::{Installation, TIMEOUT};
use crate::load::{Load, LoadUser, total_acknowledged};
use crate::program::ServeProcess;

const USERS: usize = 16;

fn assert_unavailable(failure: &Failure) {
    let Failure::Refused { code, message, .. } = failure else { panic!("{failure:?}") };
    assert!(code == "unavailable" && message.contains("Try again"), "{failure:?}");
    assert!(!message.contains("SQL") && !message.contains("disk"), "the message exposes internals: {failure:?}");
}

/// Plays until the disk fails, checks that writing calls fail and reading calls succeed, and continues once the disk
/// works.
async fn assert_recovery(installation: &Installation, program: ServeProcess, disk: impl DiskFault) {
    let client = program.client();
    let users = (0..USERS).map(|n| LoadUser::new(installation, n)).collect();
    let load = Load::start(users, &client, assert_unavailable);
    load.wait_for(200).await;
    let fault = disk.fail(program.pid()).await;
    let mut users = load.finish().await;
    assert!(users.iter().all(|user| user.is_pending), "no user completes the walkthrough");
    let walkthrough = json!({ "walkthrough_id": installation.walkthrough });
    // Reads of loaded data succeed, and every write fails.
    for _ in 0..20 {
        client.call("user-0", "get_walkthrough_status", walkthrough.clone()).await.unwrap();
        assert_unavailable(&client.call("user-0", "next_walkthrough_step", walkthrough.clone()).await.unwrap_err());
        assert_unavailable(&client.call("stranger", "select_walkthrough", walkthrough.clone()).await.unwrap_err());
    }
    disk.repair(program.pid(), fault).await;
    for user in &mut users {
        user.compare_with_stored(&client).await;
        user.goal = user.acknowledged.len() + 5;
    }
    let goal: usize = users.iter().map(|user| user.goal).sum();
    let users = Load::start(users, &client, |failure| panic!("{failure:?}")).finish().await;
    assert_eq!(total_acknowledged(&users), goal);
    program.stop().await;
    installation.check(total_acknowledged(&users)).await;
}

/// A disk fault that can be applied to one process.
trait DiskFault {
    type Fault;
    async fn fail(&self, process: Pid) -> Self::Fault;
    async fn repair(&self, process: Pid, fault: Self::Fault);
}

/// The process cannot write to any file, including its log.
struct FileSizeLimit;

impl DiskFault for FileSizeLimit {
    type Fault = ();

    async fn fail(&self, process: Pid) {
        let maximum = getrlimit(Resource::Fsize).maximum;
        prlimit(Some(process), Resource::Fsize, Rlimit { current: Some(0), maximum }).unwrap();
    }

    async fn repair(&self, process: Pid, (): ()) {
        let before = getrlimit(Resource::Fsize);
        prlimit(Some(process), Resource::Fsize, before).unwrap();
    }
}

/// A system call on the database's write-ahead log fails.
struct InjectedFault<'a> {
    installation: &'a Installation,
    /// In the format of `strace --inject`.
    fault: &'a str,
}

impl DiskFault for InjectedFault<'_> {
    type Fault = Child;

    async fn fail(&self, process: Pid) -> Child {
        let file = self.installation.data_dir().join("waypost.db-wal");
        let mut strace = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-p", &process.as_raw_nonzero().to_string()])
            .args(["-e", &format!("trace={}", self.fault.split(':').next().unwrap())])
            .args(["-e", &format!("inject={}", self.fault)])
            .arg("-P")
            .arg(file)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines();
        let line = timeout(TIMEOUT, lines.next_line()).await.unwrap().unwrap().unwrap_or_default();
        assert!(line.contains("attached"), "{line}");
        // Keeps reading, because a full pipe would block strace.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        strace
    }

    async fn repair(&self, _: Pid, mut strace: Child) {
        let pid = Pid::from_raw(strace.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        timeout(TIMEOUT, strace.wait()).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survives_a_file_size_limit() {
    let installation = Installation::sqlite().await;
    let program = ServeProcess::start(&installation).await;
    assert_recovery(&installation, program, FileSizeLimit).await;
}

waypost_testkit::needs_strace! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn survives_a_full_disk() {
        let installation = Installation::sqlite().await;
        let program = ServeProcess::start(&installation).await;
        assert_recovery(
            &installation,
            program,
            InjectedFault { installation: &installation, fault: "pwrite64:error=ENOSPC" },
        )
        .await;
    }
}

waypost_testkit::needs_strace! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn survives_failing_syncs() {
        let installation = Installation::sqlite().await;
        let program = ServeProcess::start(&installation).await;
        assert_recovery(
            &installation,
            program,
            InjectedFault { installation: &installation, fault: "fsync,fdatasync:error=EIO" },
        )
        .await;
    }
}
