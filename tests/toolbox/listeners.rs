//! The daemon listens on no TCP port of its machine.

use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use serde_json::json;

use crate::image::Image;
use crate::netns::in_network_of;
use crate::site::Site;

/// Returns the addresses on which a process listens in its own network namespace, in the format of `/proc/net/tcp`.
fn listeners_of(process: &str) -> Vec<String> {
    let process = Path::new("/proc").join(process);
    let files = std::fs::read_dir(process.join("fd")).expect("the process runs, and root may inspect it");
    let targets = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
    let sockets: BTreeSet<String> = targets
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    assert!(!sockets.is_empty(), "the process has sockets");
    let is_listener =
        |fields: &[&str]| fields.get(3) == Some(&"0A") && fields.get(9).is_some_and(|inode| sockets.contains(*inode));
    let mut listeners = Vec::new();
    // Without IPv6, there is no second table.
    let tables =
        ["tcp", "tcp6"].map(|name| std::fs::read_to_string(process.join("net").join(name)).unwrap_or_default());
    for table in tables {
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        listeners.extend(rows.filter(|fields| is_listener(fields)).map(|fields| fields[1].to_owned()));
    }
    listeners
}

#[test]
fn listeners_of_a_process_are_found() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        match TcpListener::bind(address) {
            Ok(listener) => {
                let end = format!(":{:04X}", listener.local_addr().unwrap().port());
                let listeners = listeners_of("self");
                assert!(listeners.iter().any(|listener| listener.ends_with(&end)), "{end} is not in {listeners:?}");
            }
            Err(error) => assert!(address.starts_with('['), "{address}: {error}"),
        }
    }
}

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn the_daemon_does_not_listen_on_a_port_of_the_machine_docker() {
        let site = Site::start().await;
        let fields = json!({ "transport": "streamable_http", "port": 8080, "egress": ["db.example:5432"] });
        let version = site.import("web", "1", &Image::http(), fields).await;
        let id = site.deploy("web", &version).await;
        site.assert_echo(&id, "running").await;
        // The sockets of the egress are open, in the network namespace of the container.
        let pid = site.engine.inspect(&site.container(&id))["State"]["Pid"].as_i64().expect("the container runs");
        let proxy = in_network_of(pid, || TcpStream::connect("127.0.0.1:3128"));
        proxy.expect("the proxy of the container listens");
        let daemon = site.toolbox.pid().as_raw_nonzero().to_string();
        assert_eq!(listeners_of(&daemon), [""; 0]);
        site.finish().await;
    }
}
