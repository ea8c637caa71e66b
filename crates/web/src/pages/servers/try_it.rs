//! A panel that speaks MCP with the server itself, from the browser.

use askama::Template;
use axum::extract::State;
use waypost_ops::try_it;

use super::super::frame::Frame;
use super::super::view::{self, PageResult};
use super::{Head, Hosted};
use crate::Web;

#[derive(Template)]
#[template(path = "servers/try.html")]
struct TryPage {
    frame: Frame,
    head: Head,
    /// The path of the MCP endpoint on the host of this page: a personal URL that marks its calls as tests.
    path: String,
    reset_path: String,
    mcp_url: String,
    signs_in: bool,
    on_connect: bool,
}

pub(super) async fn show(State(web): State<Web>, hosted: Hosted) -> PageResult {
    let server = &hosted.server;
    let tracking_id = try_it::sign(&hosted.cx, web.hosting.secret(), &server.id);
    Ok(view::page(&TryPage {
        frame: hosted.frame.clone(),
        head: hosted.head("try"),
        path: format!("/s/{}/t/{tracking_id}/mcp", server.slug),
        reset_path: hosted.path("try/reset"),
        mcp_url: hosted.mcp_url.clone(),
        signs_in: server.auth_type.signs_in(),
        on_connect: server.auth_type.signs_in() && server.sign_in == waypost_core::server::SignIn::OnConnect,
    }))
}

/// Deletes the progress of the user's tests.
pub(super) async fn reset(State(web): State<Web>, hosted: Hosted) -> PageResult {
    try_it::reset(&hosted.cx, web.ops(), &hosted.organization_id).await.map_err(|error| hosted.failed(error))?;
    Ok(view::redirect_saying(&hosted.path("try"), "Your tests were deleted. The next one starts over."))
}
