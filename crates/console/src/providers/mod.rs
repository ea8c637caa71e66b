//! Identity providers that console users can sign in with.

mod github;
mod openid;

use waypost_core::seal::SecretText;
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_ops::Ops;
use waypost_ops::user_accounts::{PendingUserLogin, ProviderIdentity, UserLoginCallback};
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
    /// Returns the URL to which the browser is redirected.
    ///
    /// # Errors
    /// `unavailable` if the provider does not respond.
    pub async fn authorization_url(&self, ops: &Ops, leaving: &PendingUserLogin, redirect_uri: &str) -> Result<String> {
        match &self.kind {
            ProviderKind::Openid { issuer } => {
                openid::authorization_url(self, issuer, ops, (leaving, redirect_uri)).await
            }
            ProviderKind::Github(github) => github.authorization_url(self, leaving, redirect_uri),
        }
    }

    /// Exchanges `code` for the identity of the user.
    ///
    /// # Errors
    /// `unavailable` if the provider does not respond. `forbidden` if its response is an error or cannot be trusted.
    pub async fn fetch_identity(
        &self,
        ops: &Ops,
        (returned, code): (&UserLoginCallback, &str),
        (redirect_uri, now): (&str, Timestamp),
    ) -> Result<ProviderIdentity> {
        match &self.kind {
            ProviderKind::Openid { issuer } => {
                openid::fetch_identity(self, issuer, ops, (returned, code), (redirect_uri, now)).await
            }
            ProviderKind::Github(github) => github.fetch_identity(self, ops, (returned, code), redirect_uri).await,
        }
    }

    /// Returns the route of requests to the provider. The operator configured it, so only entries of `outbound_allow`
    /// without an organisation apply.
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
    fn rejected(&self, reason: &'static str) -> Error {
        tracing::warn!(provider = self.key, reason, "sign-in with a provider failed");
        Error::new(Code::Forbidden, format!("{} could not sign you in. Try again, or sign in another way.", self.name))
    }
}
