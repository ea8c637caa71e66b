//! Compression of responses that are created for each request. [`crate::asset`] compresses files once.
//!
//! # Responses that are compressed
//!
//! The length of a compressed response depends on whether its parts are similar. If a response contains a secret next
//! to text that another party chooses, that party can guess the secret by observing lengths (BREACH, CVE-2013-3587).
//! So a response is compressed only if it contains no secret, and only if its route marks it as
//! [`Compressible`]:
//!
//! - Only responses to GET (and HEAD). Newly created secrets (API keys, secrets of webhooks, claim links, invitations)
//!   are returned once, in the response to the POST that creates them.
//! - Only the API and pages for members of an organisation. The pages of visitors (sign-in, codes, invitations, OAuth,
//!   the public page of a server with its personal URL) contain tokens, and anyone could make the server spend time on
//!   compressing them.
//! - Not the pages of members that contain a personal URL or another credential.
//! - Not responses to requests that another site has caused, according to `Sec-Fetch-Site`: that site could choose text
//!   in the query, and repeat the request as often as it needs.
//!
//! The responses of MCP endpoints are not compressed either: they are small, and latency matters more.

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tower::{ServiceExt as _, service_fn};
use tower_http::CompressionLevel;
use tower_http::compression::Compression;
use tower_http::compression::predicate::SizeAbove;

/// Marks a response (in its extensions) that contains no secret, so that [`compress`] may compress it.
#[derive(Debug, Clone, Copy)]
pub struct Compressible;

/// Minimum size of a compressed body in bytes. Smaller bodies fit into one packet in any case.
const MIN_BYTES: u64 = 1_024;

/// A content coding (RFC 9110, section 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Brotli.
    Brotli,
    /// gzip.
    Gzip,
}

impl Coding {
    const ALL: [Self; 2] = [Self::Brotli, Self::Gzip];

    /// Returns the name in headers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// Returns the coding that a request prefers (RFC 9110, section 12.5.3), or Brotli, which compresses better, if it
    /// has no preference. Returns `None` if it accepts neither.
    #[must_use]
    pub fn negotiate(headers: &HeaderMap) -> Option<Self> {
        let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
        let mut best: Option<(Self, f32)> = None;
        for item in lines.flat_map(|line| line.split(',')) {
            let (name, weight) = item.split_once(';').unwrap_or((item, ""));
            let weight = weight.trim().strip_prefix("q=").map_or(1.0, |weight| weight.parse::<f32>().unwrap_or(0.0));
            let known = Self::ALL.into_iter().find(|coding| name.trim().eq_ignore_ascii_case(coding.as_str()));
            let Some(coding) = known.filter(|_| weight > 0.0) else { continue };
            let is_better = best.is_none_or(|(other, other_weight)| {
                weight > other_weight || (weight >= other_weight && coding == Self::Brotli && other != coding)
            });
            if is_better {
                best = Some((coding, weight));
            }
        }
        best.map(|(coding, _)| coding)
    }

    /// Returns the entity tag of this coding of a representation. A strong tag identifies one sequence of bytes (RFC
    /// 9110, section 8.8.1), so the compressed response needs its own tag. Returns `None` if `tag` is weak.
    fn entity_tag(self, tag: &HeaderValue) -> Option<HeaderValue> {
        let opaque = tag.to_str().ok()?.strip_prefix('"')?.strip_suffix('"')?;
        HeaderValue::from_str(&format!("\"{opaque}-{}\"", self.as_str())).ok()
    }
}

/// Returns the opaque part of an entity tag without the coding that [`compress`] has added: the tags of all codings of
/// a resource identify the same state of it.
#[must_use]
pub fn without_coding(opaque: &str) -> &str {
    Coding::ALL.iter().find_map(|coding| opaque.strip_suffix(coding.as_str())?.strip_suffix('-')).unwrap_or(opaque)
}

/// Middleware that compresses responses marked as [`Compressible`]. It must wrap the middleware that marks them.
pub async fn compress(mut request: Request, next: Next) -> Response {
    let is_head = *request.method() == Method::HEAD;
    let is_read = is_head || *request.method() == Method::GET;
    if !is_read || is_caused_by_another_site(request.headers()) {
        return next.run(request).await;
    }
    // A response to HEAD has the same headers as the response to GET (RFC 9110, section 9.3.2).
    *request.method_mut() = Method::GET;
    let response = compress_read(request, next).await;
    if is_head { without_body(response) } else { response }
}

/// Removes the body of a response to HEAD. Sets `Content-Length` to the length of the body, if it is known.
fn without_body(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    Response::from_parts(parts, Body::empty())
}

async fn compress_read(request: Request, next: Next) -> Response {
    let coding = Coding::negotiate(request.headers());
    let cached: Vec<_> = request.headers().get_all(header::IF_NONE_MATCH).iter().cloned().collect();
    let mut response = next.run(request).await;
    if response.extensions_mut().remove::<Compressible>().is_none() {
        return response;
    }
    if response.status() == StatusCode::NOT_MODIFIED {
        confirm_cached(&mut response, &cached);
        return response;
    }
    if !is_worth_compressing(&response) {
        return response;
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    let Some(coding) = coding else { return response };
    if let Some(tag) = response.headers().get(header::ETAG).and_then(|tag| coding.entity_tag(tag)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    encode(response, coding).await
}

/// Compresses a response. The layer of `tower_http` is applied to the finished response, with the negotiated coding
/// only. If it wrapped the handlers, a request from a client that accepts no coding would be processed, but answered
/// with 406.
async fn encode(response: Response, coding: Coding) -> Response {
    // The service takes the response as the body of a request.
    let mut request = http::Request::new(response);
    request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static(coding.as_str()));
    let respond = service_fn(|request: http::Request<Response>| {
        std::future::ready(Ok::<_, std::convert::Infallible>(request.into_body()))
    });
    // The fastest level: it reduces text to about a quarter, and the other levels are several times slower.
    let service = Compression::new(respond).quality(CompressionLevel::Fastest).compress_when(SizeAbove::new(0));
    let Ok(response) = service.oneshot(request).await;
    response.map(Body::new)
}

/// Whether another site has caused the request (Fetch Metadata, section 2.3). Clients that are not browsers send no
/// such header, and browsers do not send it to origins without TLS, whose content an observer can read anyway.
fn is_caused_by_another_site(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site" || site == "same-site")
}

/// Whether the response is text of a known length that is long enough. Streams have no length, and images and fonts
/// are compressed already.
fn is_worth_compressing(response: &Response) -> bool {
    let headers = response.headers();
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let is_text = (kind.starts_with("text/") && kind != "text/event-stream")
        || kind == "application/json"
        || kind.ends_with("+json")
        || kind == "image/svg+xml";
    let length = response.body().size_hint().exact();
    is_text && length.is_some_and(|length| length >= MIN_BYTES) && !headers.contains_key(header::CONTENT_ENCODING)
}

/// Completes a 304 response: it has the `Vary` and the `ETag` that the 200 response would have (RFC 9110, section
/// 15.4.5), so it repeats the tag of the compressed response that the client has cached.
fn confirm_cached(response: &mut Response, cached: &[HeaderValue]) {
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    let Some(tag) = headers.get(header::ETAG) else { return };
    let tags: Vec<_> = Coding::ALL.iter().filter_map(|coding| coding.entity_tag(tag)).collect();
    let mut known = cached.iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim);
    if let Some(tag) = known.find_map(|known| tags.iter().find(|tag| *tag == known)) {
        headers.insert(header::ETAG, tag.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn the_preferred_coding_is_chosen() {
        let cases = [
            ("gzip", Some(Coding::Gzip)),
            ("GZIP", Some(Coding::Gzip)),
            ("gzip;q=0.5", Some(Coding::Gzip)),
            ("deflate;q=1.0, gzip ; q=1", Some(Coding::Gzip)),
            ("gzip, deflate, br, zstd", Some(Coding::Brotli)),
            ("br, gzip", Some(Coding::Brotli)),
            ("br;q=0.5, gzip", Some(Coding::Gzip)),
            ("gzip;q=0.5, br", Some(Coding::Brotli)),
            ("br;q=0, gzip;q=0.1", Some(Coding::Gzip)),
            ("", None),
            ("gzip;q=0", None),
            ("gzip;q=0.000", None),
            ("gzip;q=x", None),
            ("identity", None),
            ("xgzip", None),
            ("identity;q=0, *;q=0", None),
        ];
        for (value, expected) in cases {
            assert_eq!(Coding::negotiate(&accepting(value)), expected, "{value}");
        }
        assert_eq!(Coding::negotiate(&HeaderMap::new()), None);
    }

    #[test]
    fn entity_tags_differ_between_codings_and_identify_one_state() {
        let tag = |coding: Coding, tag| coding.entity_tag(&HeaderValue::from_static(tag));
        assert_eq!(tag(Coding::Brotli, "\"12\"").unwrap(), "\"12-br\"");
        assert_eq!(tag(Coding::Gzip, "\"12\"").unwrap(), "\"12-gzip\"");
        assert_eq!(tag(Coding::Gzip, "W/\"12\""), None);
        for opaque in ["12", "12-br", "12-gzip"] {
            assert_eq!(without_coding(opaque), "12");
        }
        assert_eq!(without_coding("12br"), "12br");
    }

    #[test]
    fn only_long_texts_of_known_length_are_worth_compressing() {
        let response = |kind: &'static str, body: Body| {
            let mut response = Response::new(body);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            response
        };
        let long = || Body::from("x".repeat(1_024));
        for kind in ["text/html; charset=utf-8", "application/json", "application/problem+json", "image/svg+xml"] {
            assert!(is_worth_compressing(&response(kind, long())), "{kind}");
            assert!(!is_worth_compressing(&response(kind, Body::from("x".repeat(1_023)))), "{kind}");
        }
        for kind in ["text/event-stream", "image/png", "font/woff2", "application/octet-stream", "application/zip"] {
            assert!(!is_worth_compressing(&response(kind, long())), "{kind}");
        }
        let mut encoded = response("text/plain", long());
        encoded.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(!is_worth_compressing(&encoded));
    }
}
