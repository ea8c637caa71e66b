//! Configuration: flags, then environment, then file, then defaults; one table of settings for all of them.
//!
//! Everything that can be set is a row of [`table::SETTINGS`]. Whatever is not in the table, or does not parse, stops
//! the start with a message that names the setting and where it came from, and never its value when that is a secret.

mod env;
pub mod table;
pub mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use url::Url;
use waypost_auth::client::document::availability::Mode as ClientDocuments;
use waypost_core::organization::SignUpPolicy;
use waypost_core::seal::SecretText;
use waypost_mail::{MailUrl, Sender};
use waypost_ops::retention::RetentionPeriods;
use waypost_outbound::Allowance;

use table::{SETTINGS, Setting};
pub use value::{DatabaseUrl, LogFormat, LogLevel, SecretKey, origin};

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 3_600_000;

/// Where a value was set. Ordered by weight: a later one wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The file of `--config`.
    File(PathBuf),
    /// A variable of the environment, by name.
    Environment(String),
    /// A flag, by name.
    Flag(&'static str),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "from the file {}", path.display()),
            Self::Environment(name) => write!(f, "from the environment, {name}"),
            Self::Flag(name) => write!(f, "from the flag {name}"),
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("the configuration file {path} cannot be read: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("the configuration file {path} is not valid TOML, line {line}: {message}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, without the text of the line: it may hold a secret.
        message: String,
    },
    /// There is no such setting.
    #[error("unknown setting `{name}` ({origin}){hint}", hint = hint(suggestion.as_deref()))]
    Unknown {
        /// As it was written.
        name: String,
        /// Where.
        origin: Origin,
        /// The setting that it looks like.
        suggestion: Option<String>,
    },
    /// A value does not fit.
    #[error("invalid setting `{name}` ({origin}): {reason}")]
    Invalid {
        /// The setting.
        name: &'static str,
        /// Where.
        origin: Origin,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

fn hint(suggestion: Option<&str>) -> String {
    match suggestion {
        Some(name) => format!("; did you mean `{name}`?"),
        None => "; `waypost --help` and docs/config.md list the settings".to_owned(),
    }
}

impl Error {
    /// Whether a flag is to blame: wrong usage of the command line.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Unknown { origin: Origin::Flag(_), .. } | Self::Invalid { origin: Origin::Flag(_), .. })
    }
}

/// What the configuration is read from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file of `--config`.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Settings that were given as flags: the setting's name and its value.
    pub flags: Vec<(&'static str, String)>,
}

/// Waypost as a client of a provider with which users sign in to the console.
#[derive(Debug, Clone, Default)]
pub struct OauthClient {
    /// Its name there.
    pub id: Option<String>,
    /// Its secret there.
    pub secret: Option<SecretText>,
}

/// Everything that can be set, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the hosted MCP servers are served.
    pub listen: SocketAddr,
    /// The origin under which others reach this installation; see [`Settings::public_url`] for its default.
    pub public_url: Option<Url>,
    /// The database.
    pub database_url: DatabaseUrl,
    /// Where files are kept.
    pub data_dir: PathBuf,
    /// Where metrics and health are served; none when switched off.
    pub diagnostics_listen: Option<SocketAddr>,
    /// The key that signs and encrypts, when it is set and not kept in a file.
    pub secret_key: Option<SecretKey>,
    /// The key before that one.
    pub secret_key_previous: Option<SecretKey>,
    /// Proxies whose forwarded headers count.
    pub trusted_proxies: Vec<IpNet>,
    /// Private networks that outgoing requests may reach, by purpose and organisation.
    pub outbound_allow: Vec<Allowance>,
    /// Whether clients may name a metadata document.
    pub client_documents: ClientDocuments,
    /// Root certificates that requests to others trust beside the system's.
    pub outbound_ca_file: Option<PathBuf>,
    /// How mails are sent; none when they cannot be.
    pub smtp_url: Option<MailUrl>,
    /// Whom mails come from.
    pub mail_from: Option<Sender>,
    /// Who may make an account of the console for themselves.
    pub sign_up: SignUpPolicy,
    /// Waypost as a client of GitHub: id and secret.
    pub github: OauthClient,
    /// Waypost as a client of Google.
    pub google: OauthClient,
    /// Waypost as a client of a provider of OpenID Connect.
    pub openid: OauthClient,
    /// That provider's issuer.
    pub openid_issuer: Option<String>,
    /// What that provider is called.
    pub openid_name: String,
    /// Calls per second of one caller; 0 is no limit.
    pub rate_limit_per_caller: u32,
    /// Calls of one caller at once.
    pub rate_limit_burst: u32,
    /// How many times that the users with progress of one client address may call together.
    pub rate_limit_callers_per_address: u32,
    /// New anonymous users per hour of one client address; 0 is no limit.
    pub new_users_per_address: u32,
    /// Calls per second of one server; 0 is no limit.
    pub rate_limit_per_server: u32,
    /// Tickets per hour from one client address.
    pub ticket_limit_per_address: u32,
    /// Tickets per hour on one server.
    pub ticket_limit_per_server: u32,
    /// Streams of `subscriptions/listen` in this process; 0 for no limit.
    pub listen_limit: u32,
    /// Streams to one hosted server; 0 for no limit.
    pub listen_limit_per_server: u32,
    /// Streams from one client address; 0 for no limit.
    pub listen_limit_per_address: u32,
    /// Connections of the main port; 0 for as many as the file descriptors allow.
    pub connection_limit: u32,
    /// Connections from one client address; 0 for no limit.
    pub connection_limit_per_address: u32,
    /// Connections of the diagnostics port.
    pub diagnostics_connection_limit: u32,
    /// Seconds for a complete request head.
    pub header_timeout_seconds: u32,
    /// Bytes of a request head.
    pub header_limit_bytes: u32,
    /// Seconds that a request body may be behind [`Settings::body_bytes_per_second`].
    pub body_timeout_seconds: u32,
    /// Bytes per second of a request body; 0 for no limit.
    pub body_bytes_per_second: u32,
    /// Bytes of all incomplete request bodies; 0 for no limit.
    pub body_memory_bytes: u64,
    /// Seconds between two requests on a connection.
    pub keep_alive_seconds: u32,
    /// Seconds for a client to accept any bytes of its response.
    pub response_timeout_seconds: u32,
    /// Requests at the same time on a connection of HTTP/2.
    pub http2_stream_limit: u32,
    /// Requests that a connection of HTTP/2 may cancel within a minute; 0 for no limit.
    pub http2_reset_limit: u32,
    /// How long logs are kept.
    pub retention: RetentionPeriods,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_level: LogLevel,
    /// Memory for published versions, in bytes.
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
            },
            log_format: LogFormat::Auto,
            log_level: LogLevel::default(),
            version_cache_bytes: 64 * 1024 * 1024,
            origins: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Reads the configuration.
    ///
    /// # Errors
    /// When a setting is unknown or invalid, wherever it stands, or the file cannot be read.
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
            let Some(text) = plain(value) else {
                let reason = "expected a text, a number or a list of texts".to_owned();
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

    /// Where a setting was set; none when it has its default.
    #[must_use]
    pub fn origin(&self, name: &str) -> Option<&Origin> {
        self.origins.get(name)
    }

    /// The origin under which others reach this installation, when it listens on `port`.
    #[must_use]
    pub fn public_url(&self, port: u16) -> Url {
        self.public_url.clone().unwrap_or_else(|| {
            #[expect(clippy::expect_used, reason = "a constant with a number in it")]
            Url::parse(&format!("http://localhost:{port}")).expect("an origin is a URL")
        })
    }

    /// Whether forwarded headers from `peer` count.
    #[must_use]
    pub fn is_trusted_proxy(&self, peer: IpAddr) -> bool {
        // A socket that speaks both families shows an IPv4 peer as ::ffff:a.b.c.d.
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&peer))
    }
}

/// A value of the file as the text that the environment would have; none for tables and times.
fn plain(value: &toml::Value) -> Option<String> {
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

/// The candidate that differs least from `name`, when it is near enough to be a slip.
fn closest(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    candidates
        .map(|candidate| (distance(&name.to_ascii_lowercase(), &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 5)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance: how many letters to change, add or leave out.
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
