//! Sessions with the MCP servers in containers.
//!
//! A [`Session`] relays JSON-RPC messages unchanged, except for IDs ([`Session::call`]). Rules:
//!
//! 1. Every call ends with exactly one outcome: its response or a failure. Responses are matched by ID; late, repeated
//!    and unknown ones are counted and dropped.
//! 2. No request ID is used twice on a container, even if the daemon is killed, and `initialize` is not repeated on a
//!    running container: used IDs and sessions are stored on disk in advance.
//! 3. A call receives only its own messages: progress notifications carry its token, and notifications of
//!    `subscriptions/listen` its ID. All calls are notified that a list has changed, without the parameters of the
//!    server. A log message of a stdio or SSE server does not say to which call it belongs, and is written to the log.
//!    Outside of calls, notification streams ([`notifications`]) report that a list or a resource has changed. A
//!    request from a server is passed on only to the caller of the call that caused it, and to no caller if this is
//!    unknown.
//! 4. Calls, messages, lines and the memory for all of them are limited. A server that writes too much is read more
//!    slowly. A server that does not read makes only its own callers wait.
//! 5. Every request from a server is answered by its caller ([`caller`]) or by the daemon, with a result for `ping` and
//!    an error for all others.

mod announcements;
mod attribution;
mod caller;
pub mod connect;
mod handshake;
mod http;
mod interface;
mod lines;
mod mux;
mod notifications;
mod params;
mod session;
mod sse;
mod state;
mod stdio;
mod streamable;
#[cfg(test)]
mod tests;
mod wire;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use waypost_mcp_wire::client_capabilities::ClientCapabilities;
use waypost_toolbox_proto::Transport as TransportKind;
use waypost_toolbox_proto::http::LogStream;

use self::announcements::Announcements;
use self::attribution::AbandonedCalls;
use self::caller::WaitingRequests;
use self::connect::{Connector, NamespaceConnector};
use self::handshake::{First, negotiate};
use self::http::HttpClient;
use self::interface::Failure;
use self::lines::Budget;
pub use self::mux::Counters;
use self::mux::Mux;
use self::session::{Link, Transport, announce, describe};
pub use self::session::{MAX_CALLS, PROBE_TIMEOUT, Session};
use self::sse::Sse;
use self::state::{SessionFile, blocking, session_path};
use self::stdio::Stdio;
use self::streamable::Streamable;
use self::wire::Negotiated;
use crate::clock::WallClock;
use crate::files;
use crate::supervisor::servers::{CallFailure, ConnectContext, ConnectError, Target};

/// The memory for messages of all servers.
const MESSAGE_MEMORY: usize = 256 * 1024 * 1024;
/// The memory for messages of one connection: enough for a few of the largest.
const CONNECTION_MEMORY: usize = 64 * 1024 * 1024;
/// The first and the longest delay between attempts to reach a server that is starting.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The time after which a server that writes only text that is not JSON-RPC counts as one that does not speak MCP.
const NOISE_PATIENCE: Duration = Duration::from_secs(20);
/// The timeout of the first request on a session that is continued.
const RESUME_TIMEOUT: Duration = Duration::from_secs(5);
/// The name of the file that exists if `initialize` must be sent first to servers of the instance.
const INITIALIZE_FIRST: &str = "initialize-first";

/// Connects to the servers of this machine.
#[derive(Clone)]
pub struct Bridge {
    clock: WallClock,
    connector: Arc<dyn Connector>,
    budget: Budget,
    /// The requests from all servers to callers.
    requests: WaitingRequests,
}

impl Bridge {
    /// Creates a bridge that reaches HTTP servers in their network namespaces.
    #[must_use]
    pub fn new(clock: WallClock) -> Self {
        Self::with_connector(clock, Arc::new(NamespaceConnector))
    }

    /// Creates a bridge that reaches HTTP servers with `connector`.
    #[must_use]
    pub fn with_connector(clock: WallClock, connector: Arc<dyn Connector>) -> Self {
        Self { clock, connector, budget: Budget::new(MESSAGE_MEMORY), requests: WaitingRequests::default() }
    }

    /// Connects to a server: continues the saved session of the container, or completes the handshake and saves the
    /// session. Waits until the server accepts connections and answers. The caller must apply a timeout.
    ///
    /// # Errors
    /// Returns a [`ConnectError`], whose text contains no secrets.
    pub async fn connect(&self, target: Target, context: ConnectContext) -> Result<Arc<Session>, ConnectError> {
        let masks = context.masks.clone();
        self.open(target, context).await.map_err(|error| match error {
            ConnectError::NotMcp(cause) => ConnectError::NotMcp(describe(&masks, &cause)),
            ConnectError::Closed(cause) => ConnectError::Closed(describe(&masks, &cause)),
            ConnectError::Restart(cause) => ConnectError::Restart(describe(&masks, &cause)),
        })
    }

    /// Sends the response of a caller to the server of an instance that waits for it. The ID of the response must be
    /// the ID of the request in the messages of the call.
    ///
    /// # Errors
    /// Returns a [`CallFailure`], with status 404 if the request is no longer waiting.
    pub async fn respond(&self, instance_id: &str, response: &[u8]) -> Result<(), CallFailure> {
        self.requests.respond(instance_id, response).await
    }

    /// Removes the saved session of a container that no longer exists.
    ///
    /// # Errors
    /// Returns any error of the file system.
    pub fn forget(folder: &Path, container_id: &str) -> std::io::Result<()> {
        match std::fs::remove_file(session_path(folder, container_id)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn open(&self, target: Target, context: ConnectContext) -> Result<Arc<Session>, ConnectError> {
        let path = session_path(&context.folder, &context.container_id);
        let (file, saved) = SessionFile::open(path, (self.clock)()).await?;
        let counters: Arc<Counters> = Arc::default();
        let budget = self.budget.connection(CONNECTION_MEMORY);
        let announcements = Announcements::new();
        let transport = self.transport(target, (&context, saved.is_some()), &counters, (&budget, &announcements))?;
        let (instance_id, requests) = (context.instance_id.as_str().into(), self.requests.clone());
        let declared = declared_capabilities(&transport, context.is_shared);
        let link = Arc::new(Link { transport, file, budget, instance_id, declared, requests, announcements });
        let negotiated = match (&link.transport, saved) {
            // The session of an SSE server ends with its stream.
            (Transport::Sse(_), _) | (_, None) => self.handshake(&link, &context, &counters).await?,
            (_, Some(saved)) => {
                let session = Session::new(link, saved.clone(), counters, context);
                return resume(session, saved).await;
            }
        };
        let negotiated = announce(&link, negotiated).await?;
        Ok(Arc::new(Session::new(link, negotiated, counters, context)))
    }

    fn transport(
        &self,
        target: Target,
        (context, is_continued): (&ConnectContext, bool),
        counters: &Arc<Counters>,
        (budget, announcements): (&Budget, &Arc<Announcements>),
    ) -> Result<Transport, Failure> {
        let (budget, counters, log) = (budget.clone(), counters.clone(), context.log.clone());
        let announcements = announcements.clone();
        Ok(match target {
            Target::Stdio(attached) => {
                let abandoned = AbandonedCalls::new(context.is_shared, is_continued);
                Transport::Stdio(Stdio::start(attached, Mux::new(budget, counters, log, (abandoned, announcements))))
            }
            Target::Http { namespace, port, path, transport } => {
                let client = HttpClient::new(self.connector.clone(), namespace, port)?;
                if transport == TransportKind::Sse {
                    let (is_shared, stream) = (context.is_shared, Mutex::default());
                    Transport::Sse(Sse { client, path, budget, counters, log, is_shared, announcements, stream })
                } else {
                    Transport::Streamable(Streamable { client, path, budget, counters, announcements })
                }
            }
        })
    }

    async fn handshake(
        &self,
        link: &Link,
        context: &ConnectContext,
        counters: &Counters,
    ) -> Result<Negotiated, ConnectError> {
        match &link.transport {
            Transport::Stdio(_) => stdio_handshake(link, context, counters).await,
            transport => {
                let mut delay = RETRY_DELAYS.0;
                loop {
                    let attempt = match transport {
                        Transport::Sse(sse) => match sse.connect().await {
                            Ok(()) => negotiate(link, First::OnlyInitialize).await,
                            Err(failure) => Err(failure),
                        },
                        _ => negotiate(link, First::Discover).await,
                    };
                    match attempt {
                        // The server is starting.
                        Err(
                            Failure::Refused(_) | Failure::Closed(_) | Failure::Status(500..) | Failure::SessionLost,
                        ) => {
                            tokio::time::sleep(delay).await;
                            delay = (delay * 2).min(RETRY_DELAYS.1);
                        }
                        result => return Ok(result?),
                    }
                }
            }
        }
    }
}

/// Returns the client capabilities that are declared to a server. One session serves callers with different
/// capabilities, so all of them are declared; a request that its caller has not declared is rejected.
///
/// Servers ask for roots after the handshake, outside of calls, and keep them for the whole session. On a connection
/// that different callers share, they could get the roots of a caller that happens to be calling at that time, and
/// would use them for all others.
fn declared_capabilities(transport: &Transport, is_shared: bool) -> ClientCapabilities {
    let all = ClientCapabilities::all();
    let has_stream_per_call = matches!(transport, Transport::Streamable(_));
    if is_shared && !has_stream_per_call { all.without_roots() } else { all }
}

/// Negotiates with a stdio server.
async fn stdio_handshake(
    link: &Link,
    context: &ConnectContext,
    counters: &Counters,
) -> Result<Negotiated, ConnectError> {
    let hint = context.folder.join(INITIALIZE_FIRST);
    let known = hint.clone();
    let is_known = blocking(move || Ok(known.exists())).await?;
    let first = if is_known { First::Initialize } else { First::Discover };
    let noise = async {
        loop {
            tokio::time::sleep(NOISE_PATIENCE).await;
            if counters.noise_lines.load(Ordering::Relaxed) > 0 {
                return;
            }
        }
    };
    let result = tokio::select! {
        result = negotiate(link, first) => result,
        () = noise => Err(Failure::NotMcp("it writes text that is not JSON-RPC, and does not answer".to_owned())),
    };
    match result {
        // Servers of some older libraries exit if the first request is not `initialize`.
        Err(Failure::Closed(cause)) if first == First::Discover => {
            blocking(move || files::replace(&hint, b"")).await?;
            Err(ConnectError::Restart(format!("{cause} when it was asked for its revisions with `server/discover`")))
        }
        result => Ok(result?),
    }
}

/// Continues a saved session.
async fn resume(session: Session, saved: Negotiated) -> Result<Arc<Session>, ConnectError> {
    if let Err(failure) = session.announce_again(saved).await {
        return Err(failure.into());
    }
    // A daemon that was killed while it wrote a large message has left an incomplete line: the server cannot read what
    // is written next, so this must not be a call. Later probes check whether the server answers.
    if session.is_stdio() && tokio::time::timeout(RESUME_TIMEOUT, session.probe()).await.is_err() {
        session.log(LogStream::Toolbox, "the server does not answer after the daemon was restarted");
    }
    Ok(Arc::new(session))
}

impl From<Failure> for ConnectError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotMcp(cause) => Self::NotMcp(format!("The server does not speak MCP: {cause}.")),
            Failure::Status(status) => Self::NotMcp(format!(
                "The server does not speak MCP at this path: it answered with HTTP status {status}."
            )),
            Failure::Closed(cause) => Self::Closed(cause),
            failure => Self::Closed(CallFailure::from(failure).message),
        }
    }
}
