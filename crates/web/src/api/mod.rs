//! The REST API under `/api/v1`: one file per noun. A handler reads, calls an act, and writes.

pub(crate) mod activity;
pub(crate) mod analytics;
mod api_keys;
mod assignments;
mod audit_events;
mod authenticate;
pub(crate) mod end_users;
pub mod extract;
mod idempotency;
mod invitations;
pub(crate) mod joins;
mod members;
mod oauth_configs;
mod organizations;
pub mod page;
mod schema;
mod servers;
mod ticket_comments;
mod tickets;
pub(crate) mod walkthroughs;
mod webhooks;

use axum::Router;
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::get;
use http::{StatusCode, header};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use waypost_core::Error;

use crate::Web;
use crate::problem::ApiError;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Waypost",
        version = "1",
        description = "Everything that an organisation does with Waypost. Authenticate with an API key \
            (`Authorization: Bearer wpk_…`); everything is scoped to the key's organisation, and what belongs to another \
            one is 404. Lists are `{items, next_cursor}`; errors are problem details (RFC 9457) with a stable `code`. Edits \
            of a draft take `If-Match`. Requests that make something take an `Idempotency-Key`."
    ),
    servers((url = "/api/v1")),
    components(schemas(crate::problem::Problem)),
    security(("key" = []), ("session" = []))
)]
struct Document;

/// Every operation, with its description.
fn operations() -> OpenApiRouter<Web> {
    // One line each, so that a new one is a new line.
    #[rustfmt::skip]
    let all = [
        activity::routes,
        analytics::routes,
        api_keys::routes,
        assignments::routes,
        audit_events::routes,
        end_users::routes,
        invitations::routes,
        joins::routes,
        members::routes,
        oauth_configs::routes,
        organizations::routes,
        servers::routes,
        ticket_comments::routes,
        tickets::routes,
        walkthroughs::routes,
        webhooks::routes,
    ];
    all.into_iter().fold(OpenApiRouter::with_openapi(Document::openapi()), |router, noun| router.merge(noun()))
}

/// The OpenAPI document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = operations().into_openapi();
    let components = document.components.get_or_insert_default();
    let mut key = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    key.description = Some("An API key of the organisation: `wpk_…`".to_owned());
    components.add_security_scheme("key", SecurityScheme::Http(key));
    let cookie = utoipa::openapi::security::ApiKeyValue::with_description(
        crate::cookies::SESSION,
        "The console's session. The header `Waypost-Organization` (slug or id) says for which organisation.",
    );
    components
        .add_security_scheme("session", SecurityScheme::ApiKey(utoipa::openapi::security::ApiKey::Cookie(cookie)));
    document
}

/// The routes below `/api/v1`.
pub fn router(web: &Web) -> Router<Web> {
    let (operations, _) = operations().split_for_parts();
    let json = document().to_pretty_json().unwrap_or_default();
    operations
        .fallback(|| async { ApiError::from(Error::not_found("address")) })
        .method_not_allowed_fallback(|| async {
            let message = "This address does not take this method.";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, Error::new(waypost_core::Code::NotFound, message))
        })
        .layer(middleware::from_fn_with_state(web.clone(), idempotency::once))
        .layer(middleware::from_fn_with_state(web.clone(), authenticate::authenticate))
        .route(
            "/openapi.json",
            get(|| async move { ([(header::CONTENT_TYPE, "application/json")], json).into_response() }),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document that is checked in is what the code says; `WAYPOST_TEST_WRITE=1` writes it anew.
    #[test]
    fn the_document_is_up_to_date() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let document = document().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("WAYPOST_TEST_WRITE").is_some() {
            std::fs::write(file, &document).unwrap();
        }
        assert!(std::fs::read_to_string(file).unwrap() == document, "docs/openapi.json is not what the code says");
    }

    /// A document with a reference to nothing is none that a tool reads.
    #[test]
    fn every_reference_leads_somewhere() {
        let document = document().to_json().unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&document).unwrap();
        for part in document.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(parsed["components"]["schemas"].get(name).is_some(), "there is no schema {name}");
        }
    }

    #[test]
    fn every_operation_has_a_name_of_its_own() {
        let document = serde_json::to_value(document()).unwrap();
        let mut names = std::collections::BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has no name"));
                assert!(names.insert(name.to_owned()), "{name} is there twice");
            }
        }
    }
}
