//! What people paste into their AI client, for each of them, with an optional tracking id.

use askama::Template;
use axum::extract::{Query, State};
use http::StatusCode;
use serde::Deserialize;
use url::form_urlencoded;
use waypost_core::slug::is_tracking_id;

use super::super::frame::Frame;
use super::super::view::{self, PageResult, Wrong};
use super::{Head, Hosted};
use crate::Web;
use crate::install::{self, Client, Target};
use crate::request_info::RequestInfo;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields {
    client: String,
    tracking_id: String,
}

/// A client to choose.
struct Choice {
    href: String,
    name: &'static str,
    current: bool,
}

#[derive(Template)]
#[template(path = "servers/install.html")]
struct InstallPage {
    frame: Frame,
    head: Head,
    wrong: Wrong,
    choices: Vec<Choice>,
    client: Client,
    tracking_id: String,
    /// Whether the texts are personal.
    personal: bool,
    /// Whether clients in a cloud can reach the URL.
    reachable: bool,
    page_url: Option<String>,
    /// Whether a tracking id names anybody on this server.
    signs_in: bool,
}

pub(super) async fn show(
    State(web): State<Web>,
    info: RequestInfo,
    hosted: Hosted,
    Query(Fields { client, tracking_id }): Query<Fields>,
) -> PageResult {
    let tracking_id = tracking_id.trim().to_owned();
    let personal = !tracking_id.is_empty() && is_tracking_id(&tracking_id);
    let (mut status, mut wrong) = (StatusCode::OK, Wrong::default());
    if !tracking_id.is_empty() && !personal {
        status = StatusCode::UNPROCESSABLE_ENTITY;
        wrong.field = "tracking_id".to_owned();
        "A tracking id has 1 to 128 letters from A to Z, digits, and . _ ~ -. The texts below are without one."
            .clone_into(&mut wrong.message);
    }
    let address = web.public_url.path_urls(&info.authority, &hosted.server.slug);
    let url = address.resource(personal.then_some(tracking_id.as_str()));
    let clients = install::all_clients(Target { name: &hosted.server.slug, url: &url });
    let chosen = clients.iter().position(|it| it.id == client).unwrap_or(0);
    let base = hosted.path("install");
    let choice = |(at, it): (usize, &Client)| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("client", it.id);
        if personal {
            query.append_pair("tracking_id", &tracking_id);
        }
        Choice { href: format!("{base}?{}", query.finish()), name: it.name, current: at == chosen }
    };
    let choices = clients.iter().enumerate().map(choice).collect();
    let client = clients[chosen].clone();
    Ok(view::html(
        status,
        &InstallPage {
            frame: hosted.frame.clone(),
            head: hosted.head("install"),
            wrong,
            choices,
            client,
            tracking_id,
            personal,
            reachable: install::is_reachable_from_internet(&url),
            page_url: hosted.page_url.clone(),
            signs_in: hosted.server.auth_type.signs_in(),
        },
    ))
}
