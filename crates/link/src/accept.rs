//! Accepting links.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use h2::client::{Connection, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use waypost_core::Random;
use waypost_core::id::ToolboxId;
use waypost_link_io::{Socket, SocketError, http2};
use waypost_toolbox_proto::handshake::{Challenge, HANDSHAKE_SECONDS, Hello, Rejection, Versions, Welcome};

use crate::Directory;
use crate::control;
use crate::links::Links;

/// Why no link was opened.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Too many handshakes are in progress.
    #[error("too many handshakes are in progress")]
    Busy,
    /// The handshake was not completed in time.
    #[error("the handshake was not complete in time")]
    Timeout,
    /// The connection failed, or the daemon sent something that is not a handshake.
    #[error("the handshake failed: {0}")]
    Socket(#[from] SocketError),
    /// The daemon was rejected.
    #[error("the link was rejected: {0:?}")]
    Rejected(Rejection),
}

impl AcceptError {
    fn label(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Socket(_) => "protocol",
            Self::Rejected(Rejection::Unauthorized) => "unauthorized",
            Self::Rejected(Rejection::IncompatibleVersion) => "incompatible_version",
            Self::Rejected(Rejection::Unavailable) => "unavailable",
        }
    }
}

impl Links {
    /// Performs the handshake on a connection that has been upgraded to a WebSocket, and then runs the link until it
    /// ends. Returns the ID of the toolbox.
    ///
    /// # Errors
    /// Returns an [`AcceptError`], which has been logged and counted, if no link was opened.
    pub async fn accept<S>(
        &self,
        stream: S,
        random: &dyn Random,
        directory: Arc<dyn Directory>,
    ) -> Result<ToolboxId, AcceptError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let handshake = self.limited_handshake(stream, random, &*directory).await;
        let (toolbox, client, connection) = handshake.inspect_err(|error| {
            metrics::counter!("waypost_toolbox_handshakes_rejected_total", "reason" => error.label()).increment(1);
            tracing::info!(%error, "no link to a toolbox was opened");
        })?;
        let registration = self.register(toolbox.clone(), client);
        tracing::info!(%toolbox, "link to toolbox opened");
        let use_link = async {
            match directory.claim(&toolbox).await {
                Ok(()) => control::run(&registration.link, &toolbox, &*directory).await,
                Err(error) => format!("it could not be recorded: {error}"),
            }
        };
        let reason = tokio::select! {
            () = registration.link.closed.cancelled() => "closed".to_owned(),
            end = use_link => end,
            result = connection => result.err().map_or_else(|| "the daemon closed it".to_owned(), |error| error.to_string()),
        };
        // Requests in progress must not wait for a connection that has ended.
        registration.link.closed.cancel();
        // If this fails, the lease expires by itself.
        if registration.remove()
            && let Err(error) = directory.release(&toolbox).await
        {
            tracing::warn!(%error, %toolbox, "failed to record the end of a link");
        }
        tracing::info!(%toolbox, reason, "link to toolbox ended");
        Ok(toolbox)
    }

    async fn limited_handshake<S>(
        &self,
        stream: S,
        random: &dyn Random,
        directory: &dyn Directory,
    ) -> Result<(ToolboxId, SendRequest<Bytes>, Connection<Socket<S>>), AcceptError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let _permit = self.handshakes().try_acquire().map_err(|_| AcceptError::Busy)?;
        let complete = async {
            let mut socket = Socket::server(stream).await;
            let toolbox = match handshake(&mut socket, random, directory).await {
                Err(AcceptError::Rejected(reason)) => {
                    socket.close().await;
                    return Err(AcceptError::Rejected(reason));
                }
                result => result?,
            };
            let connection = http2::client(socket).await;
            let (client, connection) = connection.map_err(|_| AcceptError::Socket(SocketError::Closed))?;
            Ok((toolbox, client, connection))
        };
        let limit = Duration::from_secs(HANDSHAKE_SECONDS);
        timeout(limit, complete).await.unwrap_or(Err(AcceptError::Timeout))
    }
}

async fn handshake<S>(
    socket: &mut Socket<S>,
    random: &dyn Random,
    directory: &dyn Directory,
) -> Result<ToolboxId, AcceptError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let mut nonce = [0; 32];
    random.fill(&mut nonce);
    let challenge = Challenge { nonce: BASE64URL_NOPAD.encode(&nonce), protocol: Versions::OWN };
    socket.send(&challenge).await?;
    let hello: Hello = socket.receive().await?;
    let version = match challenge.protocol.negotiate(hello.protocol) {
        Ok(version) => version,
        Err(message) => return reject(socket, Rejection::IncompatibleVersion, message).await,
    };
    match directory.authenticate(&challenge, &hello).await {
        Ok(toolbox) => {
            socket.send(&Welcome::Accepted { version }).await?;
            Ok(toolbox)
        }
        Err(reason) => reject(socket, reason, message(reason).to_owned()).await,
    }
}

async fn reject<S>(socket: &mut Socket<S>, reason: Rejection, message: String) -> Result<ToolboxId, AcceptError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    socket.send(&Welcome::Rejected { reason, message }).await?;
    Err(AcceptError::Rejected(reason))
}

fn message(reason: Rejection) -> &'static str {
    match reason {
        Rejection::Unauthorized => {
            "The toolbox is unknown or revoked, or its key or the address of the control plane is not the expected one."
        }
        Rejection::IncompatibleVersion => "The versions of the toolbox protocol are incompatible.",
        Rejection::Unavailable => "The control plane cannot accept links at the moment.",
    }
}
