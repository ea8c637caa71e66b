//! One request after the other, each judged before it is sent.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use reqwest::Client;
use url::{Host, Url};

use crate::error::{Error, Refusal, translate};
use crate::resolve::{Scheme, judge};
use crate::{Answer, Limits};

/// Requests for one purpose and organisation. Cheap to clone. Routes with the same allowed networks share their
/// connections, and no others do: a pooled connection would otherwise skip the judgement of its address.
#[derive(Clone)]
pub struct Route {
    pub(crate) https: Client,
    pub(crate) http: Client,
    pub(crate) allow: Arc<[IpNet]>,
}

/// The private networks that a route may reach.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope(Arc<[IpNet]>);

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").field("allow", &self.allow).finish_non_exhaustive()
    }
}

impl Route {
    /// Returns what distinguishes this route from others: a response may be cached for all routes of one scope.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope(self.allow.clone())
    }

    /// Whether requests to `url` can be thought of: what is known without resolving its name. A URL that passes can
    /// still be refused for what its name resolves to.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is no http(s) URL or has user and password in it; [`Error::Plain`] when it is
    /// `http://` and not to an allowed network; [`Error::Refused`] for an address that is neither public nor allowed.
    pub fn check_url(&self, url: &Url) -> Result<(), Error> {
        let scheme = scheme(url)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::Invalid { why: "it has a user or a password in it" });
        }
        let judged = match url.host() {
            // The client connects to addresses without asking the resolver.
            Some(Host::Ipv4(address)) => judge(scheme, &[address.into()], &self.allow),
            Some(Host::Ipv6(address)) => judge(scheme, &[address.into()], &self.allow),
            Some(Host::Domain("")) | None => return Err(Error::Invalid { why: "it has no host" }),
            Some(Host::Domain(_)) if scheme == Scheme::Http && self.allow.is_empty() => Err(Refusal::Plain),
            Some(Host::Domain(_)) => Ok(()),
        };
        judged.map_err(|refusal| refusal.of(&host_of(url)))
    }

    /// Fetches `url`. Redirects are followed as `limits` says, each judged like the first, and never from https to http.
    ///
    /// # Errors
    /// As [`Error`] says; a status that means failure is none.
    pub async fn get(&self, url: &Url, limits: Limits) -> Result<Answer, Error> {
        let request = Call { method: Method::GET, url: url.clone(), headers: HeaderMap::new(), body: Vec::new() };
        self.within(request, limits).await
    }

    /// Sends `request`, whose URI is a whole URL. Redirects are followed as in [`Self::get`], but only of GET and HEAD
    /// and only with the `Accept` of the request: other headers may be credentials and are for the first host alone. A
    /// redirect of any other method is an answer like any other.
    ///
    /// # Errors
    /// As [`Error`] says; a status that means failure is none.
    pub async fn send(
        &self,
        request: http::Request<Vec<u8>>,
        limits: Limits,
    ) -> Result<http::Response<Vec<u8>>, Error> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(|_| Error::Invalid { why: "it is no URL" })?;
        let mut headers = parts.headers;
        // The URL says which host is asked.
        headers.remove(HOST);
        let answer = self.within(Call { method: parts.method, url, headers, body }, limits).await?;
        let mut response = http::Response::new(answer.body.to_vec());
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }

    async fn within(&self, call: Call, limits: Limits) -> Result<Answer, Error> {
        let host = host_of(&call.url);
        let answered = tokio::time::timeout(limits.timeout, self.follow(call, limits)).await;
        answered.unwrap_or(Err(Error::Timeout { host }))
    }

    async fn follow(&self, mut call: Call, limits: Limits) -> Result<Answer, Error> {
        let mut left = limits.redirects;
        loop {
            let url = call.url.clone();
            let (accept, method) = (call.headers.get(ACCEPT).cloned(), call.method.clone());
            let answer = self.once(call, limits.max_bytes).await?;
            if limits.redirects == 0 || !is_redirect(answer.status) || !matches!(method, Method::GET | Method::HEAD) {
                return Ok(answer);
            }
            let refused = |why| Error::Redirect { host: host_of(&url), why };
            if left == 0 {
                return Err(refused("too often"));
            }
            left -= 1;
            let location = answer.headers.get(LOCATION).and_then(|location| location.to_str().ok());
            let target = location.and_then(|location| url.join(location).ok());
            let target = target.ok_or_else(|| refused("to nowhere"))?;
            if url.scheme() == "https" && target.scheme() != "https" {
                return Err(refused("to an address without https"));
            }
            let headers = accept.map(|accept: HeaderValue| (ACCEPT, accept)).into_iter().collect();
            call = Call { method, url: target, headers, body: Vec::new() };
        }
    }

    /// One request and its answer, with the body read to its end.
    async fn once(&self, call: Call, max_bytes: usize) -> Result<Answer, Error> {
        self.check_url(&call.url)?;
        let host = host_of(&call.url);
        let client = if scheme(&call.url)? == Scheme::Https { &self.https } else { &self.http };
        let failed = |error: reqwest::Error| translate(&error, &host);
        let mut request = client.request(call.method, call.url.clone()).headers(call.headers);
        if !call.body.is_empty() {
            request = request.body(call.body);
        }
        let mut response = request.send().await.map_err(failed)?;
        let too_large = || Error::TooLarge { host: host.clone(), limit: max_bytes };
        if response.content_length().is_some_and(|length| length > max_bytes as u64) {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(part) = response.chunk().await.map_err(failed)? {
            if body.len() + part.len() > max_bytes {
                return Err(too_large());
            }
            body.extend_from_slice(&part);
        }
        let headers = std::mem::take(response.headers_mut());
        Ok(Answer { status: response.status(), headers, body: Bytes::from(body), url: call.url })
    }
}

/// One request.
struct Call {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Vec<u8>,
}

fn scheme(url: &Url) -> Result<Scheme, Error> {
    match url.scheme() {
        "https" => Ok(Scheme::Https),
        "http" => Ok(Scheme::Http),
        _ => Err(Error::Invalid { why: "it does not begin with https://" }),
    }
}

fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

/// The redirects that name another address for the same request (RFC 9110, section 15.4); 300 and 304 do not.
fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}
