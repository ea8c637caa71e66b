//! Durability at the system call level: the write-ahead log is written and synced before the response is sent.

use std::collections::HashMap;

use rustix::process::{Signal, kill_process};
use tokio::process::Command;

use crate::installation::Installation;
use crate::load::{Load, LoadUser, total_acknowledged};
use crate::program::{self, SERVE, ServeProcess};

/// A system call. `begins` and `returns` are line numbers of the trace.
#[derive(Debug)]
struct TraceEvent<'a> {
    kind: Kind,
    begins: usize,
    returns: usize,
    /// The line of the trace, which contains the written data.
    data: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The write-ahead log is written.
    Write,
    /// The write-ahead log is synced.
    Sync,
    /// Data is sent to a client.
    Send,
}

/// Parses the output of `strace -f -y`. An interrupted call takes two lines.
fn parse_trace(trace: &str) -> Vec<TraceEvent<'_>> {
    let mut events = Vec::new();
    let mut unfinished: HashMap<&str, usize> = HashMap::new();
    for (index, line) in trace.lines().enumerate() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if call.starts_with("<... ") {
            if let Some(event) = unfinished.remove(thread).and_then(|event: usize| events.get_mut(event)) {
                let event: &mut TraceEvent<'_> = event;
                event.returns = index;
                assert!(!call.contains("= -1") || event.kind == Kind::Send, "{line}");
            }
            continue;
        }
        let kind = match call.split(['(', '<']).next() {
            Some("pwrite64") if call.contains("waypost.db-wal>") => Kind::Write,
            Some("fdatasync" | "fsync") if call.contains("waypost.db-wal>") => Kind::Sync,
            Some("write" | "writev" | "sendto" | "sendmsg") if call.contains("<TCP:") || call.contains("<socket:") => {
                Kind::Send
            }
            _ => continue,
        };
        if call.ends_with("<unfinished ...>") {
            unfinished.insert(thread, events.len());
        } else {
            assert!(kind == Kind::Send || !call.contains(") = -1"), "{line}");
        }
        let returns = if call.ends_with("<unfinished ...>") { usize::MAX } else { index };
        events.push(TraceEvent { kind, begins: index, returns, data: call });
    }
    events
}

/// Checks for every acknowledged step that its record is written to the write-ahead log, that a sync that begins after
/// the write returns, and that the response is sent only after that.
fn assert_synced_before_response(trace: &str, users: &[LoadUser]) {
    let events = parse_trace(trace);
    let requests = users.iter().flat_map(|user| &user.requests);
    for request in requests {
        let of = |kind| events.iter().filter(move |event| event.kind == kind);
        let written = of(Kind::Write).find(|event| event.data.contains(request.as_str()));
        let written = written.unwrap_or_else(|| panic!("{request} is not in the write-ahead log"));
        let sent = of(Kind::Send).find(|event| event.data.contains(request.as_str()));
        let sent = sent.unwrap_or_else(|| panic!("{request} has no response"));
        let synced = of(Kind::Sync).find(|event| event.begins > written.returns);
        let synced = synced.unwrap_or_else(|| panic!("{request} is not synced"));
        assert!(synced.returns < sent.begins, "{request}: {written:?}, {synced:?}, {sent:?}");
    }
}

async fn run_traced(clients: usize, steps: usize) {
    let installation = Installation::sqlite().await;
    let trace = installation.data_dir().join("trace");
    let mut command = Command::new("strace");
    // Traces whole database pages, because the record of a call can be anywhere in a page.
    command.args(["-f", "-y", "-s", "4200", "-o"]).arg(&trace);
    command.args(["-e", "trace=pwrite64,fdatasync,fsync,write,writev,sendto,sendmsg", "-e", "signal=none", "--"]);
    command.arg(env!("CARGO_BIN_EXE_waypost"));
    program::configure(&mut command, &installation, SERVE);
    let mut program = ServeProcess::run(command, &installation.data_dir()).await;
    let users = (0..clients).map(|n| LoadUser::new(&installation, n)).collect();
    let load = Load::start(users, &program.client(), |failure| assert!(failure.is_gone(), "{failure:?}"));
    load.wait_for(clients * steps).await;
    kill_process(program.traced(), Signal::TERM).unwrap();
    assert_eq!(program.exit().await.code(), Some(0), "{}", program.log());
    let users = load.finish().await;
    assert!(total_acknowledged(&users) >= clients * steps);
    assert_synced_before_response(&std::fs::read_to_string(trace).unwrap(), &users);
}

waypost_testkit::needs_strace! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_client_gets_responses_after_sync() {
        run_traced(1, 40).await;
    }
}

waypost_testkit::needs_strace! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sixteen_clients_get_responses_after_sync() {
        run_traced(16, 20).await;
    }
}
