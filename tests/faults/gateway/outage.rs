//! The database becomes unavailable while agents use the gateway: data that was checked within the last second is still
//! used, then every request is rejected, and the gateway recovers without a restart.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;
use waypost_core::caller::Ctx;
use waypost_ops::grants;
use waypost_store::grant::GrantFilter;

use super::agent::{Agent, Answer};
use super::{connect, count_open_files, read_recorded_calls, serve};
use crate::installation::{Installation, TIMEOUT};
use crate::proxy::{Network, Proxy};
use crate::remote_server::RemoteServer;

/// The maximum age of data from the database that is still used, plus a margin for the test.
const MAX_AGE: Duration = Duration::from_millis(1_000 + 500);
/// The maximum duration of a request while the database is unavailable.
const MAX_LATENCY: Duration = Duration::from_secs(6);
/// The number of concurrent requests of each kind per agent. An agent can make ten calls at a time.
const REQUESTS: usize = 8;
/// The maximum difference in the number of file descriptors because of database connections.
const IDLE: usize = 30;

/// Sends request number `n`, which lists tools or calls a tool. The name of the argument identifies a call.
async fn send(agent: &Agent, origin: &str, n: usize, name: &str) -> Answer {
    if n.is_multiple_of(2) {
        return agent.list(origin).await.unwrap();
    }
    agent.call(origin, "near", json!({ name: 1 })).await.unwrap()
}

/// Sends requests until one is rejected. Returns the names of the calls that were answered.
async fn use_until_rejected(agent: Agent, origin: String, n: usize, since: Instant) -> Vec<String> {
    let mut answered = Vec::new();
    for number in 0.. {
        let (elapsed, name) = (since.elapsed(), format!("r{n}n{number}"));
        let answer = send(&agent, &origin, n, &name).await;
        assert!(answer.after < MAX_LATENCY, "a request waits for the database: {answer:?}");
        if !answer.is_result() {
            assert_rejected(&answer);
            break;
        }
        assert!(elapsed < MAX_AGE, "a request is still answered after {elapsed:?}");
        if n.is_multiple_of(2) {
            assert_eq!(answer.tools(), ["near__echo"]);
        } else {
            answered.push(name);
        }
    }
    answered
}

/// Asserts that a request was rejected because the database is unavailable.
#[track_caller]
fn assert_rejected(answer: &Answer) {
    let message = answer.body["error"]["message"].as_str().unwrap_or_default();
    assert!(!answer.is_result() && message.contains("Try again"), "{answer:?}");
    assert!(answer.after < MAX_LATENCY, "{answer:?}");
}

async fn fails_closed(network: Network) {
    let mut installation = Installation::postgres().await;
    let server = RemoteServer::start().await;
    let agents = connect(&installation, &[("near", &server.url())], 2).await;
    let direct = std::mem::take(&mut installation.url);
    let proxy = Proxy::start(&direct).await;
    installation.url.clone_from(&proxy.url);
    let program = serve(&installation).await;
    installation.url = direct;
    let origin = program.origin();
    for agent in &agents {
        assert!(send(agent, origin, 1, "warm").await.is_result());
    }
    let before = count_open_files(&program);

    proxy.set(network);
    let since = Instant::now();
    let mut tasks = JoinSet::new();
    for n in 0..2 * REQUESTS {
        tasks.spawn(use_until_rejected(agents[0].clone(), origin.to_owned(), n, since));
    }
    let answered: Vec<String> = timeout(TIMEOUT, tasks.join_all()).await.expect("requests end in time").concat();
    assert!(!answered.is_empty(), "calls are still answered at first");

    // From now on, no request reaches the server.
    let count = server.calls().len();
    let mut tasks = JoinSet::new();
    for n in 0..4 * REQUESTS {
        let (agent, origin) = (agents[n / 2 % 2].clone(), origin.to_owned());
        tasks.spawn(async move { send(&agent, &origin, n, "rejected").await });
    }
    for answer in timeout(TIMEOUT, tasks.join_all()).await.expect("requests end in time") {
        assert_rejected(&answer);
    }
    assert_eq!(server.calls().len(), count);

    // A change that is made in the meantime applies from the first response on.
    let (cx, ops, org) = (Ctx::operator(), installation.ops().await, &installation.organization);
    let filter = GrantFilter { agent: None, instance: None };
    let all = grants::list(&cx, &ops, org, filter, (None, 10)).await.unwrap();
    // The newest grant belongs to the last agent.
    grants::delete(&cx, &ops, org, &all[0].id).await.unwrap();
    proxy.set(Network::Up);
    let recovered = async {
        let client = program.client();
        while client.get("/readyz").await != Some(200) {}
        while !agents[0].list(origin).await.unwrap().is_result() {}
        loop {
            let answer = agents[1].list(origin).await.unwrap();
            if answer.is_result() {
                break answer;
            }
        }
    };
    let listed = timeout(TIMEOUT, recovered).await.expect("the gateway recovers without a restart");
    assert_eq!(listed.tools(), Vec::<&str>::new(), "the grant was removed");
    let answer = send(&agents[1], origin, 1, "removed").await;
    assert_eq!(answer.body["error"]["message"], "Unknown tool", "{answer:?}");
    assert!(send(&agents[0], origin, 1, "recovered").await.is_result());
    let closed = async {
        while count_open_files(&program) > before + IDLE {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, closed).await.expect("no file descriptors leak");
    // An attempt to write the records may still wait for the old connection, for longer than a process waits when it
    // stops.
    let written = async { while !read_recorded_calls(&installation).await.contains_key("recovered") {} };
    timeout(TIMEOUT, written).await.expect("the records are written without a restart");
    ops.store().close().await;
    program.stop().await;
    let recorded = read_recorded_calls(&installation).await;
    for name in answered.iter().map(String::as_str).chain(["recovered", "removed"]) {
        assert_eq!(recorded.get(name), Some(&1), "{name} is recorded once");
    }
}

waypost_testkit::needs_postgres! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_gateway_fails_closed_if_connections_are_refused() {
        fails_closed(Network::Refused).await;
    }
}

waypost_testkit::needs_postgres! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_gateway_fails_closed_in_a_silent_network() {
        fails_closed(Network::Silent).await;
    }
}
