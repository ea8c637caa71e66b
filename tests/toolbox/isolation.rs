//! Checks that a deployed server cannot break out of its container, even if its entry asks for it.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::engine::{Engine, Scratch};
use crate::image::Image;
use crate::site::Site;
use crate::support::installation::Installation;
use crate::waypost::{Toolbox, Waypost};

impl Site {
    /// Calls a tool and returns its text, and whether the server reports an error.
    async fn text_of(&self, id: &str, tool: &str, arguments: Value) -> (String, bool) {
        let (status, result) = self.call(id, tool, arguments).await;
        assert_eq!(status, StatusCode::OK, "{tool}: {result}");
        (result["content"][0]["text"].as_str().expect("a text").to_owned(), result["isError"] == true)
    }

    /// Calls a tool that must report an error.
    async fn assert_rejected(&self, id: &str, tool: &str, arguments: Value) {
        let (text, is_error) = self.text_of(id, tool, arguments.clone()).await;
        assert!(is_error, "{tool} {arguments}: {text}");
    }

    /// Checks that a server cannot connect to an address. Servers that wait for a request, such as HTTP servers, send
    /// nothing, so an error while reading would mean that the connection was opened.
    async fn assert_unreachable(&self, id: &str, address: &str) {
        let (text, is_error) = self.text_of(id, "connect", json!({ "address": address })).await;
        let reasons = ["unreachable", "No route to host", "refused", "timed out", "failed to lookup address"];
        assert!(is_error && reasons.iter().any(|reason| text.contains(reason)), "{address}: {text}");
    }
}

/// Starts a site whose control plane listens on all addresses of the machine.
async fn start_on_all_addresses() -> Site {
    let mut installation = Installation::new().await;
    installation.listen_on_all_addresses();
    let waypost = Waypost::start_as(installation).await;
    let toolbox = Toolbox::join(&waypost, "machine").await;
    Site::start_as(Engine::shared(), waypost, toolbox).await
}

/// Returns the address from which this machine connects to other machines; `None` without a network.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Sends nothing, but selects the route.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Serves lines on all addresses of this machine, and returns the port.
async fn serve_host() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"the host\n").await;
        }
    });
    port
}

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_cannot_leave_its_container_docker() {
        let site = Site::start().await;
        let version = site.import("prisoner", "1", &Image::stdio(), json!({})).await;
        let id = site.deploy("prisoner", &version).await;
        for attempt in ["mount", "raw-socket", "packet-socket", "ptrace", "root", "namespace", "device"] {
            site.assert_rejected(&id, "escape", json!({ "attempt": attempt })).await;
        }
        // The reason shows that the access fails because of the isolation and not for another reason, such as a socket
        // that cannot be read.
        for (tool, path, reason) in [
            ("read", "/var/run/docker.sock", "No such file or directory"),
            ("read", "/dev/mem", "No such file or directory"),
            ("write", "/file", "Read-only file system"),
            ("write", "/proc/sys/kernel/core_pattern", "Read-only file system"),
            ("write", "/sys/file", "Read-only file system"),
        ] {
            let (text, is_error) = site.text_of(&id, tool, json!({ "path": path })).await;
            assert!(is_error && text.contains(reason), "{tool} {path}: {text}");
        }
        let (written, is_error) = site.text_of(&id, "write", json!({ "path": "/tmp/file" })).await;
        assert!(!is_error, "{written}");
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_cannot_reach_other_networks_docker() {
        let site = start_on_all_addresses().await;
        let version = site.import("prisoner", "1", &Image::stdio(), json!({})).await;
        let id = site.deploy("prisoner", &version).await;
        let other = site.import("other", "1", &Image::http(), json!({ "transport": "streamable_http", "port": 8080 })).await;
        let other = site.deploy("other", &other).await;
        let port = serve_host().await;
        let control_plane: u16 = site.waypost.origin.rsplit(':').next().unwrap().parse().unwrap();
        // Addresses of the machine: the one in a network of the engine, and the one from which it connects to other
        // machines.
        let scratch = Scratch::new(&site.engine);
        let bridge: IpAddr = site.engine.host_address(&scratch.network(json!({}))).parse().unwrap();
        for address in [Some(bridge), own_address()].into_iter().flatten() {
            for target in [format!("{address}:{port}"), format!("{address}:{control_plane}")] {
                let reached = TcpStream::connect(&target).await;
                assert!(reached.is_ok(), "the machine itself reaches {target}: {reached:?}");
                site.assert_unreachable(&id, &target).await;
            }
        }
        // If the machine had an address in the container's network, it would be the first one.
        let gateway = Ipv4Addr::from((u32::from(site.address(&id)) & !15) + 1);
        for target in [
            format!("{gateway}:{port}"),
            format!("{gateway}:{control_plane}"),
            // The loopback interface belongs to the container.
            format!("127.0.0.1:{port}"),
            format!("127.0.0.1:{control_plane}"),
            format!("{}:8080", site.address(&other)),
            "169.254.169.254:80".to_owned(),
            "deb.debian.org:80".to_owned(),
            "1.1.1.1:53".to_owned(),
        ] {
            site.assert_unreachable(&id, &target).await;
        }
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_entry_cannot_weaken_the_isolation_docker() {
        let site = Site::start().await;
        for (key, value) in [
            ("privileged", json!(true)),
            ("cap_add", json!(["SYS_ADMIN"])),
            ("network_mode", json!("host")),
            ("devices", json!(["/dev/mem"])),
            ("binds", json!(["/:/host"])),
            ("user", json!("0")),
        ] {
            let mut entry = json!({
                "slug": "greedy", "name": "greedy", "version": "1", "transport": "stdio",
                "source": { "image": site.registry.missing("greedy") },
            });
            entry[key] = value;
            let (status, problem) = site.waypost.api(Method::POST, "/catalog/import", &entry).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{key}: {problem}");
        }
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_limits_of_a_resource_class_are_enforced_docker() {
        let site = Site::start().await;
        let version = site.import("greedy", "1", &Image::stdio(), json!({})).await;
        let id = site.deploy("greedy", &version).await;
        let (started, _) = site.text_of(&id, "fork", json!({ "count": "400" })).await;
        let started: u32 = started.parse().unwrap();
        assert!((200..=256).contains(&started), "{started} processes");
        // The kernel kills the server, and the toolbox restarts it.
        let (status, problem) = site.call(&id, "allocate", json!({ "mebibytes": "700" })).await;
        assert_ne!(status, StatusCode::OK, "{problem}");
        site.wait_for_state(&id, "running").await;
        site.wait_for_link(&id).await;
        site.assert_echo(&id, "restarted").await;
        site.finish().await;
    }
}
