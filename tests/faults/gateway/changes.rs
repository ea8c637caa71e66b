//! Access that an admin withdraws through one of two replicas is rejected by both within a second, although both have
//! just answered the same call.
//!
//! The test measures when calls begin, not how long they take, so it cannot fail because the machine is slow.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use waypost_core::caller::Ctx;
use waypost_core::organization::Role;
use waypost_ops::api_keys::{self, CreateApiKey};
use waypost_outbound::unguarded_client;

use super::agent::{Agent, Answer};
use super::{ALLOW, connect};
use crate::installation::Installation;
use crate::program::{SERVE, ServeProcess, configure};
use crate::remote_server::RemoteServer;

/// The time after which every replica applies a change.
const MAX_AGE: Duration = Duration::from_secs(1);
/// The object that each change withdraws. Each change affects the instance with this slug and the agent with this
/// index.
const CHANGES: [&str; 5] = ["grant", "token", "agent", "instance", "tool"];

/// A request to the API.
struct Change {
    method: Method,
    path: String,
    body: Value,
}

/// An admin who uses the API of one replica.
struct Admin {
    http: reqwest::Client,
    api: String,
    key: String,
}

impl Admin {
    async fn new(installation: &Installation, origin: &str) -> Self {
        let ops = installation.ops().await;
        let new = CreateApiKey { name: "tests", scope: Role::Admin, expires_at: None };
        let created = api_keys::create(&Ctx::operator(), &ops, &installation.organization, new).await;
        ops.store().close().await;
        let http = unguarded_client().no_proxy().build().unwrap();
        Self { http, api: format!("{origin}/api/v1"), key: created.unwrap().1 }
    }

    /// Sends a request, which must succeed. Returns the JSON of the response, or null.
    async fn send(&self, Change { method, path, body }: Change) -> Value {
        let request = self.http.request(method, format!("{}{path}", self.api)).bearer_auth(&self.key);
        let request = if body.is_null() { request } else { request.json(&body) };
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Returns the only item of a list for which `is_the_one` returns `true`.
    async fn find(&self, path: &str, is_the_one: impl Fn(&Value) -> bool) -> Value {
        let list = self.send(Change { method: Method::GET, path: path.to_owned(), body: Value::Null }).await;
        let mut found: Vec<_> = list["items"].as_array().unwrap().iter().filter(|item| is_the_one(item)).collect();
        assert_eq!(found.len(), 1, "{path}: {list}");
        found.remove(0).clone()
    }

    /// Returns the request that makes the change with this index.
    async fn find_change(&self, n: usize) -> Change {
        let agent = self.find("/agents", |agent| agent["name"] == format!("agent-{n}")).await;
        let instance = id_of(&self.find("/instances", |instance| instance["slug"] == CHANGES[n]).await);
        let agent_path = format!("/agents/{}", id_of(&agent));
        let (method, path, body) = match CHANGES[n] {
            "grant" => {
                let list = format!("/grants?agent_id={}&instance_id={instance}", id_of(&agent));
                let grant = self.find(&list, |_| true).await;
                (Method::DELETE, format!("/grants/{}", id_of(&grant)), Value::Null)
            }
            "token" => {
                let token = id_of(&agent["tokens"][0]);
                (Method::DELETE, format!("{agent_path}/tokens/{token}"), Value::Null)
            }
            "agent" => (Method::PATCH, agent_path, json!({ "state": "disabled" })),
            "instance" => (Method::POST, format!("/instances/{instance}/stop"), Value::Null),
            "tool" => {
                let tool = self.find(&format!("/tool-approvals?instance_id={instance}"), |_| true).await;
                (Method::POST, format!("/tool-approvals/{}/reject", id_of(&tool)), json!({}))
            }
            other => panic!("unknown change {other}"),
        };
        Change { method, path, body }
    }
}

fn id_of(object: &Value) -> String {
    object["id"].as_str().unwrap_or_else(|| panic!("no ID: {object}")).to_owned()
}

/// Whether a call was rejected because of the change, and not because of a failure.
fn is_rejected(change: &str, answer: &Answer) -> bool {
    match change {
        "token" | "agent" => answer.status == 401,
        "instance" => answer.reason() == "not_running",
        _ => answer.body["error"] == json!({ "code": -32602, "message": "Unknown tool" }),
    }
}

/// Calls a server until a call is rejected, and checks that this call does not reach the server. Calls that begin at
/// least a second after the change must be rejected.
async fn assert_rejected(
    agent: &Agent,
    (origin, server): (&str, &RemoteServer),
    (change, changed_at): (&str, Instant),
) {
    for number in 0.. {
        let arguments = json!({ "change": change, "replica": origin, "number": number });
        let elapsed = changed_at.elapsed();
        let answer = agent.call(origin, change, arguments.clone()).await.unwrap();
        if !answer.is_result() {
            assert!(is_rejected(change, &answer), "{change}: {answer:?}");
            assert!(!server.calls().contains(&arguments.to_string()), "{change}: the server has received the call");
            return;
        }
        assert!(elapsed < MAX_AGE, "{change}: a call that began {elapsed:?} after the change is still answered");
    }
}

/// Starts a replica whose API can change instances and approvals. On PostgreSQL, this requires an internal address.
async fn serve(installation: &Installation) -> ServeProcess {
    let internal = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
    configure(&mut command, installation, SERVE);
    command.env("WAYPOST_OUTBOUND_ALLOW", ALLOW);
    command.env("WAYPOST_INTERNAL_LISTEN", internal.to_string());
    command.env("WAYPOST_INTERNAL_URL", format!("https://{internal}"));
    ServeProcess::run(command, &installation.data_dir()).await
}

waypost_testkit::needs_postgres! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn changes_through_one_replica_apply_to_all_within_a_second() {
        let installation = Installation::postgres().await;
        let server = RemoteServer::start().await;
        let url = server.url();
        let agents = connect(&installation, &CHANGES.map(|slug| (slug, url.as_str())), CHANGES.len()).await;
        let (one, two) = (serve(&installation).await, serve(&installation).await);
        let admin = Admin::new(&installation, one.origin()).await;
        for (n, (change, agent)) in CHANGES.into_iter().zip(&agents).enumerate() {
            let request = admin.find_change(n).await;
            for replica in [&one, &two] {
                let answer = agent.call(replica.origin(), change, json!({})).await.unwrap();
                assert!(answer.is_result(), "{change}: {answer:?}");
            }
            admin.send(request).await;
            let changed_at = Instant::now();
            for replica in [&two, &one] {
                assert_rejected(agent, (replica.origin(), &server), (change, changed_at)).await;
            }
        }
        // The first agent can still use the instances that were not changed.
        for replica in [&one, &two] {
            let answer = agents[0].call(replica.origin(), "token", json!({})).await.unwrap();
            assert!(answer.is_result(), "{answer:?}");
            let listed = agents[0].list(replica.origin()).await.unwrap();
            assert!(!listed.tools().iter().any(|tool| ["grant__echo", "tool__echo"].contains(tool)), "{listed:?}");
        }
        one.stop().await;
        two.stop().await;
    }
}
