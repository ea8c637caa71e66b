//! A link that is slow, cut, duplicated or replayed, and two daemons with one identity.

use std::collections::HashSet;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::engine::Engine;
use crate::image::Image;
use crate::registry::Registry;
use crate::relay::Relay;
use crate::site::{Site, id_of};
use crate::support::TIMEOUT;
use crate::waypost::{Toolbox, Waypost};

/// Starts a site whose toolbox reaches the control plane through a relay.
async fn start() -> (Site, Relay) {
    let (engine, registry, waypost) = (Engine::shared(), Registry::start().await, Waypost::start().await);
    let link = Relay::to(waypost.origin.trim_start_matches("http://")).await;
    let mut toolbox = Toolbox::join_at(&waypost, "machine", &format!("http://{}", link.address())).await;
    toolbox.run(&engine).await;
    (Site::of(engine, registry, waypost, toolbox).await, link)
}

impl Site {
    /// Deploys a server on standard input, and returns its ID and its container.
    async fn deploy_echo(&self) -> (String, String) {
        let version = self.import("echo", "1", &Image::stdio(), json!({})).await;
        let id = self.deploy("echo", &version).await;
        let container = self.container(&id);
        (id, container)
    }

    /// Returns the events of an instance of one kind.
    async fn events(&self, id: &str, kind: &str) -> Vec<Value> {
        let events = self.api(Method::GET, &format!("/instances/{id}/events"), &Value::Null).await;
        let events = events["items"].as_array().expect("a list");
        events.iter().filter(|event| event["kind"] == kind).cloned().collect()
    }

    /// Waits until a call succeeds.
    async fn wait_for_echo(&self, id: &str) {
        let echo = json!({ "text": "again" });
        let succeeds = async || self.call(id, "echo", echo.clone()).await.0 == StatusCode::OK;
        self.poll("a successful call", succeeds).await;
    }
}

/// Returns the bytes that the daemon sent on its first link: the upgrade request, and everything after it.
fn first_link(link: &Relay) -> (Vec<u8>, Vec<u8>) {
    let connections = link.sent();
    let sent = connections.iter().find(|sent| sent.starts_with(b"GET /toolbox/link")).expect("the daemon connected");
    let head = sent.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a complete request") + 4;
    (sent[..head].to_owned(), sent[head..].to_owned())
}

/// Reads until `text` arrives or the connection ends. Returns the text that was read.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    let complete = async {
        while !String::from_utf8_lossy(&read).contains(text) {
            // A reset is an end as well.
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        }
    };
    timeout(TIMEOUT, complete).await.expect("the control plane answers or closes the connection");
    String::from_utf8_lossy(&read).into_owned()
}

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_slow_link_works_docker() {
        let (site, link) = start().await;
        link.delay(Duration::from_millis(300));
        // The handshake is slow as well.
        link.cut();
        let (id, container) = site.deploy_echo().await;
        site.assert_echo(&id, "slow").await;
        let logs = site.api(Method::GET, &format!("/instances/{id}/logs?tail=10"), &Value::Null).await;
        assert!(logs["items"].is_array(), "{logs}");
        let links = link.sent().len();
        site.assert_echo(&id, "still slow").await;
        assert_eq!((link.sent().len(), site.container(&id)), (links, container), "the link is kept");
        link.delay(Duration::ZERO);
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_call_on_a_link_that_is_cut_fails_at_once_docker() {
        let (site, link) = start().await;
        let (id, container) = site.deploy_echo().await;
        let hanging = site.call(&id, "hang", json!({ "seconds": "600" }));
        let cut = async {
            // Whether or not the call has already been sent on the link, it is interrupted.
            link.hold_everything();
            link.cut();
        };
        let ended = timeout(Duration::from_secs(20), async { tokio::join!(hanging, cut) }).await;
        let ((status, problem), ()) = ended.expect("the call does not wait for its own timeout");
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
        link.release();
        site.wait_for_link(&id).await;
        // The server processes one call at a time, and is still busy.
        assert_eq!(site.container(&id), container);
        site.api(Method::POST, &format!("/instances/{id}/restart"), &Value::Null).await;
        site.wait_for_echo(&id).await;
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_deployment_continues_without_a_link_docker() {
        let (site, link) = start().await;
        let version = site.import("cut", "1", &Image::stdio(), json!({})).await;
        let broken = site.import("broken", "1", &Image::new(&["exit"]), json!({})).await;
        let (id, failing) = (id_of(&site.create("cut", &version).await), id_of(&site.create("broken", &broken).await));
        let is_running = async || site.containers(&id).iter().any(|container| container["State"] == "running");
        site.poll("a container", is_running).await;
        link.hold_everything();
        link.cut();
        site.poll("the end of the failing deployment", async || site.leftovers(&failing).is_empty()).await;
        link.release();
        let instance = site.deployed(&id).await;
        assert_eq!((&instance["deployment"]["state"], &instance["state"]), (&json!("complete"), &json!("running")));
        let instance = site.deployed(&failing).await;
        assert_eq!(instance["deployment"]["error"]["code"], "exited", "{instance}");
        site.wait_for_echo(&id).await;
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_replayed_handshake_is_rejected_docker() {
        let (site, link) = start().await;
        let (id, _) = site.deploy_echo().await;
        let (links, (head, rest)) = (link.sent().len(), first_link(&link));
        let mut replay = TcpStream::connect(site.waypost.origin.trim_start_matches("http://")).await.unwrap();
        replay.write_all(&head).await.unwrap();
        let challenge = read_until(&mut replay, "nonce").await;
        assert!(challenge.starts_with("HTTP/1.1 101"), "{challenge}");
        // The signature is valid for the nonce of the recorded connection only.
        let _ = replay.write_all(&rest).await;
        let answer = read_until(&mut replay, "until the connection ends").await;
        assert!(answer.contains(r#""result":"rejected","reason":"unauthorized""#), "{answer}");
        assert!(!answer.contains("accepted") && !answer.contains("revision"), "{answer}");
        site.assert_echo(&id, "the link of the daemon").await;
        assert_eq!(link.sent().len(), links, "the daemon's link is not disturbed");
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn bytes_that_arrive_twice_are_not_applied_twice_docker() {
        let (site, link) = start().await;
        let (id, container) = site.deploy_echo().await;
        link.duplicate_next();
        site.engine.kill(&container);
        site.poll("the event of the crash", async || !site.events(&id, "crashed").await.is_empty()).await;
        site.wait_for_state(&id, "running").await;
        site.wait_for_echo(&id).await;
        // The response to a call is duplicated, after which the HTTP/2 connection cannot continue.
        link.duplicate_next();
        let _ = site.call(&id, "echo", json!({ "text": "twice" })).await;
        site.wait_for_echo(&id).await;
        site.assert_echo(&id, "once").await;
        assert_eq!(site.events(&id, "crashed").await.len(), 1, "{:?}", site.events(&id, "crashed").await);
        assert_eq!(site.containers(&id).len(), 1);
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_machine_runs_only_one_daemon_of_a_toolbox_docker() {
        let site = Site::start().await;
        let (id, container) = site.deploy_echo().await;
        let secrets = site.toolbox.secrets();
        let refused = site.toolbox.run_again(&site.engine, secrets).await;
        assert!(refused.contains("another daemon uses"), "{refused}");
        let refused = site.toolbox.copy().run_again(&site.engine, secrets).await;
        assert!(refused.contains("Another daemon of this toolbox runs on this machine. Stop it first."), "{refused}");
        site.engine.kill(&container);
        site.poll("another container", async || {
            let containers = site.containers(&id);
            containers.len() == 1 && containers[0]["Id"] != *container && containers[0]["State"] == "running"
        })
        .await;
        site.wait_for_echo(&id).await;
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_daemons_with_one_identity_do_not_disturb_the_instance_docker() {
        let site = Site::start().await;
        let (id, container) = site.deploy_echo().await;
        // With its own folder for secrets, it behaves like a daemon on another machine.
        let mut copy = site.toolbox.copy();
        copy.run(&site.engine).await;
        // The newest link replaces the other one, so the daemons take turns. Calls succeed between two changes.
        let mut containers = HashSet::new();
        for _ in 0..5 {
            site.wait_for_echo(&id).await;
            containers.insert(site.container(&id));
        }
        assert_eq!(containers, HashSet::from([container]), "the second daemon starts nothing");
        copy.stop().await;
        site.wait_for_echo(&id).await;
        site.wait_for_state(&id, "running").await;
        assert!(site.events(&id, "crashed").await.is_empty());
        let second = site.import("echo", "2", &Image::new(&["noise"]), json!({})).await;
        site.api(Method::PATCH, &format!("/instances/{id}"), &json!({ "catalog_version_id": second })).await;
        let instance = site.deployed(&id).await;
        assert_eq!(instance["deployment"]["state"], "complete", "{instance}");
        site.wait_for(&id, "one container", |_| site.containers(&id).len() == 1).await;
        site.wait_for_echo(&id).await;
        site.finish().await;
    }
}
