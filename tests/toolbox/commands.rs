//! The life cycle of a server on the command line.

use serde_json::{Value, json};

use crate::engine::Engine;
use crate::image::Image;
use crate::leak::assert_nothing_left;
use crate::registry::Registry;
use crate::waypost::{Toolbox, Waypost};

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn an_operator_deploys_calls_upgrades_and_removes_servers_docker() {
        let (engine, registry, waypost) = (Engine::shared(), Registry::start().await, Waypost::start().await);
        let mut toolbox = Toolbox::join(&waypost, "machine").await;
        toolbox.run(&engine).await;
        let folder = waypost_testkit::folder();
        let import = async |version: &str, image: &Image| {
            let path = folder.path().join(format!("echo-{version}.json"));
            let image = registry.push("echo", image).await;
            let entry = json!({
                "slug": "echo", "name": "Echo", "version": version, "source": { "image": image }, "transport": "stdio",
                "resources": "light",
            });
            std::fs::write(&path, entry.to_string()).unwrap();
            waypost.run(&["catalog", "import", path.to_str().unwrap(), "--org", "acme"]).await
        };
        import("1", &Image::stdio()).await;
        let created = waypost.run(&["instance", "create", "echo", "--org", "acme", "--entry", "echo", "--wait"]).await;
        assert!(created.contains("checking\ncomplete\n"), "{created}");
        let call = ["instance", "call", "echo", "echo", r#"{"text":"hello"}"#, "--org", "acme", "--json"];
        let result: Value = serde_json::from_str(&waypost.run(&call).await).unwrap();
        assert_eq!(result["content"][0]["text"], "hello", "{result}");
        let tools = waypost.run(&["instance", "tools", "echo", "--org", "acme"]).await;
        assert!(tools.contains("echo") && tools.contains("escape"), "{tools}");

        import("2", &Image::new(&["exit"])).await;
        let update = ["instance", "update", "echo", "--org", "acme", "--version", "2", "--wait"];
        let failed = waypost.run_failing(&update).await;
        assert!(failed.contains("exited"), "{failed}");
        let shown: Value =
            serde_json::from_str(&waypost.run(&["instance", "show", "echo", "--org", "acme", "--json"]).await).unwrap();
        assert_eq!((&shown["state"], &shown["deployment"]["state"]), (&json!("running"), &json!("rolled_back")));
        let result: Value = serde_json::from_str(&waypost.run(&call).await).unwrap();
        assert_eq!(result["content"][0]["text"], "hello", "{result}");
        let logs = waypost.run(&["instance", "logs", "echo", "--org", "acme"]).await;
        assert!(logs.contains("the configuration file is missing"), "{logs}");

        let status: Value = serde_json::from_str(&toolbox.status().await).unwrap();
        assert_eq!((&status["daemon"], &status["link"]), (&json!("running"), &json!("online")), "{status}");
        for action in ["stop", "start"] {
            waypost.run(&["instance", action, "echo", "--org", "acme"]).await;
        }
        waypost.run(&["instance", "delete", "echo", "--org", "acme", "--yes"]).await;
        let mut interval = tokio::time::interval(std::time::Duration::from_millis(100));
        let removed = async {
            while waypost.run(&["instance", "list", "--org", "acme"]).await.contains("echo") {
                interval.tick().await;
            }
        };
        tokio::time::timeout(crate::support::TIMEOUT, removed).await.expect("the instance is removed");
        toolbox.stop().await;
        let status: Value = serde_json::from_str(&toolbox.status().await).unwrap();
        assert_eq!(status["daemon"], "stopped", "{status}");
        assert_nothing_left(&engine, &toolbox.id, toolbox.secrets());
        engine.remove_images_of(registry.address());
    }
}
