//! Creating a walkthrough: empty, from a template or by import.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Map;
use waypost_content::template;
use waypost_core::access::Operation;
use waypost_core::server::Server;
use waypost_core::walkthrough::{WalkthroughFields, WalkthroughType};
use waypost_ops::servers;
use waypost_ops::walkthroughs::{self, NewWalkthrough};

use super::kind_name;
use crate::Console;
use crate::form::Form;
use crate::layout::{CurrentOrganization, Layout};
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};

pub(super) fn routes() -> Routes {
    const WRITE: Access = Access::Member(Operation::WalkthroughWrite);
    Routes::new().get("/o/{org}/walkthroughs/new", WRITE, show).post("/o/{org}/walkthroughs/new", WRITE, create).get(
        "/o/{org}/walkthroughs/import",
        WRITE,
        import,
    )
}

/// A type option with its purpose and the number of steps of its template.
struct TypeOption {
    value: &'static str,
    name: &'static str,
    purpose: &'static str,
    steps: usize,
    is_selected: bool,
}

#[derive(Template)]
#[template(path = "walkthroughs/new.html")]
struct NewWalkthroughPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    title: String,
    kinds: Vec<TypeOption>,
    from_template: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WalkthroughForm {
    title: String,
    #[serde(rename = "type")]
    kind: String,
    start: String,
}

fn type_options(selected: WalkthroughType) -> Vec<TypeOption> {
    let kind = |kind: &WalkthroughType| TypeOption {
        value: kind.as_str(),
        name: kind_name(kind),
        purpose: template::purpose(*kind),
        steps: template::steps(*kind).len(),
        is_selected: *kind == selected,
    };
    WalkthroughType::ALL.iter().map(kind).collect()
}

async fn show(Member { org, layout, .. }: Member) -> Response {
    view::page(&NewWalkthroughPage {
        layout: layout.with_section("walkthroughs"),
        org,
        form_error: FormError::default(),
        title: String::new(),
        kinds: type_options(WalkthroughType::Course),
        from_template: true,
    })
}

async fn create(
    State(console): State<Console>,
    Member { cx, organization_id, org, layout }: Member,
    Form(fields): Form<WalkthroughForm>,
) -> PageResult {
    let layout = layout.with_section("walkthroughs");
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
    match walkthroughs::create_with_steps(&cx, console.ops(), &organization_id, new, steps).await {
        Ok(created) => Ok(view::redirect(&org.path(&format!("walkthroughs/{}", created.id)))),
        Err(error) => {
            let (status, form_error): (StatusCode, FormError) =
                FormError::from_error(error).map_err(|error| PageError::from(error).with_layout(layout.clone()))?;
            let page = NewWalkthroughPage {
                layout,
                org,
                form_error,
                title: fields.title,
                kinds: type_options(kind),
                from_template,
            };
            Ok(view::html(status, &page))
        }
    }
}

#[derive(Template)]
#[template(path = "walkthroughs/import.html")]
struct ImportPage {
    layout: Layout,
    org: CurrentOrganization,
    servers: Vec<Server>,
}

async fn import(State(console): State<Console>, Member { cx, organization_id, org, layout }: Member) -> PageResult {
    let layout = layout.with_section("walkthroughs");
    let servers = servers::list(&cx, console.ops(), &organization_id).await;
    let servers = servers.map_err(|error| PageError::from(error).with_layout(layout.clone()))?;
    Ok(view::page(&ImportPage { layout, org, servers }))
}
