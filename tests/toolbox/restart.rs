//! Each component is killed while the others continue to run.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::image::Image;
use crate::own_engine::OwnEngine;
use crate::site::{Site, id_of};

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_daemon_finds_its_containers_after_it_was_killed_docker() {
        let mut site = Site::start().await;
        let version = site.import("echo", "1", &Image::stdio(), json!({})).await;
        let id = site.deploy("echo", &version).await;
        let container = site.container(&id);
        site.toolbox.kill().await;
        let (status, problem) = site.call(&id, "echo", json!({ "text": "x" })).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
        site.toolbox.run(&site.engine).await;
        site.wait_for_state(&id, "running").await;
        site.assert_echo(&id, "the same container").await;
        assert_eq!(site.container(&id), container);
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_daemon_reconnects_after_the_control_plane_was_killed_docker() {
        let mut site = Site::start().await;
        let version = site.import("echo", "1", &Image::stdio(), json!({})).await;
        let id = site.deploy("echo", &version).await;
        let container = site.container(&id);
        site.waypost.kill().await;
        site.waypost.start_again().await;
        site.wait_for_link(&id).await;
        site.assert_echo(&id, "the same container").await;
        assert_eq!(site.container(&id), container);
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_container_that_is_killed_is_replaced_docker() {
        let site = Site::start().await;
        let version = site.import("echo", "1", &Image::stdio(), json!({})).await;
        let id = site.deploy("echo", &version).await;
        let container = site.container(&id);
        site.engine.kill(&container);
        site.wait_for(&id, "another container", |_| {
            site.containers(&id).iter().any(|other| other["Id"] != container.as_str() && other["State"] == "running")
        })
        .await;
        site.wait_for_state(&id, "running").await;
        site.assert_echo(&id, "another container").await;
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn events_without_a_control_plane_are_reported_later_docker() {
        let mut site = Site::start().await;
        let version = site.import("echo", "1", &Image::stdio(), json!({})).await;
        let id = site.deploy("echo", &version).await;
        let container = site.container(&id);
        site.waypost.kill().await;
        site.engine.kill(&container);
        let is_replaced = |other: &Value| other["Id"] != container.as_str() && other["State"] == "running";
        site.poll("another container", async || site.containers(&id).iter().any(is_replaced)).await;
        site.waypost.start_again().await;
        site.wait_for_link(&id).await;
        site.assert_echo(&id, "replaced").await;
        let path = format!("/instances/{id}/events");
        let has_crashed = async || {
            let events = site.api(Method::GET, &path, &Value::Null).await;
            events["items"].as_array().unwrap().iter().any(|event| event["kind"] == "crashed")
        };
        site.poll("the event of the crash", has_crashed).await;
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_revoked_toolbox_loses_its_link_docker() {
        let mut site = Site::start().await;
        let id = site.toolbox.id.clone();
        site.api(Method::POST, &format!("/toolboxes/{id}/revoke"), &Value::Null).await;
        let toolbox = site.api(Method::GET, &format!("/toolboxes/{id}"), &Value::Null).await;
        assert_eq!(toolbox["state"], "revoked");
        site.wait_for_log("the control plane rejects this toolbox").await;
        site.toolbox.stop().await;
        site.finish_stopped();
    }
}

waypost_testkit::needs_dockerd! {
    #[tokio::test(flavor = "multi_thread")]
    async fn the_daemon_reconnects_after_the_engine_was_killed_docker() {
        let own = OwnEngine::start();
        let site = Site::start_on(own.engine().clone()).await;
        let version = site.import("echo", "1", &Image::stdio(), json!({})).await;
        let id = site.deploy("echo", &version).await;
        own.kill();
        let (status, _) = site.call(&id, "echo", json!({ "text": "x" })).await;
        assert_ne!(status, StatusCode::OK, "the streams of the engine are gone");
        own.start_again();
        site.wait_for_link(&id).await;
        site.assert_echo(&id, "again").await;
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_image_that_does_not_fit_on_the_disk_is_reported_docker() {
        let own = OwnEngine::with_disk("8m");
        let site = Site::start_on(own.engine().clone()).await;
        let noise: Vec<u8> = (0_u32..4_000_000).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let large = Image::stdio().file("large", 0o644, &[noise.as_slice(), &noise, &noise].concat());
        let version = site.import("large", "1", &large, json!({})).await;
        let id = id_of(&site.create("large", &version).await);
        let instance = site.deployed(&id).await;
        assert_eq!(instance["deployment"]["error"]["code"], "disk_full", "{instance}");
        assert_eq!(site.leftovers(&id), [""; 0]);
        site.finish().await;
    }
}
