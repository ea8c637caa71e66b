//! Sends requests and follows redirects; every request is checked before it is sent.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use reqwest::Client;
use url::{Host, Url};

use crate::error::{AddressError, Error, translate};
use crate::resolve::{Scheme, check_addresses};
use crate::{Limits, OutboundResponse};

/// Sends requests for one purpose and organisation. Cheap to clone. Only routes with the same allowed networks share
/// connections, because a pooled connection skips the check of its address.
#[derive(Clone)]
pub struct Route {
    pub(crate) https: Client,
    pub(crate) http: Client,
    pub(crate) guard: Guard,
}

/// The addresses that a route may reach.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Guard {
    /// Public addresses and these networks.
    Networks(Arc<[IpNet]>),
    /// All addresses: [`Route::unguarded`].
    Off,
}

/// The private networks that a route may reach, as a cache key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RouteScope(Guard);

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").field("guard", &self.guard).finish_non_exhaustive()
    }
}

impl Route {
    /// Returns the scope of this route. A response may be cached for all routes with the same scope.
    #[must_use]
    pub fn scope(&self) -> RouteScope {
        RouteScope(self.guard.clone())
    }

    /// Checks `url` without resolving its host name. A URL that passes can still be rejected after name resolution.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`] if it is not an http(s) URL or contains credentials; [`Error::HttpNotAllowed`] if it is
    /// `http://` to a public IP address, or to a host name while no network is allowed; [`Error::AddressNotAllowed`] if
    /// the host is an IP address that is neither public nor allowed. A route without a guard rejects only URLs with
    /// other schemes.
    pub fn check_url(&self, url: &Url) -> Result<(), Error> {
        let scheme = scheme(url)?;
        let Guard::Networks(allow) = &self.guard else { return Ok(()) };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::InvalidUrl { reason: "it contains a user name or a password" });
        }
        let result = match url.host() {
            // The client connects to IP addresses without calling the resolver.
            Some(Host::Ipv4(address)) => check_addresses(scheme, &[address.into()], allow),
            Some(Host::Ipv6(address)) => check_addresses(scheme, &[address.into()], allow),
            Some(Host::Domain("")) | None => return Err(Error::InvalidUrl { reason: "it has no host" }),
            Some(Host::Domain(_)) if scheme == Scheme::Http && allow.is_empty() => Err(AddressError::HttpNotAllowed),
            Some(Host::Domain(_)) => Ok(()),
        };
        result.map_err(|error| error.into_error(&host_of(url)))
    }

    /// Sends a GET request to `url`. Follows redirects up to the limit in `limits`, never from https to http.
    ///
    /// # Errors
    /// Any [`Error`]. A 4xx or 5xx status is not an error.
    pub async fn get(&self, url: &Url, limits: Limits) -> Result<OutboundResponse, Error> {
        let request =
            OutboundRequest { method: Method::GET, url: url.clone(), headers: HeaderMap::new(), body: Vec::new() };
        self.send_with_timeout(request, limits).await
    }

    /// Sends `request`, whose URI must be an absolute URL. Redirects are followed as in [`Self::get`], but only for GET
    /// and HEAD and only with the `Accept` header of the request, because other headers may contain credentials for the
    /// first host. For other methods, a redirect is returned as a response.
    ///
    /// # Errors
    /// Any [`Error`]. A 4xx or 5xx status is not an error.
    pub async fn send(
        &self,
        request: http::Request<Vec<u8>>,
        limits: Limits,
    ) -> Result<http::Response<Vec<u8>>, Error> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(|_| Error::InvalidUrl { reason: "it is not a URL" })?;
        let mut headers = parts.headers;
        // The host is taken from the URL.
        headers.remove(HOST);
        let fetched =
            self.send_with_timeout(OutboundRequest { method: parts.method, url, headers, body }, limits).await?;
        let mut response = http::Response::new(fetched.body.to_vec());
        *response.status_mut() = fetched.status;
        *response.headers_mut() = fetched.headers;
        Ok(response)
    }

    async fn send_with_timeout(&self, request: OutboundRequest, limits: Limits) -> Result<OutboundResponse, Error> {
        let host = host_of(&request.url);
        let result = tokio::time::timeout(limits.timeout, self.send_with_redirects(request, limits)).await;
        result.unwrap_or(Err(Error::Timeout { host }))
    }

    async fn send_with_redirects(
        &self,
        mut request: OutboundRequest,
        limits: Limits,
    ) -> Result<OutboundResponse, Error> {
        let mut remaining = limits.redirects;
        loop {
            let url = request.url.clone();
            let (accept, method) = (request.headers.get(ACCEPT).cloned(), request.method.clone());
            let response = self.send_once(request, limits.max_bytes).await?;
            if limits.redirects == 0 || !is_redirect(response.status) || !matches!(method, Method::GET | Method::HEAD) {
                return Ok(response);
            }
            let redirect_error = |reason| Error::Redirect { host: host_of(&url), reason };
            if remaining == 0 {
                return Err(redirect_error("too many times"));
            }
            remaining -= 1;
            let location = response.headers.get(LOCATION).and_then(|location| location.to_str().ok());
            let target = location.and_then(|location| url.join(location).ok());
            let target = target.ok_or_else(|| redirect_error("without a valid target"))?;
            if url.scheme() == "https" && target.scheme() != "https" {
                return Err(redirect_error("from https to http"));
            }
            let headers = accept.map(|accept: HeaderValue| (ACCEPT, accept)).into_iter().collect();
            request = OutboundRequest { method, url: target, headers, body: Vec::new() };
        }
    }

    /// Sends one request and reads the complete body of the response.
    async fn send_once(&self, request: OutboundRequest, max_bytes: usize) -> Result<OutboundResponse, Error> {
        let url = request.url.clone();
        let host = host_of(&url);
        let mut response = self.start(request).await?;
        let too_large = || Error::TooLarge { host: host.clone(), limit: max_bytes };
        if response.content_length().is_some_and(|length| length > max_bytes as u64) {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| translate(&error, &host))? {
            if body.len() + chunk.len() > max_bytes {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        let headers = std::mem::take(response.headers_mut());
        Ok(OutboundResponse { status: response.status(), headers, body: Bytes::from(body), url })
    }

    /// Checks and sends one request. Returns the response before its body is read.
    pub(crate) async fn start(&self, request: OutboundRequest) -> Result<reqwest::Response, Error> {
        self.check_url(&request.url)?;
        let client = if scheme(&request.url)? == Scheme::Https { &self.https } else { &self.http };
        let host = host_of(&request.url);
        let mut builder = client.request(request.method, request.url).headers(request.headers);
        if !request.body.is_empty() {
            builder = builder.body(request.body);
        }
        builder.send().await.map_err(|error| translate(&error, &host))
    }
}

/// A single request.
#[derive(Debug, Clone)]
pub struct OutboundRequest {
    /// The method.
    pub method: Method,
    /// The absolute URL.
    pub url: Url,
    /// The headers. `Host` is taken from the URL.
    pub headers: HeaderMap,
    /// The body; empty if there is none.
    pub body: Vec<u8>,
}

fn scheme(url: &Url) -> Result<Scheme, Error> {
    match url.scheme() {
        "https" => Ok(Scheme::Https),
        "http" => Ok(Scheme::Http),
        _ => Err(Error::InvalidUrl { reason: "it does not begin with https://" }),
    }
}

pub(crate) fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

/// Whether the status is a redirect to the URL in `Location` (RFC 9110, section 15.4). 300 and 304 are not.
fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}
