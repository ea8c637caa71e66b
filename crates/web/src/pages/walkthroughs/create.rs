//! Making a walkthrough: empty, from the template of its type, or from files.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Map;
use waypost_core::access::Act;
use waypost_core::server::Server;
use waypost_core::template;
use waypost_core::walkthrough::{WalkthroughFields, WalkthroughType};
use waypost_ops::servers;
use waypost_ops::walkthroughs::{self, NewWalkthrough};

use super::kind_name;
use crate::Web;
use crate::pages::form::Form;
use crate::pages::frame::{Frame, Place};
use crate::pages::routes::{Access, Routes};
use crate::pages::session::Member;
use crate::pages::view::{self, PageError, PageResult, Wrong};

pub(super) fn routes() -> Routes {
    const WRITE: Access = Access::Member(Act::WalkthroughWrite);
    Routes::new().get("/o/{org}/walkthroughs/new", WRITE, show).post("/o/{org}/walkthroughs/new", WRITE, create).get(
        "/o/{org}/walkthroughs/import",
        WRITE,
        import,
    )
}

/// A type to choose, with what it is good for and how many steps its template has.
struct Kind {
    value: &'static str,
    name: &'static str,
    purpose: &'static str,
    steps: usize,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "walkthroughs/new.html")]
struct NewPage {
    frame: Frame,
    place: Place,
    wrong: Wrong,
    title: String,
    kinds: Vec<Kind>,
    from_template: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    title: String,
    #[serde(rename = "type")]
    kind: String,
    start: String,
}

fn kinds(chosen: WalkthroughType) -> Vec<Kind> {
    let kind = |kind: &WalkthroughType| Kind {
        value: kind.as_str(),
        name: kind_name(kind),
        purpose: template::purpose(*kind),
        steps: template::steps(*kind).len(),
        chosen: *kind == chosen,
    };
    WalkthroughType::ALL.iter().map(kind).collect()
}

async fn show(Member { place, frame, .. }: Member) -> Response {
    view::page(&NewPage {
        frame: frame.at("walkthroughs"),
        place,
        wrong: Wrong::default(),
        title: String::new(),
        kinds: kinds(WalkthroughType::Course),
        from_template: true,
    })
}

async fn create(
    State(web): State<Web>,
    Member { cx, organization_id, place, frame }: Member,
    Form(fields): Form<Fields>,
) -> PageResult {
    let frame = frame.at("walkthroughs");
    let kind: WalkthroughType = fields.kind.parse().unwrap_or(WalkthroughType::Course);
    let from_template = fields.start != "empty";
    let steps = if from_template { template::steps(kind) } else { Vec::new() };
    let new = NewWalkthrough {
        fields: WalkthroughFields {
            title: fields.title.clone(),
            description: String::new(),
            kind,
            estimated_duration_minutes: None,
            tags: Vec::new(),
            metadata: Map::new(),
        },
        slug: None,
    };
    match walkthroughs::create_with_steps(&cx, web.ops(), &organization_id, new, steps).await {
        Ok(made) => Ok(view::redirect(&place.path(&format!("walkthroughs/{}", made.id)))),
        Err(error) => {
            let (status, wrong): (StatusCode, Wrong) =
                Wrong::of(error).map_err(|error| PageError::from(error).within(frame.clone()))?;
            let page = NewPage { frame, place, wrong, title: fields.title, kinds: kinds(kind), from_template };
            Ok(view::html(status, &page))
        }
    }
}

#[derive(Template)]
#[template(path = "walkthroughs/import.html")]
struct ImportPage {
    frame: Frame,
    place: Place,
    servers: Vec<Server>,
}

async fn import(State(web): State<Web>, Member { cx, organization_id, place, frame }: Member) -> PageResult {
    let frame = frame.at("walkthroughs");
    let servers = servers::list(&cx, web.ops(), &organization_id).await;
    let servers = servers.map_err(|error| PageError::from(error).within(frame.clone()))?;
    Ok(view::page(&ImportPage { frame, place, servers }))
}
