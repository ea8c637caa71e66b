//! The REST API under `/api/v1`: one file per resource. A handler parses the request, calls an operation and serialises
//! the result.

mod activity;
mod agent_connections;
mod agent_secrets;
mod agents;
mod analytics;
mod api_keys;
mod assignments;
mod audit_events;
mod authenticate;
mod calls;
mod catalog;
mod deployments;
mod end_users;
pub mod extract;
mod follow;
mod grants;
mod idempotency;
mod initial_access;
mod instance_connections;
mod instance_tools;
mod instances;
mod invitations;
mod joins;
mod members;
mod oauth_configs;
mod organizations;
pub mod page;
pub mod problem;
mod routes;
mod schema;
mod secrets;
mod servers;
mod ticket_comments;
mod tickets;
mod tool_approvals;
mod tool_overrides;
mod tool_sets;
mod toolboxes;
mod walkthroughs;
mod webhooks;

use std::sync::LazyLock;

use axum::Router;
use axum::extract::RawQuery;
use axum::middleware;
use axum::response::Response;
use axum::routing::get;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use waypost_core::Error;
use waypost_http_kit::asset::Assets;
use waypost_http_kit::compression::{self, Compressible};
use waypost_http_kit::layered::{layered, record_route};
use waypost_http_kit::web::Web;

use crate::problem::ApiError;
use crate::routes::Routes;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Waypost",
        version = "1",
        description = "The REST API of an organisation. Authenticate with an API key (`Authorization: Bearer wpk_…`). Every \
            request is scoped to the organisation of the key: resources of other organisations return 404. Lists return \
            `{items, next_cursor}`; pass `next_cursor` as `cursor` to get the next page. Errors are problem details \
            (RFC 9457) with a stable `code`. Edits to a draft accept `If-Match`, and POST requests accept an \
            `Idempotency-Key`. Times are in RFC 3339 format."
    ),
    servers((url = "/api/v1")),
    tags(
        (name = "agents", description = "AI clients of the organisation, and their tokens for the gateway."),
        (name = "analytics", description = "Reports on attempts, steps, tool calls and clients."),
        (name = "api-keys", description = "Keys for this API."),
        (name = "assignments", description = "Walkthroughs assigned to servers."),
        (name = "audit-events", description = "The audit log: who did what, and when."),
        (name = "calls", description = "The gateway's call log."),
        (name = "catalog", description = "The catalogue of tool servers that can be deployed, with their versions."),
        (name = "end-users", description = "The users of your servers: progress, exports, erasure, joins and claim links."),
        (name = "events", description = "The progress events of attempts."),
        (name = "grants", description = "The access of agents to instances."),
        (name = "instances", description = "Tool servers that run on toolboxes, and their deployments."),
        (name = "invitations", description = "Invitations to join the organisation."),
        (name = "members", description = "The users of the organisation."),
        (name = "oauth-configs", description = "Identity providers that end users sign in with."),
        (name = "organizations", description = "Organisations and their logos."),
        (name = "secrets", description = "Secrets of tool servers, which can be written but never read back."),
        (name = "tool-approvals", description = "Definitions of tool servers, and the decisions of admins about them."),
        (name = "servers", description = "Hosted MCP servers and their slugs."),
        (name = "sessions", description = "Client sessions of end users."),
        (name = "steps", description = "The steps of a walkthrough's draft, and their revisions."),
        (name = "tickets", description = "Support tickets and comments."),
        (name = "toolboxes", description = "Machines that run tool servers."),
        (name = "tool-sets", description = "Selections of the tools of instances, each with its own gateway URL."),
        (name = "tool-calls", description = "The log of tool calls."),
        (name = "versions", description = "Publishing a draft, and the published versions of a walkthrough."),
        (name = "walkthroughs", description = "Walkthroughs, their drafts, import and export."),
        (name = "webhooks", description = "Webhook endpoints and deliveries."),
    ),
    components(schemas(crate::problem::Problem)),
    security(("key" = []), ("session" = []))
)]
struct Document;

/// Returns all operations.
fn operations() -> Routes {
    // One line per resource keeps diffs small.
    #[rustfmt::skip]
    let all = [
        activity::routes,
        agent_connections::routes,
        agent_secrets::routes,
        agents::routes,
        analytics::routes,
        api_keys::routes,
        assignments::routes,
        audit_events::routes,
        calls::routes,
        catalog::routes,
        deployments::routes,
        end_users::routes,
        grants::routes,
        instance_connections::routes,
        instance_tools::routes,
        instances::routes,
        invitations::routes,
        joins::routes,
        members::routes,
        oauth_configs::routes,
        organizations::routes,
        secrets::routes,
        servers::routes,
        ticket_comments::routes,
        tickets::routes,
        tool_approvals::routes,
        tool_overrides::routes,
        tool_sets::routes,
        toolboxes::routes,
        walkthroughs::routes,
        webhooks::routes,
    ];
    all.into_iter().fold(Routes::new(), |all, routes| all.merge(routes()))
}

/// The OpenAPI document. Built on first use.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document = operations().describe(Document::openapi());
    describe_credentials(&mut document);
    serde_json::to_value(document).unwrap_or_default()
});

const DOCUMENT_NAME: &str = "openapi.json";

static DOCUMENT_JSON: LazyLock<String> = LazyLock::new(|| serde_json::to_string_pretty(document()).unwrap_or_default());

/// The document as a static file. It is compressed once instead of per request, because it is public and contains no
/// secrets.
static DOCUMENT_FILE: LazyLock<Assets> =
    LazyLock::new(|| Assets::new("/api/v1", &[(DOCUMENT_NAME, "application/json", DOCUMENT_JSON.as_bytes())]));

/// Returns the OpenAPI document.
#[must_use]
pub fn document() -> &'static Value {
    &DOCUMENT
}

fn describe_credentials(document: &mut utoipa::openapi::OpenApi) {
    let components = document.components.get_or_insert_default();
    let mut key = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    key.description = Some("An API key of the organisation (`wpk_…`).".to_owned());
    components.add_security_scheme("key", SecurityScheme::Http(key));
    let cookie = utoipa::openapi::security::ApiKeyValue::with_description(
        waypost_http_kit::cookies::SESSION,
        "A console session. The header `Waypost-Organization` (a slug or an ID) selects the organisation.",
    );
    components
        .add_security_scheme("session", SecurityScheme::ApiKey(utoipa::openapi::security::ApiKey::Cookie(cookie)));
}

/// Returns the routes below `/api/v1`. They require a [`waypost_http_kit::request_info::RequestInfo`] in each request's
/// extensions.
pub fn router(web: &Web) -> Router {
    let authenticate = middleware::from_fn_with_state(web.clone(), authenticate::authenticate);
    with_documents(layered(operation_routes(web), authenticate))
}

/// Returns the same routes for the operator, who is the caller of every request and needs no credentials. The header
/// `Waypost-Organization` selects the organisation. Must be served only where no one else can connect.
pub fn operator_router(web: &Web) -> Router {
    let authenticate = middleware::from_fn_with_state(web.clone(), authenticate::authenticate_operator);
    with_documents(layered(operation_routes(web), authenticate))
}

/// Returns the routes of all operations, without the layer that determines the caller. A request cannot choose its
/// caller, because both layers that determine it replace the extension that handlers read.
fn operation_routes(web: &Web) -> Router {
    let routes = operations()
        .into_router()
        .route_layer(middleware::from_fn(record_route))
        .fallback(|| async { ApiError::from(Error::not_found("path")) })
        .method_not_allowed_fallback(|| async {
            let message = "This path does not support this method. See /api/v1/openapi.json for the supported methods.";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, Error::new(waypost_core::Code::NotFound, message))
        })
        .with_state(web.clone());
    layered(routes, middleware::from_fn_with_state(web.clone(), idempotency::handle))
}

/// Adds the OpenAPI document, which requires no authentication, and compression.
fn with_documents(routes: Router) -> Router {
    let mark = middleware::map_response(|mut response: Response| async {
        // Only responses to GET and HEAD are compressed. They contain no secrets: a secret is returned once, in the
        // response to the POST that creates it.
        response.extensions_mut().insert(Compressible);
        response
    });
    layered(layered(routes, mark), middleware::from_fn(compression::compress)).route(
        "/openapi.json",
        get(|RawQuery(query): RawQuery, headers: HeaderMap| async move {
            DOCUMENT_FILE.serve(DOCUMENT_NAME, query.as_deref(), &headers)
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checked-in document must equal the generated one. `WAYPOST_TEST_WRITE=1` updates it.
    #[test]
    fn the_document_is_up_to_date() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let document = serde_json::to_string_pretty(document()).unwrap() + "\n";
        if std::env::var_os("WAYPOST_TEST_WRITE").is_some() {
            std::fs::write(file, &document).unwrap();
        }
        assert!(
            std::fs::read_to_string(file).unwrap() == document,
            "docs/openapi.json is out of date; update it with WAYPOST_TEST_WRITE=1"
        );
    }

    /// Tools reject a document with a dangling reference.
    #[test]
    fn every_reference_can_be_resolved() {
        let (parsed, document) = (document(), document().to_string());
        for part in document.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(parsed["components"]["schemas"].get(name).is_some(), "schema {name} is missing");
        }
    }

    #[test]
    fn every_operation_has_a_unique_id_and_a_described_tag() {
        let document = document();
        let tags: Vec<_> = document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
        let mut names = std::collections::BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let name =
                    operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has no operation ID"));
                assert!(names.insert(name.to_owned()), "{name} is used twice");
                assert!(tags.contains(&&operation["tags"][0]), "{name} has a tag without a description");
            }
        }
    }
}
