//! Identity providers of organisations. A provider is checked before it is saved.

mod discovery;
mod settings;

use serde_json::{Value, json};
use url::Url;
use waypost_content::name;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::{OauthConfigId, OrganizationId};
use waypost_core::oauth_config::{OauthConfig, ProviderKind, TokenAuthMethod};
use waypost_core::seal::{SealLocation, SecretText};
use waypost_core::{Code, Error, Result};
use waypost_outbound::Purpose;
use waypost_store::{Conn, oauth_config as store, oauth_grant, organization};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::checks::conflict_if_taken;
use crate::identities::issuer_of;
pub use discovery::{FindingLevel, ProviderFinding};
use discovery::{Provider, ProviderInput, examine};
pub use settings::OauthConfigSettings;

/// Returns the location to which a provider's client secret is sealed.
pub(crate) fn place(id: &OauthConfigId) -> SealLocation<'_> {
    SealLocation { table: "oauth_configs", column: "client_secret", row: id.as_str() }
}

/// Checks a provider and saves it if users can sign in with it. Returns the findings of the check.
///
/// # Errors
/// `not_found` for an organisation that the caller cannot access; `forbidden` for members below admin;
/// `invalid_arguments` with the setting, or with `provider` if the check fails; `conflict` if the name is taken.
pub async fn create(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    settings: &OauthConfigSettings,
) -> Result<(OauthConfig, Vec<ProviderFinding>)> {
    authorize(&cx.caller, Operation::OauthConfigWrite, organization)?;
    let name = name::check("name", settings.name.as_deref().unwrap_or_default())?;
    settings.check()?;
    let (provider, mut findings) = check_provider(ops, organization, &settings.provider_input()).await?;
    let now = cx.now();
    let plain = OauthConfig {
        id: OauthConfigId::new(&*cx.random),
        organization_id: organization.clone(),
        name,
        kind: provider.kind,
        issuer: String::new(),
        authorization_endpoint: String::new(),
        token_endpoint: String::new(),
        userinfo_endpoint: None,
        jwks_uri: None,
        client_id: String::new(),
        client_secret: None,
        token_auth_method: TokenAuthMethod::None,
        scopes: default_scopes(&provider),
        subject_claim: default_subject(provider.kind).to_owned(),
        link_verified_email: false,
        created_at: now,
        updated_at: now,
    };
    let config = apply(cx, ops, &plain, settings, Some(&provider))?;
    findings.extend(check_auth_method(&config, &provider));
    let mut tx = ops.store.begin().await?;
    if organization::find(&mut tx, organization).await?.is_none() {
        return Err(Error::not_found("organisation"));
    }
    store::insert(&mut tx, &config).await.map_err(|error| name_taken(error, &config.name))?;
    let entry = Entry { action: "oauth_config.create", target: config.id.as_str(), detail: audit_detail(&config) };
    record(cx, &mut tx, organization, entry).await?;
    tx.commit().await?;
    Ok((config, findings))
}

/// Returns the providers of an organisation, ordered by name.
///
/// # Errors
/// `not_found` for an organisation that the caller cannot access.
pub async fn list(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<Vec<OauthConfig>> {
    authorize(&cx.caller, Operation::OauthConfigRead, organization)?;
    Ok(store::list(&mut ops.store.read().await?, organization).await?)
}

/// Returns the provider with the ID or the name `text`.
///
/// # Errors
/// The same as for [`list`]; `not_found` if there is none.
pub async fn resolve(cx: &Ctx, ops: &Ops, organization: &OrganizationId, text: &str) -> Result<OauthConfig> {
    authorize(&cx.caller, Operation::OauthConfigRead, organization)?;
    find_by_id_or_name(&mut ops.store.read().await?, organization, text).await?.ok_or_else(not_found)
}

/// Returns a provider.
///
/// # Errors
/// The same as for [`list`]; `not_found` if there is none.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &OauthConfigId) -> Result<OauthConfig> {
    authorize(&cx.caller, Operation::OauthConfigRead, organization)?;
    store::find(&mut ops.store.read().await?, organization, id).await?.ok_or_else(not_found)
}

/// Lists the slugs of the servers that use a provider.
///
/// # Errors
/// The same as for [`list`].
pub async fn list_servers(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &OauthConfigId,
) -> Result<Vec<String>> {
    authorize(&cx.caller, Operation::OauthConfigRead, organization)?;
    Ok(store::list_server_slugs(&mut ops.store.read().await?, organization, id).await?)
}

/// Updates the settings that are present. Checks the provider again if the change concerns it.
///
/// # Errors
/// The same as for [`create`]; `not_found` if there is no such provider; `conflict` if it was changed in the meantime.
pub async fn update(
    cx: &Ctx,
    ops: &Ops,
    old: &OauthConfig,
    settings: &OauthConfigSettings,
) -> Result<(OauthConfig, Vec<ProviderFinding>)> {
    let organization = &old.organization_id;
    authorize(&cx.caller, Operation::OauthConfigWrite, organization)?;
    settings.check()?;
    let (provider, mut findings) = match settings.has_provider_settings() {
        true => check_provider(ops, organization, &settings.provider_input_with_defaults(old))
            .await
            .map(|(provider, found)| (Some(provider), found))?,
        false => (None, Vec::new()),
    };
    let mut new = apply(cx, ops, old, settings, provider.as_ref())?;
    if let Some(provider) = &provider {
        findings.extend(check_auth_method(&new, provider));
    }
    if new == *old {
        return Ok((new, findings));
    }
    new.updated_at = cx.now();
    let mut tx = ops.store.begin().await?;
    if store::find(&mut tx, organization, &old.id).await?.ok_or_else(not_found)? != *old {
        let message = "This provider was changed in the meantime. Reload it and try again.";
        return Err(Error::new(Code::Conflict, message));
    }
    store::update(&mut tx, &new).await.map_err(|error| name_taken(error, &new.name))?;
    if issuer_of(&new) != issuer_of(old) {
        oauth_grant::revoke_for_provider(&mut tx, organization, &new.id, "sign_in_changed", cx.now()).await?;
    }
    let entry = Entry { action: "oauth_config.update", target: new.id.as_str(), detail: audit_detail(&new) };
    record(cx, &mut tx, organization, entry).await?;
    tx.commit().await?;
    Ok((new, findings))
}

/// Deletes a provider with its tokens. Its end users and their data remain.
///
/// # Errors
/// `forbidden`; `not_found`; `conflict` if servers use it; the message lists them.
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &OauthConfigId) -> Result<()> {
    authorize(&cx.caller, Operation::OauthConfigWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let config = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let servers = store::list_server_slugs(&mut tx, organization, id).await?;
    if !servers.is_empty() {
        let servers = servers.join("`, `");
        let message = format!("These servers use this provider: `{servers}`. Change them first.");
        return Err(Error::new(Code::Conflict, message));
    }
    store::delete(&mut tx, organization, id).await?;
    let entry = Entry { action: "oauth_config.delete", target: id.as_str(), detail: audit_detail(&config) };
    record(cx, &mut tx, organization, entry).await?;
    tx.commit().await?;
    Ok(())
}

/// Checks a saved provider again, and returns the findings, including changes to its metadata since it was saved.
///
/// # Errors
/// `forbidden` for members below admin.
pub async fn check(cx: &Ctx, ops: &Ops, config: &OauthConfig) -> Result<Vec<ProviderFinding>> {
    authorize(&cx.caller, Operation::OauthConfigWrite, &config.organization_id)?;
    let route = ops.route(Purpose::SignIn, &config.organization_id).await?;
    let (provider, mut findings) =
        examine(&route, &OauthConfigSettings::default().provider_input_with_defaults(config)).await;
    if let Some(secret) = &config.client_secret
        && let Err(error) = ops.keyring()?.open(&place(&config.id), secret)
    {
        let message = format!("The client secret cannot be decrypted: {error}. Set it again.");
        findings.push(ProviderFinding::new(FindingLevel::Error, message));
    }
    let Some(provider) = provider else { return Ok(findings) };
    let saved = Provider::saved(config);
    if (Provider { auth_methods: None, scopes: None, ..provider.clone() }) != saved {
        let message = "The provider's metadata has changed. Run `waypost oauth-config update` with its issuer to \
                       apply the change.";
        findings.push(ProviderFinding::new(FindingLevel::Error, message));
    }
    findings.extend(check_auth_method(config, &provider));
    Ok(findings)
}

/// Returns the provider with the ID or the name `text`.
pub(crate) async fn find_by_id_or_name(
    conn: &mut Conn,
    organization: &OrganizationId,
    text: &str,
) -> Result<Option<OauthConfig>> {
    if let Ok(id) = text.parse::<OauthConfigId>()
        && let Some(config) = store::find(conn, organization, &id).await?
    {
        return Ok(Some(config));
    }
    Ok(store::find_by_name(conn, organization, &name::clean(text)).await?)
}

async fn check_provider(
    ops: &Ops,
    organization: &OrganizationId,
    input: &ProviderInput,
) -> Result<(Provider, Vec<ProviderFinding>)> {
    let route = ops.route(Purpose::SignIn, organization).await?;
    let (provider, findings) = examine(&route, input).await;
    let errors: Vec<_> = findings.iter().filter(|finding| finding.level == FindingLevel::Error).collect();
    match provider {
        Some(provider) if errors.is_empty() => Ok((provider, findings)),
        _ => {
            let message = errors.iter().map(|finding| finding.message.as_str()).collect::<Vec<_>>().join(" ");
            Err(Error::invalid("provider", message))
        }
    }
}

/// Returns `config` with `settings` and the values of the provider's metadata.
fn apply(
    cx: &Ctx,
    ops: &Ops,
    config: &OauthConfig,
    settings: &OauthConfigSettings,
    provider: Option<&Provider>,
) -> Result<OauthConfig> {
    let mut new = config.clone();
    if let Some(text) = &settings.name {
        new.name = name::check("name", text)?;
    }
    new.link_verified_email = settings.link_verified_email.unwrap_or(config.link_verified_email);
    let Some(provider) = provider else { return Ok(new) };
    new.kind = provider.kind;
    new.issuer.clone_from(&provider.issuer);
    new.authorization_endpoint.clone_from(&provider.authorization_endpoint);
    new.token_endpoint.clone_from(&provider.token_endpoint);
    new.userinfo_endpoint.clone_from(&provider.userinfo_endpoint);
    new.jwks_uri.clone_from(&provider.jwks_uri);
    if let Some(id) = &settings.client_id {
        new.client_id.clone_from(id);
    }
    if new.client_id.is_empty() {
        return Err(Error::invalid("client_id", "`client_id` is missing. The provider assigns it at registration."));
    }
    if let Some(scopes) = &settings.scopes {
        new.scopes.clone_from(scopes);
    } else if provider.kind != config.kind {
        new.scopes = default_scopes(provider);
    }
    if new.kind == ProviderKind::Openid && !new.scopes.iter().any(|scope| scope == "openid") {
        new.scopes.insert(0, "openid".to_owned());
    }
    if let Some(claim) = &settings.subject_claim {
        new.subject_claim.clone_from(claim);
    } else if provider.kind != config.kind {
        default_subject(provider.kind).clone_into(&mut new.subject_claim);
    }
    apply_secret(cx, ops, config, settings, &mut new)?;
    new.token_auth_method = select_auth_method(settings, &new, config, provider)?;
    if new.token_auth_method == TokenAuthMethod::None {
        new.client_secret = None;
    }
    Ok(new)
}

fn apply_secret(
    cx: &Ctx,
    ops: &Ops,
    config: &OauthConfig,
    settings: &OauthConfigSettings,
    new: &mut OauthConfig,
) -> Result<()> {
    if let Some(secret) = &settings.client_secret {
        new.client_secret = Some(ops.keyring()?.seal(&place(&new.id), secret.expose().as_bytes(), &*cx.random));
        return Ok(());
    }
    let origin = |text: &str| Url::parse(text).map(|url| url.origin().ascii_serialization()).unwrap_or_default();
    if new.client_secret.is_some() && origin(&config.token_endpoint) != origin(&new.token_endpoint) {
        let message = "The token endpoint is now on another host. Enter the client secret again: the saved one is sent \
                       only to the host that it was entered for.";
        return Err(Error::invalid("client_secret", message));
    }
    Ok(())
}

fn select_auth_method(
    settings: &OauthConfigSettings,
    new: &OauthConfig,
    old: &OauthConfig,
    provider: &Provider,
) -> Result<TokenAuthMethod> {
    let has_secret = new.client_secret.is_some();
    let chosen = match settings.token_auth_method {
        Some(method) => method,
        None if !has_secret => TokenAuthMethod::None,
        None if old.client_secret.is_some() => old.token_auth_method,
        // RFC 8414, 2: the default is HTTP Basic.
        None => match &provider.auth_methods {
            Some(methods)
                if !methods.iter().any(|method| method == TokenAuthMethod::ClientSecretBasic.as_str())
                    && methods.iter().any(|method| method == TokenAuthMethod::ClientSecretPost.as_str()) =>
            {
                TokenAuthMethod::ClientSecretPost
            }
            _ => TokenAuthMethod::ClientSecretBasic,
        },
    };
    if chosen == TokenAuthMethod::None && settings.client_secret.is_some() {
        let message = "A client secret cannot be combined with the `token_auth_method` `none`. Omit one of them.";
        return Err(Error::invalid("token_auth_method", message));
    }
    if chosen != TokenAuthMethod::None && !has_secret {
        return Err(Error::invalid("client_secret", format!("`{chosen}` requires a client secret.")));
    }
    Ok(chosen)
}

fn check_auth_method(config: &OauthConfig, provider: &Provider) -> Option<ProviderFinding> {
    let methods = provider.auth_methods.as_ref()?;
    let method = config.token_auth_method;
    (!methods.iter().any(|known| known == method.as_str())).then(|| {
        let known = name::clean(&methods.join("`, `"));
        let message =
            format!("According to its metadata, the provider's token endpoint supports `{known}`, but not `{method}`.");
        ProviderFinding::new(FindingLevel::Warning, message)
    })
}

fn default_scopes(provider: &Provider) -> Vec<String> {
    if provider.kind == ProviderKind::Oauth {
        return Vec::new();
    }
    let knows = |scope: &str| provider.scopes.as_ref().is_none_or(|known| known.iter().any(|known| known == scope));
    ["openid", "email", "profile"].into_iter().filter(|scope| knows(scope)).map(str::to_owned).collect()
}

fn default_subject(kind: ProviderKind) -> &'static str {
    match kind {
        ProviderKind::Openid => "sub",
        ProviderKind::Oauth => "id",
    }
}

/// Returns the settings for the audit log, without the secret.
fn audit_detail(config: &OauthConfig) -> Value {
    json!({
        "name": config.name,
        "kind": config.kind.as_str(),
        "issuer": config.issuer,
        "authorization_endpoint": config.authorization_endpoint,
        "token_endpoint": config.token_endpoint,
        "userinfo_endpoint": config.userinfo_endpoint,
        "jwks_uri": config.jwks_uri,
        "client_id": config.client_id,
        "has_client_secret": config.client_secret.is_some(),
        "token_auth_method": config.token_auth_method.as_str(),
        "scopes": config.scopes,
        "subject_claim": config.subject_claim,
        "link_verified_email": config.link_verified_email,
    })
}

fn not_found() -> Error {
    Error::not_found("identity provider")
}

fn name_taken(error: waypost_store::Error, name: &str) -> Error {
    conflict_if_taken(error, || {
        format!("An identity provider named `{name}` already exists. Choose another name, or change that provider.")
    })
}

/// Returns the client secret of a saved provider.
///
/// # Errors
/// `internal` if the secret cannot be decrypted with the available keys.
pub(crate) fn open_secret(ops: &Ops, config: &OauthConfig) -> Result<Option<SecretText>> {
    let Some(sealed) = config.client_secret.as_deref() else { return Ok(None) };
    ops.keyring()?.open_text(&place(&config.id), sealed).map(Some).map_err(Error::internal)
}
