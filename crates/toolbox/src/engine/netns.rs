//! Sockets in the network namespace of a container.
//!
//! A socket belongs to the namespace in which it was created. Therefore, a short-lived thread enters the namespace and
//! creates the socket; it is then connected, or listens, in the asynchronous runtime. No other thread of the daemon
//! ever changes its namespace.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::oneshot;

/// The maximum number of connections that wait to be accepted by a listener in a container.
const BACKLOG: u32 = 128;

/// A network namespace. Cheap to clone; the namespace exists as long as any clone does.
#[derive(Debug, Clone)]
pub struct NetworkNamespace(Arc<OwnedFd>);

impl NetworkNamespace {
    /// Opens the namespace of a process. The caller must check afterwards that `pid` still belongs to the intended
    /// process, because process IDs are reused.
    ///
    /// # Errors
    /// Returns an error if the process does not exist, or the daemon may not inspect it.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Ok(Self(Arc::new(File::open(format!("/proc/{pid}/ns/net"))?.into())))
    }

    /// Connects to an address in the namespace.
    ///
    /// # Errors
    /// Returns an error if the connection is refused or not established within `timeout`.
    pub async fn tcp_connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        let socket = self.run(move || tcp_socket(address)).await?;
        match tokio::time::timeout(timeout, socket.connect(address)).await {
            Ok(result) => result,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Listens for connections at an address in the namespace.
    ///
    /// # Errors
    /// Returns an error if the address is in use.
    pub async fn tcp_listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let socket = self.run(move || tcp_socket(address)).await?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    }

    /// Binds a datagram socket to an address in the namespace.
    ///
    /// # Errors
    /// Returns an error if the address is in use.
    pub async fn udp_bind(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.run(move || std::net::UdpSocket::bind(address)).await?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    }

    /// Runs `create` on a new thread that has entered the namespace.
    async fn run<T, F>(&self, create: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        let namespace = self.clone();
        let (sender, receiver) = oneshot::channel();
        std::thread::Builder::new().name("netns".into()).stack_size(64 * 1024).spawn(move || {
            let enter = move_into_link_name_space(namespace.0.as_fd(), Some(LinkNameSpaceType::Network));
            // Fails if the caller was cancelled. The socket is then closed.
            let _ = sender.send(enter.map_err(io::Error::from).and_then(|()| create()));
        })?;
        receiver.await.map_err(|_| io::Error::other("the thread in the network namespace panicked"))?
    }
}

fn tcp_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}
