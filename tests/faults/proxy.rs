//! A proxy in front of PostgreSQL or a server that simulates network failures.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::installation::TIMEOUT;

/// The state of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Connections are forwarded.
    Up,
    /// Connections are closed, and new ones are refused.
    Refused,
    /// Packets are dropped silently.
    Silent,
}

/// The destination of a proxy's connections.
#[derive(Clone)]
enum Target {
    /// The Unix socket of a PostgreSQL server.
    Socket(String),
    Address(SocketAddr),
}

/// Forwards connections.
pub struct Proxy {
    network: watch::Sender<Network>,
    lost: watch::Sender<usize>,
    /// The URL of the database or the server through this proxy.
    pub url: String,
    _task: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy for the database at `url`, whose host is a socket folder.
    pub async fn start(url: &str) -> Self {
        let (user, rest) = url.split_once('@').unwrap();
        let (folder, rest) = rest.split_once('/').unwrap();
        let socket = format!("{}/.s.PGSQL.5432", folder.replace("%2F", "/"));
        Self::forward_to(Target::Socket(socket), |address| format!("{user}@{address}/{rest}?sslmode=disable")).await
    }

    /// Starts a proxy for the HTTP server at `server`, which has the path `/mcp`.
    pub async fn start_for_server(server: SocketAddr) -> Self {
        Self::forward_to(Target::Address(server), |address| format!("http://{address}/mcp")).await
    }

    async fn forward_to(target: Target, url: impl FnOnce(SocketAddr) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (network, watched) = watch::channel(Network::Up);
        let lost = watch::Sender::new(0);
        let task = tokio::spawn(listen(listener, address, target, watched, lost.clone()));
        Self { network, lost, url: url(address), _task: task }
    }

    /// Changes the state of the network.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// Drops packets and waits until `connections` connections are lost.
    pub async fn drop_silently(&self, connections: usize) {
        self.set(Network::Silent);
        let mut lost = self.lost.subscribe();
        timeout(TIMEOUT, lost.wait_for(|lost| *lost >= connections)).await.unwrap().unwrap();
    }
}

async fn listen(
    first: TcpListener,
    address: SocketAddr,
    target: Target,
    mut network: watch::Receiver<Network>,
    lost: watch::Sender<usize>,
) {
    let mut listener = Some(first);
    loop {
        if *network.borrow_and_update() == Network::Refused {
            drop(listener.take());
            if network.changed().await.is_err() {
                return;
            }
            continue;
        }
        let open = match listener.take() {
            Some(open) => open,
            None => TcpListener::bind(address).await.expect("the port is still available"),
        };
        tokio::select! {
            accepted = open.accept() => {
                let (client, _) = accepted.unwrap();
                tokio::spawn(forward(client, target.clone(), network.clone(), lost.clone()));
            }
            changed = network.changed() => if changed.is_err() { return },
        }
        listener = Some(open);
    }
}

/// Forwards a connection. A connection does not recover after the network has failed.
async fn forward(
    mut client: TcpStream,
    target: Target,
    mut network: watch::Receiver<Network>,
    lost: watch::Sender<usize>,
) {
    if *network.borrow_and_update() == Network::Up {
        let has_ended = match target {
            Target::Socket(path) => copy(&mut client, UnixStream::connect(path).await.unwrap(), &mut network).await,
            Target::Address(server) => copy(&mut client, TcpStream::connect(server).await.unwrap(), &mut network).await,
        };
        if has_ended {
            return;
        }
    }
    if *network.borrow() == Network::Silent {
        // Kept open even if the network recovers: a firewall that has lost a connection keeps dropping its packets.
        lost.send_modify(|lost| *lost += 1);
        std::future::pending::<()>().await;
    }
}

/// Forwards a connection until it ends or the network fails. Returns whether it has ended.
async fn copy(
    client: &mut TcpStream,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
    network: &mut watch::Receiver<Network>,
) -> bool {
    // If the network fails, the connection to the server is closed immediately, which releases the locks of a database.
    // The connection to the client depends on `network`.
    tokio::select! {
        _ = tokio::io::copy_bidirectional(client, &mut server) => true,
        _ = network.changed() => false,
    }
}
