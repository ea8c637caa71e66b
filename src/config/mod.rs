//! Configuration from flags, environment, file and defaults, in this order of precedence, based on one table of settings.
//!
//! Every setting is a row of [`table::SETTINGS`]. An unknown or invalid setting is a start-up error. Its message contains
//! the name and the source of the setting, but never the value of a secret.

mod env;
#[cfg(test)]
mod reference;
pub mod table;
pub mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use url::Url;
use waypost_auth::client::document::availability::ClientDocumentsMode as ClientDocuments;
use waypost_core::organization::SignUpPolicy;
use waypost_core::seal::SecretText;
use waypost_gateway::{ElicitationHosts, ForwardedHeaders};
use waypost_mail::{MailUrl, Sender};
use waypost_ops::ToolboxSwitch;
use waypost_ops::retention::RetentionPeriods;
use waypost_outbound::Allowance;

use table::{SETTINGS, Setting};
pub use value::{DatabaseUrl, LogFormat, LogLevel, SecretKey, parse_origin};

/// Milliseconds per day.
const DAY_MS: i64 = 24 * 3_600_000;

/// The source of a value, in ascending order of precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    File(PathBuf),
    /// An environment variable, by name.
    Environment(String),
    /// A flag, by name.
    Flag(&'static str),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "from file {}", path.display()),
            Self::Environment(name) => write!(f, "from environment variable {name}"),
            Self::Flag(name) => write!(f, "from flag {name}"),
        }
    }
}

/// A configuration error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not valid TOML.
    #[error("the configuration file {path} is not valid TOML, line {line}: {message}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line number, starting at 1.
        line: usize,
        /// The problem, without the text of the line, which may contain a secret.
        message: String,
    },
    /// The setting does not exist.
    #[error("unknown setting `{name}` ({origin}){hint}", hint = hint(suggestion.as_deref()))]
    Unknown {
        /// The name as written.
        name: String,
        /// Its source.
        origin: Origin,
        /// A setting with a similar name.
        suggestion: Option<String>,
    },
    /// The value is invalid.
    #[error("invalid setting `{name}` ({origin}): {reason}")]
    Invalid {
        /// The setting.
        name: &'static str,
        /// Its source.
        origin: Origin,
        /// The problem and the expected format.
        reason: String,
    },
}

fn hint(suggestion: Option<&str>) -> String {
    match suggestion {
        Some(name) => format!("; did you mean `{name}`?"),
        None => "; see docs/config.md for all settings".to_owned(),
    }
}

impl Error {
    /// Whether the error was caused by a flag, which counts as incorrect usage.
    #[must_use]
    pub fn is_usage_error(&self) -> bool {
        matches!(self, Self::Unknown { origin: Origin::Flag(_), .. } | Self::Invalid { origin: Origin::Flag(_), .. })
    }
}

/// The sources of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file passed with `--config`.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Settings passed as flags: name and value.
    pub flags: Vec<(&'static str, String)>,
}

/// Waypost's client credentials at an identity provider for console users.
#[derive(Debug, Clone, Default)]
pub struct OauthClient {
    /// The client ID.
    pub id: Option<String>,
    /// The client secret.
    pub secret: Option<SecretText>,
}

/// The validated settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Main listen address.
    pub listen: SocketAddr,
    /// Public origin of this installation; see [`Settings::public_url`] for the default.
    pub public_url: Option<Url>,
    /// Database URL.
    pub database_url: DatabaseUrl,
    /// Data directory.
    pub data_dir: PathBuf,
    /// Listen address of the diagnostics port; `None` if disabled.
    pub diagnostics_listen: Option<SocketAddr>,
    /// Secret key, if it is configured and not stored in a file.
    pub secret_key: Option<SecretKey>,
    /// Previous secret key.
    pub secret_key_previous: Option<SecretKey>,
    /// Proxies whose forwarded headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Private networks that outgoing requests may reach, by purpose and organisation.
    pub outbound_allow: Vec<Allowance>,
    /// Policy for client metadata documents.
    pub client_documents: ClientDocuments,
    /// File with root certificates that outgoing requests trust in addition to the system's.
    pub outbound_ca_file: Option<PathBuf>,
    /// Mail transport; `None` if mail is disabled.
    pub smtp_url: Option<MailUrl>,
    /// Sender of emails.
    pub mail_from: Option<Sender>,
    /// Policy for creating console accounts.
    pub sign_up: SignUpPolicy,
    /// Client credentials at GitHub.
    pub github: OauthClient,
    /// Client credentials at Google.
    pub google: OauthClient,
    /// Client credentials at an OpenID Connect provider.
    pub openid: OauthClient,
    /// Issuer of that provider.
    pub openid_issuer: Option<String>,
    /// Display name of that provider.
    pub openid_name: String,
    /// Calls per second per caller; 0 for no limit.
    pub rate_limit_per_caller: u32,
    /// Burst size per caller.
    pub rate_limit_burst: u32,
    /// Combined limit of all anonymous users with progress on one client address, as a multiple of the limit per caller.
    pub rate_limit_callers_per_address: u32,
    /// New anonymous users per hour per client address; 0 for no limit.
    pub new_users_per_address: u32,
    /// Calls per second per server; 0 for no limit.
    pub rate_limit_per_server: u32,
    /// Support tickets per hour per client address; 0 for no limit.
    pub ticket_limit_per_address: u32,
    /// Support tickets per hour per server; 0 for no limit.
    pub ticket_limit_per_server: u32,
    /// Instances of tool servers per organisation.
    pub instance_limit: u32,
    /// Whether toolboxes and instances can be used.
    pub toolboxes: bool,
    /// Whether agents can use the gateway.
    pub gateway: bool,
    /// Maximum age of a tool server's list of definitions in seconds. An older list is read again before a call.
    pub gateway_definition_max_age_seconds: u32,
    /// Timeout of a call through the gateway, in seconds.
    pub gateway_call_timeout_seconds: u32,
    /// Calls of each agent through the gateway per hour and process; 0 for no limit.
    pub gateway_calls_per_hour: u32,
    /// Headers of agents that the gateway forwards to tool servers.
    pub gateway_forwarded_headers: ForwardedHeaders,
    /// Hosts whose pages tool servers may ask users of agents to open.
    pub gateway_elicitation_hosts: ElicitationHosts,
    /// Listen address for requests of other replicas.
    pub internal_listen: Option<SocketAddr>,
    /// The URL at which other replicas reach this one.
    pub internal_url: Option<Url>,
    /// `subscriptions/listen` streams in this process; 0 for no limit.
    pub listen_limit: u32,
    /// Streams per hosted server; 0 for no limit.
    pub listen_limit_per_server: u32,
    /// Streams per client address; 0 for no limit.
    pub listen_limit_per_address: u32,
    /// Connections to the main port; 0 for as many as the file descriptors allow.
    pub connection_limit: u32,
    /// Connections per client address; 0 for no limit.
    pub connection_limit_per_address: u32,
    /// Connections to the diagnostics port.
    pub diagnostics_connection_limit: u32,
    /// Timeout for a complete request head, in seconds.
    pub header_timeout_seconds: u32,
    /// Maximum size of a request head in bytes.
    pub header_limit_bytes: u32,
    /// Seconds that a request body may lag behind [`Settings::body_bytes_per_second`].
    pub body_timeout_seconds: u32,
    /// Minimum transfer rate of a request body in bytes per second; 0 for no limit.
    pub body_bytes_per_second: u32,
    /// Memory for all incomplete request bodies in bytes; 0 for no limit.
    pub body_memory_bytes: u64,
    /// Idle timeout between requests on a connection, in seconds.
    pub keep_alive_seconds: u32,
    /// Timeout for a client to accept any bytes of its response, in seconds.
    pub response_timeout_seconds: u32,
    /// Concurrent requests per HTTP/2 connection.
    pub http2_stream_limit: u32,
    /// Requests that an HTTP/2 connection may cancel per minute; 0 for no limit.
    pub http2_reset_limit: u32,
    /// Retention periods.
    pub retention: RetentionPeriods,
    /// Log format.
    pub log_format: LogFormat,
    /// Log level.
    pub log_level: LogLevel,
    /// Size of the cache for published versions in bytes.
    pub version_cache_bytes: u64,
    origins: BTreeMap<&'static str, Origin>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            public_url: None,
            database_url: DatabaseUrl::sqlite(Path::new("./waypost-data/waypost.db")),
            data_dir: PathBuf::from("./waypost-data"),
            diagnostics_listen: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464)),
            secret_key: None,
            secret_key_previous: None,
            trusted_proxies: Vec::new(),
            outbound_allow: Vec::new(),
            client_documents: ClientDocuments::default(),
            outbound_ca_file: None,
            smtp_url: None,
            mail_from: None,
            sign_up: SignUpPolicy::Invite,
            github: OauthClient::default(),
            google: OauthClient::default(),
            openid: OauthClient::default(),
            openid_issuer: None,
            openid_name: "OpenID Connect".to_owned(),
            rate_limit_per_caller: 100,
            rate_limit_burst: 200,
            rate_limit_callers_per_address: 5,
            rate_limit_per_server: 1_000,
            new_users_per_address: waypost_ops::limits::NEW_USERS_PER_ADDRESS,
            ticket_limit_per_address: 30,
            ticket_limit_per_server: 100,
            instance_limit: waypost_ops::INSTANCE_LIMIT,
            toolboxes: true,
            gateway: true,
            gateway_definition_max_age_seconds: 30,
            gateway_call_timeout_seconds: 30,
            gateway_calls_per_hour: 0,
            gateway_forwarded_headers: ForwardedHeaders::default(),
            gateway_elicitation_hosts: ElicitationHosts::default(),
            internal_listen: None,
            internal_url: None,
            listen_limit: 2_000,
            listen_limit_per_server: 1_000,
            listen_limit_per_address: 100,
            connection_limit: 0,
            connection_limit_per_address: 500,
            diagnostics_connection_limit: 64,
            header_timeout_seconds: 10,
            header_limit_bytes: 32 * 1024,
            body_timeout_seconds: 5,
            body_bytes_per_second: 1_000,
            body_memory_bytes: 64 * 1024 * 1024,
            keep_alive_seconds: 75,
            response_timeout_seconds: 60,
            http2_stream_limit: 100,
            http2_reset_limit: 100,
            retention: RetentionPeriods {
                tool_calls: Some(90 * DAY_MS),
                events: Some(400 * DAY_MS),
                audit: Some(730 * DAY_MS),
                deliveries: Some(30 * DAY_MS),
                gateway_calls: Some(30 * DAY_MS),
            },
            log_format: LogFormat::Auto,
            log_level: LogLevel::default(),
            version_cache_bytes: 64 * 1024 * 1024,
            origins: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Loads the settings.
    ///
    /// # Errors
    /// If a setting is unknown or invalid, or the file cannot be read.
    pub fn load(sources: &Sources) -> Result<Self, Error> {
        let mut settings = Self::default();
        let (file, values) = env::settings(&sources.environment)?;
        if let Some(path) = sources.file.as_deref().or(file.as_deref()) {
            settings.apply_file(path)?;
        }
        for (setting, origin, text) in values {
            settings.apply(setting, origin, &text)?;
        }
        for (name, text) in &sources.flags {
            let Some(setting) = table::find(name) else {
                let origin = Origin::Flag(name);
                return Err(Error::Unknown { name: (*name).to_owned(), origin, suggestion: None });
            };
            settings.apply(setting, Origin::Flag(setting.flag.unwrap_or(setting.name)), text)?;
        }
        if settings.origin("database_url").is_none() {
            settings.database_url = DatabaseUrl::sqlite(&settings.data_dir.join("waypost.db"));
        }
        Ok(settings)
    }

    fn apply_file(&mut self, path: &Path) -> Result<(), Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let values: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let until = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..until].iter().filter(|byte| **byte == b'\n').count() + 1;
            Error::Syntax { path: path.to_owned(), line, message: error.message().replace('\n', "; ") }
        })?;
        for (name, value) in &values {
            let origin = Origin::File(path.to_owned());
            let Some(setting) = table::find(name) else {
                let suggestion = closest(name, SETTINGS.iter().map(|setting| setting.name.to_owned()));
                return Err(Error::Unknown { name: name.clone(), origin, suggestion });
            };
            let Some(text) = toml_text(value) else {
                let reason = "expected a string, a number or a list of strings".to_owned();
                return Err(Error::Invalid { name: setting.name, origin, reason });
            };
            self.apply(setting, origin, &text)?;
        }
        Ok(())
    }

    fn apply(&mut self, setting: &Setting, origin: Origin, text: &str) -> Result<(), Error> {
        (setting.set)(self, text).map_err(|reason| Error::Invalid {
            name: setting.name,
            origin: origin.clone(),
            reason,
        })?;
        self.origins.insert(setting.name, origin);
        Ok(())
    }

    /// Returns the source of a setting; `None` if it is not set.
    #[must_use]
    pub fn origin(&self, name: &str) -> Option<&Origin> {
        self.origins.get(name)
    }

    /// Returns whether toolboxes are on. On PostgreSQL, they require that replicas and commands can reach each other.
    #[must_use]
    pub fn toolbox_switch(&self) -> ToolboxSwitch {
        match self.toolboxes {
            false => ToolboxSwitch::Off,
            true if !self.database_url.is_sqlite() && self.internal_url.is_none() => ToolboxSwitch::Incomplete,
            true => ToolboxSwitch::On,
        }
    }

    /// Returns the public origin of this installation, given the port it listens on.
    #[must_use]
    pub fn public_url(&self, port: u16) -> Url {
        self.public_url.clone().unwrap_or_else(|| {
            #[expect(clippy::expect_used, reason = "a constant with a number in it")]
            Url::parse(&format!("http://localhost:{port}")).expect("an origin is a URL")
        })
    }

    /// Whether forwarded headers from `peer` are trusted.
    #[must_use]
    pub fn is_trusted_proxy(&self, peer: IpAddr) -> bool {
        // A dual-stack socket reports an IPv4 peer as ::ffff:a.b.c.d.
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&peer))
    }
}

/// Converts a TOML value to the text that an environment variable would have. `None` for tables, floats and times.
fn toml_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<_>> = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
            Some(texts?.join(","))
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

/// Returns the candidate most similar to `name`, if it is similar enough to be a typo.
fn closest(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    candidates
        .map(|candidate| (distance(&name.to_ascii_lowercase(), &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 5)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Returns the Levenshtein distance between two strings.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let change = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
