//! What can be set on an identity provider.

use waypost_core::oauth_config::{OauthConfig, TokenAuthMethod};
use waypost_core::seal::SecretText;
use waypost_core::{Error, Result};

use super::discovery::Typed;

/// Bytes in an id, a secret or a scope at most.
const MAX_TEXT: usize = 1_024;
/// Scopes at most.
const MAX_SCOPES: usize = 50;

/// What can be set; what is absent stays, or is what the provider says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Name for people.
    pub name: Option<String>,
    /// The issuer, exactly as the provider writes it.
    pub issuer: Option<String>,
    /// Where the provider's metadata is, instead of the issuer.
    pub metadata_url: Option<String>,
    /// For providers without metadata.
    pub authorization_endpoint: Option<String>,
    /// For providers without metadata.
    pub token_endpoint: Option<String>,
    /// For providers whose metadata does not name it.
    pub userinfo_endpoint: Option<String>,
    /// Waypost's name there.
    pub client_id: Option<String>,
    /// Waypost's secret there.
    pub client_secret: Option<SecretText>,
    /// What to ask for, all of it.
    pub scopes: Option<Vec<String>>,
    /// How the secret is shown.
    pub token_auth_method: Option<TokenAuthMethod>,
    /// The claim that names a user for ever.
    pub subject_claim: Option<String>,
    /// Whether a verified address links users.
    pub link_verified_email: Option<bool>,
}

impl Settings {
    /// Checks what needs no look at the provider.
    pub(super) fn check(&self) -> Result<()> {
        let endpoints = self.authorization_endpoint.is_some() || self.token_endpoint.is_some();
        if endpoints && (self.issuer.is_some() || self.metadata_url.is_some()) {
            let message = "Name the provider by its issuer or metadata URL, or by its endpoints, and not by both.";
            return Err(Error::invalid("issuer", message));
        }
        if self.issuer.is_some() && self.metadata_url.is_some() {
            let message = "Name the provider by its issuer, or by its metadata URL: the other is found from it.";
            return Err(Error::invalid("metadata_url", message));
        }
        for (field, text) in [
            ("issuer", &self.issuer),
            ("metadata_url", &self.metadata_url),
            ("authorization_endpoint", &self.authorization_endpoint),
            ("token_endpoint", &self.token_endpoint),
            ("userinfo_endpoint", &self.userinfo_endpoint),
        ] {
            let wrong = |text: &String| text.len() > 2 * MAX_TEXT || text.chars().any(char::is_control);
            if text.as_ref().is_some_and(wrong) {
                return Err(Error::invalid(field, format!("`{field}` is no address such as https://id.example.com.")));
            }
        }
        // RFC 6749, appendix A: visible ASCII, in an id and a secret with spaces.
        visible("client_id", self.client_id.as_deref(), |byte| (0x20..=0x7e).contains(&byte))?;
        visible("client_secret", self.client_secret.as_ref().map(SecretText::expose), |byte| {
            (0x20..=0x7e).contains(&byte)
        })?;
        visible("subject_claim", self.subject_claim.as_deref(), |byte| byte.is_ascii_graphic())?;
        let scopes = self.scopes.as_deref().unwrap_or_default();
        if scopes.len() > MAX_SCOPES {
            return Err(Error::invalid("scope", format!("There may be {MAX_SCOPES} scopes.")));
        }
        for scope in scopes {
            visible("scope", Some(scope), |byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')?;
        }
        Ok(())
    }

    /// Whether the provider has a say in it: name and linking are the organisation's own business.
    pub(super) fn concerns_provider(&self) -> bool {
        let own = Self { name: self.name.clone(), link_verified_email: self.link_verified_email, ..Self::default() };
        *self != own
    }

    pub(super) fn typed(&self) -> Typed {
        Typed {
            issuer: self.issuer.clone(),
            metadata_url: self.metadata_url.clone(),
            authorization_endpoint: self.authorization_endpoint.clone(),
            token_endpoint: self.token_endpoint.clone(),
            userinfo_endpoint: self.userinfo_endpoint.clone(),
        }
    }

    /// The same for a provider that is there: what is not named stays.
    pub(super) fn typed_over(&self, old: &OauthConfig) -> Typed {
        let mut typed = self.typed();
        if typed.issuer.is_some() || typed.metadata_url.is_some() {
            return typed;
        }
        typed.userinfo_endpoint = typed.userinfo_endpoint.or_else(|| old.userinfo_endpoint.clone());
        if !old.issuer.is_empty() && typed.authorization_endpoint.is_none() && typed.token_endpoint.is_none() {
            typed.issuer = Some(old.issuer.clone());
            return typed;
        }
        let or = |new: Option<String>, old: &String| new.or_else(|| Some(old.clone()));
        typed.authorization_endpoint = or(typed.authorization_endpoint, &old.authorization_endpoint);
        typed.token_endpoint = or(typed.token_endpoint, &old.token_endpoint);
        typed
    }
}

fn visible(field: &str, text: Option<&str>, allowed: impl Fn(u8) -> bool) -> Result<()> {
    match text {
        Some(text) if text.is_empty() || text.len() > MAX_TEXT || !text.bytes().all(allowed) => {
            let message = format!("`{field}` must be 1 to {MAX_TEXT} characters of plain ASCII.");
            Err(Error::invalid(field, message))
        }
        _ => Ok(()),
    }
}
