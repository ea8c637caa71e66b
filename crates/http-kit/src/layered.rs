//! Layers around whole routers, and the matched route of a request for the log.
//!
//! `Router::layer` wraps every route of a router. A layer that treats all requests in the same way is cheaper if it
//! wraps the whole router: with 500 routes and seven layers, wrapping each route took most of the program's startup
//! time.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower::{Layer, Service};

/// Returns a router that passes every request through `layer`, including those that match no route of `router`.
/// Requests have no [`MatchedPath`] inside the layer: use [`MatchedRoute`] if it is needed for the log.
pub fn layered<L>(router: Router, layer: L) -> Router
where
    L: Layer<Router>,
    L::Service: Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request>>::Response: IntoResponse,
    <L::Service as Service<Request>>::Future: Send + 'static,
{
    Router::new().fallback_service(layer.layer(router))
}

/// The route that a request matches, for the log: unlike a path, it contains no ID and no credential. Inserted into the
/// extensions of a request by the outermost layer, and set by [`record_route`].
#[derive(Debug, Clone, Default)]
pub struct MatchedRoute(Arc<OnceLock<MatchedPath>>);

impl MatchedRoute {
    /// Returns the route, such as `/api/v1/servers/{id}`. Empty if the request matches no route, or has not reached it
    /// yet.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get().map_or("", MatchedPath::as_str)
    }
}

/// A middleware for `Router::route_layer` that sets the request's [`MatchedRoute`].
pub async fn record_route(request: Request, next: Next) -> Response {
    if let (Some(route), Some(path)) =
        (request.extensions().get::<MatchedRoute>(), request.extensions().get::<MatchedPath>())
    {
        // Set only once: a router inside another one sees the complete path first.
        let _ = route.0.set(path.clone());
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use axum::middleware;
    use axum::routing::get;
    use http::StatusCode;
    use tower::ServiceExt;

    use super::*;

    async fn route_of(path: &str) -> (StatusCode, String) {
        let inner = Router::new().route("/items/{id}", get(|| async {})).route_layer(middleware::from_fn(record_route));
        let tag = |mut request: Request, next: Next| async move {
            request.headers_mut().insert("x-layer", http::HeaderValue::from_static("1"));
            let has_path = request.extensions().get::<MatchedPath>().is_some();
            let response = next.run(request).await;
            (if has_path { StatusCode::IM_A_TEAPOT } else { response.status() }).into_response()
        };
        let router = Router::new().nest_service("/api", layered(inner, middleware::from_fn(tag)));
        let route = MatchedRoute::default();
        let mut request = Request::new(axum::body::Body::empty());
        *request.uri_mut() = path.parse().unwrap();
        request.extensions_mut().insert(route.clone());
        let status = router.oneshot(request).await.unwrap().status();
        (status, route.as_str().to_owned())
    }

    #[tokio::test]
    async fn a_layer_sees_every_request_and_the_route_is_recorded() {
        assert_eq!(route_of("/api/items/7").await.1, "/api/items/{id}");
        assert_eq!(route_of("/api/other").await, (StatusCode::NOT_FOUND, String::new()));
    }
}
