//! The stream on which the gateway sends messages that belong to no request (2025-11-25, "Listening for Messages from
//! the Server").
//!
//! A session has one stream, which is reopened when it breaks. The gateway keeps the log level and the subscriptions of
//! a session in memory, and does not repeat notifications that it sent while there was no stream. Therefore both are
//! restored whenever a stream is opened, and after an interruption, the client is told that the lists may have changed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use waypost_mcp_wire::rewrite::Rewrite;
use waypost_mcp_wire::strict::Message;

use super::incoming::Incoming;
use super::session::Session;
use super::upload::Endpoint;

/// The minimum and maximum delay before a stream is reopened. The delay doubles with each attempt.
const DELAYS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// The result of an attempt to open a stream.
#[derive(Debug)]
pub(super) enum Opened {
    Stream(Box<Incoming>),
    /// The gateway does not know the session.
    SessionLost,
    /// Another attempt would not succeed either: the gateway does not support streams, or rejects the token.
    Rejected,
    Unavailable,
}

/// Keeps a stream of the current session open once the client has confirmed the handshake, and passes its messages on to `sender`.
pub(super) async fn keep_open(endpoint: Arc<Endpoint>, sender: mpsc::Sender<Vec<u8>>) {
    let mut sessions = endpoint.sessions().watch();
    while let Some(session) = confirmed(&mut sessions).await {
        tokio::select! {
            () = replaced(&mut sessions, session.number) => continue,
            () = follow(&endpoint, &session, &sender) => {}
        }
        replaced(&mut sessions, session.number).await;
    }
}

/// Waits until the client has confirmed the handshake of the current session. Returns `None` if no further session can
/// begin.
async fn confirmed(sessions: &mut watch::Receiver<Session>) -> Option<Session> {
    let session = sessions.wait_for(|current| current.is_initialized).await.ok()?;
    Some(Session::clone(&session))
}

/// Waits until a session is no longer the current one.
async fn replaced(sessions: &mut watch::Receiver<Session>, number: u64) {
    // Fails only if no further session can begin.
    let _ = sessions.wait_for(|current| current.number != number).await;
}

/// Keeps the stream of a session open until the gateway rejects it, or the session is replaced.
async fn follow(endpoint: &Endpoint, session: &Session, sender: &mpsc::Sender<Vec<u8>>) {
    // Nothing was announced to this client between the sessions.
    let (mut delay, mut has_gap) = (DELAYS.0, session.is_replacement);
    loop {
        let begun = Instant::now();
        match open(endpoint, session).await {
            Opened::Stream(incoming) => {
                let mut relayed = pin!(relay(*incoming, sender));
                // Messages that arrive in the meantime are not delayed.
                tokio::select! {
                    () = &mut relayed => {}
                    () = renew(endpoint, session, sender, has_gap) => relayed.await,
                }
            }
            Opened::SessionLost => match endpoint.replace_session(session).await {
                Err(failed) if failed.is_temporary => {}
                _ => return,
            },
            Opened::Rejected => {
                if has_gap {
                    endpoint.announce_lists(sender).await;
                }
                return;
            }
            Opened::Unavailable => {}
        }
        has_gap = true;
        if begun.elapsed() > DELAYS.1 {
            delay = DELAYS.0;
        }
        sleep(delay).await;
        delay = (delay * 2).min(DELAYS.1);
    }
}

/// Restores the state that the gateway may have lost. If `has_gap` is set, the client may have missed notifications, so
/// it is first told that the lists may have changed.
async fn renew(endpoint: &Endpoint, session: &Session, sender: &mpsc::Sender<Vec<u8>>, has_gap: bool) {
    if has_gap {
        endpoint.announce_lists(sender).await;
    }
    // If one of these requests fails, the gateway cannot be reached, and the stream will break as well.
    if endpoint.set_log_level(session).await.is_ok() {
        let _ = endpoint.subscribe_again(session).await;
    }
}

/// Opens the stream of a session.
pub(super) async fn open(endpoint: &Endpoint, session: &Session) -> Opened {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    session.add_headers(&mut headers);
    let Ok(response) = endpoint.open(Method::GET, headers, Vec::new()).await else { return Opened::Unavailable };
    match response.status {
        status if status.is_success() => match Incoming::new(response).filter(Incoming::is_stream) {
            Some(incoming) => Opened::Stream(Box::new(incoming)),
            None => Opened::Rejected,
        },
        StatusCode::NOT_FOUND if session.id.is_some() => Opened::SessionLost,
        // The gateway returns 403 while it is switched off for the organisation. It can be switched on again.
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::FORBIDDEN => Opened::Unavailable,
        status if status.is_server_error() => Opened::Unavailable,
        _ => Opened::Rejected,
    }
}

/// Forwards notifications and requests, each on one line, until the stream ends. Responses are discarded, because no
/// request was sent on this stream.
async fn relay(mut incoming: Incoming, sender: &mpsc::Sender<Vec<u8>>) {
    while let Ok(Some(text)) = incoming.next().await {
        let Ok(message) = Message::read(&text) else { continue };
        if message.method.is_some() {
            // Fails only if the output is closed.
            let _ = sender.send(Rewrite::new(&message).finish()).await;
        }
    }
}
