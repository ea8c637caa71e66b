//! Setup instructions for each AI client, with an optional tracking ID.

use askama::Template;
use axum::extract::{Query, State};
use http::StatusCode;
use serde::Deserialize;
use url::form_urlencoded;
use waypost_core::slug::is_tracking_id;

use super::super::layout::Layout;
use super::super::view::{self, FormError, PageResult};
use super::{ServerContext, ServerHeader};
use crate::Console;
use crate::install::{self, Client, Target};
use waypost_http_kit::request_info::RequestInfo;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct InstallQuery {
    client: String,
    tracking_id: String,
}

/// A client option.
struct ClientOption {
    href: String,
    name: &'static str,
    is_current: bool,
}

#[derive(Template)]
#[template(path = "servers/install.html")]
struct InstallPage {
    layout: Layout,
    header: ServerHeader,
    form_error: FormError,
    client_options: Vec<ClientOption>,
    client: Client,
    tracking_id: String,
    /// Whether the snippets contain a tracking ID.
    is_personal: bool,
    /// Whether the URL is reachable from the internet.
    is_reachable: bool,
    page_url: Option<String>,
    /// Whether end users sign in, which makes tracking IDs irrelevant.
    signs_in: bool,
}

pub(super) async fn show(
    State(console): State<Console>,
    info: RequestInfo,
    context: ServerContext,
    Query(InstallQuery { client, tracking_id }): Query<InstallQuery>,
) -> PageResult {
    let tracking_id = tracking_id.trim().to_owned();
    let is_personal = !tracking_id.is_empty() && is_tracking_id(&tracking_id);
    let (mut status, mut form_error) = (StatusCode::OK, FormError::default());
    if !tracking_id.is_empty() && !is_personal {
        status = StatusCode::UNPROCESSABLE_ENTITY;
        form_error.field = "tracking_id".to_owned();
        "A tracking ID has 1 to 128 characters: letters A to Z, digits and . _ ~ -. The snippets below do not contain it."
            .clone_into(&mut form_error.message);
    }
    let address = console.public_url.path_urls(&info.authority, &context.server.slug);
    let url = address.resource(is_personal.then_some(tracking_id.as_str()));
    let clients = install::all_clients(Target { name: &context.server.slug, url: &url });
    let selected = clients.iter().position(|candidate| candidate.id == client).unwrap_or(0);
    let base = context.path("install");
    let choice = |(index, client): (usize, &Client)| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("client", client.id);
        if is_personal {
            query.append_pair("tracking_id", &tracking_id);
        }
        ClientOption { href: format!("{base}?{}", query.finish()), name: client.name, is_current: index == selected }
    };
    let client_options = clients.iter().enumerate().map(choice).collect();
    let client = clients[selected].clone();
    Ok(view::html(
        status,
        &InstallPage {
            layout: context.layout.clone(),
            header: context.header("install"),
            form_error,
            client_options,
            client,
            tracking_id,
            is_personal,
            is_reachable: install::is_reachable_from_internet(&url),
            page_url: context.page_url.clone(),
            signs_in: context.server.auth_type.has_sign_in(),
        },
    ))
}
