//! Unix sockets that only the user of the process can open.

use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use axum::Router;
use tokio::net::{UnixListener, UnixSocket, UnixStream};

use crate::connections::Connections;

/// The maximum length of a socket's path in bytes: the size of `sun_path` minus the final zero byte (`unix(7)`).
const MAX_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// The maximum number of connections that wait to be accepted.
const BACKLOG: u32 = 16;
/// The permissions of the socket: only the user of the process can connect.
const MODE: u32 = 0o600;

/// Checks that the path can be the address of a socket. `advice` says how to choose a shorter one.
///
/// # Errors
/// If it is too long. The message says what to do.
pub fn check_length(path: &Path, advice: &str) -> anyhow::Result<()> {
    let length = path.as_os_str().len();
    if length > MAX_PATH {
        bail!(
            "the path of the socket {} has {length} bytes, but the operating system allows only {MAX_PATH}: {advice}",
            path.display()
        );
    }
    Ok(())
}

/// A socket on which this process listens. Its file is removed when this value is dropped.
#[derive(Debug)]
pub struct PrivateSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// The file of a socket. Removed when dropped, unless another process has replaced it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_own = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if is_own && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "failed to remove a socket");
        }
    }
}

impl PrivateSocket {
    /// Listens on a socket. Replaces the socket of a process that has died. `advice` says how to choose a shorter path.
    ///
    /// # Errors
    /// If the path is too long, another process listens on the socket, or the folder is not writable.
    pub fn bind(path: &Path, advice: &str) -> anyhow::Result<Self> {
        check_length(path, advice)?;
        remove_stale(path)?;
        let cannot_listen = || format!("cannot listen on the socket {}", path.display());
        let socket = UnixSocket::new_stream().with_context(cannot_listen)?;
        socket.bind(path).with_context(cannot_listen)?;
        let metadata = std::fs::symlink_metadata(path).with_context(cannot_listen)?;
        let file = SocketFile { device: metadata.dev(), inode: metadata.ino(), path: path.to_owned() };
        // Connections are refused until `listen`, so nobody can connect before the permissions are set.
        std::fs::set_permissions(path, Permissions::from_mode(MODE)).with_context(cannot_listen)?;
        let listener = socket.listen(BACKLOG).with_context(cannot_listen)?;
        Ok(Self { listener, file })
    }

    /// Serves `router` to this user and root until the connections are stopped.
    pub async fn serve(self, connections: Connections, router: Router) {
        let Self { listener, file } = self;
        connections.serve_unix(listener, router, is_own_user).await;
        drop(file);
    }
}

/// Removes the socket of a process that has died.
///
/// # Errors
/// If another process listens on it, or the file is not a socket.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => bail!("{} exists and is not a socket: remove or rename it", path.display()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    match std::os::unix::net::UnixStream::connect(path) {
        // The kernel refuses connections to a socket that nobody listens on.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).with_context(|| format!("cannot replace the old socket {}", path.display()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Ok(_) => bail!("another process listens on the socket {}", path.display()),
        Err(error) => Err(error).with_context(|| format!("cannot check the socket {}", path.display())),
    }
}

/// Whether the other end of a connection is a process of the same user, or of root. Not every system checks the
/// permissions of a socket.
fn is_own_user(socket: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    socket.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}
