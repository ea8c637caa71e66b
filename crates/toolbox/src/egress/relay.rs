//! Relays of TCP connections to one destination.

use std::io;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use waypost_toolbox_proto::Destination;

use super::Shared;

/// Accepts connections and relays them to `destination` until `stop` is cancelled.
pub(super) fn start(listener: TcpListener, destination: Destination, shared: &Arc<Shared>, stop: &CancellationToken) {
    let (shared, stop) = (Arc::clone(shared), stop.clone());
    crate::tasks::spawn("egress-relay", async move {
        while let Some(connection) = accept(&listener, &stop).await {
            let (shared, stop, destination) = (Arc::clone(&shared), stop.clone(), destination.clone());
            crate::tasks::spawn("egress-connection", async move {
                let Ok(_permit) = shared.connections.try_acquire() else { return };
                let relayed = stop.run_until_cancelled(relay(connection, &destination, &shared)).await;
                if let Some(Err(error)) = relayed {
                    tracing::debug!(%destination, %error, "a relayed connection failed");
                }
            });
        }
    });
}

/// Returns the next connection; `None` when `stop` is cancelled or the socket fails.
pub(super) async fn accept(listener: &TcpListener, stop: &CancellationToken) -> Option<TcpStream> {
    loop {
        match stop.run_until_cancelled(listener.accept()).await? {
            Ok((connection, _)) => return Some(connection),
            // The client has already disconnected.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            // No file descriptors are left. Connections that end will free some.
            Err(error) if error.raw_os_error().is_some_and(|code| matches!(code, 23 | 24)) => {
                stop.run_until_cancelled(tokio::time::sleep(std::time::Duration::from_millis(100))).await?;
            }
            Err(error) => {
                tracing::warn!(%error, "a socket in a container stopped");
                return None;
            }
        }
    }
}

async fn relay(mut inside: TcpStream, destination: &Destination, shared: &Shared) -> io::Result<()> {
    inside.set_nodelay(true)?;
    let mut outside = shared.connect(destination).await?;
    tokio::io::copy_bidirectional(&mut inside, &mut outside).await?;
    Ok(())
}
