//! A client for the REST API, with limits on all responses.

use std::time::Duration;

use anyhow::Context;
use reqwest::{Certificate, Method, redirect};
use serde_json::Value;
use url::Url;
use waypost_core::seal::SecretText;
use waypost_outbound::unguarded_client;

use super::endpoint::ApiEndpoint;
use super::error::{self, ApiError};
use crate::config::Settings;
use crate::outbound;

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
    origin: String,
    key: SecretText,
}

impl Client {
    /// Creates a client. Sends no request.
    ///
    /// # Errors
    /// If the root certificates in the settings cannot be read.
    pub fn new(endpoint: ApiEndpoint, settings: &Settings) -> anyhow::Result<Self> {
        // Redirects are not followed: they would forward the key or change the method to GET.
        #[expect(clippy::disallowed_methods, reason = "connects to the server that the user chose")]
        let mut builder = unguarded_client()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("waypost/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = outbound::policy(settings, false)?.extra_roots_pem {
            let roots =
                Certificate::from_pem_bundle(&pem).context("the setting `outbound_ca_file` must name a PEM file")?;
            builder = builder.tls_certs_merge(roots);
        }
        let http = builder.build().context("cannot create the HTTP client")?;
        let origin = endpoint.origin.as_str().trim_end_matches('/').to_owned();
        Ok(Self { http, root: endpoint.origin, origin, key: endpoint.key })
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

    /// Sends a request and reads the body of the response.
    async fn fetch(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Body,
    ) -> anyhow::Result<Vec<u8>> {
        let mut request = self.http.request(method, self.url(path, query)).bearer_auth(self.key.expose());
        request = match body {
            Body::None => request,
            Body::Json(value) => request.json(&value),
            Body::Bytes(kind, bytes) => request.header(reqwest::header::CONTENT_TYPE, kind).body(bytes),
        };
        let connection_error = |error: reqwest::Error| error::connection_error(&error, &self.origin);
        let mut response = request.send().await.map_err(connection_error)?;
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
        if !response.status().is_success() {
            return Err(error::from_response(&self.origin, &response, serde_json::from_slice(&content).ok()));
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
