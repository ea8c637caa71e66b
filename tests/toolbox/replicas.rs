//! Two replicas on PostgreSQL behind a load balancer: each can reach a toolbox whose link the other one holds.

use std::net::SocketAddr;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::engine::Engine;
use crate::image::Image;
use crate::relay::Relay;
use crate::site::Site;
use crate::support::installation::Installation;
use crate::waypost::{Toolbox, Waypost};

const KEY: &str = "6b6579206f6620616e20696e7374616c6c6174696f6e20666f72207465737473";
const OTHER_KEY: &str = "6b6579206f6620736f6d6520696e7374616c6c6174696f6e2c206e6f74206f75";

async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Returns the settings of a replica with its own internal port.
async fn replica(database: &str, public_url: &str) -> Installation {
    let internal = free_address().await;
    let mut installation = Installation::empty();
    installation.set_env("WAYPOST_DATABASE_URL", database.to_owned());
    installation.set_env("WAYPOST_SECRET_KEY", KEY.to_owned());
    installation.set_env("WAYPOST_PUBLIC_URL", public_url.to_owned());
    installation.set_env("WAYPOST_INTERNAL_LISTEN", internal.to_string());
    installation.set_env("WAYPOST_INTERNAL_URL", format!("https://{internal}"));
    installation
}

/// Returns the address of the public port of a replica.
fn address(replica: &Waypost) -> &str {
    replica.origin.trim_start_matches("http://")
}

/// Calls the tool `echo` through a replica until a call reaches the toolbox.
async fn assert_reaches(site: &Site, replica: &Waypost, id: &str) {
    let path = format!("/instances/{id}/call");
    let body = json!({ "tool": "echo", "arguments": { "text": "here" } });
    let mut last = Value::Null;
    site.poll("a call through this replica", async || {
        let (status, result) = replica.api(Method::POST, &path, &body).await;
        last = result;
        status == StatusCode::OK
    })
    .await;
    assert_eq!(last["content"][0]["text"], "here", "{last}");
}

async fn is_healthy(replica: &Waypost, id: &str) -> bool {
    let (status, instance) = replica.api(Method::GET, &format!("/instances/{id}"), &Value::Null).await;
    status == StatusCode::OK && instance["state"] == "running"
}

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn each_replica_can_reach_the_toolbox_docker() {
        let database = waypost_testkit::postgres_url();
        // The load balancer forwards to one replica at a time.
        let balancer = Relay::to("127.0.0.1:1").await;
        let public_url = format!("http://{}", balancer.address());
        let first = replica(&database, &public_url).await;
        first.run(&["org", "create", "acme", "--name", "Acme Rockets"]).await;
        let first = Waypost::start_as(first).await;
        let mut second = first.start_replica(replica(&database, &public_url).await).await;
        balancer.move_to(address(&first));
        let toolbox = Toolbox::join_at(&first, "machine", &public_url).await;
        // The first replica holds the link.
        let mut site = Site::start_as(Engine::shared(), first, toolbox).await;
        let version = site.import("echo", "1", &Image::stdio(), json!({})).await;

        // A deployment that the other replica requests, and requests that it forwards.
        let body = json!({ "slug": "echo", "catalog_version_id": version });
        let (status, created) = second.api(Method::POST, "/instances", &body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{created}");
        let id = created["id"].as_str().unwrap().to_owned();
        site.poll("the deployment", async || is_healthy(&second, &id).await).await;
        assert_reaches(&site, &second, &id).await;
        assert_reaches(&site, &site.waypost, &id).await;
        let large = "x".repeat(300_000);
        let body = json!({ "tool": "echo", "arguments": { "text": large } });
        let (status, result) = second.api(Method::POST, &format!("/instances/{id}/call"), &body).await;
        assert_eq!((status, &result["content"][0]["text"]), (StatusCode::OK, &json!(large)));
        for path in ["tools", "logs?tail=10", "stats"] {
            let (status, answer) = second.api(Method::GET, &format!("/instances/{id}/{path}"), &Value::Null).await;
            assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        }

        // Commands use the internal port, which requires the key of the installation.
        let call = ["instance", "call", "echo", "echo", r#"{"text":"by command"}"#, "--org", "acme", "--json"];
        for waypost in [&site.waypost, &second] {
            let result: Value = serde_json::from_str(&waypost.run(&call).await).unwrap();
            assert_eq!(result["content"][0]["text"], "by command", "{result}");
        }
        let refused = second.run_failing_with(&call, "WAYPOST_SECRET_KEY", OTHER_KEY).await;
        assert!(refused.contains("waypost serve"), "{refused}");

        // A change that another replica stores reaches the daemon through the replica with the link.
        second.api(Method::POST, &format!("/instances/{id}/stop"), &Value::Null).await;
        site.wait_for_state(&id, "stopped").await;
        second.api(Method::POST, &format!("/instances/{id}/start"), &Value::Null).await;
        site.wait_for_state(&id, "running").await;

        // The replica with the link dies: the daemon connects to the other one, and its containers keep running.
        let container = site.container(&id);
        site.waypost.kill().await;
        let (status, error) = second.api(Method::GET, &format!("/instances/{id}/tools"), &Value::Null).await;
        assert_eq!((status, &error["reason"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("toolbox_offline")), "{error}");
        balancer.move_to(address(&second));
        assert_reaches(&site, &second, &id).await;
        // Another process replaces the dead one, and forwards to the replica with the link.
        site.waypost.start_again().await;
        assert_reaches(&site, &site.waypost, &id).await;
        // The daemon moves while both run.
        balancer.move_to(address(&site.waypost));
        assert_reaches(&site, &site.waypost, &id).await;
        assert_reaches(&site, &second, &id).await;
        assert_eq!(site.container(&id), container);

        second.kill().await;
        site.finish().await;
    }
}
