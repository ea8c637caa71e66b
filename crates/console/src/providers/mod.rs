//! Identity providers that console users can sign in with.

mod github;
mod openid;

use std::fmt::Display;

use openidconnect::JsonWebKeySet;
use waypost_core::seal::SecretText;
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_ops::Ops;
use waypost_ops::login::{
    self, AuthorizationResponse, FinishedLogin, LoginError, LoginProvider, LoginSecrets, LoginVerification, SigningKeys,
};
use waypost_ops::user_accounts::ProviderIdentity;
use waypost_outbound::{Purpose, Route};

pub use github::Github;

/// An identity provider of the installation.
#[derive(Debug, Clone)]
pub struct Provider {
    /// The provider's name in URLs: `github`, `google` or `openid`.
    pub key: &'static str,
    /// The provider's name on the sign-in button.
    pub name: String,
    /// The provider's protocol.
    pub kind: ProviderKind,
    /// Waypost's client ID at the provider.
    pub client_id: String,
    /// Waypost's client secret at the provider.
    pub client_secret: SecretText,
}

/// The protocol of a provider.
#[derive(Debug, Clone)]
pub enum ProviderKind {
    /// OpenID Connect with discovery.
    Openid {
        /// The issuer URL.
        issuer: String,
    },
    /// GitHub: plain OAuth with GitHub's own endpoints.
    Github(Github),
}

impl Provider {
    /// Returns the provider's settings for a login, with its current signing keys.
    ///
    /// # Errors
    /// `unavailable` if the provider does not respond. `forbidden` if its metadata is invalid.
    pub async fn describe(&self, ops: &Ops, redirect_uri: &str) -> Result<(LoginProvider, SigningKeys<'static>)> {
        match &self.kind {
            ProviderKind::Openid { issuer } => openid::discover(self, issuer, ops, redirect_uri).await,
            // Plain OAuth has no ID tokens.
            ProviderKind::Github(github) => {
                Ok((github.login_provider(self, redirect_uri), SigningKeys::Fetched(JsonWebKeySet::default())))
            }
        }
    }

    /// Returns the identity of the user for whom the provider sent `response`. `secrets` are those of the login.
    ///
    /// # Errors
    /// `unavailable` if the provider does not respond. `forbidden` if its response is an error or cannot be trusted.
    pub async fn finish_login(
        &self,
        ops: &Ops,
        secrets: &LoginSecrets,
        response: &AuthorizationResponse,
        redirect_uri: &str,
        now: Timestamp,
    ) -> Result<ProviderIdentity> {
        let (provider, keys) = self.describe(ops, redirect_uri).await?;
        let route = self.route(ops)?;
        let login = LoginVerification { provider: &provider, route: &route, keys, secrets, response, now };
        let FinishedLogin { claims, tokens } =
            login::finish_login(login).await.map_err(|error| self.login_error(error, response))?;
        let email = match &self.kind {
            ProviderKind::Openid { .. } => claims.email.filter(|_| claims.email_verified),
            ProviderKind::Github(github) => github.fetch_email(self, ops, &tokens.access_token).await?,
        };
        Ok(ProviderIdentity { issuer: claims.issuer, subject: claims.subject, email, name: claims.name })
    }

    fn login_error(&self, error: LoginError, response: &AuthorizationResponse) -> Error {
        match error {
            LoginError::Internal(error) => error,
            LoginError::Unreachable(error) => self.unavailable(error),
            LoginError::OtherIssuer => {
                Error::new(Code::Forbidden, "The response came from a different provider than requested.")
            }
            _ if response.error.is_some() || response.code.is_none() => {
                Error::new(Code::Forbidden, format!("{} did not sign you in. Nothing was changed.", self.name))
            }
            error @ (LoginError::Refused(_) | LoginError::InvalidResponse(_) | LoginError::Untrusted(_)) => {
                self.rejected(&error)
            }
        }
    }

    /// Returns the route for requests to the provider. The operator has configured the provider, so only entries of
    /// `outbound_allow` without an organisation apply.
    fn route(&self, ops: &Ops) -> Result<Route> {
        ops.outbound()?.route(Purpose::SignIn, &[]).map_err(|error| self.unavailable(error))
    }

    /// Creates the error for a provider that does not respond.
    fn unavailable(&self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::new(Code::Unavailable, format!("{} is not responding. Try again, or sign in another way.", self.name))
            .caused_by(cause)
    }

    /// Creates the error for a sign-in that the provider rejected, or whose response is invalid. The reason is logged;
    /// it must not contain a code or a token.
    fn rejected(&self, reason: &dyn Display) -> Error {
        tracing::warn!(provider = self.key, %reason, "sign-in with a provider failed");
        Error::new(Code::Forbidden, format!("{} could not sign you in. Try again, or sign in another way.", self.name))
    }
}
