//! Secrets of deployed servers.

use http::Method;
use serde_json::{Value, json};

use crate::image::Image;
use crate::site::{Site, id_of};

const FIRST: &str = "correct-horse-battery-staple";
const SECOND: &str = "another-horse-battery-staple";

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_secret_is_a_file_and_its_rotation_restarts_the_server_docker() {
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
        // The entry asks for one variable; nothing else that the engine shows contains a secret.
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

impl Site {
    async fn assert_secret(&self, id: &str, value: &str) {
        let (_, file) = self.call(id, "read", json!({ "path": "/run/secrets/FILE" })).await;
        assert_eq!(file["content"][0]["text"], value, "{file}");
        let (_, variable) = self.call(id, "environment", json!({ "variable": "VARIABLE" })).await;
        assert_eq!(variable["content"][0]["text"], value, "{variable}");
    }
}
