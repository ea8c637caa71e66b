//! A client that returns the result of each request, for programs that use few tools.

use http::HeaderMap;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use url::Url;
use waypost_mcp_wire::memory::MemoryShare;
use waypost_outbound::{Route, StreamLimits};

use crate::connection::Connection;
use crate::error::Error;
use crate::handshake::{response_of, result_members};
use crate::options::{ConnectionOptions, Identity, Limits, Protocol, Redirects};
use crate::transport::message::CallRequest;

/// Options of a client.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The MCP URL of the server.
    pub url: Url,
    /// The addresses that may be reached.
    pub route: Route,
    /// The client's description of itself.
    pub identity: Identity,
    /// The limits of each request. `max_bytes` limits a JSON response, or all events before and including the response.
    pub limits: StreamLimits,
}

/// A client of one server over Streamable HTTP. It follows redirects to the same host, and has no capabilities.
#[derive(Debug)]
pub struct Client(Connection);

impl Client {
    /// Connects to a server: with 2026-07-28 if the server supports it, otherwise with the handshake of older
    /// revisions.
    ///
    /// # Errors
    /// Any [`Error`] of the last attempt.
    pub async fn connect(options: ConnectOptions) -> Result<Self, Error> {
        let ConnectOptions { url, route, identity, limits } = options;
        let StreamLimits { max_bytes, idle, timeout } = limits;
        let limits =
            Limits { max_message_bytes: max_bytes, max_response_bytes: max_bytes, idle, timeout, ..Limits::default() };
        let options = ConnectionOptions {
            url,
            route,
            headers: HeaderMap::new(),
            identity,
            capabilities: "{}".to_owned(),
            accepts_requests: false,
            protocol: Protocol::StreamableHttp,
            redirects: Redirects::SameHost,
            limits,
            memory: MemoryShare::default(),
        };
        Connection::open(options).await.map(Self)
    }

    /// Sends a request and returns the `result` of its response as received.
    ///
    /// # Errors
    /// Any [`Error`]. A tool result with `isError` is not an error here.
    pub async fn request(&self, method: &str, params: Map<String, Value>) -> Result<Box<RawValue>, Error> {
        let params = Value::from(params).to_string();
        let call = CallRequest { method, params: Some(&params), ..CallRequest::default() };
        let response = response_of(&mut self.0.call(call).await?).await?;
        let result = result_members(&response)?.raw.to_owned();
        RawValue::from_string(result).map_err(|_| Error::invalid("the result is not JSON"))
    }

    /// Ends the session, if there is one.
    ///
    /// # Errors
    /// [`Error::Transport`] if the server cannot be reached. The server may refuse to end a session, which is not an
    /// error.
    pub async fn close(self) -> Result<(), Error> {
        self.0.close().await
    }
}
