//! Secrets of deployed servers.

use http::Method;
use serde_json::{Value, json};

use crate::image::Image;
use crate::site::{Site, id_of};

const FIRST: &str = "correct-horse-battery-staple";
const SECOND: &str = "another-horse-battery-staple";

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_secret_is_mounted_as_a_file_and_its_rotation_restarts_the_server_docker() {
        let site = Site::start().await;
        let secret = site.api(Method::POST, "/secrets", &json!({ "name": "KEY", "value": FIRST })).await;
        let secret = id_of(&secret);
        let fields = json!({
            "secrets": [{ "name": "FILE" }, { "name": "VARIABLE", "as": "env" }],
            "volumes": [{ "name": "data", "path": "/data" }],
        });
        let version = site.import("keeper", "1", &Image::stdio(), fields).await;
        let body = json!({
            "slug": "keeper", "catalog_version_id": version, "secrets": { "FILE": secret, "VARIABLE": secret },
        });
        let id = id_of(&site.api(Method::POST, "/instances", &body).await);
        assert_eq!(site.deployed(&id).await["deployment"]["state"], "complete");
        site.assert_secret(&id, FIRST).await;
        let container = site.container(&id);
        let inspected = site.engine.inspect(&container);
        // The entry requests one variable. Nothing else that the engine shows contains a secret.
        let mut visible = inspected.clone();
        let environment = visible["Config"]["Env"].as_array_mut().unwrap();
        environment.retain(|variable| !variable.as_str().unwrap().starts_with("VARIABLE="));
        assert!(!visible.to_string().contains(FIRST), "{visible}");
        let (_, written) = site.call(&id, "write", json!({ "path": "/data/file" })).await;
        assert_eq!(written["isError"], false, "{written}");
        // The server writes the secret to its log.
        let (_, logged) = site.call(&id, "log", json!({ "text": format!("before {FIRST} after") })).await;
        assert_eq!(logged["isError"], false, "{logged}");
        let (path, mut logs) = (format!("/instances/{id}/logs?tail=100"), String::new());
        site.poll("the line of the log", async || {
            logs = site.api(Method::GET, &path, &Value::Null).await.to_string();
            logs.contains("before ")
        })
        .await;
        assert!(logs.contains("before [secret] after") && !logs.contains(FIRST), "{logs}");

        site.api(Method::POST, &format!("/secrets/{secret}/rotate"), &json!({ "value": SECOND })).await;
        site.wait_for(&id, "the rotation", |instance| {
            instance["deployment"]["state"] == "complete" && instance["generation"].as_u64() > Some(1)
        })
        .await;
        site.wait_for_link(&id).await;
        site.assert_secret(&id, SECOND).await;
        assert_ne!(site.container(&id), container);
        let (_, read) = site.call(&id, "read", json!({ "path": "/data/file" })).await;
        assert_eq!(read["content"][0]["text"], "written", "the volume is kept");
        let (status, problem) = site.waypost.api(Method::DELETE, &format!("/secrets/{secret}"), &Value::Null).await;
        assert_eq!((status.as_u16(), problem["code"].as_str()), (409, Some("conflict")), "{problem}");
        site.finish().await;
    }
}

waypost_testkit::needs_docker! {
    /// The old container of an instance with a volume is stopped before the new one starts, so the roll-back starts it
    /// again.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_old_value_is_used_after_a_failed_rotation_docker() {
        let mut site = Site::start().await;
        let secret = site.api(Method::POST, "/secrets", &json!({ "name": "KEY", "value": FIRST })).await;
        let secret = id_of(&secret);
        let fields = json!({
            "secrets": [{ "name": "FILE" }],
            "volumes": [{ "name": "data", "path": "/data" }],
        });
        let image = Image::new(&["requires", "/run/secrets/FILE", FIRST]);
        let version = site.import("keeper", "1", &image, fields).await;
        let body = json!({ "slug": "keeper", "catalog_version_id": version, "secrets": { "FILE": secret } });
        let id = id_of(&site.api(Method::POST, "/instances", &body).await);
        assert_eq!(site.deployed(&id).await["deployment"]["state"], "complete");
        site.api(Method::POST, &format!("/secrets/{secret}/rotate"), &json!({ "value": SECOND })).await;
        site.wait_for(&id, "the roll-back", |instance| {
            instance["deployment"]["state"] == "rolled_back" && instance["generation"].as_u64() > Some(1)
        })
        .await;
        site.wait_for_state(&id, "running").await;
        let read = async |site: &Site| {
            let (_, file) = site.call(&id, "read", json!({ "path": "/run/secrets/FILE" })).await;
            assert_eq!(file["content"][0]["text"], FIRST, "{file}");
        };
        read(&site).await;
        // A restarted daemon masks the value that the container uses.
        site.toolbox.kill().await;
        site.toolbox.run(&site.engine).await;
        site.wait_for_link(&id).await;
        site.call(&id, "log", json!({ "text": format!("before {FIRST} after") })).await;
        let (path, mut logs) = (format!("/instances/{id}/logs?tail=100"), String::new());
        site.poll("the line of the log", async || {
            logs = site.api(Method::GET, &path, &Value::Null).await.to_string();
            logs.contains("before ")
        })
        .await;
        assert!(logs.contains("before [secret] after") && !logs.contains(FIRST), "{logs}");
        // A container that replaces one that has exited uses the same value.
        let container = site.container(&id);
        site.call(&id, "exit", json!({ "code": "1" })).await;
        site.poll("another container", async || {
            let containers = site.containers(&id);
            containers.iter().any(|found| found["Id"] != container.as_str() && found["State"] == "running")
        })
        .await;
        site.wait_for_link(&id).await;
        read(&site).await;
        site.finish().await;
    }
}

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn each_agent_has_its_own_value_in_its_own_container_docker() {
        let site = Site::start().await;
        let fields = json!({ "secrets": [{ "name": "KEY" }], "sharing": "per_agent" });
        let version = site.import("keeper", "1", &Image::stdio(), fields).await;
        let body = json!({ "slug": "keeper", "catalog_version_id": version, "personal_secrets": ["KEY"] });
        let id = id_of(&site.api(Method::POST, "/instances", &body).await);
        assert_eq!(site.deployed(&id).await["deployment"]["state"], "complete");
        let idle = site.wait_for_state(&id, "idle").await;
        assert!(idle["health"]["message"].as_str().is_some_and(|text| text.starts_with("Not checked yet")), "{idle}");
        assert!(site.containers(&id).is_empty());
        let mut agents = Vec::new();
        for (name, value) in [("one", FIRST), ("two", SECOND)] {
            let agent = id_of(&site.api(Method::POST, "/agents", &json!({ "name": name })).await);
            let token = site.api(Method::POST, &format!("/agents/{agent}/tokens"), &json!({})).await;
            let token = token["token"].as_str().expect("a token").to_owned();
            let grant = json!({ "agent_id": agent, "instance_id": id, "access": "full_access" });
            site.api(Method::POST, "/grants", &grant).await;
            site.set_value(&id, &agent, value).await;
            agents.push((agent, token));
        }
        site.api(Method::POST, &format!("/instances/{id}/check-definitions"), &json!({})).await;
        let pending = site.api(Method::GET, "/tool-approvals?state=pending", &Value::Null).await;
        for approval in pending["items"].as_array().expect("approvals") {
            let decision = json!({ "digest": approval["digest"], "class": "read" });
            site.api(Method::POST, &format!("/tool-approvals/{}/approve", id_of(approval)), &decision).await;
        }
        let call = async |at: usize, tool: &str, arguments: Value| {
            let params = json!({ "name": format!("keeper__{tool}"), "arguments": arguments });
            let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
            site.waypost.post("/gateway/mcp", &agents[at].1, &message).await
        };
        let read = async |at: usize| {
            let answer = call(at, "read", json!({ "path": "/run/secrets/KEY" })).await;
            answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
        };
        // An approval takes effect within a second.
        site.poll("the approvals", async || {
            call(0, "read", json!({ "path": "/run/secrets/KEY" })).await["result"].is_object()
        })
        .await;
        assert_eq!((read(0).await, read(1).await), (FIRST.to_owned(), SECOND.to_owned()));
        let ids = || {
            let label = |container: &Value| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                (text(&container["Labels"]["dev.waypost.key"]), text(&container["Id"]))
            };
            site.containers(&id).iter().map(label).collect::<std::collections::BTreeMap<_, _>>()
        };
        let before = ids();
        let keys: Vec<String> = agents.iter().map(|(agent, _)| format!("agent:{agent}")).collect();
        assert!(before.len() == 2 && keys.iter().all(|key| before.contains_key(key)), "{before:?}");
        // A new value replaces only the container of its agent, and is masked in its log.
        const THIRD: &str = "replaced-horse-battery-staple";
        site.set_value(&id, &agents[0].0, THIRD).await;
        assert_eq!((read(0).await, read(1).await), (THIRD.to_owned(), SECOND.to_owned()));
        assert_eq!(ids()[&keys[1]], before[&keys[1]], "the other container is kept");
        call(0, "log", json!({ "text": format!("before {THIRD} after") })).await;
        let (path, mut logs) = (format!("/instances/{id}/logs?tail=100"), String::new());
        site.poll("the line of the log", async || {
            logs = site.api(Method::GET, &path, &Value::Null).await.to_string();
            logs.contains("before ")
        })
        .await;
        assert!(logs.contains("before [secret] after") && !logs.contains(THIRD), "{logs}");
        let delete = format!("/instances/{id}/agents/{}/personal-secrets/KEY", agents[0].0);
        site.api(Method::DELETE, &delete, &Value::Null).await;
        let answer = call(0, "read", json!({ "path": "/run/secrets/KEY" })).await;
        assert_eq!(answer["error"]["data"]["reason"], "secret_missing", "{answer}");
        assert_eq!(read(1).await, SECOND);
        site.finish().await;
    }
}

impl Site {
    async fn set_value(&self, instance: &str, agent: &str, value: &str) {
        let path = format!("/instances/{instance}/agents/{agent}/personal-secrets/KEY");
        self.api(Method::PUT, &path, &json!({ "value": value })).await;
    }

    async fn assert_secret(&self, id: &str, value: &str) {
        let (_, file) = self.call(id, "read", json!({ "path": "/run/secrets/FILE" })).await;
        assert_eq!(file["content"][0]["text"], value, "{file}");
        let (_, variable) = self.call(id, "environment", json!({ "variable": "VARIABLE" })).await;
        assert_eq!(variable["content"][0]["text"], value, "{variable}");
    }
}
