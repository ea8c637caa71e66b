//! The hostile clients. They run in a separate process: a given number of connections of each kind for a given time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::client::{self, Connection};
use crate::process;
use crate::soak::raise_open_file_limit;

/// Arguments of the hidden `hostile` command.
#[derive(Args)]
pub struct HostileArgs {
    /// Address of the server.
    #[arg(long)]
    addr: SocketAddr,
    /// Number of connections of each kind.
    #[arg(long)]
    connections: usize,
    /// Duration in seconds.
    #[arg(long)]
    seconds: u64,
    /// Slugs of the servers without sign-in, with support, and with sign-in.
    #[arg(long, value_delimiter = ',')]
    slugs: Vec<String>,
    /// The email address of an existing account.
    #[arg(long)]
    email: String,
}

/// A kind of attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Request heads that are never completed.
    IncompleteHeads,
    /// Bodies of 1 MB, of which only a quarter is sent.
    IncompleteBodies,
    /// Connections that stay idle after one request.
    IdleConnections,
    /// Calls with a new tracking ID each time.
    RandomIdentities,
    /// Tickets opened with `get_support`.
    SupportTickets,
    /// Wrong passwords for an existing account.
    Passwords,
    /// Requests for sign-in codes for unknown email addresses.
    Codes,
    /// Client registrations with 40 KB of text.
    ClientRegistrations,
    /// Authorization requests that are never completed.
    AuthorizationRequests,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::IncompleteHeads,
        Self::IncompleteBodies,
        Self::IdleConnections,
        Self::RandomIdentities,
        Self::SupportTickets,
        Self::Passwords,
        Self::Codes,
        Self::ClientRegistrations,
        Self::AuthorizationRequests,
    ];
}

/// The number of opened connections and the number of responses by status, for each kind.
pub type Summary = BTreeMap<Kind, BTreeMap<String, u64>>;

struct Attack {
    args: HostileArgs,
    summary: Mutex<Summary>,
}

/// Runs all attacks and prints the summary as JSON.
pub fn main(args: HostileArgs) -> Result<()> {
    raise_open_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seconds = args.seconds;
    let attack = Arc::new(Attack { args, summary: Mutex::default() });
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for (kind_index, kind) in Kind::ALL.into_iter().enumerate() {
            for index in 0..attack.args.connections {
                tasks.spawn(Arc::clone(&attack).run(kind, kind_index, index));
            }
        }
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        tasks.shutdown().await;
    });
    let summary = attack.summary.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{}", serde_json::to_string(&*summary)?);
    Ok(())
}

impl Attack {
    fn count(&self, kind: Kind, outcome: &str) {
        let mut summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
        *summary.entry(kind).or_default().entry(outcome.to_owned()).or_default() += 1;
    }

    /// Repeats one attack on a connection, and reconnects when it is closed.
    async fn run(self: Arc<Self>, kind: Kind, kind_index: usize, index: usize) {
        // Each kind uses two addresses: 127.0.2.1, 127.0.2.2, and so on.
        let last = u8::try_from(1 + 2 * kind_index + index % 2).unwrap_or(255);
        let from = IpAddr::from([127, 0, 2, last]);
        // Spreads the start times.
        tokio::time::sleep(Duration::from_millis(u64::try_from(index).unwrap_or(0) * 1_000 % 997)).await;
        loop {
            if let Err(error) = self.attack(kind, from).await {
                let is_refused = error
                    .downcast_ref::<std::io::Error>()
                    .is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
                self.count(kind, if is_refused { "refused" } else { "closed" });
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn attack(&self, kind: Kind, from: IpAddr) -> Result<()> {
        let addr = self.args.addr;
        let slug = |index: usize| self.args.slugs.get(index).map_or("", String::as_str);
        match kind {
            Kind::IncompleteHeads => {
                let head = format!("POST /s/{}/mcp HTTP/1.1\r\nHost: localhost\r\n", slug(0));
                self.hold(kind, from, head, 0).await
            }
            Kind::IncompleteBodies => {
                let head = format!(
                    "POST /s/{}/mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                     Content-Length: 1000000\r\n\r\n",
                    slug(0)
                );
                self.hold(kind, from, head, 250_000).await
            }
            Kind::IdleConnections => {
                self.hold(kind, from, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 0).await
            }
            _ => {
                let mut connection = Connection::open_from(from, addr).await?;
                self.count(kind, "connections");
                loop {
                    let status = self.send(kind, &mut connection).await?;
                    self.count(kind, &status.to_string());
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Sends `head` and a part of the body, then waits until the server closes the connection.
    async fn hold(&self, kind: Kind, from: IpAddr, head: String, body_bytes: usize) -> Result<()> {
        let mut stream = client::connect_from(from, self.args.addr).await?;
        self.count(kind, "connections");
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&vec![b'x'; body_bytes]).await?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await?;
        let text = String::from_utf8_lossy(&response);
        self.count(kind, text.split(' ').nth(1).unwrap_or("closed"));
        Ok(())
    }

    async fn send(&self, kind: Kind, connection: &mut Connection) -> Result<u16> {
        let slug = |index: usize| self.args.slugs.get(index).context("three slugs are required");
        let random = process::random_hex(12)?;
        let form =
            format!("Content-Type: application/x-www-form-urlencoded\r\nOrigin: http://{}\r\n", connection.host());
        let json = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
                    MCP-Protocol-Version: 2025-11-25\r\n";
        let response = match kind {
            Kind::RandomIdentities => {
                let path = format!("/s/{}/t/{random}/mcp", slug(0)?);
                connection.post(&path, json, &call("list_walkthroughs", "{}")).await?
            }
            Kind::SupportTickets => {
                let path = format!("/s/{}/t/{random}/mcp", slug(1)?);
                let arguments = format!(
                    r#"{{"title":"Help {random}","problem":"{}","email":"{random}@example.com"}}"#,
                    "It does not work. ".repeat(500)
                );
                connection.post(&path, json, &call("get_support", &arguments)).await?
            }
            Kind::Passwords => {
                let body = format!("email={}&password={random}", self.args.email.replace('@', "%40"));
                connection.post("/login", &form, &body).await?
            }
            Kind::Codes => connection.post("/login/code", &form, &format!("email={random}%40example.com")).await?,
            Kind::ClientRegistrations => {
                let body = format!(
                    r#"{{"redirect_uris":["https://{random}.example.com/callback"],"client_name":"{}"}}"#,
                    "x".repeat(40_000)
                );
                connection.post(&format!("/s/{}/oauth/register", slug(2)?), json, &body).await?
            }
            Kind::AuthorizationRequests => {
                let path = format!(
                    "/s/{}/oauth/authorize?response_type=code&client_id={random}&redirect_uri=https%3A%2F%2Fa.example\
                     %2Fcb&code_challenge={random}{random}&code_challenge_method=S256&state={random}",
                    slug(2)?
                );
                connection.get(&path).await?
            }
            Kind::IncompleteHeads | Kind::IncompleteBodies | Kind::IdleConnections => anyhow::bail!("no request"),
        };
        Ok(response.status)
    }
}

fn call(tool: &str, arguments: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#)
}
