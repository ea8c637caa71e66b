//! Routes whose OpenAPI descriptions are built only for the OpenAPI document: building them takes more time and memory
//! than the rest of the start-up, and most processes never need them.

use axum::Router;
use axum::handler::Handler;
use axum::routing::MethodRouter;
use utoipa::Path;
use utoipa::openapi::{HttpMethod, OpenApi};
use utoipa_axum::PathItemExt as _;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use waypost_http_kit::web::Web;

/// The routes of a part of the API.
#[derive(Default)]
pub struct Routes {
    operations: Vec<(String, MethodRouter<Web>)>,
    descriptions: Vec<fn() -> UtoipaMethodRouter<Web>>,
}

/// Operations with the same path, created by [`routes!`].
pub struct Operations {
    path: String,
    methods: MethodRouter<Web>,
    describe: fn() -> UtoipaMethodRouter<Web>,
}

impl Operations {
    pub fn new(describe: fn() -> UtoipaMethodRouter<Web>) -> Self {
        Self { path: String::new(), methods: MethodRouter::new(), describe }
    }

    /// Adds `handler`, which is described by `P`.
    pub fn operation<P: Path, H: Handler<T, Web>, T: 'static>(self, handler: H) -> Self {
        let add =
            |methods: MethodRouter<Web>, method: HttpMethod| methods.on(method.to_method_filter(), handler.clone());
        Self { path: P::path(), methods: P::methods().into_iter().fold(self.methods, add), ..self }
    }
}

impl Routes {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn routes(mut self, operations: Operations) -> Self {
        self.descriptions.push(operations.describe);
        self.operations.push((operations.path, operations.methods));
        self
    }

    pub fn merge(mut self, other: Self) -> Self {
        self.descriptions.extend(other.descriptions);
        self.operations.extend(other.operations);
        self
    }

    /// Returns the router, without descriptions.
    pub fn into_router(self) -> Router<Web> {
        self.operations.into_iter().fold(Router::new(), |router, (path, methods)| router.route(&path, methods))
    }

    /// Adds the descriptions of all operations to `document`.
    pub fn describe(self, document: OpenApi) -> OpenApi {
        let document = OpenApiRouter::with_openapi(document);
        self.descriptions.into_iter().fold(document, |document, describe| document.routes(describe())).into_openapi()
    }
}

/// Creates the [`Operations`] of handlers with the same path, each with a `#[utoipa::path]` attribute.
macro_rules! routes {
    ($($handler:ident),+ $(,)?) => {
        utoipa_axum::paste! {
            $crate::routes::Operations::new(|| utoipa_axum::routes!($($handler),+))
                $(.operation::<[<__path_ $handler>], _, _>($handler))+
        }
    };
}
pub(crate) use routes;
