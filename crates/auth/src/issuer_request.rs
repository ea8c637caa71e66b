//! Requests to the issuers of this installation. The authorization server is the same for all kinds of issuers; they
//! differ in who signs in ([`crate::authorize::SignIn`]), in their resources, and in their consent pages.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::response::Response;
use http::HeaderMap;
use waypost_core::authorization::ProgressClaim;
use waypost_core::caller::Caller;
use waypost_core::issuer::IssuerId;
use waypost_core::oauth_error::OauthError;
use waypost_core::{Error, Result};
use waypost_ops::gateway_url::GatewayResource;
use waypost_outbound::{Purpose, Route};

use crate::Auth;

/// A request to an issuer: [`crate::server_request::ServerRequest`] or [`crate::gateway::GatewayRequest`].
pub trait IssuerRequest: FromRequestParts<Auth, Rejection = Response> + Clone + Send + Sync + 'static {
    /// Returns the issuer.
    fn issuer_id(&self) -> IssuerId;

    /// Returns the URL of the issuer in the form that the request used.
    fn issuer(&self) -> String;

    /// Returns the origin that the request used.
    fn origin(&self) -> &str;

    /// Returns the path of a page or an endpoint, such as `/s/SLUG/oauth/token`.
    fn path(&self, name: &str) -> String;

    /// Returns the name of the issuer that pages show.
    fn name(&self) -> &str;

    /// Returns the client's IP address.
    fn address(&self) -> IpAddr;

    /// Returns the request ID, as in the log.
    fn request_id(&self) -> &str;

    /// Returns the caller for operations on behalf of the browser or client.
    fn caller(&self) -> Caller;

    /// Returns the route for requests to URLs that clients specify.
    fn route(&self, auth: &Auth, purpose: Purpose) -> impl Future<Output = Result<Route>> + Send;

    /// Validates the resource indicators of an authorization request (RFC 8707, section 2) and returns the resource.
    fn requested_resource(
        &self,
        auth: &Auth,
        resources: &[String],
    ) -> impl Future<Output = Result<RequestedResource, OauthError>> + Send;

    /// Validates the resource indicators of a token request (RFC 8707, section 2.2). Returns the resource to which the
    /// grant must be restricted, or `None` if any grant of the client is accepted.
    fn token_resource(
        &self,
        auth: &Auth,
        resources: &[String],
    ) -> impl Future<Output = Result<Option<GatewayResource>, OauthError>> + Send;

    /// Whether the signed-in user of this browser allowed the client before, for this redirect URI.
    fn has_consented(
        &self,
        auth: &Auth,
        headers: &HeaderMap,
        client_id: &str,
        redirect_uri: &str,
    ) -> impl Future<Output = Result<bool>> + Send;
}

/// The resource of an authorization request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedResource {
    /// The URL, in the form in which it is stored.
    pub url: String,
    /// The progress that the request can claim.
    pub claim: Option<ProgressClaim>,
}

/// Logs the internal error of a request.
pub(crate) fn log_failure(incoming: &impl IssuerRequest, error: &Error) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(request_id = incoming.request_id(), code = error.code.as_str(), cause, "failed to serve page");
}
