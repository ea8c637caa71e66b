//! Each part is killed, and the others continue.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::image::Image;
use crate::site::Site;

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_daemon_that_is_killed_finds_its_containers_again_docker() {
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
    async fn a_control_plane_that_is_killed_is_found_again_docker() {
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
    async fn a_revoked_toolbox_loses_its_link_docker() {
        let mut site = Site::start().await;
        let id = site.toolbox.id.clone();
        site.api(Method::POST, &format!("/toolboxes/{id}/revoke"), &Value::Null).await;
        let toolbox = site.api(Method::GET, &format!("/toolboxes/{id}"), &Value::Null).await;
        assert_eq!(toolbox["state"], "revoked");
        site.wait_for_log("the control plane rejected this toolbox").await;
        site.toolbox.stop().await;
        site.finish_stopped();
    }
}
