//! Connections to the ports of a container.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::engine::NetworkNamespace;

/// The timeout of a connection attempt. Both ends are on the same machine.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A connection.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// A connection that is being opened.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Connection>>> + Send + 'a>>;

/// Opens connections to the ports of containers.
pub trait Connector: Send + Sync + 'static {
    /// Connects to `port` on the loopback interface of a network namespace.
    fn connect<'a>(&'a self, namespace: &'a NetworkNamespace, port: u16) -> Connecting<'a>;
}

/// Connects inside network namespaces of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct NamespaceConnector;

impl Connector for NamespaceConnector {
    fn connect<'a>(&'a self, namespace: &'a NetworkNamespace, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let address = |ip: IpAddr| SocketAddr::new(ip, port);
            let stream = match namespace.tcp_connect(address(Ipv4Addr::LOCALHOST.into()), TIMEOUT).await {
                // Some servers listen on `localhost`, which may resolve to the IPv6 address only.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    let second = namespace.tcp_connect(address(Ipv6Addr::LOCALHOST.into()), TIMEOUT).await;
                    second.map_err(|_| error)?
                }
                result => result?,
            };
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Connection>)
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_port_is_reached_inside_a_namespace() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let namespace = &NetworkNamespace::of_process(std::process::id()).unwrap();
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
    }
}
