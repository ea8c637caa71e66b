//! `waypost oauth-config`: identity providers that sign end users in.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::ArgAction;
use serde_json::{Value, json};
use url::Host;
use waypost_core::SystemRandom;
use waypost_core::id::OrganizationId;
use waypost_core::oauth_config::{OauthConfig, TokenAuthMethod};
use waypost_core::seal::SecretText;
use waypost_ops::identity_provider::IdentityProviderContext;
use waypost_ops::oauth_configs::{self, Finding, Level, Settings};
use waypost_ops::public_url::{HostKind, PublicUrl};
use waypost_outbound::Outbound;

use super::session::{Session, named, one_of};
use super::user::Org;
use super::{App, output};
use crate::{outbound, storage};

/// A file of a secret is short.
const MAX_SECRET: u64 = 4 * 1024;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Looks at a provider and, when users can sign in with it, saves it.
    Create {
        /// Name for people, unique in the organisation.
        name: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        flags: Box<Flags>,
    },
    /// Lists the providers of an organisation.
    List {
        #[command(flatten)]
        org: Org,
    },
    /// Shows a provider, without its secret, and the redirect URIs to register there.
    Show {
        /// Name or id.
        provider: String,
        #[command(flatten)]
        org: Org,
    },
    /// Changes what is named; the provider is looked at again before.
    Update {
        /// Name or id.
        provider: String,
        #[command(flatten)]
        org: Org,
        /// A new name.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        flags: Box<Flags>,
    },
    /// Deletes a provider that no server uses.
    Delete {
        /// Name or id.
        provider: String,
        #[command(flatten)]
        org: Org,
        /// Does not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Looks at a provider again, and says what was found; fails when users could not sign in.
    Check {
        /// Name or id.
        provider: String,
        #[command(flatten)]
        org: Org,
    },
}

/// What can be set.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// The issuer, exactly as the provider writes it; its metadata is found from it.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Where the provider's metadata is, instead of the issuer.
    #[arg(long, value_name = "URL")]
    metadata_url: Option<String>,
    /// For a provider without metadata.
    #[arg(long, value_name = "URL")]
    authorization_endpoint: Option<String>,
    /// For a provider without metadata.
    #[arg(long, value_name = "URL")]
    token_endpoint: Option<String>,
    /// For a provider without metadata, or whose metadata does not name it.
    #[arg(long, value_name = "URL")]
    userinfo_endpoint: Option<String>,
    /// What the provider calls Waypost.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// File with the secret that the provider gave; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,
    /// What to ask for; several times for several. By default openid, email and profile.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Option<Vec<String>>,
    /// How the secret is shown to the token endpoint; by default what the provider says.
    #[arg(long, value_parser = one_of(TokenAuthMethod::ALL, TokenAuthMethod::as_str))]
    token_auth_method: Option<TokenAuthMethod>,
    /// The claim that names a user for ever; `sub` by default, without OpenID Connect `id`.
    #[arg(long, value_name = "CLAIM")]
    subject_claim: Option<String>,
    /// Whether users with the same verified address as those of other providers are the same; `false` by default.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    link_verified_email: Option<bool>,
}

impl Flags {
    /// As the acts take them; reads the file of the secret.
    ///
    /// # Errors
    /// When that file cannot be read.
    pub(super) fn settings(self, name: Option<String>) -> anyhow::Result<Settings> {
        Ok(Settings {
            name,
            issuer: self.issuer,
            metadata_url: self.metadata_url,
            authorization_endpoint: self.authorization_endpoint,
            token_endpoint: self.token_endpoint,
            userinfo_endpoint: self.userinfo_endpoint,
            client_id: self.client_id,
            client_secret: self.client_secret_file.map(read_secret).transpose()?,
            scopes: self.scopes,
            token_auth_method: self.token_auth_method,
            subject_claim: self.subject_claim,
            link_verified_email: self.link_verified_email,
        })
    }
}

/// A command line can be seen by every user of the machine, and stays in the shell's history: a file is not.
fn read_secret(path: PathBuf) -> anyhow::Result<SecretText> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().take(MAX_SECRET).read_to_string(&mut text)
    } else {
        std::fs::File::open(&path).and_then(|file| file.take(MAX_SECRET).read_to_string(&mut text))
    };
    read.with_context(|| format!("cannot read the client secret from {}", path.display()))?;
    Ok(SecretText::new(text.trim_end_matches(['\r', '\n'])))
}

/// Does it.
///
/// # Errors
/// When the act is refused.
pub async fn run(app: &App, session: &Session, command: Command) -> anyhow::Result<ExitCode> {
    let Session { cx, ops, json, .. } = session;
    match command {
        Command::Create { name, org, flags } => {
            let organization = session.organization(org.org.as_deref()).await?.id;
            let settings = flags.settings(Some(name))?;
            let (made, findings) =
                oauth_configs::create(cx, ops, &provider_context(app)?, &organization, &settings).await?;
            show(app, session, &made, &findings).await?;
        }
        Command::List { org } => {
            let organization = session.organization(org.org.as_deref()).await?.id;
            print_list(*json, oauth_configs::list(cx, ops, &organization).await?.iter().map(shape).collect())?;
        }
        Command::Show { provider, org } => {
            let config = find(session, &org, &provider).await?;
            show(app, session, &config, &[]).await?;
        }
        Command::Update { provider, org, name, flags } => {
            let old = find(session, &org, &provider).await?;
            let settings = flags.settings(name)?;
            let (changed, findings) = oauth_configs::update(cx, ops, &provider_context(app)?, &old, &settings).await?;
            show(app, session, &changed, &findings).await?;
        }
        Command::Delete { provider, org, yes } => {
            let config = find(session, &org, &provider).await?;
            confirm_deletion(yes, &config.name)?;
            oauth_configs::delete(cx, ops, &config.organization_id, &config.id).await?;
            deleted(*json, config.id.as_str(), &config.name)?;
        }
        Command::Check { provider, org } => {
            let config = find(session, &org, &provider).await?;
            let findings = oauth_configs::check(cx, ops, &provider_context(app)?, &config).await?;
            return print_check(*json, findings.iter().map(finding).collect());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn provider_context(app: &App) -> anyhow::Result<IdentityProviderContext> {
    let outbound = Outbound::new(outbound::policy(&app.settings, false)?)?;
    Ok(IdentityProviderContext { outbound, keyring: storage::keys(&app.settings, &SystemRandom)?.keyring() })
}

async fn find(session: &Session, org: &Org, text: &str) -> anyhow::Result<OauthConfig> {
    let mut refusal = waypost_core::Error::not_found("identity provider");
    for organization in session.candidates(org.org.as_deref()).await? {
        match oauth_configs::find(&session.cx, &session.ops, &organization, text).await {
            Err(error) if error.code == waypost_core::Code::NotFound => refusal = error,
            found => return Ok(found?),
        }
    }
    Err(named(refusal, "identity provider", text, "oauth-config"))
}

async fn show(app: &App, session: &Session, config: &OauthConfig, findings: &[Finding]) -> anyhow::Result<()> {
    let servers = servers(session, &config.organization_id, config).await?;
    let mut value = shape(config);
    value["redirect_uris"] = json!(redirect_uris(app, &servers));
    value["servers"] = json!(servers);
    print(session.json, value, findings.iter().map(finding).collect())
}

/// Shows a provider and what was found out that is worth a thought.
pub(super) fn print(json: bool, mut value: Value, mut findings: Vec<Value>) -> anyhow::Result<()> {
    findings.retain(|finding| finding["level"] != Level::Ok.as_str());
    if json {
        value["findings"] = Value::Array(findings);
        return output::object(true, &value);
    }
    output::object(false, &value)?;
    let text = |value: &Value| output::clean(value.as_str().unwrap_or_default());
    let lines = findings.iter().map(|finding| format!("{}: {}\n", text(&finding["level"]), text(&finding["message"])));
    output::text(&lines.collect::<String>())
}

/// Shows what was found out, and fails when users cannot sign in.
pub(super) fn print_check(json: bool, findings: Vec<Value>) -> anyhow::Result<ExitCode> {
    let failed = findings.iter().any(|finding| finding["level"] == Level::Error.as_str());
    output::list(json, &["level", "message"], findings)?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

pub(super) fn print_list(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, &["name", "kind", "issuer", "client_id", "id"], items)
}

pub(super) fn confirm_deletion(yes: bool, name: &str) -> anyhow::Result<()> {
    output::confirm(yes, &format!("Delete the identity provider {}?", output::clean(name)))
}

pub(super) fn deleted(json: bool, id: &str, name: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Deleted the identity provider {}.", output::clean(name)))
}

async fn servers(
    session: &Session,
    organization: &OrganizationId,
    config: &OauthConfig,
) -> anyhow::Result<Vec<String>> {
    Ok(oauth_configs::servers(&session.cx, &session.ops, organization, &config.id).await?)
}

/// What has to be registered at the provider: every address under which the servers may be asked.
fn redirect_uris(app: &App, servers: &[String]) -> Vec<String> {
    let url = app.settings.public_url(app.settings.listen.port());
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let authority = format!("{}{port}", url.host_str().unwrap_or_default());
    let has_names_below = matches!(url.host(), Some(Host::Domain(_)));
    let public = PublicUrl::new(url);
    let mut uris = Vec::new();
    for slug in servers {
        let mut issuers = vec![public.server_urls(&authority, &HostKind::Main, slug).issuer()];
        if has_names_below {
            let site = HostKind::Server(slug.clone());
            issuers.push(public.server_urls(&format!("{slug}.{authority}"), &site, slug).issuer());
        }
        uris.extend(issuers.into_iter().map(|issuer| format!("{issuer}/oauth/callback")));
    }
    uris
}

fn finding(finding: &Finding) -> Value {
    json!({"level": finding.level.as_str(), "message": finding.message})
}

/// What is shown of one, as [`shape`] writes it.
pub(super) const MEMBERS: &[&str] = &[
    "id",
    "organization_id",
    "name",
    "kind",
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "userinfo_endpoint",
    "jwks_uri",
    "client_id",
    "client_secret",
    "token_auth_method",
    "scopes",
    "subject_claim",
    "link_verified_email",
    "created_at",
    "updated_at",
];

fn shape(config: &OauthConfig) -> Value {
    json!({
        "id": config.id,
        "organization_id": config.organization_id,
        "name": config.name,
        "kind": config.kind.as_str(),
        "issuer": (!config.issuer.is_empty()).then_some(&config.issuer),
        "authorization_endpoint": config.authorization_endpoint,
        "token_endpoint": config.token_endpoint,
        "userinfo_endpoint": config.userinfo_endpoint,
        "jwks_uri": config.jwks_uri,
        "client_id": config.client_id,
        "client_secret": config.client_secret.as_ref().map(|_| "set"),
        "token_auth_method": config.token_auth_method.as_str(),
        "scopes": config.scopes,
        "subject_claim": config.subject_claim,
        "link_verified_email": config.link_verified_email,
        "created_at": config.created_at.rfc3339(),
        "updated_at": config.updated_at.rfc3339(),
    })
}
