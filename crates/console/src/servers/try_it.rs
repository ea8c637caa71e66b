//! The “Try it” panel, an MCP client in the browser.

use askama::Template;
use axum::extract::State;
use waypost_ops::try_it;

use super::super::layout::Layout;
use super::super::view::{self, PageResult};
use super::{ServerContext, ServerHeader};
use crate::Console;

#[derive(Template)]
#[template(path = "servers/try.html")]
struct TryPage {
    layout: Layout,
    header: ServerHeader,
    /// The path of the MCP endpoint on this host: a personal URL that marks its calls as tests.
    path: String,
    reset_path: String,
    mcp_url: String,
    signs_in: bool,
    on_connect: bool,
}

pub(super) async fn show(State(console): State<Console>, context: ServerContext) -> PageResult {
    let server = &context.server;
    let tracking_id = try_it::sign(&context.cx, console.hosting.secret(), &server.id);
    Ok(view::page(&TryPage {
        layout: context.layout.clone(),
        header: context.header("try"),
        path: format!("/s/{}/t/{tracking_id}/mcp", server.slug),
        reset_path: context.path("try/reset"),
        mcp_url: context.mcp_url.clone(),
        signs_in: server.auth_type.has_sign_in(),
        on_connect: server.auth_type.has_sign_in() && server.sign_in == waypost_core::server::SignInPolicy::OnConnect,
    }))
}

/// Deletes the user's test progress.
pub(super) async fn reset(State(console): State<Console>, context: ServerContext) -> PageResult {
    try_it::reset(&context.cx, console.ops(), &context.organization_id)
        .await
        .map_err(|error| context.page_error(error))?;
    Ok(view::redirect_with_flash(&context.path("try"), "Test progress deleted. The next test starts over."))
}
