//! A server that accepts connections and never answers.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::agent::{Agent, Answer};
use super::{connect, count_open_files, serve};
use crate::installation::{Installation, TIMEOUT};
use crate::program::ServeProcess;
use crate::proxy::{Network, Proxy};
use crate::remote_server::RemoteServer;

/// The number of consecutive failures after which a server is not called for a minute.
const MAX_FAILURES: usize = 5;
/// The time for which the server is not called, plus a margin for the test.
const RECOVERY_TIME: Duration = Duration::from_secs(60 + 30);
/// The number of calls that are abandoned; each of them would leave at least one file descriptor.
const ABANDONED: usize = 60;
/// The maximum difference in the number of file descriptors because of idle connections.
const IDLE: usize = 20;

/// Two servers behind one gateway: `far`, which can hang, and `near`.
struct Stage {
    installation: Installation,
    far: Proxy,
    far_server: RemoteServer,
    near: RemoteServer,
    agent: Agent,
}

impl Stage {
    async fn new() -> Self {
        let installation = Installation::sqlite().await;
        let (far_server, near) = (RemoteServer::start().await, RemoteServer::start().await);
        let far = Proxy::start_for_server(far_server.address).await;
        let agent = connect(&installation, &[("far", &far.url), ("near", &near.url())], 1).await.remove(0);
        Self { installation, far, far_server, near, agent }
    }

    /// Starts `count` calls to the server that hangs.
    fn call_far(&self, origin: &str, count: usize) -> JoinSet<Answer> {
        let mut calls = JoinSet::new();
        for n in 0..count {
            let (agent, origin) = (self.agent.clone(), origin.to_owned());
            calls.spawn(async move { agent.call(&origin, "far", json!({ "n": n })).await.unwrap() });
        }
        calls
    }

    /// Asserts that the agent sees both servers, and that `near` answers.
    async fn assert_near_works(&self, origin: &str) {
        assert_eq!(self.agent.list(origin).await.unwrap().tools(), ["far__echo", "near__echo"]);
        let before = self.near.calls().len();
        let answer = self.agent.call(origin, "near", json!({ "n": 1 })).await.unwrap();
        assert_eq!(answer.body["result"]["structuredContent"], json!({ "n": 1 }), "{answer:?}");
        assert_eq!(self.near.calls().len(), before + 1);
    }

    /// Waits for calls to the server that hangs, while the other server is used. Returns the answers, and the number of
    /// times that the other server was used.
    async fn wait_for(&self, origin: &str, mut calls: JoinSet<Answer>) -> (Vec<Answer>, usize) {
        let (mut answers, mut count) = (Vec::new(), 0);
        while !calls.is_empty() {
            self.assert_near_works(origin).await;
            count += 1;
            while let Some(answer) = calls.try_join_next() {
                answers.push(answer.unwrap());
            }
        }
        (answers, count)
    }
}

/// Waits until no more file descriptors are open than before, apart from those of idle connections.
async fn assert_no_files_leak(program: &ServeProcess, before: usize) {
    let closed = async {
        while count_open_files(program) > before + IDLE {
            tokio::task::yield_now().await;
        }
    };
    let in_time = timeout(TIMEOUT, closed).await;
    assert!(in_time.is_ok(), "{} file descriptors are open, before {before}", count_open_files(program));
}

/// The network fails before the first call of the process: connections are accepted, but not answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_never_answers_is_not_called_for_a_minute_and_recovers() {
    let stage = Stage::new().await;
    let program = serve(&stage.installation).await;
    let origin = program.origin();
    stage.assert_near_works(origin).await;
    stage.far.set(Network::Silent);
    let (answers, count) = stage.wait_for(origin, stage.call_far(origin, MAX_FAILURES)).await;
    assert!(answers.iter().all(|answer| answer.reason() == "timeout"), "{answers:?}");
    assert!(count > 1, "the other server was used meanwhile");
    let answer = stage.agent.call(origin, "far", json!({})).await.unwrap();
    assert_eq!(answer.reason(), "circuit_open", "{answer:?}");
    stage.assert_near_works(origin).await;
    assert_eq!(stage.far_server.calls(), Vec::<String>::new());

    stage.far.set(Network::Up);
    let recovered = async {
        loop {
            let answer = stage.agent.call(origin, "far", json!({ "n": "again" })).await.unwrap();
            if answer.is_result() {
                break;
            }
            assert_eq!(answer.reason(), "circuit_open", "{answer:?}");
            stage.assert_near_works(origin).await;
        }
    };
    timeout(RECOVERY_TIME, recovered).await.expect("the server is called again in time");
    assert_eq!(stage.far_server.calls(), [r#"{"n":"again"}"#]);
    for answer in stage.call_far(origin, MAX_FAILURES).join_all().await {
        assert!(answer.is_result(), "{answer:?}");
    }
    program.stop().await;
}

/// The network fails while the connection is open, and neither side is notified.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_is_replaced_and_leaves_nothing_behind() {
    let stage = Stage::new().await;
    let program = serve(&stage.installation).await;
    let origin = program.origin();
    let answer = stage.agent.call(origin, "far", json!({ "n": "first" })).await.unwrap();
    assert!(answer.is_result(), "{answer:?}");
    stage.assert_near_works(origin).await;
    let before = count_open_files(&program);

    stage.far.set(Network::Silent);
    let calls = stage.call_far(origin, MAX_FAILURES - 1);
    // Agents that disconnect, which do not count as failures of the server.
    for _ in 0..ABANDONED {
        let call = tokio::spawn(stage.call_far(origin, 1).join_all());
        stage.assert_near_works(origin).await;
        call.abort();
        let _ = call.await;
    }
    let (answers, _) = stage.wait_for(origin, calls).await;
    assert!(answers.iter().all(|answer| answer.reason() == "timeout"), "{answers:?}");

    stage.far.set(Network::Up);
    let answer = stage.agent.call(origin, "far", json!({ "n": "last" })).await.unwrap();
    assert!(answer.is_result(), "{answer:?}");
    assert_eq!(stage.far_server.calls(), [r#"{"n":"first"}"#, r#"{"n":"last"}"#]);
    assert_no_files_leak(&program, before).await;
    program.stop().await;
}
