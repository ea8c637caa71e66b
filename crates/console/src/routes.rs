//! The router of the pages with a list of all routes, so that a test can call each route with every role.

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::Method;
use waypost_core::access::{Operation, authorize};
use waypost_http_kit::compression::Compressible;

use crate::Console;
use crate::session::{CurrentUser, Member};
use crate::view::PageError;

/// The access that a page requires. Checked before the handler reads the form; the operations check again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// No sign-in required.
    Public,
    /// Any signed-in user.
    User,
    /// Members of the organisation in the path who are allowed to perform this operation.
    Member(Operation),
}

/// A route of a page or form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, where `{org}` is the slug of the organisation.
    pub path: &'static str,
    /// The required access.
    pub access: Access,
}

impl Route {
    /// Whether the response contains no secret and may be compressed (see [`waypost_http_kit::compression`]).
    #[must_use]
    pub fn is_compressible(&self) -> bool {
        self.method == Method::GET
            && matches!(self.access, Access::Member(_))
            && !PAGES_WITH_CREDENTIALS.contains(&self.path)
    }
}

/// A list of routes with their router.
#[derive(Default)]
pub struct Routes {
    router: Router<Console>,
    list: Vec<Route>,
}

impl Routes {
    /// Creates an empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a GET route.
    #[must_use]
    pub fn get<H: Handler<T, Console>, T: 'static>(self, path: &'static str, access: Access, handler: H) -> Self {
        let route = Route { method: Method::GET, path, access };
        let is_compressible = route.is_compressible();
        self.add(route, |router| {
            let respond = move |console: State<Console>, request: Request| async move {
                let mut response = guard(access, handler, console, request).await;
                if is_compressible {
                    response.extensions_mut().insert(Compressible);
                }
                response
            };
            router.route(path, get(respond))
        })
    }

    /// Adds a POST route.
    #[must_use]
    pub fn post<H: Handler<T, Console>, T: 'static>(self, path: &'static str, access: Access, handler: H) -> Self {
        self.add(Route { method: Method::POST, path, access }, |router| {
            router.route(path, post(move |console, request| guard(access, handler, console, request)))
        })
    }

    fn add(self, route: Route, to: impl FnOnce(Router<Console>) -> Router<Console>) -> Self {
        let Self { router, mut list } = self;
        list.push(route);
        Self { router: to(router), list }
    }

    /// Adds all routes of `other`.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let Self { router, mut list } = self;
        list.extend(other.list);
        Self { router: router.merge(other.router), list }
    }

    /// Returns all routes.
    #[must_use]
    pub fn list(&self) -> &[Route] {
        &self.list
    }

    /// Returns the router.
    pub fn into_router(self) -> Router<Console> {
        self.router
    }
}

/// The pages of members that contain a credential: here, the signed personal URL for test calls.
const PAGES_WITH_CREDENTIALS: [&str; 1] = ["/o/{org}/servers/{server}/try"];

/// Calls the handler if the caller has the required access.
async fn guard<H: Handler<T, Console>, T: 'static>(
    access: Access,
    handler: H,
    State(console): State<Console>,
    request: Request,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let rejection = match access {
        Access::Public => None,
        Access::User => CurrentUser::from_request_parts(&mut parts, &console).await.err(),
        Access::Member(operation) => match Member::from_request_parts(&mut parts, &console).await {
            Ok(member) => {
                let allowed = authorize(&member.cx.caller, operation, &member.organization_id);
                allowed.err().map(|error| PageError::from(error).with_layout(member.layout).into_response())
            }
            Err(rejection) => Some(rejection),
        },
    };
    match rejection {
        Some(response) => response,
        None => handler.call(Request::from_parts(parts, body), console).await,
    }
}
