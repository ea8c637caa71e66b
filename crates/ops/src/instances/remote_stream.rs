//! The stream on which a remote server announces changes: GET of the revisions with a handshake ("Listening for Messages from
//! the Server"), what belongs to no request on HTTP+SSE, and `subscriptions/listen` of 2026-07-28 ("Subscriptions").

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};
use waypost_core::id::{InstanceId, OrganizationId};
use waypost_core::instance::{Backend, DesiredRun, Instance};
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::client_capabilities::ClientCapabilities;
use waypost_mcp_wire::strict::{MessageKind, OwnedMessage};
use waypost_store::instance as store;
use waypost_upstream::{CallRequest, Connection, Error as UpstreamError, Exchange};

use crate::Ops;
use crate::deployments::notify::clean;
use crate::remote_servers::{is_lost, is_unauthorized, to_error};

/// The time in which a server must open the stream, or answer to a subscription.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum number of messages of a stream that is replaced which are kept for the next one.
const MAX_KEPT: usize = 1_000;

/// An open stream. Dropping it closes it.
pub struct RemoteStream {
    connection: Connection,
    /// How often the session had been replaced when the stream was opened.
    renewals: u64,
    messages: BoxStream<'static, OwnedMessage>,
    /// The resources that the server was asked about.
    requested: BTreeSet<String>,
    /// Those of them whose changes the server does not announce.
    refused: BTreeMap<String, Error>,
}

impl fmt::Debug for RemoteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteStream").field("requested", &self.requested.len()).finish_non_exhaustive()
    }
}

/// Returns an instance with a remote server that should run; `None` if there is none with this ID.
///
/// # Errors
/// Any error of the store.
pub async fn find_running(ops: &Ops, organization: &OrganizationId, id: &InstanceId) -> Result<Option<Instance>> {
    let found = store::find(&mut ops.store.read().await?, organization, id).await?;
    Ok(found.filter(|instance| instance.desired == DesiredRun::Running))
}

/// Whether the server of an instance can have a stream: a remote one, unless each agent has its own connection to it, because
/// what one account is told reaches no other agent.
#[must_use]
pub fn can_have_stream(instance: &Instance) -> bool {
    matches!(instance.backend, Backend::Remote(_)) && !instance.is_connected_per_agent()
}

/// Whether a server announces changes of single resources; `None` if this process has no connection to it.
#[must_use]
pub fn can_subscribe(ops: &Ops, instance: &Instance) -> Option<bool> {
    match can_have_stream(instance) {
        true => ops.remote_servers.find_open(&instance.id).map(|connection| has_subscriptions(&connection)),
        false => Some(false),
    }
}

impl RemoteStream {
    /// Opens the stream of the server of an instance, with subscriptions of these resources, and connects to it first if there
    /// is no connection. Returns `None` if the server has no such stream.
    ///
    /// # Errors
    /// Those of [`to_error`].
    pub async fn open(ops: &Ops, instance: &Instance, uris: &BTreeSet<String>) -> Result<Option<Self>> {
        if !can_have_stream(instance) {
            return Ok(None);
        }
        let none = (None, ClientCapabilities::default());
        let mut connection = ops.remote_servers.connect(ops, instance, none).await?;
        let mut opened = listen(&connection, uris).await;
        if opened.as_ref().is_err_and(is_unauthorized)
            && let Some(renewed) = Box::pin(ops.remote_servers.reconnect(ops, instance, none, &connection)).await?
        {
            opened = listen(&renewed, uris).await;
            connection = renewed;
        }
        let (messages, accepted) = match opened {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(None),
            Err(error) => {
                if is_lost(&error) {
                    ops.remote_servers.forget(&instance.id, none);
                }
                return Err(to_error(&error));
            }
        };
        let renewals = connection.renewals();
        let mut stream = Self { connection, renewals, messages, requested: BTreeSet::new(), refused: BTreeMap::new() };
        match accepted {
            Some(accepted) => {
                let refused = uris.difference(&accepted).map(|uri| (uri.clone(), not_supported()));
                stream.refused = refused.collect();
                stream.requested.clone_from(uris);
            }
            None => Box::pin(stream.change_legacy(uris)).await?,
        }
        Ok(Some(stream))
    }

    /// Returns the next message of the server; `None` at the end of the stream. Can be cancelled without losing a message.
    pub async fn next(&mut self) -> Option<OwnedMessage> {
        self.messages.next().await
    }

    /// Whether calls still use the connection and the session of this stream.
    #[must_use]
    pub fn is_current(&self, ops: &Ops, instance: &Instance) -> bool {
        let open = ops.remote_servers.find_open(&instance.id);
        open.is_none_or(|open| open.is_same(&self.connection)) && self.connection.renewals() == self.renewals
    }

    /// Subscribes to exactly these resources. A stream of 2026-07-28 is replaced by a new one, which is opened before the old
    /// one is closed. If the server accepts no stream with additional resources, these are refused, and the old one stays: one
    /// resource must not end what is announced of the others.
    ///
    /// # Errors
    /// Those of [`Self::open`] if the connection is lost. The stream cannot be used then.
    pub async fn subscribe(&mut self, ops: &Ops, instance: &Instance, uris: &BTreeSet<String>) -> Result<()> {
        if *uris == self.requested {
            return Ok(());
        }
        if !self.connection.is_modern() {
            return self.change_legacy(uris).await;
        }
        let refusal = match Self::open(ops, instance, uris).await {
            Ok(Some(stream)) => {
                self.replace(stream);
                return Ok(());
            }
            Ok(None) => not_supported(),
            Err(error) => error,
        };
        let added = uris.difference(&self.requested);
        self.refused.extend(added.map(|uri| (uri.clone(), refusal.without_cause())));
        self.requested.clone_from(uris);
        Ok(())
    }

    /// Continues with a new stream, after what the old one has received already.
    fn replace(&mut self, stream: Self) {
        let mut kept = Vec::new();
        while kept.len() < MAX_KEPT
            && let Some(Some(message)) = self.messages.next().now_or_never()
        {
            kept.push(message);
        }
        let messages = stream::iter(kept).chain(stream.messages).boxed();
        *self = Self { messages, ..stream };
    }

    /// Returns the error for a resource whose changes the server does not announce.
    #[must_use]
    pub fn refusal(&self, uri: &str) -> Option<Error> {
        self.refused.get(uri).map(Error::without_cause)
    }

    /// Subscribes and unsubscribes one by one ("Resources", "Subscriptions").
    async fn change_legacy(&mut self, uris: &BTreeSet<String>) -> Result<()> {
        let can_subscribe = has_subscriptions(&self.connection);
        for uri in self.requested.difference(uris) {
            if self.refused.remove(uri).is_none() {
                // The server may have forgotten it, or not know the method.
                let result = send(&self.connection, "resources/unsubscribe", uri).await;
                result.map(drop).or_else(end_if_lost)?;
            }
        }
        for uri in uris.difference(&self.requested) {
            let refusal = match can_subscribe {
                true => match send(&self.connection, "resources/subscribe", uri).await {
                    Ok(answer) => answer.err(),
                    Err(error) => {
                        let refusal = to_error(&error);
                        end_if_lost(error)?;
                        Some(refusal)
                    }
                },
                false => Some(not_supported()),
            };
            self.refused.extend(refusal.map(|refusal| (uri.clone(), refusal)));
        }
        self.requested.clone_from(uris);
        Ok(())
    }
}

/// Fails if the connection is lost. Any other failure concerns one resource.
fn end_if_lost(error: UpstreamError) -> Result<()> {
    match is_lost(&error) || is_unauthorized(&error) {
        true => Err(to_error(&error)),
        false => Ok(()),
    }
}

/// Whether the server declares that it announces changes of single resources.
fn has_subscriptions(connection: &Connection) -> bool {
    let capabilities = connection.server().capabilities;
    let capabilities: Option<Value> = capabilities.and_then(|text| serde_json::from_str(&text).ok());
    capabilities.is_some_and(|capabilities| capabilities["resources"]["subscribe"] == true)
}

/// The messages of a stream, and for 2026-07-28 the resources whose changes the server announces.
type Opened = (BoxStream<'static, OwnedMessage>, Option<BTreeSet<String>>);

type UpstreamResult<T> = std::result::Result<T, UpstreamError>;

async fn listen(connection: &Connection, uris: &BTreeSet<String>) -> UpstreamResult<Option<Opened>> {
    let mut filter = json!({ "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true });
    // A server of 2026-07-28 says in its answer which ones it accepts.
    if !uris.is_empty() {
        filter["resourceSubscriptions"] = json!(uris);
    }
    let opened = tokio::time::timeout(TIMEOUT, listen_with(connection, &filter.to_string())).await;
    match opened.unwrap_or(Err(UpstreamError::Timeout)) {
        Err(error) if has_no_stream(&error) => Ok(None),
        opened => opened,
    }
}

async fn listen_with(connection: &Connection, filter: &str) -> UpstreamResult<Option<Opened>> {
    let Some(mut exchange) = connection.listen(filter).await? else { return Ok(None) };
    if !connection.is_modern() {
        return Ok(Some((into_messages(exchange), None)));
    }
    let accepted = read_acknowledgement(&mut exchange).await?;
    Ok(accepted.map(|accepted| (into_messages(exchange), Some(accepted))))
}

/// Whether an error means that the server has no stream, as opposed to a failure that may pass.
fn has_no_stream(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::Status { status, .. } => {
            status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 409 | 429)
        }
        UpstreamError::Rpc(_) | UpstreamError::ContentType { .. } => true,
        _ => false,
    }
}

/// Reads the first message of a stream of 2026-07-28, which says what the server announces. `None` if it announces nothing.
async fn read_acknowledgement(exchange: &mut Exchange) -> UpstreamResult<Option<BTreeSet<String>>> {
    while let Some(received) = exchange.next().await? {
        let message = received.message();
        match message.kind {
            MessageKind::Result | MessageKind::Error => return Ok(None),
            MessageKind::Notification
                if message.method.as_deref() == Some("notifications/subscriptions/acknowledged") =>
            {
                let filter: Option<Value> = message.params.notifications.and_then(|raw| serde_json::from_str(raw).ok());
                let accepted = filter.and_then(|filter| filter.get("resourceSubscriptions").cloned());
                return Ok(Some(accepted.and_then(|uris| serde_json::from_value(uris).ok()).unwrap_or_default()));
            }
            MessageKind::Notification | MessageKind::Request => {}
        }
    }
    Ok(None)
}

fn into_messages(exchange: Exchange) -> BoxStream<'static, OwnedMessage> {
    let messages = stream::unfold(exchange, |mut exchange| async {
        let message = exchange.next().await.ok().flatten()?;
        let is_last = matches!(message.message().kind, MessageKind::Result | MessageKind::Error);
        (!is_last).then_some((message, exchange))
    });
    messages.boxed()
}

/// Sends a request about a resource. The inner error is that with which the server has answered.
async fn send(connection: &Connection, method: &str, uri: &str) -> UpstreamResult<Result<()>> {
    let params = json!({ "uri": uri }).to_string();
    let call = CallRequest { method, params: Some(&params), timeout: Some(TIMEOUT), ..CallRequest::default() };
    let mut exchange = connection.call(call).await?;
    while let Some(received) = exchange.next().await? {
        let message = received.message();
        match (&message.error, message.kind) {
            (Some(error), _) => return Ok(Err(rejected(&error.message))),
            (None, MessageKind::Result) => return Ok(Ok(())),
            (None, _) => {}
        }
    }
    Err(UpstreamError::InvalidResponse("the stream ended before the response".into()))
}

fn rejected(message: &str) -> Error {
    let message = format!("The server rejected the subscription: {}", clean(message));
    Error::new(Code::ToolServerError, message).with("reason", "server_error")
}

fn not_supported() -> Error {
    Error::new(Code::Conflict, "The server does not announce changes of this resource.").with("reason", "not_supported")
}
