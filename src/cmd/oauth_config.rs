//! `waypost oauth-config`: identity providers with which end users sign in.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::ArgAction;
use serde_json::{Value, json};
use url::Host;
use waypost_core::id::OrganizationId;
use waypost_core::oauth_config::{OauthConfig, TokenAuthMethod};
use waypost_core::seal::SecretText;
use waypost_ops::oauth_configs::{self, FindingLevel, OauthConfigSettings, ProviderFinding};
use waypost_ops::public_url::{HostKind, PublicUrl};

use super::session::{Session, not_found_message, one_of};
use super::user::Org;
use super::{App, output};

/// Maximum size of a secret file in bytes.
const MAX_SECRET_BYTES: u64 = 4 * 1024;

/// Subcommands of `waypost oauth-config`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check an identity provider and save it if users can sign in with it.
    Create {
        /// Display name, unique in the organisation.
        name: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        flags: Box<Flags>,
    },
    /// List the identity providers of an organisation.
    List {
        #[command(flatten)]
        org: Org,
    },
    /// Show an identity provider, without its secret, and the redirect URIs to register there.
    Show {
        /// Name or ID of the provider.
        provider: String,
        #[command(flatten)]
        org: Org,
    },
    /// Change the given settings after checking the identity provider again.
    Update {
        /// Name or ID of the provider.
        provider: String,
        #[command(flatten)]
        org: Org,
        /// New name.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        flags: Box<Flags>,
    },
    /// Delete an identity provider that no server uses.
    Delete {
        /// Name or ID of the provider.
        provider: String,
        #[command(flatten)]
        org: Org,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
    /// Check an identity provider and print the findings. Fails if users cannot sign in.
    Check {
        /// Name or ID of the provider.
        provider: String,
        #[command(flatten)]
        org: Org,
    },
}

/// Settings of an identity provider.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Issuer, exactly as the provider writes it. Its metadata is discovered from it.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// URL of the provider's metadata, instead of the issuer.
    #[arg(long, value_name = "URL")]
    metadata_url: Option<String>,
    /// Authorization endpoint, for a provider without metadata.
    #[arg(long, value_name = "URL")]
    authorization_endpoint: Option<String>,
    /// Token endpoint, for a provider without metadata.
    #[arg(long, value_name = "URL")]
    token_endpoint: Option<String>,
    /// Userinfo endpoint, if the provider's metadata does not contain it.
    #[arg(long, value_name = "URL")]
    userinfo_endpoint: Option<String>,
    /// Client ID assigned by the provider.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// File with the client secret assigned by the provider; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,
    /// Scope to request; can be repeated [default: openid, email and profile].
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Option<Vec<String>>,
    /// Client authentication method at the token endpoint [default: from the provider's metadata].
    #[arg(long, value_parser = one_of(TokenAuthMethod::ALL, TokenAuthMethod::as_str))]
    token_auth_method: Option<TokenAuthMethod>,
    /// Claim that permanently identifies a user [default: `sub`, or `id` without OpenID Connect].
    #[arg(long, value_name = "CLAIM")]
    subject_claim: Option<String>,
    /// Whether to treat users with the same verified email at different providers as one user [default: false].
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    link_verified_email: Option<bool>,
}

impl Flags {
    /// Converts the flags to settings. Reads the secret file.
    ///
    /// # Errors
    /// If the secret file cannot be read.
    pub(super) fn settings(self, name: Option<String>) -> anyhow::Result<OauthConfigSettings> {
        Ok(OauthConfigSettings {
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

/// Reads a secret from a file. A file is used because a command line is visible to other users of the machine and is kept
/// in the shell's history.
fn read_secret(path: PathBuf) -> anyhow::Result<SecretText> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().take(MAX_SECRET_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(&path).and_then(|file| file.take(MAX_SECRET_BYTES).read_to_string(&mut text))
    };
    read.with_context(|| format!("cannot read the client secret from {}", path.display()))?;
    Ok(SecretText::new(text.trim_end_matches(['\r', '\n'])))
}

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(app: &App, session: &Session, command: Command) -> anyhow::Result<ExitCode> {
    let Session { cx, ops, json, .. } = session;
    match command {
        Command::Create { name, org, flags } => {
            let organization = session.organization(org.org.as_deref()).await?.id;
            let settings = flags.settings(Some(name))?;
            let (created, findings) =
                oauth_configs::create(cx, &session.connected_ops(app)?, &organization, &settings).await?;
            show(app, session, &created, &findings).await?;
        }
        Command::List { org } => {
            let organization = session.organization(org.org.as_deref()).await?.id;
            print_list(*json, oauth_configs::list(cx, ops, &organization).await?.iter().map(to_json).collect())?;
        }
        Command::Show { provider, org } => {
            let config = find(session, &org, &provider).await?;
            show(app, session, &config, &[]).await?;
        }
        Command::Update { provider, org, name, flags } => {
            let current = find(session, &org, &provider).await?;
            let settings = flags.settings(name)?;
            let (updated, findings) =
                oauth_configs::update(cx, &session.connected_ops(app)?, &current, &settings).await?;
            show(app, session, &updated, &findings).await?;
        }
        Command::Delete { provider, org, yes } => {
            let config = find(session, &org, &provider).await?;
            confirm_deletion(yes, &config.name)?;
            oauth_configs::delete(cx, ops, &config.organization_id, &config.id).await?;
            print_deleted(*json, config.id.as_str(), &config.name)?;
        }
        Command::Check { provider, org } => {
            let config = find(session, &org, &provider).await?;
            let findings = oauth_configs::check(cx, &session.connected_ops(app)?, &config).await?;
            return print_check(*json, findings.iter().map(finding_to_json).collect());
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn find(session: &Session, org: &Org, text: &str) -> anyhow::Result<OauthConfig> {
    let mut not_found = waypost_core::Error::not_found("identity provider");
    for organization in session.candidates(org.org.as_deref()).await? {
        match oauth_configs::resolve(&session.cx, &session.ops, &organization, text).await {
            Err(error) if error.code == waypost_core::Code::NotFound => not_found = error,
            found => return Ok(found?),
        }
    }
    Err(not_found_message(not_found, "identity provider", text, "oauth-config"))
}

async fn show(app: &App, session: &Session, config: &OauthConfig, findings: &[ProviderFinding]) -> anyhow::Result<()> {
    let servers = servers(session, &config.organization_id, config).await?;
    let mut value = to_json(config);
    value["redirect_uris"] = json!(redirect_uris(app, &servers));
    value["servers"] = json!(servers);
    print(session.json, value, findings.iter().map(finding_to_json).collect())
}

/// Prints a provider and all findings except those with level `ok`.
pub(super) fn print(json: bool, mut value: Value, mut findings: Vec<Value>) -> anyhow::Result<()> {
    findings.retain(|finding| finding["level"] != FindingLevel::Ok.as_str());
    if json {
        value["findings"] = Value::Array(findings);
        return output::object(true, &value);
    }
    output::object(false, &value)?;
    let text = |value: &Value| output::clean(value.as_str().unwrap_or_default());
    let lines = findings.iter().map(|finding| format!("{}: {}\n", text(&finding["level"]), text(&finding["message"])));
    output::text(&lines.collect::<String>())
}

/// Prints the findings. The exit code is 1 if users cannot sign in.
pub(super) fn print_check(json: bool, findings: Vec<Value>) -> anyhow::Result<ExitCode> {
    let has_failed = findings.iter().any(|finding| finding["level"] == FindingLevel::Error.as_str());
    output::list(json, &["level", "message"], findings)?;
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

pub(super) fn print_list(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, &["name", "kind", "issuer", "client_id", "id"], items)
}

pub(super) fn confirm_deletion(yes: bool, name: &str) -> anyhow::Result<()> {
    output::confirm(yes, &format!("Delete the identity provider {}?", output::clean(name)))
}

pub(super) fn print_deleted(json: bool, id: &str, name: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Deleted the identity provider {}.", output::clean(name)))
}

async fn servers(
    session: &Session,
    organization: &OrganizationId,
    config: &OauthConfig,
) -> anyhow::Result<Vec<String>> {
    Ok(oauth_configs::list_servers(&session.cx, &session.ops, organization, &config.id).await?)
}

/// Returns the redirect URIs to register at the provider: one for every URL form of the servers.
fn redirect_uris(app: &App, servers: &[String]) -> Vec<String> {
    let url = app.settings.public_url(app.settings.listen.port());
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let authority = format!("{}{port}", url.host_str().unwrap_or_default());
    let has_virtual_hosts = matches!(url.host(), Some(Host::Domain(_)));
    let public = PublicUrl::new(url);
    let mut uris = Vec::new();
    for slug in servers {
        let mut issuers = vec![public.server_urls(&authority, &HostKind::Main, slug).issuer()];
        if has_virtual_hosts {
            let site = HostKind::Server(slug.clone());
            issuers.push(public.server_urls(&format!("{slug}.{authority}"), &site, slug).issuer());
        }
        uris.extend(issuers.into_iter().map(|issuer| format!("{issuer}/oauth/callback")));
    }
    uris
}

fn finding_to_json(finding: &ProviderFinding) -> Value {
    json!({"level": finding.level.as_str(), "message": finding.message})
}

/// The members of the output, in the order of [`to_json`].
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

fn to_json(config: &OauthConfig) -> Value {
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
