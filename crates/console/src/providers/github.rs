//! GitHub: plain OAuth (RFC 6749), and GitHub's own endpoints for the user and their emails.

use http::{Method, Request, StatusCode, header};
use serde::Deserialize;
use waypost_core::Result;
use waypost_core::oauth_config::{ProviderKind, TokenAuthMethod};
use waypost_core::seal::SecretText;
use waypost_ops::Ops;
use waypost_ops::login::{LoginProvider, send};

use super::Provider;

/// The origins of GitHub.
#[derive(Debug, Clone)]
pub struct Github {
    /// The origin of GitHub's pages.
    pub site: String,
    /// The origin of GitHub's API.
    pub api: String,
}

impl Default for Github {
    fn default() -> Self {
        Self { site: "https://github.com".to_owned(), api: "https://api.github.com".to_owned() }
    }
}

#[derive(Deserialize)]
struct Email {
    email: String,
    primary: bool,
    verified: bool,
}

impl Github {
    /// Returns the settings for a login with GitHub.
    pub(super) fn login_provider(&self, provider: &Provider, redirect_uri: &str) -> LoginProvider {
        LoginProvider {
            kind: ProviderKind::Oauth,
            issuer: String::new(),
            identity_issuer: Some(self.site.clone()),
            authorization_endpoint: format!("{}/login/oauth/authorize", self.site),
            token_endpoint: format!("{}/login/oauth/access_token", self.site),
            userinfo_endpoint: Some(format!("{}/user", self.api)),
            jwks_uri: None,
            client_id: provider.client_id.clone(),
            client_secret: Some(provider.client_secret.clone()),
            token_auth_method: TokenAuthMethod::ClientSecretPost,
            scopes: ["read:user", "user:email"].map(str::to_owned).to_vec(),
            subject_claim: "id".to_owned(),
            required_claims: &[],
            redirect_uri: redirect_uri.to_owned(),
        }
    }

    /// Returns the primary email of the user, or `None` if GitHub has not verified it.
    pub(super) async fn fetch_email(
        &self,
        provider: &Provider,
        ops: &Ops,
        token: &SecretText,
    ) -> Result<Option<String>> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(format!("{}/user/emails", self.api))
            .header(header::ACCEPT, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", token.expose()))
            .body(Vec::new())
            .map_err(|_| provider.rejected(&"the access token is not a valid header value"))?;
        let response = send(provider.route(ops)?, request).await.map_err(|error| provider.unavailable(error))?;
        if response.status() != StatusCode::OK {
            return Err(provider.rejected(&"the emails endpoint returned an error"));
        }
        let emails: Vec<Email> = serde_json::from_slice(response.body())
            .map_err(|_| provider.rejected(&"the emails endpoint returned a malformed response"))?;
        Ok(emails.into_iter().find(|email| email.primary && email.verified).map(|email| email.email))
    }
}
