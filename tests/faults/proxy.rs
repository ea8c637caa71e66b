//! A network in front of PostgreSQL that can fail.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::installation::TIMEOUT;

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// As it should be.
    Up,
    /// Connections end, and nobody listens.
    Refused,
    /// What is sent arrives nowhere, and nobody says so.
    Silent,
}

/// Forwards connections to the socket of a PostgreSQL.
pub struct Proxy {
    network: watch::Sender<Network>,
    lost: watch::Sender<usize>,
    /// The database's URL through this proxy.
    pub url: String,
    _task: JoinHandle<()>,
}

impl Proxy {
    /// In front of the database at `url`, whose host is the folder of a socket.
    pub async fn start(url: &str) -> Self {
        let (user, rest) = url.split_once('@').unwrap();
        let (folder, rest) = rest.split_once('/').unwrap();
        let socket = format!("{}/.s.PGSQL.5432", folder.replace("%2F", "/"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (network, watched) = watch::channel(Network::Up);
        let lost = watch::Sender::new(0);
        let task = tokio::spawn(listen(listener, (address, socket), watched, lost.clone()));
        Self { network, lost, url: format!("{user}@{address}/{rest}&sslmode=disable"), _task: task }
    }

    /// Changes the network.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// Waits until so many connections are lost in silence.
    pub async fn drop_silently(&self, connections: usize) {
        self.set(Network::Silent);
        let mut lost = self.lost.subscribe();
        timeout(TIMEOUT, lost.wait_for(|lost| *lost >= connections)).await.unwrap().unwrap();
    }
}

async fn listen(
    first: TcpListener,
    (address, socket): (SocketAddr, String),
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
            None => TcpListener::bind(address).await.expect("the port is still free"),
        };
        tokio::select! {
            accepted = open.accept() => {
                let (client, _) = accepted.unwrap();
                tokio::spawn(forward(client, socket.clone(), network.clone(), lost.clone()));
            }
            changed = network.changed() => if changed.is_err() { return },
        }
        listener = Some(open);
    }
}

/// A connection belongs to the network that it was made in: when that fails, it does not come back.
async fn forward(
    mut client: TcpStream,
    socket: String,
    mut network: watch::Receiver<Network>,
    lost: watch::Sender<usize>,
) {
    if *network.borrow_and_update() == Network::Up {
        let mut server = UnixStream::connect(socket).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
            _ = network.changed() => {}
        }
        // The far side notices at once, so that its locks are gone; the near side learns what `network` lets it.
    }
    if *network.borrow() == Network::Silent {
        // Held open, also when the network is back: a firewall that forgot a connection drops its packets for good.
        lost.send_modify(|lost| *lost += 1);
        std::future::pending::<()>().await;
    }
}
