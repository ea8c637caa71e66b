//! Tests of the control plane's end of the link, with a minimal daemon.

mod daemon;
mod directory;
mod handshake;
mod lifecycle;
mod messages;
mod requests;

use std::sync::Arc;

use daemon::Daemon;
use directory::TestDirectory;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use waypost_core::id::ToolboxId;
use waypost_core::random::SystemRandom;
use waypost_link::{AcceptError, Links};

const ORIGIN: &str = "https://waypost.example";

/// A control plane with one toolbox, `tbx_1`, whose key is `daemon::key(1)`.
struct Control {
    links: Links,
    directory: Arc<TestDirectory>,
}

type Accepted = JoinHandle<Option<Result<ToolboxId, AcceptError>>>;

impl Control {
    fn new() -> Self {
        Self { links: Links::new(), directory: Arc::new(TestDirectory::new()) }
    }

    fn toolbox() -> ToolboxId {
        ToolboxId::from_store("tbx_1".to_owned())
    }

    /// Opens a connection. Returns the daemon's end.
    fn connect(&self) -> (DuplexStream, Accepted) {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let (links, directory) = (self.links.clone(), self.directory.clone());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        waypost_jobs::spawn("test link", async move {
            // The receiver may have been dropped.
            let _ = sender.send(links.accept(server, &SystemRandom, directory).await);
        });
        (client, daemon::spawn(async move { receiver.await.ok() }))
    }

    /// Opens a link.
    async fn link(&self) -> (Daemon, Accepted) {
        let (stream, accepted) = self.connect();
        (Daemon::open(stream, "tbx_1").await, accepted)
    }
}

/// Returns the error because of which a link was not opened.
async fn rejection(accepted: Accepted) -> String {
    accepted.await.unwrap().unwrap().unwrap_err().to_string()
}
