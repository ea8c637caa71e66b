//! Connections to the ports of a container.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncRead, AsyncWrite};

/// The timeout of a connection. Both ends are on the same machine.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A connection.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// A connection that is being opened.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Connection>>> + Send + 'a>>;

/// Opens connections to the ports of containers.
pub trait Connector: Send + Sync + 'static {
    /// Connects to `port` on the loopback interface of the network namespace at the path.
    fn connect<'a>(&'a self, namespace: &'a Path, port: u16) -> Connecting<'a>;
}

/// Connects inside network namespaces of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct NamespaceConnector;

impl Connector for NamespaceConnector {
    fn connect<'a>(&'a self, namespace: &'a Path, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let address = |ip: IpAddr| SocketAddr::new(ip, port);
            let stream = match tcp_connect(namespace, address(Ipv4Addr::LOCALHOST.into()), TIMEOUT).await {
                // Some servers listen on `localhost`, which can be the IPv6 address only.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    let second = tcp_connect(namespace, address(Ipv6Addr::LOCALHOST.into()), TIMEOUT).await;
                    second.map_err(|_| error)?
                }
                result => result?,
            };
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Connection>)
        })
    }
}

/// Connects to an address inside a network namespace.
async fn tcp_connect(namespace: &Path, address: SocketAddr, timeout: Duration) -> io::Result<tokio::net::TcpStream> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let namespace: PathBuf = namespace.to_owned();
    // A thread of its own, because it stays in the namespace of the container.
    std::thread::Builder::new().name("netns-connect".to_owned()).spawn(move || {
        let connect = || -> io::Result<TcpStream> {
            let file = File::open(&namespace)?;
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))?;
            let stream = TcpStream::connect_timeout(&address, timeout)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        let _ = sender.send(connect());
    })?;
    let stream = receiver.await.map_err(io::Error::other)??;
    tokio::net::TcpStream::from_std(stream)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_port_is_reached_inside_a_namespace() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let namespace = Path::new("/proc/self/ns/net");
        let connected = NamespaceConnector.connect(namespace, port).await;
        match connected {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("skipped: changing the network namespace needs CAP_SYS_ADMIN");
            }
            connected => {
                let (mut client, (mut server, _)) = (connected.unwrap(), listener.accept().await.unwrap());
                client.write_all(b"x").await.unwrap();
                assert_eq!(server.read_u8().await.unwrap(), b'x');
                drop(listener);
                let refused = NamespaceConnector.connect(namespace, port).await.err().unwrap();
                assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            }
        }
        assert!(NamespaceConnector.connect(Path::new("/proc/0/ns/net"), port).await.is_err());
    }
}
