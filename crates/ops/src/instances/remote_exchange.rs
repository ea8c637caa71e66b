//! Exchanges with remote servers.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use waypost_core::id::{AgentId, InstanceId};
use waypost_core::instance::{Backend, Instance};
use waypost_core::{Error, Result};
use waypost_mcp_wire::METHOD_NOT_FOUND;
use waypost_mcp_wire::client_capabilities::ClientCapabilities;
use waypost_mcp_wire::param_headers::ParamHeader;
use waypost_mcp_wire::strict::{Message, OwnedMessage};
use waypost_toolbox_proto::entry::Transport;
use waypost_upstream::{CallRequest, Connection, Exchange};

use super::call::too_large;
use super::exchange::{ExchangeTarget, INPUT_TIME, TOO_LARGE, read_message};
use crate::Ops;
use crate::remote_servers::{Session, is_lost, is_unauthorized, to_error};
use crate::remote_tokens::{find_required_scope, owner};

/// The messages of the response to one message. Dropping it cancels the call.
pub(super) struct RemoteExchange {
    ops: Ops,
    instance: InstanceId,
    /// The agent whose connection is used, if each has its own.
    agent: Option<AgentId>,
    /// The client capabilities that are declared to the server.
    capabilities: ClientCapabilities,
    connection: Connection,
    source: Source,
    /// The ID of the request as the caller wrote it.
    raw_id: String,
    /// The maximum size of a message in bytes.
    limit: usize,
}

enum Source {
    /// A response that is known without a request; `None` once it has been returned.
    Known(Option<Bytes>),
    Open(Exchange),
}

impl fmt::Debug for RemoteExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteExchange").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl RemoteExchange {
    /// Sends a message to a remote server, and connects to it first if there is no connection.
    ///
    /// # Errors
    /// Those of [`to_error`].
    pub(super) async fn open(
        ops: &Ops,
        target: ExchangeTarget<'_>,
        message: &[u8],
        (timeout, limit): (Duration, usize),
    ) -> Result<Self> {
        let instance = target.instance;
        let agent = owner(instance, target.agent)?;
        let message = Message::read(message).map_err(|error| Error::internal(error.message))?;
        let raw_id = message.raw_id.unwrap_or("null").to_owned();
        let (mut connection, capabilities) = connect(ops, target).await?;
        // The time in which the caller is asked for input is not counted as time of the server.
        let timeout = if capabilities.is_empty() { timeout } else { timeout + INPUT_TIME };
        let method = message.method.as_deref().unwrap_or_default();
        let source = if method == "initialize" {
            Source::Known(Some(describe(&connection, &raw_id)))
        } else {
            let call = |connection: &Connection| {
                let headers = match target.definition {
                    Some(definition) if connection.is_modern() && method == "tools/call" => {
                        argument_headers(definition, message.params.arguments)
                    }
                    _ => HeaderMap::new(),
                };
                let forwarded = target.headers.cloned().unwrap_or_default();
                CallRequest { method, params: message.params.raw, headers, forwarded, timeout: Some(timeout) }
            };
            Source::Open(send(ops, instance, (agent, capabilities), (&mut connection, call)).await?)
        };
        Ok(Self {
            ops: ops.clone(),
            instance: instance.id.clone(),
            agent: agent.cloned(),
            capabilities,
            connection,
            source,
            raw_id,
            limit,
        })
    }

    /// Returns the connection on which requests of the server are answered. `None` if the server may not send any.
    pub(super) fn responder(&self) -> Option<Connection> {
        (!self.capabilities.is_empty()).then(|| self.connection.clone())
    }

    /// Returns the request ID to which the messages of the server refer, as JSON text.
    pub(super) fn call_id(&self) -> String {
        match &self.source {
            Source::Open(exchange) => exchange.id().map(|id| id.to_string()),
            Source::Known(_) => None,
        }
        .unwrap_or_else(|| self.raw_id.clone())
    }

    /// Returns the next message; `None` after the last one.
    ///
    /// # Errors
    /// Those of [`to_error`].
    pub(super) async fn next(&mut self) -> Result<Option<OwnedMessage>> {
        let exchange = match &mut self.source {
            Source::Known(response) => return response.take().map(read_message).transpose(),
            Source::Open(exchange) => exchange,
        };
        let incoming = match exchange.next().await {
            Ok(incoming) => incoming,
            Err(error) => {
                if is_lost(&error) {
                    let session = (self.agent.as_ref(), self.capabilities);
                    self.ops.remote_servers.forget(&self.instance, session, &self.connection);
                }
                return Err(to_error(&error));
            }
        };
        if incoming.as_ref().is_some_and(|message| message.text().len() > self.limit) {
            return Err(too_large(TOO_LARGE));
        }
        Ok(incoming)
    }
}

/// Sends a request. If the server rejects the token, or the token lacks a scope, the server has not processed the
/// request: it is sent once more if there is another token. `connection` is then replaced by the new one.
async fn send<'c, F: Fn(&Connection) -> CallRequest<'c>>(
    ops: &Ops,
    instance: &Instance,
    session: Session<'_>,
    (connection, call): (&mut Connection, F),
) -> Result<Exchange> {
    let servers = &ops.remote_servers;
    let used: &Connection = connection;
    let mut opened = used.call(call(used)).await;
    let is_rejected = opened.as_ref().is_err_and(is_unauthorized);
    let lacks_scope = opened.as_ref().is_err_and(|error| find_required_scope(error).is_some());
    let renewed = match (is_rejected, lacks_scope) {
        (true, _) => Box::pin(servers.reconnect(ops, instance, session, connection)).await?,
        (false, true) => Box::pin(servers.find_newer(ops, instance, session, connection)).await?,
        (false, false) => None,
    };
    if let Some(renewed) = renewed {
        opened = Box::pin(renewed.call(call(&renewed))).await;
        *connection = renewed;
    }
    let error = match opened {
        Ok(exchange) => return Ok(exchange),
        Err(error) => error,
    };
    if is_lost(&error) {
        servers.forget(&instance.id, session, connection);
    }
    match find_required_scope(&error) {
        Some(required) => Err(Box::pin(servers.require_scope(ops, instance, session, (connection, &required))).await),
        None => Err(to_error(&error)),
    }
}

/// Returns the connection for a call, and the client capabilities that are declared on it. Only a server with a
/// handshake needs a separate connection for each set of capabilities, because they are declared once per connection.
/// On HTTP+SSE, none are declared, because a request of the server on its single stream cannot be attributed to a call.
async fn connect(ops: &Ops, target: ExchangeTarget<'_>) -> Result<(Connection, ClientCapabilities)> {
    let ExchangeTarget { instance, agent, capabilities, .. } = target;
    let none = ClientCapabilities::default();
    let mut found = (ops.remote_servers.connect(ops, instance, (agent, none)).await?, none);
    let has_stream_per_call =
        matches!(&instance.backend, Backend::Remote(server) if server.transport != Transport::Sse);
    if !found.0.is_modern() && has_stream_per_call && !capabilities.is_empty() {
        found = (ops.remote_servers.connect(ops, instance, (agent, capabilities)).await?, capabilities);
    }
    if let Some(level) = target.log_level {
        Box::pin(found.0.request_logs(level)).await.map_err(|error| to_error(&error))?;
    }
    Ok(found)
}

/// Returns the response to `initialize`: the result of the connection's handshake, or an error for a server of
/// 2026-07-28, which has no handshake.
fn describe(connection: &Connection, raw_id: &str) -> Bytes {
    let text = match connection.is_modern() {
        true => format!(
            r#"{{"jsonrpc":"2.0","id":{raw_id},"error":{{"code":{METHOD_NOT_FOUND},"message":"Method not found."}}}}"#
        ),
        false => format!(r#"{{"jsonrpc":"2.0","id":{raw_id},"result":{}}}"#, connection.server().result),
    };
    text.into()
}

/// Returns the headers that repeat arguments of a tool with this definition (`x-mcp-header`).
fn argument_headers(definition: &str, arguments: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in ParamHeader::values(&ParamHeader::of_tool(definition), arguments) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    headers
}
