//! Exchanges with the servers of instances: one message, and the messages of its response, as received.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::request::Builder;
use http::{HeaderMap, HeaderValue, Request, header};
use waypost_core::id::{AgentId, InstanceId, ToolboxId};
use waypost_core::instance::{Backend, Instance};
use waypost_core::{Code, Error, Result};
use waypost_link::{Body, Links};
use waypost_mcp_wire::client_capabilities::ClientCapabilities;
use waypost_mcp_wire::log_level::LogLevel;
use waypost_mcp_wire::memory::{MemoryShare, Reservation, UNCOUNTED_BYTES};
use waypost_mcp_wire::strict::OwnedMessage;
use waypost_toolbox_proto::forwarded_headers;
use waypost_toolbox_proto::http::{
    CAPABILITIES_HEADER, CONTAINER_KEY_HEADER, FORWARDED_HEADERS_HEADER, LOG_LEVEL_HEADER, SECRETS_VERSION_HEADER,
    TIMEOUT_HEADER, mcp_path, responses_path,
};

use waypost_upstream::Connection;

use super::call::{not_mcp, too_large};
use super::containers::ContainerKey;
use super::remote_exchange::RemoteExchange;
use super::requests::{TIMEOUT, interrupted, send, send_to, within};
use crate::Ops;
use crate::remote_servers::{out_of_memory, to_error};

/// The additional time of a call during which the server can ask the caller for input.
pub const INPUT_TIME: Duration = Duration::from_secs(300);

/// The additional time in which a toolbox must deliver a response to its server.
const RESPONSE_TIME: Duration = Duration::from_secs(20);

/// The server that receives a message.
#[derive(Debug, Clone, Copy)]
pub struct ExchangeTarget<'a> {
    /// The instance.
    pub instance: &'a Instance,
    /// The caller's container.
    pub container: &'a ContainerKey,
    /// The calling agent. Its connection is used if each agent has its own; otherwise, it is ignored.
    pub agent: Option<&'a AgentId>,
    /// The definition of the called tool. A server of 2026-07-28 may require some of its arguments in headers.
    pub definition: Option<&'a str>,
    /// The client capabilities that are declared to a server with a handshake. Other servers find them in the `_meta`
    /// of each request.
    pub capabilities: ClientCapabilities,
    /// The level of the log messages that a server with a handshake should send.
    pub log_level: Option<LogLevel>,
    /// Headers of the caller, which a server with an HTTP transport receives with this message, unless the connection
    /// or the protocol sets headers with these names. They are within the limits of [`forwarded_headers`].
    pub headers: Option<&'a HeaderMap>,
}

impl<'a> ExchangeTarget<'a> {
    /// Returns the target for a caller that is not an agent and does not answer requests of the server.
    #[must_use]
    pub fn new(instance: &'a Instance, container: &'a ContainerKey) -> Self {
        Self {
            instance,
            container,
            agent: None,
            definition: None,
            capabilities: ClientCapabilities::default(),
            log_level: None,
            headers: None,
        }
    }
}

/// Sends responses to requests of a server.
#[derive(Debug, Clone)]
pub struct Responder(Recipient);

#[derive(Debug, Clone)]
enum Recipient {
    /// The toolbox of an instance, which forwards the responses.
    Toolbox { links: Links, toolbox: ToolboxId, instance: InstanceId },
    /// A remote server.
    Remote(Connection),
}

impl Responder {
    /// Sends a response, whose ID is that of the request. A response that a server in a container no longer waits for
    /// is dropped: the messages of the exchange say why.
    ///
    /// # Errors
    /// `tool_server_error` if the server cannot be reached or rejects it; `unavailable` if there is no link to the toolbox.
    pub async fn respond(&self, response: &[u8]) -> Result<()> {
        let (links, toolbox, instance) = match &self.0 {
            Recipient::Remote(connection) => {
                return connection.respond(response).await.map_err(|error| to_error(&error));
            }
            Recipient::Toolbox { links, toolbox, instance } => (links, toolbox, instance),
        };
        let request = Request::post(responses_path(instance.as_str()))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Bytes::copy_from_slice(response))
            .map_err(Error::internal)?;
        // The toolbox waits until the server has read it.
        match within(TIMEOUT + RESPONSE_TIME, send_to(links, toolbox, request)).await {
            Err(error) if error.reason() != Some("not_deployed") => Err(error),
            _ => Ok(()),
        }
    }
}

/// The messages of the response to one message. Dropping it cancels the call.
#[derive(Debug)]
pub struct Exchange(Source);

#[derive(Debug)]
enum Source {
    Link(LinkExchange),
    Remote(Box<RemoteExchange>),
}

/// The lines of a response over the link to a toolbox.
#[derive(Debug)]
pub(super) struct LinkExchange {
    body: Body,
    /// `None` if the caller answers no requests.
    responder: Option<Responder>,
    buffer: BytesMut,
    /// The number of bytes at the start of the buffer that contain no line break.
    searched: usize,
    /// The maximum size of a message in bytes.
    limit: usize,
    /// The memory that is reserved for the buffer.
    memory: Reservation,
}

impl Exchange {
    /// Sends a message, which must be one line. The caller has been authorized. `limits` are the time after which the call
    /// fails, and the maximum size of each message of the response in bytes.
    ///
    /// # Errors
    /// `unavailable` if there is no link to the toolbox (`reason` is `toolbox_offline`) or the server cannot be
    /// started; `conflict` if the instance is not running, or the agent needs a connection and has none
    /// (`not_connected`); `rate_limited` if too many calls are waiting, or the organisation is receiving too many large
    /// messages; `tool_server_error` if the server cannot be reached, or does not answer with MCP or in time.
    pub async fn open(
        ops: &Ops,
        target: ExchangeTarget<'_>,
        message: Bytes,
        (timeout, limit): (Duration, usize),
    ) -> Result<Self> {
        if let Backend::Remote(_) = target.instance.backend {
            let exchange = RemoteExchange::open(ops, target, &message, (timeout, limit)).await?;
            return Ok(Self(Source::Remote(Box::new(exchange))));
        }
        let ContainerKey { key, personal_version } = target.container;
        let mut request = Request::post(mcp_path(target.instance.id.as_str()))
            .header(header::CONTENT_TYPE, "application/json")
            .header(CONTAINER_KEY_HEADER, key)
            .header(TIMEOUT_HEADER, timeout.as_millis().to_string());
        if *personal_version > 0 {
            request = request.header(SECRETS_VERSION_HEADER, *personal_version);
        }
        if let Some(headers) = target.headers.filter(|headers| !headers.is_empty()) {
            request = request.header(FORWARDED_HEADERS_HEADER, forward(headers)?);
        }
        let (request, responder) = announce(ops, target, request)?;
        let body = send(ops, target.instance, request.body(message).map_err(Error::internal)?).await?;
        let memory = ops.message_memory(&target.instance.organization_id);
        Ok(Self(Source::Link(LinkExchange { responder, ..LinkExchange::new(body, limit, &memory) })))
    }

    /// Returns the sender of responses to the requests that the server sends in this exchange. `None` if the server may
    /// not send any.
    #[must_use]
    pub fn responder(&self) -> Option<Responder> {
        match &self.0 {
            Source::Link(exchange) => exchange.responder.clone(),
            Source::Remote(exchange) => exchange.responder().map(Recipient::Remote).map(Responder),
        }
    }

    /// Returns the request ID to which the messages of the server refer, as JSON text. `None` if it is the ID of the
    /// message that was sent.
    #[must_use]
    pub fn call_id(&self) -> Option<String> {
        match &self.0 {
            Source::Link(_) => None,
            Source::Remote(exchange) => Some(exchange.call_id()),
        }
    }

    /// Returns the messages as a stream, whose `next` can be cancelled without losing a message. It ends after an error.
    #[must_use]
    pub fn into_stream(self) -> BoxStream<'static, Result<OwnedMessage>> {
        let messages = stream::unfold(Some(self), |exchange| async {
            let mut exchange = exchange?;
            match exchange.next().await.transpose()? {
                Ok(message) => Some((Ok(message), Some(exchange))),
                Err(error) => Some((Err(error), None)),
            }
        });
        messages.boxed()
    }

    /// Returns the next message; `None` after the last one.
    ///
    /// # Errors
    /// `tool_server_error` if a message is larger than the limit (`reason` is `too_large`), is not a valid message
    /// (`no_mcp`), or can be parsed in different ways (`ambiguous`); `rate_limited` if the organisation is receiving
    /// too many large messages; `unavailable` if the link is lost.
    pub async fn next(&mut self) -> Result<Option<OwnedMessage>> {
        match &mut self.0 {
            Source::Link(exchange) => exchange.next().await?.map(read_message).transpose(),
            Source::Remote(exchange) => exchange.next().await,
        }
    }
}

impl LinkExchange {
    /// Creates a reader of the lines of a response, which have at most `limit` bytes.
    pub(super) fn new(body: Body, limit: usize, memory: &MemoryShare) -> Self {
        Self { body, responder: None, buffer: BytesMut::new(), searched: 0, limit, memory: memory.reserve() }
    }

    /// Returns the next line, which holds memory until its last copy is dropped; `None` at the end. Can be cancelled without
    /// losing a line.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(position) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let mut line = self.buffer.split_to(self.searched + position + 1);
                line.truncate(line.len() - 1);
                self.searched = 0;
                if line.len() > self.limit {
                    return Err(too_large(TOO_LARGE));
                }
                if line.len() > UNCOUNTED_BYTES {
                    // Copied, because the rest would otherwise keep the memory of the line after the line is dropped.
                    self.buffer = BytesMut::from(&self.buffer[..]);
                }
                return self.memory.hold(line.freeze()).map(Some).map_err(|_| out_of_memory());
            }
            self.searched = self.buffer.len();
            if self.searched > self.limit {
                return Err(too_large(TOO_LARGE));
            }
            match self.body.chunk().await {
                Ok(Some(chunk)) => {
                    let reserved = self.memory.set(self.buffer.len() + chunk.len());
                    reserved.map_err(|_| out_of_memory())?;
                    self.buffer.extend_from_slice(&chunk);
                }
                Ok(None) => return Ok(None),
                Err(_) => return Err(interrupted()),
            }
        }
    }
}

/// Adds the headers that declare the caller's capabilities and log level to a toolbox. Returns the request, and the
/// sender of responses to requests of the server. A toolbox that does not know the headers rejects these requests
/// itself.
fn announce(ops: &Ops, target: ExchangeTarget<'_>, mut request: Builder) -> Result<(Builder, Option<Responder>)> {
    if let Some(level) = target.log_level {
        request = request.header(LOG_LEVEL_HEADER, level.as_str());
    }
    if target.capabilities.is_empty() {
        return Ok((request, None));
    }
    let (instance, toolbox) = (target.instance.id.clone(), target.instance.container()?.toolbox_id.clone());
    let responder = Responder(Recipient::Toolbox { links: ops.links().clone(), toolbox, instance });
    Ok((request.header(CAPABILITIES_HEADER, target.capabilities.to_json()), Some(responder)))
}

/// Returns the value of the header in which headers of the caller are sent to a toolbox.
fn forward(headers: &HeaderMap) -> Result<HeaderValue> {
    let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let mut value = HeaderValue::try_from(forwarded_headers::encode(headers)).map_err(Error::internal)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Parses a message of a server. Fails if it is not a valid message, or can be parsed in different ways.
pub(super) fn read_message(text: Bytes) -> Result<OwnedMessage> {
    let is_object = text.trim_ascii_start().starts_with(b"{");
    OwnedMessage::read(text).map_err(|_| match is_object {
        true => {
            let message = "The server's answer could be read in different ways, so it is not relayed.";
            Error::new(Code::ToolServerError, message).with("reason", "ambiguous")
        }
        false => not_mcp(),
    })
}

pub(super) const TOO_LARGE: &str = "The server's answer is too large.";

#[cfg(test)]
mod tests {
    use waypost_mcp_wire::memory::MessageMemory;

    use super::*;

    /// Returns an exchange whose lines have these sizes in KiB, without their line breaks.
    fn exchange(sizes: &[usize], memory: &MemoryShare) -> LinkExchange {
        let lines: Vec<u8> = sizes.iter().flat_map(|kib| [vec![b'x'; kib * 1024], vec![b'\n']].concat()).collect();
        let chunks: Vec<_> = lines.chunks(10_000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        LinkExchange::new(Body::forwarded(stream::iter(chunks)), 400 * 1024, memory)
    }

    #[tokio::test]
    async fn large_lines_hold_memory_until_their_last_copy_is_dropped() {
        let memory = MessageMemory::new(1_000 * 1024).share("org_1");
        let mut reading = exchange(&[300, 1, 64, 300], &memory);
        let first = reading.next().await.unwrap().unwrap();
        for kib in [1, 64] {
            let small = reading.next().await.unwrap().unwrap();
            assert_eq!(small.len(), kib * 1024);
        }
        let error = reading.next().await.unwrap_err();
        assert_eq!((error.code, error.reason()), (Code::RateLimited, Some("too_many_large_answers")));
        drop(reading);
        let copy = first.slice(1..2);
        drop(first);
        assert!(exchange(&[300], &memory).next().await.is_err(), "a part holds the memory of all");
        drop(copy);
        let mut reading = exchange(&[300, 401], &memory);
        assert_eq!(reading.next().await.unwrap().map(|line| line.len()), Some(300 * 1024));
        let error = reading.next().await.unwrap_err();
        assert_eq!(error.reason(), Some("too_large"));
    }
}
