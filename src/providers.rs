//! Providers with which users sign in to the console, as the settings want them.

use anyhow::bail;
use waypost_core::seal::SecretText;
use waypost_web::providers::{Github, Provider, ProviderKind};

use crate::config::{OauthClient, Settings};

/// The issuer of Google's accounts.
const GOOGLE: &str = "https://accounts.google.com";

/// The providers that are set, in the order of their buttons.
///
/// # Errors
/// When one is set by half.
pub fn of(settings: &Settings) -> anyhow::Result<Vec<Provider>> {
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
        (None, Some(_)) => bail!("the setting `openid_issuer` is needed beside `openid_client_id`"),
        (Some(_), None) => {
            bail!("the settings `openid_client_id` and `openid_client_secret` are needed beside `openid_issuer`")
        }
    }
    Ok(providers)
}

fn client(name: &str, client: &OauthClient) -> anyhow::Result<Option<(String, SecretText)>> {
    match (&client.id, &client.secret) {
        (None, None) => Ok(None),
        (Some(id), Some(secret)) => Ok(Some((id.clone(), secret.clone()))),
        (Some(_), None) => bail!("the setting `{name}_client_secret` is needed beside `{name}_client_id`"),
        (None, Some(_)) => bail!("the setting `{name}_client_id` is needed beside `{name}_client_secret`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_of(id: Option<&str>, secret: Option<&str>) -> OauthClient {
        OauthClient { id: id.map(str::to_owned), secret: secret.map(|secret| SecretText::new(secret.to_owned())) }
    }

    #[test]
    fn a_provider_is_whole_or_not_there() {
        let mut settings = Settings::default();
        assert!(of(&settings).unwrap().is_empty());
        settings.github = client_of(Some("id"), Some("secret"));
        settings.openid = client_of(Some("id"), Some("secret"));
        assert!(of(&settings).unwrap_err().to_string().contains("openid_issuer"));
        settings.openid_issuer = Some("https://id.example".to_owned());
        let keys: Vec<_> = of(&settings).unwrap().into_iter().map(|it| it.key).collect();
        assert_eq!(keys, ["github", "openid"]);
        settings.google = client_of(Some("id"), None);
        assert!(of(&settings).unwrap_err().to_string().contains("google_client_secret"));
    }
}
