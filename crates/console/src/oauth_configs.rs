//! `/o/{org}/oauth-configs`: identity providers for end users.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use waypost_core::Error;
use waypost_core::access::Operation;
use waypost_core::id::OauthConfigId;
use waypost_core::oauth_config::{OauthConfig, TokenAuthMethod};
use waypost_core::seal::SecretText;
use waypost_ops::oauth_configs::{self, FindingLevel, OauthConfigSettings, ProviderFinding};
use waypost_ops::servers;

use crate::Console;
use crate::form::Form;
use crate::layout::Layout;
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};
use waypost_http_kit::request_info::RequestInfo;

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    let (read, write) = (Access::Member(Operation::OauthConfigRead), Access::Member(Operation::OauthConfigWrite));
    Routes::new()
        .get("/o/{org}/oauth-configs", read, list)
        .post("/o/{org}/oauth-configs", write, create)
        .get("/o/{org}/oauth-configs/new", write, new)
        .get("/o/{org}/oauth-configs/{oauth_config}", read, show)
        .post("/o/{org}/oauth-configs/{oauth_config}", write, save)
        .post("/o/{org}/oauth-configs/{oauth_config}/check", write, check)
        .post("/o/{org}/oauth-configs/{oauth_config}/delete", write, delete)
}

/// The form fields. Does not implement `Debug` because it contains a secret.
#[derive(Default, Deserialize)]
#[serde(default)]
struct OauthConfigForm {
    name: String,
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    userinfo_endpoint: String,
    client_id: String,
    client_secret: String,
    scopes: String,
    token_auth_method: String,
    subject_claim: String,
    link_verified_email: bool,
}

impl From<&OauthConfig> for OauthConfigForm {
    fn from(config: &OauthConfig) -> Self {
        Self {
            name: config.name.clone(),
            issuer: config.issuer.clone(),
            authorization_endpoint: config.authorization_endpoint.clone(),
            token_endpoint: config.token_endpoint.clone(),
            userinfo_endpoint: config.userinfo_endpoint.clone().unwrap_or_default(),
            client_id: config.client_id.clone(),
            client_secret: String::new(),
            scopes: config.scopes.join(" "),
            token_auth_method: config.token_auth_method.to_string(),
            subject_claim: config.subject_claim.clone(),
            link_verified_email: config.link_verified_email,
        }
    }
}

impl OauthConfigForm {
    /// Returns the settings that differ from `old`. Unchanged settings are `None`.
    fn settings(&self, old: &Self) -> Result<OauthConfigSettings, Error> {
        let new = |new: &str, old: &str| Some(new.trim().to_owned()).filter(|new| new != old);
        let filled = |text: &str, old: &str| new(text, old).filter(|text| !text.is_empty());
        let method = match filled(&self.token_auth_method, &old.token_auth_method) {
            None => None,
            Some(text) => Some(
                text.parse::<TokenAuthMethod>()
                    .map_err(|reason| Error::invalid("token_auth_method", format!("`token_auth_method`: {reason}.")))?,
            ),
        };
        // If there is an issuer, its metadata defines the endpoints.
        let by_issuer = !self.issuer.trim().is_empty();
        let endpoint = |text: &str, old: &str| if by_issuer { None } else { filled(text, old) };
        Ok(OauthConfigSettings {
            name: Some(self.name.clone()).filter(|name| *name != old.name),
            issuer: filled(&self.issuer, &old.issuer),
            metadata_url: None,
            authorization_endpoint: endpoint(&self.authorization_endpoint, &old.authorization_endpoint),
            token_endpoint: endpoint(&self.token_endpoint, &old.token_endpoint),
            userinfo_endpoint: filled(&self.userinfo_endpoint, &old.userinfo_endpoint),
            client_id: filled(&self.client_id, &old.client_id),
            client_secret: Some(self.client_secret.as_str()).filter(|secret| !secret.is_empty()).map(SecretText::new),
            scopes: new(&self.scopes, &old.scopes)
                .filter(|text| !(text.is_empty() && old.scopes.is_empty()))
                .map(|text| text.split_whitespace().map(str::to_owned).collect()),
            token_auth_method: method,
            subject_claim: filled(&self.subject_claim, &old.subject_claim),
            link_verified_email: Some(self.link_verified_email).filter(|link| *link != old.link_verified_email),
        })
    }
}

fn auth_methods(first: &str) -> Vec<(String, String)> {
    let label = |method: TokenAuthMethod| match method {
        TokenAuthMethod::ClientSecretBasic => "Secret in the Authorization header (client_secret_basic)",
        TokenAuthMethod::ClientSecretPost => "Secret in the request body (client_secret_post)",
        TokenAuthMethod::None => "No secret, PKCE only (none)",
    };
    let known = TokenAuthMethod::ALL.iter().map(|method| (method.to_string(), label(*method).to_owned()));
    let first = Some((String::new(), first.to_owned())).filter(|(_, text)| !text.is_empty());
    first.into_iter().chain(known).collect()
}

/// Converts an error for the forms. Errors about the provider itself are shown above the fields.
fn form_error(error: Error) -> Result<(StatusCode, FormError), Error> {
    let (status, mut form_error) = FormError::from_error(error)?;
    match form_error.field.as_str() {
        "scope" => "scopes".clone_into(&mut form_error.field),
        "provider" | "metadata_url" => form_error.field.clear(),
        _ => {}
    }
    Ok((status, form_error))
}

struct OauthConfigRow {
    href: String,
    name: String,
    provider: String,
    servers: Vec<String>,
}

#[derive(Template)]
#[template(path = "oauth_configs/list.html")]
struct OauthConfigsPage {
    layout: Layout,
    base: String,
    is_admin: bool,
    rows: Vec<OauthConfigRow>,
}

impl OauthConfigsPage {
    fn new_path(&self) -> String {
        format!("{}/new", self.base)
    }
}

async fn list(State(console): State<Console>, member: Member) -> PageResult {
    let Member { cx, organization_id, org, layout } = member;
    let base = org.path("oauth-configs");
    let mut rows = Vec::new();
    for config in oauth_configs::list(&cx, console.ops(), &organization_id).await? {
        let servers = oauth_configs::list_servers(&cx, console.ops(), &organization_id, &config.id).await?;
        let provider = if config.issuer.is_empty() { config.authorization_endpoint } else { config.issuer };
        rows.push(OauthConfigRow { href: format!("{base}/{}", config.id), name: config.name, provider, servers });
    }
    Ok(view::page(&OauthConfigsPage {
        layout: layout.with_section("oauth-configs"),
        base,
        is_admin: org.is_admin(),
        rows,
    }))
}

#[derive(Template)]
#[template(path = "oauth_configs/new.html")]
struct NewOauthConfigPage {
    layout: Layout,
    form_error: FormError,
    base: String,
    fields: OauthConfigForm,
    auth_methods: Vec<(String, String)>,
    /// The redirect URI of an example server.
    redirect_uri: String,
}

fn render_new(
    console: &Console,
    info: &RequestInfo,
    member: &Member,
    status: StatusCode,
    form_error: FormError,
    fields: OauthConfigForm,
) -> Response {
    let address = console.public_url.path_urls(&info.authority, "SERVER").issuer();
    view::html(
        status,
        &NewOauthConfigPage {
            layout: member.layout.clone().with_section("oauth-configs"),
            form_error,
            base: member.org.path("oauth-configs"),
            fields,
            auth_methods: auth_methods("Automatic (from the provider)"),
            redirect_uri: format!("{address}/oauth/callback"),
        },
    )
}

async fn new(State(console): State<Console>, info: RequestInfo, member: Member) -> PageResult {
    Ok(render_new(&console, &info, &member, StatusCode::OK, FormError::default(), OauthConfigForm::default()))
}

async fn create(
    State(console): State<Console>,
    info: RequestInfo,
    member: Member,
    Form(fields): Form<OauthConfigForm>,
) -> PageResult {
    let Member { cx, organization_id, org, layout } = &member;
    let created = match fields.settings(&OauthConfigForm::default()) {
        Ok(settings) => oauth_configs::create(cx, console.ops(), organization_id, &settings).await,
        Err(error) => Err(error),
    };
    match created {
        Ok((config, findings)) => {
            let location = org.path(&format!("oauth-configs/{}", config.id));
            Ok(view::redirect_with_flash(&location, &with_warnings("Provider created.", &findings)))
        }
        Err(error) => {
            let rejected = form_error(error).map_err(|error| PageError::from(error).with_layout(layout.clone()));
            let (status, form_error) = rejected?;
            Ok(render_new(&console, &info, &member, status, form_error, fields))
        }
    }
}

/// Appends the warnings of a check to a message.
fn with_warnings(text: &str, findings: &[ProviderFinding]) -> String {
    let warnings =
        findings.iter().filter(|finding| finding.level != FindingLevel::Ok).map(|finding| finding.message.as_str());
    std::iter::once(text).chain(warnings).collect::<Vec<_>>().join(" ")
}

struct ServerLink {
    href: String,
    name: String,
}

#[derive(Template)]
#[template(path = "oauth_configs/show.html")]
struct OauthConfigPage {
    layout: Layout,
    form_error: FormError,
    list: String,
    base: String,
    is_admin: bool,
    config: OauthConfig,
    fields: OauthConfigForm,
    auth_methods: Vec<(String, String)>,
    servers: Vec<ServerLink>,
    redirect_uris: Vec<String>,
    /// The findings of a check made in this request. `None` if no check was requested.
    findings: Option<Vec<ProviderFinding>>,
}

impl OauthConfigPage {
    fn delete_path(&self) -> String {
        format!("{}/delete", self.base)
    }

    fn badge(&self, finding: &ProviderFinding) -> &'static str {
        match finding.level {
            FindingLevel::Ok => "good",
            FindingLevel::Warning => "warn",
            FindingLevel::Error => "bad",
        }
    }

    fn secret_hint(&self) -> &'static str {
        if self.config.client_secret.is_some() {
            "A secret is set. It is stored encrypted and never shown again. Leave the field empty to keep it."
        } else {
            "No secret is set. Secrets are stored encrypted and never shown again."
        }
    }
}

/// The path parameter with the ID of a provider.
#[derive(Deserialize)]
struct OauthConfigPath {
    oauth_config: String,
}

async fn find(console: &Console, member: &Member, path: &OauthConfigPath) -> Result<OauthConfig, PageError> {
    let Member { cx, organization_id, layout, .. } = member;
    let config = match path.oauth_config.parse::<OauthConfigId>() {
        Ok(id) => oauth_configs::get(cx, console.ops(), organization_id, &id).await,
        Err(_) => Err(Error::not_found("identity provider")),
    };
    config.map_err(|error| PageError::from(error).with_layout(layout.clone()))
}

/// The unsaved state of the form on a provider's page.
struct FormState {
    status: StatusCode,
    form_error: FormError,
    fields: Option<OauthConfigForm>,
    findings: Option<Vec<ProviderFinding>>,
}

impl FormState {
    fn plain() -> Self {
        Self { status: StatusCode::OK, form_error: FormError::default(), fields: None, findings: None }
    }
}

async fn render(
    console: &Console,
    info: &RequestInfo,
    member: &Member,
    config: OauthConfig,
    state: FormState,
) -> Result<Response, Error> {
    let Member { cx, organization_id, org, layout } = member;
    let all = servers::list(cx, console.ops(), organization_id).await?;
    let linked: Vec<_> = all.into_iter().filter(|server| server.oauth_config_id.as_ref() == Some(&config.id)).collect();
    let redirect_uris =
        linked.iter().flat_map(|server| console.public_url.redirect_uris(&info.authority, &server.slug)).collect();
    let servers = linked
        .into_iter()
        .map(|server| ServerLink { href: org.path(&format!("servers/{}/settings", server.id)), name: server.name })
        .collect();
    let list = org.path("oauth-configs");
    Ok(view::html(
        state.status,
        &OauthConfigPage {
            layout: layout.clone().with_section("oauth-configs"),
            form_error: state.form_error,
            base: format!("{list}/{}", config.id),
            list,
            is_admin: org.is_admin(),
            fields: state.fields.unwrap_or_else(|| OauthConfigForm::from(&config)),
            auth_methods: auth_methods(""),
            servers,
            redirect_uris,
            findings: state.findings,
            config,
        },
    ))
}

async fn show(
    State(console): State<Console>,
    info: RequestInfo,
    member: Member,
    Path(path): Path<OauthConfigPath>,
) -> PageResult {
    let config = find(&console, &member, &path).await?;
    Ok(render(&console, &info, &member, config, FormState::plain()).await?)
}

async fn save(
    State(console): State<Console>,
    info: RequestInfo,
    member: Member,
    Path(path): Path<OauthConfigPath>,
    Form(fields): Form<OauthConfigForm>,
) -> PageResult {
    let old = find(&console, &member, &path).await?;
    let saved = match fields.settings(&OauthConfigForm::from(&old)) {
        Ok(settings) => oauth_configs::update(&member.cx, console.ops(), &old, &settings).await,
        Err(error) => Err(error),
    };
    match saved {
        Ok((config, findings)) => {
            let location = member.org.path(&format!("oauth-configs/{}", config.id));
            Ok(view::redirect_with_flash(&location, &with_warnings("Saved.", &findings)))
        }
        Err(error) => {
            let rejected =
                form_error(error).map_err(|error| PageError::from(error).with_layout(member.layout.clone()))?;
            let (status, form_error) = rejected;
            let state = FormState { status, form_error, fields: Some(fields), findings: None };
            Ok(render(&console, &info, &member, old, state).await?)
        }
    }
}

async fn check(
    State(console): State<Console>,
    info: RequestInfo,
    member: Member,
    Path(path): Path<OauthConfigPath>,
) -> PageResult {
    let config = find(&console, &member, &path).await?;
    let findings = oauth_configs::check(&member.cx, console.ops(), &config).await?;
    let state = FormState { findings: Some(findings), ..FormState::plain() };
    Ok(render(&console, &info, &member, config, state).await?)
}

async fn delete(
    State(console): State<Console>,
    info: RequestInfo,
    member: Member,
    Path(path): Path<OauthConfigPath>,
) -> PageResult {
    let config = find(&console, &member, &path).await?;
    let deleted = oauth_configs::delete(&member.cx, console.ops(), &member.organization_id, &config.id).await;
    match deleted {
        Ok(()) => {
            let message = format!("Provider “{}” deleted.", config.name);
            Ok(view::redirect_with_flash(&member.org.path("oauth-configs"), &message))
        }
        Err(error) => {
            let rejected =
                form_error(error).map_err(|error| PageError::from(error).with_layout(member.layout.clone()))?;
            let (status, form_error) = rejected;
            Ok(render(&console, &info, &member, config, FormState { status, form_error, ..FormState::plain() }).await?)
        }
    }
}
