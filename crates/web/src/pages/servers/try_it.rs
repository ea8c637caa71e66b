//! A panel that speaks MCP with the server itself, from the browser.

use askama::Template;

use super::super::frame::Frame;
use super::super::view::{self, PageResult};
use super::{Head, Hosted};

#[derive(Template)]
#[template(path = "servers/try.html")]
struct TryPage {
    frame: Frame,
    head: Head,
    /// The path of the MCP endpoint, on the host that was asked.
    path: String,
    mcp_url: String,
    signs_in: bool,
    on_connect: bool,
}

pub(super) async fn show(hosted: Hosted) -> PageResult {
    let server = &hosted.server;
    Ok(view::page(&TryPage {
        frame: hosted.frame.clone(),
        head: hosted.head("try"),
        path: format!("/s/{}/mcp", server.slug),
        mcp_url: hosted.mcp_url.clone(),
        signs_in: server.auth_type.signs_in(),
        on_connect: server.auth_type.signs_in() && server.sign_in == waypost_core::server::SignIn::OnConnect,
    }))
}
