//! The settings of an identity provider.

use waypost_core::oauth_config::{OauthConfig, TokenAuthMethod};
use waypost_core::seal::SecretText;
use waypost_core::{Error, Result};

use super::discovery::ProviderInput;

/// The maximum length of an ID, a secret, a claim or a scope, in bytes. URLs can be twice as long.
const MAX_TEXT: usize = 1_024;
/// The maximum number of scopes.
const MAX_SCOPES: usize = 50;

/// The settings to create or update. An absent setting keeps its value, or is taken from the provider's metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OauthConfigSettings {
    /// The display name.
    pub name: Option<String>,
    /// The issuer, exactly as in the provider's metadata.
    pub issuer: Option<String>,
    /// The URL of the provider's metadata, as an alternative to the issuer.
    pub metadata_url: Option<String>,
    /// The authorization endpoint, for providers without metadata.
    pub authorization_endpoint: Option<String>,
    /// The token endpoint, for providers without metadata.
    pub token_endpoint: Option<String>,
    /// The userinfo endpoint, for providers whose metadata does not contain it.
    pub userinfo_endpoint: Option<String>,
    /// Waypost's client ID at the provider.
    pub client_id: Option<String>,
    /// Waypost's client secret at the provider.
    pub client_secret: Option<SecretText>,
    /// The complete list of scopes to request.
    pub scopes: Option<Vec<String>>,
    /// The client authentication method.
    pub token_auth_method: Option<TokenAuthMethod>,
    /// The claim that permanently identifies a user.
    pub subject_claim: Option<String>,
    /// Whether a verified email address links identities to the same end user.
    pub link_verified_email: Option<bool>,
}

impl OauthConfigSettings {
    /// Checks the settings without a request to the provider.
    pub(super) fn check(&self) -> Result<()> {
        let endpoints = self.authorization_endpoint.is_some() || self.token_endpoint.is_some();
        if endpoints && (self.issuer.is_some() || self.metadata_url.is_some()) {
            let message = "Specify the provider either by its issuer or metadata URL, or by its endpoints.";
            return Err(Error::invalid("issuer", message));
        }
        if self.issuer.is_some() && self.metadata_url.is_some() {
            let message = "Specify either the issuer or the metadata URL; the other is derived from it.";
            return Err(Error::invalid("metadata_url", message));
        }
        for (field, text) in [
            ("issuer", &self.issuer),
            ("metadata_url", &self.metadata_url),
            ("authorization_endpoint", &self.authorization_endpoint),
            ("token_endpoint", &self.token_endpoint),
            ("userinfo_endpoint", &self.userinfo_endpoint),
        ] {
            let is_invalid = |text: &String| text.len() > 2 * MAX_TEXT || text.chars().any(char::is_control);
            if text.as_ref().is_some_and(is_invalid) {
                return Err(Error::invalid(field, format!("`{field}` must be a URL, such as https://id.example.com.")));
            }
        }
        // RFC 6749, appendix A: visible ASCII; IDs and secrets may also contain spaces.
        check_ascii("client_id", self.client_id.as_deref(), |byte| (0x20..=0x7e).contains(&byte))?;
        check_ascii("client_secret", self.client_secret.as_ref().map(SecretText::expose), |byte| {
            (0x20..=0x7e).contains(&byte)
        })?;
        check_ascii("subject_claim", self.subject_claim.as_deref(), |byte| byte.is_ascii_graphic())?;
        let scopes = self.scopes.as_deref().unwrap_or_default();
        if scopes.len() > MAX_SCOPES {
            return Err(Error::invalid("scope", format!("At most {MAX_SCOPES} scopes are allowed.")));
        }
        for scope in scopes {
            check_ascii("scope", Some(scope), |byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')?;
        }
        Ok(())
    }

    /// Whether settings other than `name` and `link_verified_email` are specified. Only such settings concern the
    /// provider.
    pub(super) fn has_provider_settings(&self) -> bool {
        let own = Self { name: self.name.clone(), link_verified_email: self.link_verified_email, ..Self::default() };
        *self != own
    }

    pub(super) fn provider_input(&self) -> ProviderInput {
        ProviderInput {
            issuer: self.issuer.clone(),
            metadata_url: self.metadata_url.clone(),
            authorization_endpoint: self.authorization_endpoint.clone(),
            token_endpoint: self.token_endpoint.clone(),
            userinfo_endpoint: self.userinfo_endpoint.clone(),
        }
    }

    /// Returns the input for a saved provider, whose values are used for absent settings.
    pub(super) fn provider_input_with_defaults(&self, old: &OauthConfig) -> ProviderInput {
        let mut input = self.provider_input();
        if input.issuer.is_some() || input.metadata_url.is_some() {
            return input;
        }
        input.userinfo_endpoint = input.userinfo_endpoint.or_else(|| old.userinfo_endpoint.clone());
        if !old.issuer.is_empty() && input.authorization_endpoint.is_none() && input.token_endpoint.is_none() {
            input.issuer = Some(old.issuer.clone());
            return input;
        }
        let or = |new: Option<String>, old: &String| new.or_else(|| Some(old.clone()));
        input.authorization_endpoint = or(input.authorization_endpoint, &old.authorization_endpoint);
        input.token_endpoint = or(input.token_endpoint, &old.token_endpoint);
        input
    }
}

fn check_ascii(field: &str, text: Option<&str>, allowed: impl Fn(u8) -> bool) -> Result<()> {
    match text {
        Some(text) if text.is_empty() || text.len() > MAX_TEXT || !text.bytes().all(allowed) => {
            let message = format!("`{field}` must consist of 1 to {MAX_TEXT} printable ASCII characters.");
            Err(Error::invalid(field, message))
        }
        _ => Ok(()),
    }
}
