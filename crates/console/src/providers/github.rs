//! GitHub: plain OAuth (RFC 6749) with PKCE, and GitHub's own endpoints for the user and their emails.

use data_encoding::BASE64URL_NOPAD;
use http::{Method, Request, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use url::{Url, form_urlencoded};
use waypost_core::seal::SecretText;
use waypost_core::{Error, Result};
use waypost_ops::Ops;
use waypost_ops::identity_provider::send;
use waypost_ops::user_accounts::{PendingUserLogin, ProviderIdentity, UserLoginCallback};

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
struct Token {
    access_token: Option<AccessToken>,
}

/// An access token as received.
#[derive(Deserialize)]
#[serde(transparent)]
struct AccessToken(String);

#[derive(Deserialize)]
struct User {
    id: u64,
    login: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Email {
    email: String,
    primary: bool,
    verified: bool,
}

impl Github {
    pub(super) fn authorization_url(
        &self,
        provider: &Provider,
        leaving: &PendingUserLogin,
        redirect_uri: &str,
    ) -> Result<String> {
        let mut url = Url::parse(&format!("{}/login/oauth/authorize", self.site)).map_err(Error::internal)?;
        let challenge = BASE64URL_NOPAD.encode(&Sha256::digest(leaving.verifier.expose().as_bytes()));
        url.query_pairs_mut()
            .append_pair("client_id", &provider.client_id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("scope", "read:user user:email")
            .append_pair("state", leaving.state.expose())
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        Ok(url.into())
    }

    pub(super) async fn fetch_identity(
        &self,
        provider: &Provider,
        ops: &Ops,
        (returned, code): (&UserLoginCallback, &str),
        redirect_uri: &str,
    ) -> Result<ProviderIdentity> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("client_id", &provider.client_id)
            .append_pair("client_secret", provider.client_secret.expose())
            .append_pair("code", code)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("code_verifier", returned.verifier.expose())
            .finish();
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/login/oauth/access_token", self.site))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let token: Token = fetch(provider, ops, request, form.into_bytes()).await?;
        let token =
            token.access_token.ok_or_else(|| provider.rejected("the token endpoint returned no access token"))?;
        let token = SecretText::new(token.0);
        let get = |path: &str| {
            let bearer = format!("Bearer {}", token.expose());
            Request::builder().uri(format!("{}{path}", self.api)).header(header::AUTHORIZATION, bearer)
        };
        let user: User = fetch(provider, ops, get("/user"), Vec::new()).await?;
        let emails: Vec<Email> = fetch(provider, ops, get("/user/emails"), Vec::new()).await?;
        Ok(ProviderIdentity {
            issuer: self.site.clone(),
            subject: user.id.to_string(),
            email: emails.into_iter().find(|email| email.primary && email.verified).map(|email| email.email),
            name: user.name.or(Some(user.login)),
        })
    }
}

async fn fetch<T: DeserializeOwned>(
    provider: &Provider,
    ops: &Ops,
    request: http::request::Builder,
    body: Vec<u8>,
) -> Result<T> {
    let request = request
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "waypost")
        .body(body)
        .map_err(|_| provider.rejected("the access token is not a valid header value"))?;
    let response = send(provider.route(ops)?, request).await.map_err(|error| provider.unavailable(error))?;
    if response.status() != StatusCode::OK {
        return Err(provider.rejected("an endpoint returned an error"));
    }
    serde_json::from_slice(response.body()).map_err(|_| provider.rejected("malformed response"))
}
