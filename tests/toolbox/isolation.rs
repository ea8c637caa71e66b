//! Checks that a deployed server cannot break out of its container, even if its entry asks for it.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::image::Image;
use crate::site::Site;

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
        let other = site.import("other", "1", &Image::http(), json!({ "transport": "streamable_http", "port": 8080 })).await;
        let other = site.deploy("other", &other).await;
        for attempt in ["mount", "raw-socket", "packet-socket", "ptrace", "root", "namespace", "device"] {
            site.assert_rejected(&id, "escape", json!({ "attempt": attempt })).await;
        }
        // The reason shows that the isolation rejects it, and not something else, such as a socket that cannot be read.
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
        let port = serve_host().await;
        let inspected = site.engine.inspect(&site.container(&other));
        let networks = inspected["NetworkSettings"]["Networks"].as_object().unwrap();
        let neighbour = networks.values().next().unwrap()["IPAddress"].as_str().unwrap().to_owned();
        let own = site.engine.inspect(&site.container(&id));
        let own_address = own["NetworkSettings"]["Networks"].as_object().unwrap().values().next().unwrap()["IPAddress"]
            .as_str()
            .unwrap()
            .to_owned();
        // The gateway would be the first address of the network.
        let address: std::net::Ipv4Addr = own_address.parse().unwrap();
        let gateway = std::net::Ipv4Addr::from((u32::from(address) & !15) + 1);
        let control_plane = site.waypost.origin.trim_start_matches("http://").to_owned();
        let targets = [
            format!("{neighbour}:8080"),
            format!("{gateway}:{port}"),
            format!("127.0.0.1:{port}"),
            "169.254.169.254:80".to_owned(),
            control_plane,
            "deb.debian.org:80".to_owned(),
            "1.1.1.1:53".to_owned(),
        ];
        for address in targets {
            site.assert_rejected(&id, "connect", json!({ "address": address })).await;
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
        // The kernel ends the server, and the toolbox starts it again.
        let (status, problem) = site.call(&id, "allocate", json!({ "mebibytes": "700" })).await;
        assert_ne!(status, StatusCode::OK, "{problem}");
        site.wait_for_state(&id, "running").await;
        site.wait_for_link(&id).await;
        site.assert_echo(&id, "restarted").await;
        site.finish().await;
    }
}
