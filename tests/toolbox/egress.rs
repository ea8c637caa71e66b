//! The egress of a server: it can reach only the destinations that its entry names and the operator of the machine
//! allows.
//!
//! The destination is a container of the test on a network that does not belong to Waypost. Its address is private, but
//! is not an address of this machine, because those can never be reached. The daemon resolves names with its own
//! `/etc/hosts`, in a mount namespace that ends with it, so nothing is left behind when a test fails.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use http::StatusCode;
use serde_json::json;

use crate::engine::{Engine, RegistryImages, Scratch};
use crate::image::Image;
use crate::netns::in_network_of;
use crate::registry::Registry;
use crate::site::Site;
use crate::waypost::{Toolbox, Waypost};

const PORT: u16 = 5432;
const OTHER_PORT: u16 = 5433;
/// Mounts the file in the first argument over `/etc/hosts`, and runs the rest. The mount is not visible outside.
const WITH_HOSTS: &str = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";

/// A container that listens on [`PORT`] and [`OTHER_PORT`]. Removed on drop.
struct Destination {
    // Dropped before its image.
    _scratch: Scratch,
    _images: RegistryImages,
    address: Ipv4Addr,
    /// The address of this machine in the same network.
    gateway: Ipv4Addr,
}

impl Destination {
    async fn start(engine: &Engine, registry: &Registry) -> Self {
        let image = registry.push("destination", &Image::new(&["silent"])).await;
        engine.pull(&image, None).expect("the image is pulled");
        let scratch = Scratch::new(engine);
        let network = scratch.network(json!({}));
        let gateway = engine.host_address(&network).parse().expect("an address");
        let container = scratch.container(json!({ "Image": image, "HostConfig": { "NetworkMode": network } }));
        engine.start(&container);
        let inspected = engine.inspect(&container);
        let networks = inspected["NetworkSettings"]["Networks"].as_object().expect("an object");
        let address = networks.values().next().and_then(|network| network["IPAddress"].as_str()).expect("an address");
        let address = address.parse().expect("an address");
        let pid = inspected["State"]["Pid"].as_i64().expect("the container runs");
        for port in [PORT, OTHER_PORT] {
            serve(in_network_of(pid, || listen(Ipv4Addr::UNSPECIFIED, port)), "the destination\n");
        }
        Self { _scratch: scratch, _images: RegistryImages::new(engine, registry.address()), address, gateway }
    }
}

fn listen(address: Ipv4Addr, port: u16) -> TcpListener {
    TcpListener::bind(SocketAddr::from((address, port))).expect("the port is free")
}

/// Sends a line to every client that connects, until the test program ends.
fn serve(listener: TcpListener, line: &'static str) {
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            // A client that has disconnected is not an error.
            let _ = stream.write_all(line.as_bytes());
        }
    });
}

impl Site {
    /// Calls a tool that connects to an address. Returns the text that the destination sends, or the error.
    async fn reach(&self, id: &str, tool: &str, address: &str) -> Result<String, String> {
        let (status, result) = self.call(id, tool, json!({ "address": address })).await;
        assert_eq!(status, StatusCode::OK, "{tool} {address}: {result}");
        let text = result["content"][0]["text"].as_str().expect("a text").to_owned();
        if result["isError"] == true { Err(text) } else { Ok(text) }
    }

    /// Checks that no kind of client can reach a destination.
    async fn assert_closed(&self, id: &str, address: &str) {
        let tunnel = self.reach(id, "tunnel", address).await.expect_err(address);
        assert!(tunnel.starts_with("HTTP/1.1 403"), "{address}: {tunnel}");
        let relayed = self.reach(id, "connect", address).await;
        // A relay accepts the connection before the daemon connects, and then closes it.
        assert!(relayed.as_ref().is_err() || relayed.as_deref() == Ok(""), "{address}: {relayed:?}");
    }

    /// Deploys a server whose entry names these destinations.
    async fn deploy_with_egress(&self, slug: &str, egress: &[String]) -> String {
        let version = self.import(slug, "1", &Image::stdio(), json!({ "egress": egress })).await;
        self.deploy(slug, &version).await
    }

    /// Returns the address of the container of an instance.
    pub fn address(&self, id: &str) -> Ipv4Addr {
        let inspected = self.engine.inspect(&self.container(id));
        let networks = inspected["NetworkSettings"]["Networks"].as_object().expect("an object").clone();
        let address = networks.values().next().and_then(|network| network["IPAddress"].as_str().map(str::to_owned));
        address.and_then(|address| address.parse().ok()).expect("an address")
    }
}

/// Starts a site whose daemon resolves the host names that `destination` returns, with the returned networks as
/// arguments of `--egress-allow`.
async fn start(destination: impl AsyncFnOnce(&Engine, &Registry) -> (String, Vec<String>)) -> Site {
    let (engine, registry, waypost) = (Engine::shared(), Registry::start().await, Waypost::start().await);
    let (names, allow) = destination(&engine, &registry).await;
    let mut toolbox = Toolbox::join(&waypost, "machine").await;
    let hosts = toolbox.data().join("hosts");
    std::fs::write(&hosts, names).expect("the file is written");
    toolbox.wrap(&["unshare", "--mount", "sh", "-c", WITH_HOSTS, hosts.to_str().expect("UTF-8")]);
    let allow: Vec<&str> = allow.iter().flat_map(|network| ["--egress-allow", network]).collect();
    toolbox.run_with(&engine, &allow).await;
    Site::of(engine, registry, waypost, toolbox).await
}

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn only_named_destinations_in_allowed_networks_can_be_reached_docker() {
        let mut found = None;
        let site = start(async |engine, registry| {
            let destination = Destination::start(engine, registry).await;
            let Destination { address, gateway, .. } = destination;
            found = Some(destination);
            let names = format!(
                "127.0.0.1 localhost loopback.example\n{address} db.example other.example\n{gateway} machine.example\n\
                 169.254.169.254 metadata.example\n10.99.0.1 private.example\n10.213.0.2 instance.example\n"
            );
            // Far more than the guard lets through.
            let allow = ["127.0.0.0/8", "169.254.0.0/16", "10.213.0.0/16", "172.16.0.0/12", "192.168.0.0/16"];
            (names, allow.map(str::to_owned).to_vec())
        })
        .await;
        let destination = found.expect("the destination was started");
        serve(listen(destination.gateway, PORT), "the machine\n");
        // An address that the machine did not have when the daemon started.
        let scratch = Scratch::new(&site.engine);
        let late = site.engine.host_address(&scratch.network(json!({}))).parse().expect("an address");
        serve(listen(late, PORT), "the machine\n");
        let fields = json!({ "transport": "streamable_http", "port": 8080 });
        let neighbour = site.import("neighbour", "1", &Image::http(), fields).await;
        let neighbour = site.deploy("neighbour", &neighbour).await;
        let (address, neighbour) = (destination.address, site.address(&neighbour));
        let closed = ["loopback", "machine", "metadata", "private", "instance"].map(|name| format!("{name}.example:{PORT}"));
        let closed = [closed.to_vec(), vec![format!("{neighbour}:8080"), format!("{}:{PORT}", destination.gateway), format!("{late}:{PORT}")]].concat();
        let open = [format!("db.example:{PORT}"), format!("{address}:{PORT}")];
        let id = site.deploy_with_egress("client", &[open.to_vec(), closed.clone()].concat()).await;
        // A name, with clients that use the proxy and with clients that do not.
        for tool in ["tunnel", "connect"] {
            assert_eq!(site.reach(&id, tool, &open[0]).await.as_deref(), Ok("the destination"), "{tool}");
        }
        // An address, to which the container has no route.
        assert_eq!(site.reach(&id, "tunnel", &open[1]).await.as_deref(), Ok("the destination"));
        site.reach(&id, "connect", &open[1]).await.expect_err("there is no route");
        // The entry does not name these destinations.
        for address in [format!("db.example:{OTHER_PORT}"), format!("other.example:{PORT}"), format!("{address}:{OTHER_PORT}")] {
            site.assert_closed(&id, &address).await;
        }
        // The entry names these destinations, and the operator of the machine allows most of them.
        for address in &closed {
            site.assert_closed(&id, address).await;
        }
        site.finish().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn private_networks_are_closed_unless_the_operator_allows_them_docker() {
        let mut found = None;
        let site = start(async |engine, registry| {
            let destination = Destination::start(engine, registry).await;
            let names = format!("127.0.0.1 localhost\n{} db.example\n", destination.address);
            found = Some(destination);
            (names, Vec::new())
        })
        .await;
        let address = format!("{}:{PORT}", found.as_ref().expect("the destination was started").address);
        let id = site.deploy_with_egress("client", &[format!("db.example:{PORT}"), address.clone()]).await;
        site.assert_closed(&id, &format!("db.example:{PORT}")).await;
        site.assert_closed(&id, &address).await;
        site.finish().await;
    }
}
