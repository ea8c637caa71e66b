//! A client for the REST API, with limits on all responses.

use std::time::Duration;

use anyhow::Context;
use reqwest::{Certificate, Method, redirect};
use serde_json::Value;
use url::Url;
use waypost_core::SystemRandom;
use waypost_core::seal::SecretText;
use waypost_mcp_wire::sse::EventParser;
use waypost_outbound::unguarded_client;

use super::endpoint::ApiEndpoint;
use super::error::{self, ApiError};
use crate::config::Settings;
use crate::{operator_socket, outbound, replicas, storage};

/// Timeout for establishing a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout between two chunks of a response. The first one may require requests to an identity provider.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout for a complete request. Long, because an import can be large and the connection slow.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(300);
/// Maximum size of a response in bytes.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;
/// Maximum number of items of a list, over all pages.
const MAX_ITEMS: usize = 100_000;
/// Number of items per page: the maximum of the API.
const PAGE_SIZE: &str = "200";

/// Maximum size of an event of a stream in bytes.
const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// The header with which the operator selects an organisation.
const ORGANIZATION_HEADER: &str = "waypost-organization";

/// The body of a request.
pub enum Body {
    /// No body.
    None,
    /// A JSON value.
    Json(Value),
    /// A content type and the bytes.
    Bytes(String, Vec<u8>),
}

/// A client for an installation's REST API.
pub struct Client {
    http: reqwest::Client,
    root: Url,
    /// The installation, for messages.
    origin: String,
    credentials: Credentials,
}

/// How the client authenticates.
enum Credentials {
    /// With an API key.
    Key(SecretText),
    /// By the socket or the certificate. The organisation is selected with a header.
    Operator { organization_id: Option<String> },
}

impl Client {
    /// Creates a client. Sends no request.
    ///
    /// # Errors
    /// If the root certificates in the settings cannot be read.
    pub fn new(endpoint: ApiEndpoint, settings: &Settings) -> anyhow::Result<Self> {
        let mut builder = builder();
        if let Some(pem) = outbound::policy(settings, false)?.extra_roots_pem {
            let roots =
                Certificate::from_pem_bundle(&pem).context("the setting `outbound_ca_file` must name a PEM file")?;
            builder = builder.tls_certs_merge(roots);
        }
        let http = builder.build().context("cannot create the HTTP client")?;
        let origin = endpoint.origin.as_str().trim_end_matches('/').to_owned();
        Ok(Self { http, root: endpoint.origin, origin, credentials: Credentials::Key(endpoint.key) })
    }

    /// Creates a client for the running `serve`, with the operator as the caller: on SQLite through its socket, on
    /// PostgreSQL through its internal listener. It has no organisation (see [`Client::for_organization`]).
    ///
    /// # Errors
    /// If `serve` is not running, or this user cannot connect to it. The message says what to do.
    pub fn for_operator(settings: &Settings) -> anyhow::Result<Self> {
        let (http, root) = if settings.database_url.is_sqlite() {
            let path = operator_socket::connectable_path(&settings.data_dir)?;
            (builder().unix_socket(path), Url::parse("http://localhost").context("cannot create the HTTP client")?)
        } else {
            let (tls, url) = replicas::operator_tls(settings, &storage::keys(settings, &SystemRandom)?)?;
            (builder().no_proxy().tls_backend_preconfigured(tls), url)
        };
        let http = http.build().context("cannot create the HTTP client")?;
        let credentials = Credentials::Operator { organization_id: None };
        Ok(Self { http, root, origin: "`waypost serve`".to_owned(), credentials })
    }

    /// Returns the client for an organisation. Only for the operator: an API key belongs to an organisation.
    pub fn for_organization(self, id: &str) -> Self {
        Self { credentials: Credentials::Operator { organization_id: Some(id.to_owned()) }, ..self }
    }

    /// Returns the origin of the installation.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Gets an object.
    ///
    /// # Errors
    /// If the API cannot be reached or returns an error.
    pub async fn get(&self, path: &[&str]) -> anyhow::Result<Value> {
        self.send(Method::GET, path, &[], Body::None).await
    }

    /// Gets an object; `None` if it does not exist.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn find(&self, path: &[&str]) -> anyhow::Result<Option<Value>> {
        match self.get(path).await {
            Err(error) if error.downcast_ref::<ApiError>().is_some_and(ApiError::is_not_found) => Ok(None),
            result => result.map(Some),
        }
    }

    /// Gets all items of a list, page by page.
    ///
    /// # Errors
    /// See [`Client::get`]. Also if the list does not end.
    pub async fn list(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
        let (mut items, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let mut query = query.to_vec();
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let mut page = self.send(Method::GET, path, &query, Body::None).await?;
            let Some(Value::Array(found)) = page.get_mut("items").map(Value::take) else {
                return Err(error::not_an_api_response(&self.origin));
            };
            let next = page["next_cursor"].as_str().map(str::to_owned);
            // An empty page with a cursor would lead to an endless loop.
            let is_stuck = next.is_some() && (found.is_empty() || next == cursor);
            items.extend(found);
            cursor = next;
            if is_stuck || items.len() > MAX_ITEMS {
                anyhow::bail!("the list returned by {} does not end or has more than {MAX_ITEMS} items", self.origin);
            }
            if cursor.is_none() {
                return Ok(items);
            }
        }
    }

    /// Gets all items of a long list, with the maximum page size.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn list_paged(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
        self.list(path, &[query, &[("limit", PAGE_SIZE)]].concat()).await
    }

    /// Sends a POST request.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn post(&self, path: &[&str], body: Value) -> anyhow::Result<Value> {
        self.send(Method::POST, path, &[], Body::Json(body)).await
    }

    /// Sends a PATCH request.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn patch(&self, path: &[&str], body: Value) -> anyhow::Result<Value> {
        self.send(Method::PATCH, path, &[], Body::Json(body)).await
    }

    /// Sends a PUT request.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn put(&self, path: &[&str], body: Value) -> anyhow::Result<Value> {
        self.send(Method::PUT, path, &[], Body::Json(body)).await
    }

    /// Sends a DELETE request.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn delete(&self, path: &[&str]) -> anyhow::Result<Value> {
        self.send(Method::DELETE, path, &[], Body::None).await
    }

    /// Sends a request and parses the response. An empty response is `null`.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Body,
    ) -> anyhow::Result<Value> {
        let content = self.fetch(method, path, query, body).await?;
        if content.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&content).map_err(|_| error::not_an_api_response(&self.origin))
    }

    /// Gets a response that is text instead of JSON.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn get_text(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<String> {
        let content = self.fetch(Method::GET, path, query, Body::None).await?;
        String::from_utf8(content).map_err(|_| error::not_an_api_response(&self.origin))
    }

    /// Follows an event stream: calls `on_event` with the JSON of each event until the stream ends.
    ///
    /// # Errors
    /// See [`Client::get`]. Also any error of `on_event`, and the error that ends the stream.
    pub async fn follow(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        mut on_event: impl FnMut(Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        // The response has no end, but comments keep it from being silent for long.
        let request = self.request(Method::GET, path, query).timeout(Duration::MAX);
        let mut response = request.send().await.map_err(|error| error::connection_error(&error, &self.origin))?;
        if !response.status().is_success() {
            let content = self.read(&mut response).await?;
            return Err(error::from_response(&self.origin, &response, serde_json::from_slice(&content).ok()));
        }
        let is_stream = |value: &reqwest::header::HeaderValue| value.as_bytes().starts_with(b"text/event-stream");
        if !response.headers().get(reqwest::header::CONTENT_TYPE).is_some_and(is_stream) {
            return Err(error::not_an_api_response(&self.origin));
        }
        let mut parser = EventParser::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| error::connection_lost(&error, &self.origin))? {
            for event in parser.push(&chunk) {
                let value: Value =
                    serde_json::from_str(&event.data).map_err(|_| error::not_an_api_response(&self.origin))?;
                match event.name.as_deref() {
                    Some("error") => return Err(error::from_event(&value)),
                    _ => on_event(value)?,
                }
            }
            if parser.buffered() > MAX_EVENT_BYTES {
                return Err(error::not_an_api_response(&self.origin));
            }
        }
        Ok(())
    }

    /// Returns a request with credentials.
    fn request(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let request = self.http.request(method, self.url(path, query));
        match &self.credentials {
            Credentials::Key(key) => request.bearer_auth(key.expose()),
            Credentials::Operator { organization_id: Some(id) } => request.header(ORGANIZATION_HEADER, id),
            Credentials::Operator { organization_id: None } => request,
        }
    }

    /// Sends a request and reads the body of the response.
    async fn fetch(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Body,
    ) -> anyhow::Result<Vec<u8>> {
        let request = self.request(method, path, query);
        let request = match body {
            Body::None => request,
            Body::Json(value) => request.json(&value),
            Body::Bytes(kind, bytes) => request.header(reqwest::header::CONTENT_TYPE, kind).body(bytes),
        };
        let mut response = request.send().await.map_err(|error| error::connection_error(&error, &self.origin))?;
        let content = self.read(&mut response).await?;
        if !response.status().is_success() {
            return Err(error::from_response(&self.origin, &response, serde_json::from_slice(&content).ok()));
        }
        Ok(content)
    }

    /// Reads the body of a response.
    async fn read(&self, response: &mut reqwest::Response) -> anyhow::Result<Vec<u8>> {
        let connection_error = |error: reqwest::Error| error::connection_error(&error, &self.origin);
        let mut content = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(connection_error)? {
            if content.len() + chunk.len() > MAX_RESPONSE_BYTES {
                anyhow::bail!(
                    "the response of {} is larger than {} MiB",
                    self.origin,
                    MAX_RESPONSE_BYTES / (1024 * 1024)
                );
            }
            content.extend_from_slice(&chunk);
        }
        Ok(content)
    }

    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.root.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(["api", "v1"]).extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }
}

/// Returns the settings of every client.
fn builder() -> reqwest::ClientBuilder {
    // Redirects are not followed: they would forward the key or change the method to GET.
    #[expect(clippy::disallowed_methods, reason = "connects to the server that the user chose")]
    let builder = unguarded_client();
    builder
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .timeout(TOTAL_TIMEOUT)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("waypost/", env!("CARGO_PKG_VERSION")))
}
