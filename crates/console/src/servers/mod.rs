//! `/o/{org}/servers`: hosted servers.

mod install;
mod list;
mod new;
mod overview;
mod settings;
mod try_it;
mod walkthroughs;

use axum::extract::FromRequestParts;
use axum::extract::RawPathParams;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use waypost_core::Error;
use waypost_core::access::Operation;
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, ServerId};
use waypost_core::server::Server;
use waypost_ops::servers;

use super::layout::{CurrentOrganization, Layout};
use super::routes::{Access, Routes};
use super::session::Member;
use super::view::PageError;
use crate::Console;
use waypost_http_kit::request_info::RequestInfo;

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    let (read, write) = (Access::Member(Operation::ServerRead), Access::Member(Operation::ServerWrite));
    let assign = Access::Member(Operation::AssignmentWrite);
    Routes::new()
        .get("/o/{org}/servers", read, list::show)
        .post("/o/{org}/servers", write, new::create)
        .get("/o/{org}/servers/new", write, new::show)
        .get("/o/{org}/servers/slug", write, new::slug)
        .get("/o/{org}/servers/{server}", read, overview::show)
        .get("/o/{org}/servers/{server}/walkthroughs", read, walkthroughs::show)
        .get("/o/{org}/servers/{server}/candidates", read, walkthroughs::candidates)
        .post("/o/{org}/servers/{server}/walkthroughs", assign, walkthroughs::assign)
        .post("/o/{org}/servers/{server}/walkthroughs/{assignment}/switch", assign, walkthroughs::toggle)
        .post("/o/{org}/servers/{server}/walkthroughs/{assignment}/move", assign, walkthroughs::reorder)
        .post("/o/{org}/servers/{server}/walkthroughs/{assignment}/remove", assign, walkthroughs::unassign)
        .get("/o/{org}/servers/{server}/install", read, install::show)
        .get("/o/{org}/servers/{server}/try", read, try_it::show)
        .post("/o/{org}/servers/{server}/try/reset", read, try_it::reset)
        .get("/o/{org}/servers/{server}/settings", read, settings::show)
        .post("/o/{org}/servers/{server}/settings", write, settings::save)
        .post("/o/{org}/servers/{server}/slugs/release", write, settings::release)
        .get("/o/{org}/servers/{server}/delete", write, settings::confirm_delete)
        .post("/o/{org}/servers/{server}/delete", write, settings::delete)
}

/// The server in the path (`{server}`) with the context of the request.
pub(super) struct ServerContext {
    cx: Ctx,
    organization_id: OrganizationId,
    org: CurrentOrganization,
    layout: Layout,
    server: Server,
    /// The MCP URL.
    mcp_url: String,
    /// The URL of the public page. `None` if it is turned off.
    page_url: Option<String>,
}

impl FromRequestParts<Console> for ServerContext {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Response> {
        let Member { cx, organization_id, org, layout } = Member::from_request_parts(parts, console).await?;
        let layout = layout.with_section("servers");
        let params = RawPathParams::from_request_parts(parts, console).await.map_err(IntoResponse::into_response)?;
        let id = params.iter().find(|(name, _)| *name == "server").and_then(|(_, text)| text.parse::<ServerId>().ok());
        let result = match id {
            Some(id) => servers::get(&cx, console.ops(), &organization_id, &id).await,
            None => Err(Error::not_found("server")),
        };
        match result {
            Ok(server) => {
                let info = RequestInfo::from_parts(parts).map_err(|error| PageError::from(error).into_response())?;
                let address = console.public_url.path_urls(&info.authority, &server.slug);
                let page_url = server.public_page.then(|| address.page());
                Ok(Self { cx, organization_id, org, layout, server, mcp_url: address.resource(None), page_url })
            }
            Err(error) => Err(PageError::from(error).with_layout(layout).into_response()),
        }
    }
}

impl ServerContext {
    /// Returns the path of a page of the server.
    fn path(&self, rest: &str) -> String {
        let id = &self.server.id;
        let rest = if rest.is_empty() { format!("servers/{id}") } else { format!("servers/{id}/{rest}") };
        self.org.path(&rest)
    }

    /// Returns the header for a page of the server.
    fn header(&self, tab: &'static str) -> ServerHeader {
        ServerHeader { list: self.org.path("servers"), base: self.path(""), name: self.server.name.clone(), tab }
    }

    fn page_error(&self, error: Error) -> PageError {
        PageError::from(error).with_layout(self.layout.clone())
    }
}

/// The header of all pages of a server.
pub(super) struct ServerHeader {
    /// The path of the list.
    list: String,
    /// The path of the server.
    base: String,
    name: String,
    tab: &'static str,
}

impl ServerHeader {
    /// Returns the path and label of each tab, and whether it is the current one.
    fn tabs(&self) -> Vec<(String, &'static str, bool)> {
        [
            ("", "Overview"),
            ("walkthroughs", "Walkthroughs"),
            ("install", "Install"),
            ("try", "Try it"),
            ("settings", "Settings"),
        ]
        .into_iter()
        .map(|(rest, label)| {
            let href = if rest.is_empty() { self.base.clone() } else { format!("{}/{rest}", self.base) };
            (href, label, rest == self.tab)
        })
        .collect()
    }
}

/// Returns the label of an authentication type.
fn auth_label(auth_type: waypost_core::server::AuthType) -> &'static str {
    use waypost_core::server::AuthType;
    match auth_type {
        AuthType::None => "No sign-in",
        AuthType::CollectEmail => "Asks for an email",
        AuthType::PlatformOauth => "Sign-in with Waypost",
        AuthType::CustomOauth => "Sign-in with your provider",
    }
}

/// Formats a count with its noun and thousands separators: `1 walkthrough`, `3,000 walkthroughs`.
fn pluralize(count: i64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{} {many}", group_digits(count)) }
}

/// Formats a number with thousands separators.
fn group_digits(count: i64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_thousands_separators() {
        assert_eq!(group_digits(0), "0");
        assert_eq!(group_digits(999), "999");
        assert_eq!(group_digits(12_345_678), "12,345,678");
        assert_eq!(pluralize(1, "user", "users"), "1 user");
        assert_eq!(pluralize(1_000, "user", "users"), "1,000 users");
    }
}
