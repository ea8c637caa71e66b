//! The stream on which a remote server announces changes: the GET stream of revisions with a handshake ("Listening for
//! Messages from the Server"), the messages that belong to no request on HTTP+SSE, and `subscriptions/listen` of
//! 2026-07-28 ("Subscriptions").

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde_json::{Value, json};
use waypost_core::instance::Instance;
use waypost_core::{Error, Result};
use waypost_mcp_wire::client_capabilities::ClientCapabilities;
use waypost_mcp_wire::strict::{MessageKind, OwnedMessage};
use waypost_upstream::{CallRequest, Connection, Error as UpstreamError, Exchange};

use super::server_stream::{Opened, not_supported, rejected};
use crate::Ops;
use crate::remote_servers::{is_lost, is_unauthorized, to_error};

/// The time in which a server must open the stream, or answer a request to subscribe.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The connection to which a stream belongs.
pub(super) struct RemoteSource {
    connection: Connection,
    /// The number of times that the session had been replaced when the stream was opened.
    renewals: u64,
}

/// Whether a remote server announces changes of single resources; `None` if this process has no connection to it.
pub(super) fn can_subscribe(ops: &Ops, instance: &Instance) -> Option<bool> {
    ops.remote_servers.find_open(&instance.id).map(|connection| has_subscriptions(&connection))
}

/// Opens the stream of a remote server, and connects to it first if there is no connection. The stream of a server of
/// 2026-07-28 includes subscriptions to these resources. Returns `None` if the server has no such stream.
///
/// # Errors
/// Those of [`to_error`].
pub(super) async fn open(
    ops: &Ops,
    instance: &Instance,
    uris: &BTreeSet<String>,
) -> Result<Option<(RemoteSource, Opened)>> {
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
                ops.remote_servers.forget(&instance.id, none, &connection);
            }
            return Err(to_error(&error));
        }
    };
    let refused = accepted.map(|accepted| {
        let refused = uris.difference(&accepted);
        refused.map(|uri| (uri.clone(), not_supported())).collect()
    });
    let can_subscribe = has_subscriptions(&connection);
    let renewals = connection.renewals();
    Ok(Some((RemoteSource { connection, renewals }, Opened { messages, refused, can_subscribe })))
}

impl RemoteSource {
    /// Whether the server has a handshake, so that subscriptions are changed one by one instead of with a new stream.
    pub(super) fn has_handshake(&self) -> bool {
        !self.connection.is_modern()
    }

    /// Whether calls still use the connection and the session of this stream.
    pub(super) fn is_current(&self, ops: &Ops, instance: &Instance) -> bool {
        let open = ops.remote_servers.find_open(&instance.id);
        open.is_none_or(|open| open.is_same(&self.connection)) && self.connection.renewals() == self.renewals
    }

    /// Subscribes to a resource. Returns the error of the server as `Some` if it does not announce changes of the
    /// resource.
    ///
    /// # Errors
    /// Those of [`to_error`] if the connection is lost.
    pub(super) async fn subscribe(&self, uri: &str) -> Result<Option<Error>> {
        if !has_subscriptions(&self.connection) {
            return Ok(Some(not_supported()));
        }
        match send(&self.connection, "resources/subscribe", uri).await {
            Ok(answer) => Ok(answer.err()),
            Err(error) => {
                let refusal = to_error(&error);
                end_if_lost(error)?;
                Ok(Some(refusal))
            }
        }
    }

    /// Ends a subscription. Ignores errors of the server, which may have forgotten the subscription, or not know the
    /// method.
    ///
    /// # Errors
    /// Those of [`to_error`] if the connection is lost.
    pub(super) async fn unsubscribe(&self, uri: &str) -> Result<()> {
        let result = send(&self.connection, "resources/unsubscribe", uri).await;
        result.map(drop).or_else(end_if_lost)
    }
}

/// Fails if the connection is lost. Any other failure affects only one resource.
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
type Listening = (BoxStream<'static, OwnedMessage>, Option<BTreeSet<String>>);

type UpstreamResult<T> = std::result::Result<T, UpstreamError>;

async fn listen(connection: &Connection, uris: &BTreeSet<String>) -> UpstreamResult<Option<Listening>> {
    let mut filter = json!({ "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true });
    // A server of 2026-07-28 says in its answer which subscriptions it accepts.
    if !uris.is_empty() {
        filter["resourceSubscriptions"] = json!(uris);
    }
    let opened = tokio::time::timeout(TIMEOUT, listen_with(connection, &filter.to_string())).await;
    match opened.unwrap_or(Err(UpstreamError::Timeout)) {
        Err(error) if has_no_stream(&error) => Ok(None),
        opened => opened,
    }
}

async fn listen_with(connection: &Connection, filter: &str) -> UpstreamResult<Option<Listening>> {
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

/// Reads the acknowledgement of a stream of 2026-07-28. Returns the resources whose changes the server announces;
/// `None` if it ends the stream without an acknowledgement.
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

/// Sends a request about a resource. The inner error is the one with which the server has answered.
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
