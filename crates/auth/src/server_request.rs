//! The hosted server that an HTTP request is for, and the form of the URL by which it was reached.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use waypost_core::caller::Caller;
use waypost_core::claim_link::ClaimLink;
use waypost_core::issuer::IssuerId;
use waypost_core::oauth_error::{OauthCode, OauthError};
use waypost_core::server::{AuthType, Server};
use waypost_core::{Code, Result, personal};
use waypost_http_kit::cookies;
use waypost_ops::browser_sessions;
use waypost_ops::gateway_url::GatewayResource;
use waypost_ops::offers::Offers;
use waypost_ops::public_url::ServerUrls;
use waypost_ops::{joins, oauth_grants};
use waypost_outbound::{Purpose, Route};

use crate::Auth;
use crate::issuer_request::{IssuerRequest, RequestedResource};

/// A request to a hosted server. The router inserts it into the request's extensions.
#[derive(Debug, Clone)]
pub struct ServerRequest {
    /// The URL form by which the server was reached.
    pub address: ServerUrls,
    /// The server and its published content.
    pub offers: Arc<Offers>,
    /// The client's IP address.
    pub client: IpAddr,
    /// The request ID, as in the log.
    pub request_id: String,
}

impl ServerRequest {
    /// Returns the server.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.offers.server
    }
}

/// Whether a server is a protected resource with Waypost as its authorization server.
#[must_use]
pub fn has_oauth(server: &Server) -> bool {
    matches!(server.auth_type, AuthType::PlatformOauth | AuthType::CustomOauth)
}

/// Only servers with sign-in have OAuth endpoints: clients interpret 404 as "no sign-in".
impl<S: Send + Sync> FromRequestParts<S> for ServerRequest {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let incoming = parts.extensions.get::<Self>().filter(|incoming| has_oauth(incoming.server()));
        incoming.cloned().ok_or_else(|| StatusCode::NOT_FOUND.into_response())
    }
}

impl IssuerRequest for ServerRequest {
    fn issuer_id(&self) -> IssuerId {
        self.server().into()
    }

    fn issuer(&self) -> String {
        self.address.issuer()
    }

    fn origin(&self) -> &str {
        self.address.origin()
    }

    fn path(&self, name: &str) -> String {
        self.address.path(name)
    }

    fn name(&self) -> &str {
        &self.server().name
    }

    fn address(&self) -> IpAddr {
        self.client
    }

    fn request_id(&self) -> &str {
        &self.request_id
    }

    fn caller(&self) -> Caller {
        let server = self.server();
        Caller::Client { organization_id: server.organization_id.clone(), server_id: server.id.clone() }
    }

    async fn route(&self, auth: &Auth, purpose: Purpose) -> Result<Route> {
        auth.hosting.ops().route(purpose, &self.server().organization_id).await
    }

    async fn requested_resource(&self, auth: &Auth, resources: &[String]) -> Result<RequestedResource, OauthError> {
        check_resources(auth, self, resources).await?;
        // By default, the resource is the server: clients of MCP revision 2025-03-26 do not send the parameter.
        let resource = resources.first().cloned().unwrap_or_else(|| self.address.resource(None));
        let named = auth.public_url.parse_resource(&resource).and_then(|resource| resource.tracking_id);
        let claim = match &named {
            Some(segment) => joins::verify_claim(&auth.context(self), &auth.hosting, self.server(), segment).await?,
            None => None,
        };
        // The signature of a claim link is not stored.
        let link = named.as_deref().and_then(|segment| Some((segment, ClaimLink::parse(segment)?)));
        let resource = link.map_or_else(|| resource.clone(), |(segment, link)| resource.replace(segment, &link.label));
        Ok(RequestedResource { url: personal::mask(&resource), claim })
    }

    /// A token of this server is valid for all of its URLs, so each of them is within the grant.
    async fn token_resource(&self, auth: &Auth, resources: &[String]) -> Result<Option<GatewayResource>, OauthError> {
        check_resources(auth, self, resources).await?;
        Ok(None)
    }

    async fn has_consented(
        &self,
        auth: &Auth,
        headers: &HeaderMap,
        client_id: &str,
        redirect_uri: &str,
    ) -> Result<bool> {
        let (cx, ops, server) = (auth.context(self), auth.hosting.ops(), self.server());
        let organization = &server.organization_id;
        let Some(cookie) = cookies::read(headers, &cookies::end_user_session(organization)) else {
            return Ok(false);
        };
        let Some(session) = browser_sessions::find(&cx, ops, organization, &cookie).await? else { return Ok(false) };
        let end_user = &session.end_user_id;
        let consent =
            oauth_grants::find_consent_for(ops, organization, &server.id, client_id, redirect_uri, end_user).await?;
        Ok(consent.is_some())
    }
}

/// Checks that every resource indicator is a URL of the requested server.
async fn check_resources(auth: &Auth, incoming: &ServerRequest, resources: &[String]) -> Result<(), OauthError> {
    if resources_match_server(auth, incoming, resources).await? {
        Ok(())
    } else {
        Err(OauthError::new(OauthCode::InvalidTarget, "The resource is not a URL of this server."))
    }
}

/// Whether every resource indicator is a URL of the requested server, with its current slug or a former one.
async fn resources_match_server(auth: &Auth, incoming: &ServerRequest, resources: &[String]) -> Result<bool> {
    for resource in resources {
        let Some(named) = auth.public_url.parse_resource(resource) else { return Ok(false) };
        match auth.hosting.offer_cache().get(&named.slug.to_ascii_lowercase()).await {
            Ok(offers) if offers.server.id == incoming.server().id => {}
            Ok(_) => return Ok(false),
            Err(error) if error.code == Code::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
