//! The router of the pages with a list of all routes, so that a test can call each route with every role.

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use http::Method;
use http::request::Parts;
use waypost_core::access::{Operation, authorize};
use waypost_http_kit::compression::Compressible;
use waypost_http_kit::origin;

use crate::Console;
use crate::session::{CurrentUser, Member};
use crate::view::{self, PageError};

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

/// A list of routes with their handlers.
#[derive(Default)]
pub struct Routes {
    handlers: Vec<MethodRouter<Console>>,
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
        let respond = move |console: State<Console>, request: Request| async move {
            let mut response = guard(access, handler, console, request).await;
            if is_compressible {
                response.extensions_mut().insert(Compressible);
            }
            response
        };
        self.add(route, get(respond))
    }

    /// Adds a POST route.
    #[must_use]
    pub fn post<H: Handler<T, Console>, T: 'static>(self, path: &'static str, access: Access, handler: H) -> Self {
        let route = Route { method: Method::POST, path, access };
        self.add(route, post(move |console, request| guard(access, handler, console, request)))
    }

    fn add(mut self, route: Route, handler: MethodRouter<Console>) -> Self {
        self.list.push(route);
        self.handlers.push(handler);
        self
    }

    /// Adds all routes of `other`.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.list.extend(other.list);
        self.handlers.extend(other.handlers);
        self
    }

    /// Returns all routes.
    #[must_use]
    pub fn list(&self) -> &[Route] {
        &self.list
    }

    /// Returns the router.
    pub fn into_router(self) -> Router<Console> {
        let routes = self.list.into_iter().zip(self.handlers);
        routes.fold(Router::new(), |router, (route, handler)| router.route(route.path, handler))
    }
}

/// The pages of members that contain a credential: here, the signed personal URL for test calls.
const PAGES_WITH_CREDENTIALS: [&str; 1] = ["/o/{org}/servers/{server}/try"];

/// Calls the handler if the caller has the required access. Everything that does not depend on the handler is in other
/// functions, because this one is compiled for each handler.
async fn guard<H: Handler<T, Console>, T: 'static>(
    access: Access,
    handler: H,
    State(console): State<Console>,
    request: Request,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let clears_flash = view::clears_flash(&parts);
    let mut response = match check(access, &console, &mut parts).await {
        None => handler.call(Request::from_parts(parts, body), console).await,
        Some(rejection) => rejection,
    };
    if clears_flash {
        view::clear_flash(&mut response);
    }
    response
}

/// Returns the response to a request that is rejected because of its origin or its caller. Returns `None` if the
/// request is allowed.
async fn check(access: Access, console: &Console, parts: &mut Parts) -> Option<Response> {
    if let Some(rejection) = origin::check(parts) {
        return Some(rejection);
    }
    match access {
        Access::Public => None,
        Access::User => CurrentUser::from_request_parts(parts, console).await.err(),
        Access::Member(operation) => match Member::from_request_parts(parts, console).await {
            Ok(member) => {
                let allowed = authorize(&member.cx.caller, operation, &member.organization_id);
                allowed.err().map(|error| PageError::from(error).with_layout(member.layout).into_response())
            }
            Err(rejection) => Some(rejection),
        },
    }
}
