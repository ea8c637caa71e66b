//! Relays requests from other replicas to the toolboxes whose links this process holds.
//!
//! The route is `/toolboxes/ID/…`: the rest is the path of the request to the daemon. The response has the daemon's
//! status and body. If the link cannot be used, the response is 503 with the reason in [`LINK_ERROR_HEADER`].

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::routing::any;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use waypost_core::id::ToolboxId;
use waypost_link::{LinkError, Links};
use waypost_toolbox_proto::http::{CALL_HEADERS, MAX_MESSAGE_BYTES};

/// The header with [`LinkError::reason`], which distinguishes a link error from a response of the daemon.
pub const LINK_ERROR_HEADER: &str = "waypost-link-error";

/// Returns the path and query at which another replica relays a request to `uri`.
#[must_use]
pub fn path(toolbox: &ToolboxId, uri: &Uri) -> String {
    let rest = uri.path_and_query().map_or("/", |rest| rest.as_str());
    format!("/toolboxes/{toolbox}{rest}")
}

/// Returns the routes. They must only be served to other replicas.
pub fn routes(links: Links) -> Router {
    Router::new()
        .route("/toolboxes/{id}/{*path}", any(relay))
        .layer(DefaultBodyLimit::max(MAX_MESSAGE_BYTES))
        .with_state(links)
}

async fn relay(
    State(links): State<Links>,
    Path((id, _)): Path<(String, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let Some((toolbox, uri)) = id.parse::<ToolboxId>().ok().zip(inner(&uri)) else {
        return link_error(LinkError::Offline);
    };
    let mut request = Request::new(body);
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    for name in [header::CONTENT_TYPE.as_str()].into_iter().chain(CALL_HEADERS) {
        if let Some((name, value)) = name.parse().ok().zip(headers.get(name)) {
            request.headers_mut().insert::<http::HeaderName>(name, value.clone());
        }
    }
    match links.request_here(&toolbox, request).await {
        Ok(response) => {
            let status = response.status();
            let mut response = Response::new(Body::from_stream(response.into_body()));
            *response.status_mut() = status;
            response
        }
        Err(error) => link_error(error),
    }
}

/// Returns the part of the URI after `/toolboxes/ID`, as it was sent.
fn inner(uri: &Uri) -> Option<Uri> {
    let rest = uri.path_and_query()?.as_str().strip_prefix("/toolboxes/")?;
    rest.get(rest.find('/')?..)?.parse().ok()
}

fn link_error(error: LinkError) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(LINK_ERROR_HEADER, http::HeaderValue::from_static(error.reason()));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relayed_unchanged() {
        let toolbox = ToolboxId::from_store("tbx_1".to_owned());
        for uri in ["/v1/instances/ins_1/logs?tail=1&follow=true", "/v1/a%2Fb//c"] {
            let outer: Uri = path(&toolbox, &uri.parse().unwrap()).parse().unwrap();
            assert_eq!(inner(&outer).unwrap(), uri);
        }
        assert_eq!(inner(&Uri::from_static("/toolboxes/tbx_1")), None);
        assert_eq!(inner(&Uri::from_static("/other/tbx_1/x")), None);
    }
}
