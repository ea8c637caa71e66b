//! `/o/{org}/oauth-configs`: identity providers that sign end users in.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use waypost_core::Error;
use waypost_core::access::Act;
use waypost_core::id::OauthConfigId;
use waypost_core::oauth_config::{OauthConfig, TokenAuthMethod};
use waypost_core::seal::SecretText;
use waypost_ops::oauth_configs::{self, Finding, Level, Settings};
use waypost_ops::servers;

use super::form::Form;
use super::frame::Frame;
use super::routes::{Access, Routes};
use super::session::Member;
use super::view::{self, PageError, PageResult, Wrong};
use crate::Web;
use crate::request_info::RequestInfo;

/// The pages.
pub(super) fn routes() -> Routes {
    let (read, write) = (Access::Member(Act::OauthConfigRead), Access::Member(Act::OauthConfigWrite));
    Routes::new()
        .get("/o/{org}/oauth-configs", read, list)
        .post("/o/{org}/oauth-configs", write, create)
        .get("/o/{org}/oauth-configs/new", write, new)
        .get("/o/{org}/oauth-configs/{oauth_config}", read, show)
        .post("/o/{org}/oauth-configs/{oauth_config}", write, save)
        .post("/o/{org}/oauth-configs/{oauth_config}/check", write, check)
        .post("/o/{org}/oauth-configs/{oauth_config}/delete", write, delete)
}

/// What the forms send. Without `Debug`: a secret is in it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
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

impl From<&OauthConfig> for Fields {
    fn from(it: &OauthConfig) -> Self {
        Self {
            name: it.name.clone(),
            issuer: it.issuer.clone(),
            authorization_endpoint: it.authorization_endpoint.clone(),
            token_endpoint: it.token_endpoint.clone(),
            userinfo_endpoint: it.userinfo_endpoint.clone().unwrap_or_default(),
            client_id: it.client_id.clone(),
            client_secret: String::new(),
            scopes: it.scopes.join(" "),
            token_auth_method: it.token_auth_method.to_string(),
            subject_claim: it.subject_claim.clone(),
            link_verified_email: it.link_verified_email,
        }
    }
}

impl Fields {
    /// What differs from `old`: what nobody touched is not set.
    fn settings(&self, old: &Self) -> Result<Settings, Error> {
        let new = |new: &str, old: &str| Some(new.trim().to_owned()).filter(|new| new != old);
        let filled = |text: &str, old: &str| new(text, old).filter(|text| !text.is_empty());
        let method = match filled(&self.token_auth_method, &old.token_auth_method) {
            None => None,
            Some(text) => Some(
                text.parse::<TokenAuthMethod>()
                    .map_err(|why| Error::invalid("token_auth_method", format!("`token_auth_method`: {why}.")))?,
            ),
        };
        // With an issuer its metadata names the endpoints.
        let by_issuer = !self.issuer.trim().is_empty();
        let endpoint = |text: &str, old: &str| if by_issuer { None } else { filled(text, old) };
        Ok(Settings {
            name: Some(self.name.clone()).filter(|name| *name != old.name),
            issuer: filled(&self.issuer, &old.issuer),
            metadata_url: None,
            authorization_endpoint: endpoint(&self.authorization_endpoint, &old.authorization_endpoint),
            token_endpoint: endpoint(&self.token_endpoint, &old.token_endpoint),
            userinfo_endpoint: filled(&self.userinfo_endpoint, &old.userinfo_endpoint),
            client_id: filled(&self.client_id, &old.client_id),
            client_secret: Some(self.client_secret.as_str()).filter(|it| !it.is_empty()).map(SecretText::new),
            scopes: new(&self.scopes, &old.scopes)
                .filter(|text| !(text.is_empty() && old.scopes.is_empty()))
                .map(|text| text.split_whitespace().map(str::to_owned).collect()),
            token_auth_method: method,
            subject_claim: filled(&self.subject_claim, &old.subject_claim),
            link_verified_email: Some(self.link_verified_email).filter(|it| *it != old.link_verified_email),
        })
    }
}

fn methods(first: &str) -> Vec<(String, String)> {
    let words = |it: TokenAuthMethod| match it {
        TokenAuthMethod::ClientSecretBasic => "Secret in the header (client_secret_basic)",
        TokenAuthMethod::ClientSecretPost => "Secret in the body (client_secret_post)",
        TokenAuthMethod::None => "No secret: PKCE alone (none)",
    };
    let known = TokenAuthMethod::ALL.iter().map(|it| (it.to_string(), words(*it).to_owned()));
    let first = Some((String::new(), first.to_owned())).filter(|(_, text)| !text.is_empty());
    first.into_iter().chain(known).collect()
}

/// A refusal as the forms show it: what the provider itself is about stands above the fields.
fn refused(error: Error) -> Result<(StatusCode, Wrong), Error> {
    let (status, mut wrong) = Wrong::of(error)?;
    match wrong.field.as_str() {
        "scope" => "scopes".clone_into(&mut wrong.field),
        "provider" | "metadata_url" => wrong.field.clear(),
        _ => {}
    }
    Ok((status, wrong))
}

struct Row {
    href: String,
    name: String,
    provider: String,
    servers: Vec<String>,
}

#[derive(Template)]
#[template(path = "oauth_configs/list.html")]
struct ListPage {
    frame: Frame,
    base: String,
    admin: bool,
    rows: Vec<Row>,
}

impl ListPage {
    fn new_path(&self) -> String {
        format!("{}/new", self.base)
    }
}

async fn list(State(web): State<Web>, member: Member) -> PageResult {
    let Member { cx, organization_id, place, frame } = member;
    let base = place.path("oauth-configs");
    let mut rows = Vec::new();
    for config in oauth_configs::list(&cx, web.ops(), &organization_id).await? {
        let servers = oauth_configs::servers(&cx, web.ops(), &organization_id, &config.id).await?;
        let provider = if config.issuer.is_empty() { config.authorization_endpoint } else { config.issuer };
        rows.push(Row { href: format!("{base}/{}", config.id), name: config.name, provider, servers });
    }
    Ok(view::page(&ListPage { frame: frame.at("oauth-configs"), base, admin: place.is_admin(), rows }))
}

#[derive(Template)]
#[template(path = "oauth_configs/new.html")]
struct NewPage {
    frame: Frame,
    wrong: Wrong,
    base: String,
    fields: Fields,
    methods: Vec<(String, String)>,
    /// An address to register, for an example server.
    redirect_uri: String,
}

fn new_page(
    web: &Web,
    info: &RequestInfo,
    member: &Member,
    (status, wrong): (StatusCode, Wrong),
    fields: Fields,
) -> Response {
    let address = web.public_url.path_urls(&info.authority, "SERVER").issuer();
    view::html(
        status,
        &NewPage {
            frame: member.frame.clone().at("oauth-configs"),
            wrong,
            base: member.place.path("oauth-configs"),
            fields,
            methods: methods("As the provider says"),
            redirect_uri: format!("{address}/oauth/callback"),
        },
    )
}

async fn new(State(web): State<Web>, info: RequestInfo, member: Member) -> PageResult {
    Ok(new_page(&web, &info, &member, (StatusCode::OK, Wrong::default()), Fields::default()))
}

async fn create(State(web): State<Web>, info: RequestInfo, member: Member, Form(fields): Form<Fields>) -> PageResult {
    let Member { cx, organization_id, place, frame } = &member;
    let made = match fields.settings(&Fields::default()) {
        Ok(settings) => oauth_configs::create(cx, web.ops(), &web.provider_context, organization_id, &settings).await,
        Err(error) => Err(error),
    };
    match made {
        Ok((config, findings)) => {
            let location = place.path(&format!("oauth-configs/{}", config.id));
            Ok(view::redirect_saying(&location, &said("The provider is saved.", &findings)))
        }
        Err(error) => {
            let refused = refused(error).map_err(|error| PageError::from(error).within(frame.clone()))?;
            Ok(new_page(&web, &info, &member, refused, fields))
        }
    }
}

/// A sentence, and what somebody should know.
fn said(text: &str, findings: &[Finding]) -> String {
    let warnings = findings.iter().filter(|finding| finding.level != Level::Ok).map(|it| it.message.as_str());
    std::iter::once(text).chain(warnings).collect::<Vec<_>>().join(" ")
}

struct Server {
    href: String,
    name: String,
}

#[derive(Template)]
#[template(path = "oauth_configs/show.html")]
struct ShowPage {
    frame: Frame,
    wrong: Wrong,
    list: String,
    base: String,
    admin: bool,
    config: OauthConfig,
    fields: Fields,
    methods: Vec<(String, String)>,
    servers: Vec<Server>,
    redirect_uris: Vec<String>,
    /// Of a check that was just made.
    findings: Option<Vec<Finding>>,
}

impl ShowPage {
    fn delete_path(&self) -> String {
        format!("{}/delete", self.base)
    }

    fn badge(&self, finding: &Finding) -> &'static str {
        match finding.level {
            Level::Ok => "good",
            Level::Warning => "warn",
            Level::Error => "bad",
        }
    }

    fn secret_hint(&self) -> &'static str {
        if self.config.client_secret.is_some() {
            "One is kept, sealed; it is never shown. Leave this empty to keep it."
        } else {
            "None is kept. It is kept sealed and never shown."
        }
    }
}

/// The provider in the path.
#[derive(Deserialize)]
struct At {
    oauth_config: String,
}

async fn found(web: &Web, member: &Member, at: &At) -> Result<OauthConfig, PageError> {
    let Member { cx, organization_id, frame, .. } = member;
    let found = match at.oauth_config.parse::<OauthConfigId>() {
        Ok(id) => oauth_configs::show(cx, web.ops(), organization_id, &id).await,
        Err(_) => Err(Error::not_found("identity provider")),
    };
    found.map_err(|error| PageError::from(error).within(frame.clone()))
}

/// What a page of a provider shows beside what is saved.
struct Shown {
    status: StatusCode,
    wrong: Wrong,
    fields: Option<Fields>,
    findings: Option<Vec<Finding>>,
}

impl Shown {
    fn plain() -> Self {
        Self { status: StatusCode::OK, wrong: Wrong::default(), fields: None, findings: None }
    }
}

async fn page(
    web: &Web,
    info: &RequestInfo,
    member: &Member,
    config: OauthConfig,
    shown: Shown,
) -> Result<Response, Error> {
    let Member { cx, organization_id, place, frame } = member;
    let all = servers::list(cx, web.ops(), organization_id).await?;
    let using: Vec<_> = all.into_iter().filter(|server| server.oauth_config_id.as_ref() == Some(&config.id)).collect();
    let redirect_uris =
        using.iter().flat_map(|server| web.public_url.redirect_uris(&info.authority, &server.slug)).collect();
    let servers = using
        .into_iter()
        .map(|it| Server { href: place.path(&format!("servers/{}/settings", it.id)), name: it.name })
        .collect();
    let list = place.path("oauth-configs");
    Ok(view::html(
        shown.status,
        &ShowPage {
            frame: frame.clone().at("oauth-configs"),
            wrong: shown.wrong,
            base: format!("{list}/{}", config.id),
            list,
            admin: place.is_admin(),
            fields: shown.fields.unwrap_or_else(|| Fields::from(&config)),
            methods: methods(""),
            servers,
            redirect_uris,
            findings: shown.findings,
            config,
        },
    ))
}

async fn show(State(web): State<Web>, info: RequestInfo, member: Member, Path(at): Path<At>) -> PageResult {
    let config = found(&web, &member, &at).await?;
    Ok(page(&web, &info, &member, config, Shown::plain()).await?)
}

async fn save(
    State(web): State<Web>,
    info: RequestInfo,
    member: Member,
    Path(at): Path<At>,
    Form(fields): Form<Fields>,
) -> PageResult {
    let old = found(&web, &member, &at).await?;
    let saved = match fields.settings(&Fields::from(&old)) {
        Ok(settings) => oauth_configs::update(&member.cx, web.ops(), &web.provider_context, &old, &settings).await,
        Err(error) => Err(error),
    };
    match saved {
        Ok((config, findings)) => {
            let location = member.place.path(&format!("oauth-configs/{}", config.id));
            Ok(view::redirect_saying(&location, &said("Saved.", &findings)))
        }
        Err(error) => {
            let refused = refused(error).map_err(|error| PageError::from(error).within(member.frame.clone()))?;
            let (status, wrong) = refused;
            let shown = Shown { status, wrong, fields: Some(fields), findings: None };
            Ok(page(&web, &info, &member, old, shown).await?)
        }
    }
}

async fn check(State(web): State<Web>, info: RequestInfo, member: Member, Path(at): Path<At>) -> PageResult {
    let config = found(&web, &member, &at).await?;
    let findings = oauth_configs::check(&member.cx, web.ops(), &web.provider_context, &config).await?;
    let shown = Shown { findings: Some(findings), ..Shown::plain() };
    Ok(page(&web, &info, &member, config, shown).await?)
}

async fn delete(State(web): State<Web>, info: RequestInfo, member: Member, Path(at): Path<At>) -> PageResult {
    let config = found(&web, &member, &at).await?;
    let deleted = oauth_configs::delete(&member.cx, web.ops(), &member.organization_id, &config.id).await;
    match deleted {
        Ok(()) => {
            let said = format!("The provider “{}” is deleted.", config.name);
            Ok(view::redirect_saying(&member.place.path("oauth-configs"), &said))
        }
        Err(error) => {
            let refused = refused(error).map_err(|error| PageError::from(error).within(member.frame.clone()))?;
            let (status, wrong) = refused;
            Ok(page(&web, &info, &member, config, Shown { status, wrong, ..Shown::plain() }).await?)
        }
    }
}
