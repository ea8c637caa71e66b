//! The operator's socket: `serve` serves the REST API on a Unix socket in the data directory, with the operator as the
//! caller. Commands that need the running process, for example to reach a toolbox, connect to it.
//!
//! The file system decides who the operator is: only the user of the process can open the socket (mode 0600), as only
//! this user can open the database. Requests need no credentials, so nothing else may ever serve this router.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use tracing::Instrument;
use waypost_core::Random;
use waypost_core::id::base32;
use waypost_http_kit::layered::layered;
use waypost_http_kit::request_info::RequestInfo;
use waypost_http_kit::web::Web;
use waypost_ops::limits::MAX_BODY;

use crate::connections::Connections;
use crate::unix_socket::{PrivateSocket, check_length};

/// The name of the socket in the data directory.
const FILE: &str = "serve.sock";
/// The advice if the path is too long.
const ADVICE: &str = "choose a shorter data directory with --data-dir, or a relative one";

/// Returns the path of the socket.
#[must_use]
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// Returns the path of the socket of a running `serve`.
///
/// # Errors
/// If no process listens on it, or this user cannot connect. The message says what to do.
pub fn connectable_path(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let path = path(data_dir);
    check_length(&path, ADVICE)?;
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
    check_length(&path, ADVICE).is_ok() && std::os::unix::net::UnixStream::connect(&path).is_err_and(is_refused)
}

/// The socket of a running `serve`. Its file is removed when this value is dropped.
#[derive(Debug)]
pub struct OperatorSocket(PrivateSocket);

impl OperatorSocket {
    /// Listens on the socket in `data_dir`. Replaces the socket of a process that has died.
    ///
    /// # Errors
    /// If the path is too long, another process listens on the socket, or the folder is not writable.
    pub fn bind(data_dir: &Path) -> anyhow::Result<Self> {
        PrivateSocket::bind(&path(data_dir), ADVICE).map(Self)
    }

    /// Serves the REST API to the operator until the connections are stopped.
    pub async fn serve(self, connections: Connections, web: Web) {
        let router = router(&web);
        drop(web);
        self.0.serve(connections, router).await;
    }
}

/// Returns the REST API below `/api/v1`, with the operator as the caller of every request. Must only be served where nobody
/// else can connect.
pub fn router(web: &Web) -> Router {
    let api = Router::new().nest_service("/api/v1", waypost_api::operator_router(web));
    let api = layered(api, DefaultBodyLimit::max(MAX_BODY));
    layered(api, middleware::from_fn_with_state(Arc::clone(&web.random), describe_request))
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
