//! Requests to the REST API, with limits on everything that comes back.

use std::time::Duration;

use anyhow::Context;
use reqwest::{Certificate, Method, redirect};
use serde_json::Value;
use url::Url;
use waypost_core::seal::SecretText;

use super::endpoint::ApiEndpoint;
use super::error::{self, ApiError};
use crate::config::Settings;
use crate::outbound;

/// Until the connection stands.
const CONNECT: Duration = Duration::from_secs(10);
/// Between two pieces of an answer, the first of which may take a look at an identity provider.
const SILENCE: Duration = Duration::from_secs(60);
/// For everything together: an import can be large and the line slow.
const TOTAL: Duration = Duration::from_secs(300);
/// Bytes of an answer at most.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Items of a list at most, over all of its pages.
const MAX_ITEMS: usize = 100_000;
/// Items of a page, the most that the API gives.
const PAGE: &str = "200";

/// What is sent with a request.
pub enum Body {
    /// Nothing.
    None,
    /// JSON.
    Json(Value),
    /// Bytes of the kind that `Content-Type` says.
    Bytes(String, Vec<u8>),
}

/// The way to an installation's API.
pub struct Client {
    http: reqwest::Client,
    root: Url,
    origin: String,
    key: SecretText,
}

impl Client {
    /// A client that has sent nothing yet.
    ///
    /// # Errors
    /// When the settings name root certificates that cannot be read.
    pub fn new(address: ApiEndpoint, settings: &Settings) -> anyhow::Result<Self> {
        // A redirect is not followed: it would take the key along, or turn a change into a question.
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .timeout(TOTAL)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("waypost/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = outbound::policy(settings, false)?.extra_roots_pem {
            let roots =
                Certificate::from_pem_bundle(&pem).context("the setting `outbound_ca_file` names no PEM file")?;
            builder = builder.tls_certs_merge(roots);
        }
        let http = builder.build().context("cannot make connections")?;
        let origin = address.origin.as_str().trim_end_matches('/').to_owned();
        Ok(Self { http, root: address.origin, origin, key: address.key })
    }

    /// Where it goes.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// One thing.
    ///
    /// # Errors
    /// When there is no way to it, or it is refused.
    pub async fn get(&self, path: &[&str]) -> anyhow::Result<Value> {
        self.send(Method::GET, (path, &[]), Body::None).await
    }

    /// One thing; none when there is none.
    ///
    /// # Errors
    /// As [`Client::get`], but for that.
    pub async fn find(&self, path: &[&str]) -> anyhow::Result<Option<Value>> {
        match self.get(path).await {
            Err(error) if error.downcast_ref::<ApiError>().is_some_and(ApiError::is_not_found) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Everything that is on the pages of a list.
    ///
    /// # Errors
    /// As [`Client::get`]; when the list does not end.
    pub async fn list(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
        let (mut items, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let mut query = query.to_vec();
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let mut page = self.send(Method::GET, (path, &query), Body::None).await?;
            let Some(Value::Array(found)) = page.get_mut("items").map(Value::take) else {
                return Err(error::strange(&self.origin));
            };
            let next = page["next_cursor"].as_str().map(str::to_owned);
            // A page that brings nothing and yet goes on would do so for ever.
            let stuck = next.is_some() && (found.is_empty() || next == cursor);
            items.extend(found);
            cursor = next;
            if stuck || items.len() > MAX_ITEMS {
                anyhow::bail!("the list that {} gives does not end: it has more than {MAX_ITEMS} items", self.origin);
            }
            if cursor.is_none() {
                return Ok(items);
            }
        }
    }

    /// Everything that is on the pages of a list that can be long, in the largest pages that there are.
    ///
    /// # Errors
    /// As [`Client::list`].
    pub async fn pages(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
        self.list(path, &[query, &[("limit", PAGE)]].concat()).await
    }

    /// Makes or does something.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post(&self, path: &[&str], body: Value) -> anyhow::Result<Value> {
        self.send(Method::POST, (path, &[]), Body::Json(body)).await
    }

    /// Changes something.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn patch(&self, path: &[&str], body: Value) -> anyhow::Result<Value> {
        self.send(Method::PATCH, (path, &[]), Body::Json(body)).await
    }

    /// Deletes something.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn delete(&self, path: &[&str]) -> anyhow::Result<Value> {
        self.send(Method::DELETE, (path, &[]), Body::None).await
    }

    /// Any request; an answer without content is null.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn send(&self, method: Method, to: (&[&str], &[(&str, &str)]), body: Body) -> anyhow::Result<Value> {
        let content = self.fetch(method, to, body).await?;
        if content.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&content).map_err(|_| error::strange(&self.origin))
    }

    /// Returns a file that is not JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_text(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<String> {
        let content = self.fetch(Method::GET, (path, query), Body::None).await?;
        String::from_utf8(content).map_err(|_| error::strange(&self.origin))
    }

    /// Sends a request and reads the body of the response.
    async fn fetch(
        &self,
        method: Method,
        (path, query): (&[&str], &[(&str, &str)]),
        body: Body,
    ) -> anyhow::Result<Vec<u8>> {
        let mut request = self.http.request(method, self.url(path, query)).bearer_auth(self.key.expose());
        request = match body {
            Body::None => request,
            Body::Json(value) => request.json(&value),
            Body::Bytes(kind, bytes) => request.header(reqwest::header::CONTENT_TYPE, kind).body(bytes),
        };
        let lost = |error: reqwest::Error| error::lost(&error, &self.origin);
        let mut response = request.send().await.map_err(lost)?;
        let mut content = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(lost)? {
            if content.len() + piece.len() > MAX_ANSWER {
                anyhow::bail!("the answer of {} is larger than {} MiB", self.origin, MAX_ANSWER / (1024 * 1024));
            }
            content.extend_from_slice(&piece);
        }
        if !response.status().is_success() {
            return Err(error::refused(&self.origin, &response, serde_json::from_slice(&content).ok()));
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
