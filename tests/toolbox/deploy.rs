//! Deploying servers: from the catalogue to a call of a tool, upgrades, failures and removal.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::image::Image;
use crate::site::{Site, id_of};

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_over_stdio_is_deployed_called_stopped_and_removed_docker() {
        let site = Site::start().await;
        let toolbox = site.api(Method::GET, &format!("/toolboxes/{}", site.toolbox.id), &Value::Null).await;
        assert_eq!((&toolbox["state"], &toolbox["name"]), (&json!("online"), &json!("machine")), "{toolbox}");
        assert!(toolbox["engine"]["version"].is_string() && toolbox["capacity"]["memory_bytes"].is_u64(), "{toolbox}");
        let version = site.import("echo", "1", &Image::stdio(), json!({})).await;
        let id = site.deploy("echo", &version).await;
        site.assert_echo(&id, "over standard input").await;
        let tools = site.api(Method::GET, &format!("/instances/{id}/tools"), &Value::Null).await;
        let names: Vec<_> = tools["items"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
        assert!(names.contains(&&json!("echo")), "{tools}");
        let container = site.container(&id);
        site.api(Method::POST, &format!("/instances/{id}/stop"), &Value::Null).await;
        site.wait_for_state(&id, "stopped").await;
        assert_ne!(site.call(&id, "echo", json!({ "text": "x" })).await.0, StatusCode::OK);
        site.api(Method::POST, &format!("/instances/{id}/start"), &Value::Null).await;
        site.wait_for_state(&id, "running").await;
        site.assert_echo(&id, "again").await;
        assert_ne!(site.container(&id), container, "a start creates a new container");
        site.delete(&id).await;
        assert_eq!(site.leftovers(&id), [""; 0]);
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_over_http_is_deployed_and_called_docker() {
        let site = Site::start().await;
        let fields = json!({ "transport": "streamable_http", "port": 8080 });
        let version = site.import("web", "1", &Image::http(), fields).await;
        let id = site.deploy("web", &version).await;
        site.assert_echo(&id, "over HTTP").await;
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_upgrade_to_a_broken_image_is_rolled_back_docker() {
        let site = Site::start().await;
        let first = site.import("echo", "1", &Image::stdio(), json!({})).await;
        let broken = site.import("echo", "2", &Image::new(&["exit"]), json!({})).await;
        let id = site.deploy("echo", &first).await;
        let container = site.container(&id);
        site.api(Method::PATCH, &format!("/instances/{id}"), &json!({ "catalog_version_id": broken })).await;
        let instance = site.deployed(&id).await;
        let deployment = &instance["deployment"];
        assert_eq!((&deployment["state"], &deployment["error"]["code"]), (&json!("rolled_back"), &json!("exited")));
        assert_eq!((&instance["state"], &instance["catalog_version_id"]), (&json!("running"), &json!(first)));
        assert_eq!(site.container(&id), container, "the old container still runs, and nothing else is left");
        site.assert_echo(&id, "still here").await;
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_upgrade_replaces_the_container_when_the_new_one_is_healthy_docker() {
        let site = Site::start().await;
        let first = site.import("echo", "1", &Image::stdio(), json!({})).await;
        let second = site.import("echo", "2", &Image::new(&["noise"]), json!({})).await;
        let id = site.deploy("echo", &first).await;
        let container = site.container(&id);
        site.api(Method::PATCH, &format!("/instances/{id}"), &json!({ "catalog_version_id": second })).await;
        let instance = site.deployed(&id).await;
        assert_eq!(instance["deployment"]["state"], "complete", "{instance}");
        site.wait_for(&id, "one container", |_| site.containers(&id).len() == 1).await;
        assert_ne!(site.container(&id), container);
        site.assert_echo(&id, "upgraded").await;
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_failed_deployment_reports_the_reason_and_leaves_nothing_behind_docker() {
        let site = Site::start().await;
        let failing = [
            ("missing", site.registry.missing("missing"), "image_not_found"),
            ("exit", site.registry.push("exit", &Image::new(&["exit"])).await, "exited"),
            ("no-program", site.registry.push("no-program", &Image::stdio().entrypoint(&["/missing"])).await, "start_failed"),
            ("root", site.registry.push("root", &Image::stdio().user("0")).await, "config_invalid"),
        ];
        for (slug, image, code) in failing {
            let version = site.import_image(slug, "1", &image, json!({})).await;
            let id = id_of(&site.create(slug, &version).await);
            let instance = site.deployed(&id).await;
            let deployment = &instance["deployment"];
            assert_eq!(
                (&instance["state"], &deployment["state"], &deployment["error"]["code"]),
                (&json!("failed"), &json!("failed"), &json!(code)),
                "{slug}: {instance}"
            );
            for field in ["cause", "next_action"] {
                assert!(deployment["error"][field].as_str().is_some_and(|text| !text.is_empty()), "{deployment}");
            }
            assert_eq!(site.leftovers(&id), [""; 0], "{slug}");
            site.delete(&id).await;
        }
        site.finish().await;
    }
}
