//! Identity providers for console users, from the settings.

use anyhow::bail;
use waypost_console::providers::{Github, Provider, ProviderKind};
use waypost_core::seal::SecretText;

use crate::config::{OauthClient, Settings};

/// Issuer of Google accounts.
const GOOGLE: &str = "https://accounts.google.com";

/// Returns the configured providers, in the order of their buttons.
///
/// # Errors
/// If the settings of a provider are incomplete.
pub fn from_settings(settings: &Settings) -> anyhow::Result<Vec<Provider>> {
    let mut providers = Vec::new();
    let mut add = |key, name: &str, client: Option<(String, SecretText)>, kind| {
        if let Some((client_id, client_secret)) = client {
            providers.push(Provider { key, name: name.to_owned(), kind, client_id, client_secret });
        }
    };
    add("github", "GitHub", client("github", &settings.github)?, ProviderKind::Github(Github::default()));
    add("google", "Google", client("google", &settings.google)?, ProviderKind::Openid { issuer: GOOGLE.to_owned() });
    match (&settings.openid_issuer, client("openid", &settings.openid)?) {
        (None, None) => {}
        (Some(issuer), Some(client)) => {
            add("openid", &settings.openid_name, Some(client), ProviderKind::Openid { issuer: issuer.clone() });
        }
        (None, Some(_)) => bail!("the setting `openid_client_id` requires `openid_issuer`"),
        (Some(_), None) => {
            bail!("the setting `openid_issuer` requires `openid_client_id` and `openid_client_secret`")
        }
    }
    Ok(providers)
}

fn client(name: &str, client: &OauthClient) -> anyhow::Result<Option<(String, SecretText)>> {
    match (&client.id, &client.secret) {
        (None, None) => Ok(None),
        (Some(id), Some(secret)) => Ok(Some((id.clone(), secret.clone()))),
        (Some(_), None) => bail!("the setting `{name}_client_id` requires `{name}_client_secret`"),
        (None, Some(_)) => bail!("the setting `{name}_client_secret` requires `{name}_client_id`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_of(id: Option<&str>, secret: Option<&str>) -> OauthClient {
        OauthClient { id: id.map(str::to_owned), secret: secret.map(|secret| SecretText::new(secret.to_owned())) }
    }

    #[test]
    fn an_incomplete_provider_is_an_error() {
        let mut settings = Settings::default();
        assert!(from_settings(&settings).unwrap().is_empty());
        settings.github = client_of(Some("id"), Some("secret"));
        settings.openid = client_of(Some("id"), Some("secret"));
        assert!(from_settings(&settings).unwrap_err().to_string().contains("openid_issuer"));
        settings.openid_issuer = Some("https://id.example".to_owned());
        let keys: Vec<_> = from_settings(&settings).unwrap().into_iter().map(|provider| provider.key).collect();
        assert_eq!(keys, ["github", "openid"]);
        settings.google = client_of(Some("id"), None);
        assert!(from_settings(&settings).unwrap_err().to_string().contains("google_client_secret"));
    }
}
