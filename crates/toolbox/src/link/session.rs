//! One connection to the control plane: the handshake, and then HTTP/2 until the connection ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use http::{Method, Request, StatusCode};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::client_async_with_config;
use waypost_link_io::{Socket, config, http2};
use waypost_toolbox_proto::handshake::{Challenge, HANDSHAKE_SECONDS, Hello, LINK_PATH, Rejection, Versions, Welcome};
use waypost_toolbox_proto::http::CONTROL;

use super::connect::Stream;
use super::control::{self, End};
use super::requests::{answer, error_response};
use super::{Runtime, Shared};
use crate::identity::Attempt;

/// The time within which the connection must be established, before the handshake.
const CONNECT: Duration = Duration::from_secs(15);
const HANDSHAKE: Duration = Duration::from_secs(HANDSHAKE_SECONDS);

type LinkSocket = Socket<Box<dyn Stream>>;

/// Runs one connection until it ends. Returns the reason.
pub(super) async fn run(shared: &Arc<Shared>, runtime: &Runtime, attempt: Attempt) -> End {
    let socket = match timeout(CONNECT, connect(shared, runtime)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return End::Lost(error),
        Err(_) => return End::Lost("the control plane did not respond in time".to_owned()),
    };
    let connection = match timeout(HANDSHAKE, handshake(socket, shared, attempt)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(end)) => return end,
        Err(_) => return End::Lost("the handshake was not complete in time".to_owned()),
    };
    if let Err(error) = shared.finish_rotation().await {
        tracing::error!(%error, "failed to store the new key");
    }
    serve(connection, shared, runtime).await
}

async fn connect(shared: &Shared, runtime: &Runtime) -> Result<LinkSocket, String> {
    let url = shared.identity().url.clone();
    let stream = runtime.connector.connect(&url).await.map_err(|error| error.to_string())?;
    let mut target = url;
    target.set_path(LINK_PATH);
    let scheme = if target.scheme() == "https" { "wss" } else { "ws" };
    let target = target.as_str().replacen(target.scheme(), scheme, 1);
    let upgraded = client_async_with_config(target, stream, Some(config())).await;
    let (socket, _) = upgraded.map_err(|error| format!("the WebSocket was not accepted: {error}"))?;
    Ok(Socket::new(socket))
}

async fn handshake(
    mut socket: LinkSocket,
    shared: &Shared,
    attempt: Attempt,
) -> Result<Connection<LinkSocket, Bytes>, End> {
    let lost = |error: waypost_link_io::SocketError| End::Lost(error.to_string());
    let challenge: Challenge = socket.receive().await.map_err(lost)?;
    // A nonce with other characters could change the meaning of the signed text.
    if BASE64URL_NOPAD.decode(challenge.nonce.as_bytes()).map(|nonce| nonce.len()) != Ok(32) {
        return Err(End::Lost("the control plane sent an invalid challenge".to_owned()));
    }
    let hello = {
        let identity = shared.identity();
        let (signature, next_public_key) = identity.sign(&challenge.nonce, attempt);
        Hello {
            toolbox_id: identity.toolbox_id.clone(),
            origin: identity.origin(),
            signature,
            protocol: Versions::OWN,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            next_public_key,
        }
    };
    socket.send(&hello).await.map_err(lost)?;
    match socket.receive().await.map_err(lost)? {
        Welcome::Accepted { version } if (Versions::OWN.oldest..=Versions::OWN.newest).contains(&version) => {}
        Welcome::Accepted { version } => {
            return Err(End::Lost(format!("the control plane chose version {version} of the protocol")));
        }
        Welcome::Rejected { reason: Rejection::Unauthorized, message } => return Err(End::Unauthorized(message)),
        Welcome::Rejected { message, .. } => return Err(End::Lost(message)),
    }
    http2::server(socket).await.map_err(|error| End::Lost(error.to_string()))
}

/// Serves requests until the connection or the control stream ends. Calls that are still in progress are then dropped.
async fn serve(mut connection: Connection<LinkSocket, Bytes>, shared: &Arc<Shared>, runtime: &Runtime) -> End {
    let mut tasks = Tasks { set: JoinSet::new(), has_control: false };
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => tasks.start(request, respond, shared, runtime),
                Some(Err(error)) => return End::Lost(error.to_string()),
                None => return End::Lost("the control plane closed it".to_owned()),
            },
            Some(finished) = tasks.set.join_next() => match finished {
                Ok(Some(end)) => return end,
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "a request of the control plane panicked"),
            },
        }
    }
}

/// The requests in progress. They are aborted when this is dropped.
struct Tasks {
    set: JoinSet<Option<End>>,
    has_control: bool,
}

impl Tasks {
    fn start(
        &mut self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        shared: &Arc<Shared>,
        runtime: &Runtime,
    ) {
        if request.uri().path() != CONTROL {
            let requests = Arc::clone(&runtime.requests);
            self.set.spawn(async move {
                answer(request, respond, requests).await;
                None
            });
        } else if request.method() == Method::POST && !self.has_control {
            self.has_control = true;
            let (shared, heartbeat) = (Arc::clone(shared), Arc::clone(&runtime.heartbeat));
            self.set.spawn(async move { Some(control::run(request, respond, shared, heartbeat).await) });
        } else {
            let response = error_response(StatusCode::CONFLICT, "The control stream is already open.");
            let _ = respond.send_response(response.map(|_| ()), true);
        }
    }
}
