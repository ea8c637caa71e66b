//! The routes of toolbox daemons: joining, and the link.
//!
//! Both are public. Joining is authorized by a single-use token; the link by a signature, which the daemon sends after
//! the upgrade. Until then, a link uses only a connection, which counts towards the limits of the port and is closed
//! after ten seconds.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::StatusCode;
use waypost_api::problem::ApiError;
use waypost_core::caller::Caller;
use waypost_core::{Code, Error};
use waypost_http_kit::limits::LimitKind;
use waypost_mcp::endpoint::HandlerFactory;
use waypost_ops::toolboxes;
use waypost_toolbox_proto::handshake::{JOIN_PATH, JoinRequest, LINK_PATH, MAX_HANDSHAKE_BYTES};

use super::client::ClientAddress;
use super::{Host, RequestId, RequestedHost, RouterState, check_rate, not_found};
use crate::upgrade::Upgrade;

/// Returns the routes. They exist on the main host only, and not at all while toolboxes are switched off.
pub(super) fn routes<R: HandlerFactory>(state: &Arc<RouterState<R>>) -> Router {
    Router::new().route(JOIN_PATH, post(join::<R>)).route(LINK_PATH, get(open_link::<R>)).with_state(Arc::clone(state))
}

/// Whether the routes exist: on the main host, unless toolboxes are switched off.
fn is_served<R: HandlerFactory>(state: &RouterState<R>, requested: &RequestedHost) -> bool {
    requested.host == Host::Main && state.hosting.ops().is_toolboxes_enabled()
}

async fn join<R: HandlerFactory>(
    State(state): State<Arc<RouterState<R>>>,
    Extension(requested): Extension<RequestedHost>,
    Extension(client): Extension<ClientAddress>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    body: Bytes,
) -> Response {
    if !is_served(&state, &requested) {
        return not_found();
    }
    let joined = async {
        check_rate(&state, LimitKind::ToolboxJoin, client.address)?;
        let request: Option<JoinRequest> =
            (body.len() <= MAX_HANDSHAKE_BYTES).then(|| serde_json::from_slice(&body).ok()).flatten();
        let request = request.ok_or_else(|| {
            Error::new(Code::InvalidArguments, "The body is not the request of a toolbox that joins.")
        })?;
        let cx = state.hosting.context(Caller::Visitor, Arc::clone(&state.random), request_id);
        toolboxes::join(&cx, state.hosting.ops(), &request).await
    };
    match joined.await {
        Ok(joined) => Json(joined).into_response(),
        Err(error) => ApiError::from(error).into_response(),
    }
}

async fn open_link<R: HandlerFactory>(
    State(state): State<Arc<RouterState<R>>>,
    Extension(requested): Extension<RequestedHost>,
    Extension(client): Extension<ClientAddress>,
    request: Request,
) -> Response {
    if !is_served(&state, &requested) {
        return not_found();
    }
    if let Err(error) = check_rate(&state, LimitKind::ToolboxLink, client.address) {
        return ApiError::from(error).into_response();
    }
    let (mut parts, _) = request.into_parts();
    let upgrade = parts.extensions.remove::<Upgrade>();
    let (Some(upgrade), Some(response)) = (upgrade, waypost_link::upgrade_response(parts)) else {
        let error = Error::new(Code::InvalidArguments, "This URL is for WebSockets of toolbox daemons.");
        return ApiError::new(StatusCode::UPGRADE_REQUIRED, error).into_response();
    };
    let (links, random) = (state.hosting.ops().links().clone(), Arc::clone(&state.random));
    let directory = Arc::new(state.toolboxes.clone());
    upgrade.set(move |stream| async move {
        // The result has been logged and counted.
        let _ = links.accept(stream, &*random, directory).await;
    });
    response.map(|()| Body::empty())
}
