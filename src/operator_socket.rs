//! The operator's socket: `serve` serves the REST API on a Unix socket in the data directory, with the operator as the
//! caller. Commands that need the running process, for example to reach a toolbox, connect to it.
//!
//! The file system decides who the operator is: only the user of the process can open the socket (mode 0600), as only
//! this user can open the database. Requests need no credentials, so nothing else may ever serve this router.

use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tracing::Instrument;
use waypost_core::Random;
use waypost_core::id::base32;
use waypost_http_kit::request_info::RequestInfo;
use waypost_http_kit::web::Web;
use waypost_ops::limits::MAX_BODY;

use crate::connections::Connections;

/// The name of the socket in the data directory.
const FILE: &str = "serve.sock";
/// The maximum length of a socket's path in bytes: the size of `sun_path` minus the final zero byte (`unix(7)`).
const MAX_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// The number of connections that wait to be accepted.
const BACKLOG: u32 = 16;
/// The permissions of the socket: only the user of the process can connect.
const MODE: u32 = 0o600;

/// Returns the path of the socket.
#[must_use]
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// Checks that the path can be the address of a socket.
///
/// # Errors
/// If it is too long. The message says what to do.
pub fn check_length(path: &Path) -> anyhow::Result<()> {
    let length = path.as_os_str().len();
    if length > MAX_PATH {
        bail!(
            "the path of the socket {} has {length} bytes, but the operating system allows only {MAX_PATH}: choose a shorter data directory with --data-dir, or a relative one",
            path.display()
        );
    }
    Ok(())
}

/// Returns the path of the socket of a running `serve`.
///
/// # Errors
/// If no process listens on it, or this user cannot connect. The message says what to do.
pub fn connectable_path(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let path = path(data_dir);
    check_length(&path)?;
    let folder = data_dir.display();
    match std::os::unix::net::UnixStream::connect(&path) {
        Ok(_) => Ok(path),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => bail!(
            "this command needs a running `waypost serve`, and none uses the data directory {folder}: start it, choose its data directory with --data-dir, or use --url"
        ),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            bail!(
                "the socket {} belongs to another user: run this command as the user of `waypost serve`",
                path.display()
            )
        }
        Err(error) => Err(error).with_context(|| format!("cannot connect to the socket {}", path.display())),
    }
}

/// Whether it is certain that no process listens on the socket in `data_dir`.
#[must_use]
pub fn is_dead(data_dir: &Path) -> bool {
    let path = path(data_dir);
    let is_refused = |error: std::io::Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused);
    check_length(&path).is_ok() && std::os::unix::net::UnixStream::connect(&path).is_err_and(is_refused)
}

/// The socket of a running `serve`. Its file is removed when this value is dropped.
#[derive(Debug)]
pub struct OperatorSocket {
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
            tracing::debug!(%error, "failed to remove the operator's socket");
        }
    }
}

impl OperatorSocket {
    /// Listens on the socket in `data_dir`. Replaces the socket of a process that has died.
    ///
    /// # Errors
    /// If the path is too long, another process listens on the socket, or the folder is not writable.
    pub fn bind(data_dir: &Path) -> anyhow::Result<Self> {
        let path = path(data_dir);
        check_length(&path)?;
        remove_stale(&path)?;
        let cannot_listen = || format!("cannot listen on the socket {}", path.display());
        let socket = UnixSocket::new_stream().with_context(cannot_listen)?;
        socket.bind(&path).with_context(cannot_listen)?;
        let metadata = std::fs::symlink_metadata(&path).with_context(cannot_listen)?;
        let file = SocketFile { device: metadata.dev(), inode: metadata.ino(), path: path.clone() };
        // Connections are refused until `listen`, so nobody can connect before the permissions are set.
        std::fs::set_permissions(&path, Permissions::from_mode(MODE)).with_context(cannot_listen)?;
        let listener = socket.listen(BACKLOG).with_context(cannot_listen)?;
        Ok(Self { listener, file })
    }

    /// Serves the REST API to the operator until the connections are stopped.
    pub async fn serve(self, connections: Connections, web: Web) {
        let Self { listener, file } = self;
        let router = router(&web);
        drop(web);
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

/// Returns the REST API below `/api/v1`, with the operator as the caller of every request. Must only be served where nobody
/// else can connect.
pub fn router(web: &Web) -> Router {
    Router::new()
        .nest("/api/v1", waypost_api::operator_router(web))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&web.random), describe_request))
}

/// Adds the facts that the API requires of every request.
async fn describe_request(State(random): State<Arc<dyn Random>>, mut request: Request, next: Next) -> Response {
    let mut bytes = [0_u8; 10];
    random.fill(&mut bytes);
    let request_id = format!("req_{}", base32(&bytes));
    let span = tracing::info_span!("request", request_id, operator = true);
    let client = std::net::Ipv4Addr::LOCALHOST.into();
    request.extensions_mut().insert(RequestInfo { authority: "localhost".to_owned(), client, request_id });
    next.run(request).instrument(span).await
}
