//! One of two replicas is killed under load: its agents continue with the other one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::agent::{Agent, Gone};
use super::{connect, read_recorded_calls, serve};
use crate::installation::{Installation, TIMEOUT};
use crate::remote_server::RemoteServer;

/// The number of agents, half of which use each replica.
const AGENTS: usize = 12;
/// The number of calls before the kill, and after it.
const CALLS: usize = 300;

/// The context that all agents share.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    acknowledged: AtomicUsize,
    more: Notify,
}

impl Load {
    /// Waits until `count` more calls have been acknowledged.
    async fn wait_for(&self, count: usize) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + count;
        let reached = async {
            while self.acknowledged.load(Ordering::Relaxed) < goal {
                self.more.notified().await;
            }
        };
        timeout(TIMEOUT, reached).await.expect("the load makes progress in time");
    }
}

/// An agent that calls repeatedly, each time with a different argument name.
struct LoadAgent {
    agent: Agent,
    number: usize,
    origins: [String; 2],
    /// The index of the replica that the agent uses.
    replica: usize,
    reconnects: usize,
    /// The replica and the argument name of each call that was answered.
    acknowledged: Vec<(usize, String)>,
    /// The number of calls.
    calls: usize,
}

impl LoadAgent {
    async fn run(mut self, load: Arc<Load>) -> Self {
        self.agent.initialize(&self.origins[self.replica]).await.unwrap();
        while !load.is_over.load(Ordering::Relaxed) {
            let name = format!("a{}n{}", self.number, self.calls);
            self.calls += 1;
            match self.agent.call(&self.origins[self.replica], "near", json!({ &name: 1 })).await {
                Ok(answer) => {
                    assert_eq!(answer.body["result"]["structuredContent"], json!({ &name: 1 }), "{answer:?}");
                    self.acknowledged.push((self.replica, name));
                    load.acknowledged.fetch_add(1, Ordering::Relaxed);
                    load.more.notify_one();
                }
                Err(gone) => self.reconnect(gone).await,
            }
        }
        self
    }

    /// Continues with the other replica, which answers in the same session. Every request after that must be answered.
    async fn reconnect(&mut self, gone: Gone) {
        self.reconnects += 1;
        assert_eq!(self.reconnects, 1, "the other replica fails as well: {gone:?}");
        self.replica = 1 - self.replica;
        let origin = &self.origins[self.replica];
        assert_eq!(self.agent.list(origin).await.unwrap().tools(), ["near__echo"]);
    }
}

waypost_testkit::needs_postgres! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn agents_continue_with_the_other_replica() {
        let installation = Installation::postgres().await;
        let server = RemoteServer::start().await;
        let agents = connect(&installation, &[("near", &server.url())], AGENTS).await;
        let (one, two) = tokio::join!(serve(&installation), serve(&installation));
        let origins = [one.origin().to_owned(), two.origin().to_owned()];
        let load = Arc::new(Load::default());
        let mut tasks = JoinSet::new();
        for (number, agent) in agents.into_iter().enumerate() {
            let (origins, replica) = (origins.clone(), number % 2);
            let agent =
                LoadAgent { agent, number, origins, replica, reconnects: 0, acknowledged: Vec::new(), calls: 0 };
            tasks.spawn(agent.run(Arc::clone(&load)));
        }
        load.wait_for(CALLS).await;
        one.kill().await;
        load.wait_for(CALLS).await;
        // A session that began before the kill is valid in a new process, too.
        let three = serve(&installation).await;
        load.is_over.store(true, Ordering::Relaxed);
        let agents = timeout(TIMEOUT, tasks.join_all()).await.expect("the load ends in time");
        for agent in &agents {
            assert_eq!(agent.reconnects, usize::from(agent.number % 2 == 0), "agent {}", agent.number);
            assert_eq!(agent.agent.list(three.origin()).await.unwrap().tools(), ["near__echo"]);
        }
        two.stop().await;
        three.stop().await;

        let mut received = server.calls();
        let count = received.len();
        received.sort();
        received.dedup();
        assert_eq!(received.len(), count, "no call reaches the server twice");
        let recorded = read_recorded_calls(&installation).await;
        assert!(recorded.values().all(|count| *count == 1), "no call is recorded twice: {recorded:?}");
        assert!(recorded.len() <= agents.iter().map(|agent| agent.calls).sum());
        for (replica, name) in agents.iter().flat_map(|agent| &agent.acknowledged) {
            assert!(received.binary_search(&json!({ name: 1 }).to_string()).is_ok());
            // The records of the replica that was killed are written in the background.
            assert!(*replica == 0 || recorded.contains_key(name), "{name} is not recorded");
        }
    }
}
