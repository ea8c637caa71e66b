//! Providers that users of the console can sign in with: whom they vouch for.

mod github;
mod openid;

use waypost_core::seal::SecretText;
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_ops::identity_provider::IdentityProviderContext;
use waypost_ops::user_accounts::{PendingUserLogin, ProviderIdentity, UserLoginCallback};
use waypost_outbound::{Purpose, Route};

pub use github::Github;

/// A provider of the installation.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its name in addresses: `github`, `google` or `openid`.
    pub key: &'static str,
    /// Its name on the button.
    pub name: String,
    /// How it is asked.
    pub kind: ProviderKind,
    /// Waypost's name there.
    pub client_id: String,
    /// Waypost's secret there.
    pub client_secret: SecretText,
}

/// How a provider is asked.
#[derive(Debug, Clone)]
pub enum ProviderKind {
    /// OpenID Connect, by discovery from this issuer.
    Openid {
        /// The issuer.
        issuer: String,
    },
    /// GitHub: plain OAuth with addresses of its own.
    Github(Github),
}

impl Provider {
    /// The address to which the browser leaves.
    ///
    /// # Errors
    /// `unavailable` when the provider does not answer.
    pub async fn authorization_url(
        &self,
        provider_context: &IdentityProviderContext,
        leaving: &PendingUserLogin,
        redirect_uri: &str,
    ) -> Result<String> {
        match &self.kind {
            ProviderKind::Openid { issuer } => {
                openid::authorization_url(self, issuer, provider_context, (leaving, redirect_uri)).await
            }
            ProviderKind::Github(github) => github.authorization_url(self, leaving, redirect_uri),
        }
    }

    /// Whom the provider vouches for with `code`.
    ///
    /// # Errors
    /// `unavailable` when the provider does not answer; `forbidden` when what it says cannot be trusted.
    pub async fn fetch_identity(
        &self,
        provider_context: &IdentityProviderContext,
        (returned, code): (&UserLoginCallback, &str),
        (redirect_uri, now): (&str, Timestamp),
    ) -> Result<ProviderIdentity> {
        match &self.kind {
            ProviderKind::Openid { issuer } => {
                openid::fetch_identity(self, issuer, provider_context, (returned, code), (redirect_uri, now)).await
            }
            ProviderKind::Github(github) => {
                github.fetch_identity(self, provider_context, (returned, code), redirect_uri).await
            }
        }
    }

    /// The route of requests to it. The operator named it, so only entries of `outbound_allow` without an organisation
    /// apply.
    fn route(&self, provider_context: &IdentityProviderContext) -> Result<Route> {
        provider_context.outbound.route(Purpose::SignIn, &[]).map_err(|error| self.down(error))
    }

    /// The provider cannot be reached.
    fn down(&self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::new(Code::Unavailable, format!("{} does not answer. Try again, or sign in another way.", self.name))
            .caused_by(cause)
    }

    /// The provider says no, or what it says cannot be used. `why` goes into the log, and holds no code and no token.
    fn refused(&self, why: &'static str) -> Error {
        tracing::warn!(provider = self.key, why, "nobody was signed in by a provider");
        Error::new(Code::Forbidden, format!("{} could not sign you in. Try again, or sign in another way.", self.name))
    }
}
