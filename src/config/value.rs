//! The types of settings, and parsers for their text.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;
use ipnet::IpNet;
use tracing::level_filters::LevelFilter;
use url::Url;
use waypost_outbound::Allowance;

/// The URL of the database. Its `Display` and `Debug` output never contains the password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Returns the URL of the SQLite database in a file.
    #[must_use]
    pub fn sqlite(path: &Path) -> Self {
        // In a URL, a question mark starts the parameters and a percent sign starts an escape.
        let path = path.to_string_lossy().replace('%', "%25").replace('?', "%3F");
        Self(format!("sqlite://{path}"))
    }

    /// Returns the complete URL, including the password. Only for the database driver.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the database is SQLite.
    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        self.0.starts_with("sqlite:")
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected sqlite://PATH or postgres://USER@HOST/DATABASE";
        if let Some(rest) = text.strip_prefix("sqlite:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if path.is_empty() || path.starts_with('?') {
                return Err(expected.to_owned());
            }
            if path.starts_with(":memory:") || path.contains("mode=memory") {
                return Err("in-memory databases are not supported; specify a file".to_owned());
            }
            return Ok(Self(text.to_owned()));
        }
        // The URL parser's message may contain a part of the text, and therefore of the password.
        match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "postgres" | "postgresql") => Ok(Self(text.to_owned())),
            _ => Err(expected.to_owned()),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_sqlite() {
            return f.write_str(&self.0);
        }
        match Url::parse(&self.0) {
            Ok(url) => {
                // Parameters can also contain a password, so they are omitted.
                let user = if url.username().is_empty() { String::new() } else { format!("{}@", url.username()) };
                let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
                write!(f, "postgres://{user}{}{port}{}", url.host_str().unwrap_or_default(), url.path())
            }
            Err(_) => f.write_str("postgres://…"),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The key for signing and encryption. Its `Debug` output never contains the key.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// Creates a key from 32 bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the key as 64 hexadecimal digits. Only for the key file.
    #[must_use]
    pub fn expose_hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }
}

impl FromStr for SecretKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(|| {
            "expected 32 bytes as 64 hexadecimal digits, for example from `openssl rand -hex 32`".to_owned()
        })
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, otherwise JSON.
    #[default]
    Auto,
    /// Human-readable text.
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("expected one of auto, text, json, not `{text}`")),
        }
    }
}

/// The log level, with optional levels per module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevel {
    /// The level of all other modules.
    pub default: LevelFilter,
    /// Levels by prefix of the module path.
    pub targets: Vec<(String, LevelFilter)>,
}

impl Default for LogLevel {
    fn default() -> Self {
        Self { default: LevelFilter::INFO, targets: Vec::new() }
    }
}

impl FromStr for LogLevel {
    type Err = String;

    /// Parses a log level. Stricter than the parser of `tracing`, which interprets a misspelt level as a module name.
    fn from_str(text: &str) -> Result<Self, String> {
        let level = |name: &str| match name.trim().to_ascii_lowercase().as_str() {
            "off" => Ok(LevelFilter::OFF),
            "error" => Ok(LevelFilter::ERROR),
            "warn" => Ok(LevelFilter::WARN),
            "info" => Ok(LevelFilter::INFO),
            "debug" => Ok(LevelFilter::DEBUG),
            "trace" => Ok(LevelFilter::TRACE),
            _ => Err(format!("expected off, error, warn, info, debug or trace, not `{name}`")),
        };
        let mut parsed = Self::default();
        for part in text.split(',') {
            match part.split_once('=') {
                Some((target, name)) => parsed.targets.push((target.trim().to_owned(), level(name)?)),
                None => parsed.default = level(part)?,
            }
        }
        Ok(parsed)
    }
}

/// Parses a listen address.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    text.parse().map_err(|_| format!("expected an address and a port, such as 127.0.0.1:8080, not `{text}`"))
}

/// Parses `on` or `off`.
pub fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("expected on or off, not `{text}`")),
    }
}

/// Parses a listen address or `off`.
pub(super) fn parse_address_or_off(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" { Ok(None) } else { parse_address(text).map(Some).map_err(|reason| format!("{reason}, or `off`")) }
}

/// Parses an origin, `scheme://host[:port]`.
///
/// # Errors
/// Returns the expected format if the text is not an origin.
pub fn parse_origin(text: &str) -> Result<Url, String> {
    let expected = "expected an origin, such as https://waypost.example.com";
    let url = Url::parse(text).map_err(|error| format!("{expected}: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("{expected}, starting with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("{expected}, without user name or password"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{expected}, without path, query or fragment"));
    }
    Ok(url)
}

/// Parses an origin with `https://`.
pub(super) fn parse_secure_origin(text: &str) -> Result<Url, String> {
    let url = parse_origin(text)?;
    match url.scheme() {
        "https" => Ok(url),
        _ => Err("expected an origin that starts with https://".to_owned()),
    }
}

/// Parses comma-separated addresses and networks.
pub(super) fn parse_networks(text: &str) -> Result<Vec<IpNet>, String> {
    let network = |part: &str| {
        let address = part.parse::<IpAddr>().map(IpNet::from);
        address
            .or_else(|_| part.parse::<IpNet>().map(|network| network.trunc()))
            .map_err(|_| format!("expected addresses or networks, such as 10.0.0.0/8, not `{part}`"))
    };
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(network).collect()
}

/// Parses comma-separated entries of `outbound_allow`.
pub(super) fn parse_allowances(text: &str) -> Result<Vec<Allowance>, String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect()
}

/// Parses a file path.
pub(super) fn parse_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("expected a file path".to_owned()) } else { Ok(PathBuf::from(text)) }
}

/// Parses a number that is at least 0.
pub(super) fn parse_number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("expected a whole number from 0 to {}, not `{text}`", u32::MAX))
}

/// Parses a number that is at least 1.
pub(super) fn parse_positive_number(text: &str) -> Result<u32, String> {
    match parse_number(text)? {
        0 => Err("expected at least 1".to_owned()),
        number => Ok(number),
    }
}

/// Parses a period in days (`90d`) or hours (`36h`) into milliseconds; `None` for `off` and `0`.
pub(super) fn parse_period(text: &str) -> Result<Option<i64>, String> {
    const HOUR_MS: i64 = 3_600_000;
    if matches!(text, "off" | "0") {
        return Ok(None);
    }
    let units = [("d", 24 * HOUR_MS), ("h", HOUR_MS)];
    let found = units.iter().find_map(|(unit, ms)| Some((text.strip_suffix(unit)?.parse::<u32>().ok()?, *ms)));
    match found {
        Some((0, _)) => Ok(None),
        Some((count, ms)) => Ok(Some(i64::from(count) * ms)),
        None => Err(format!("expected a period, such as 90d or 36h, or off, not `{text}`")),
    }
}

/// Parses a size in bytes, or with the unit `KiB`, `MiB` or `GiB`.
pub(super) fn parse_byte_size(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let (digits, shift) = units
        .iter()
        .find_map(|(unit, shift)| text.strip_suffix(unit).map(|digits| (digits.trim_end(), *shift)))
        .unwrap_or((text, 0));
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1_u64 << shift));
    number.ok_or_else(|| format!("expected a number of bytes, such as 67108864 or 64MiB, not `{text}`"))
}

/// Parses the maximum size of a request head: from 8 KiB, the minimum of the HTTP library, to 1 MiB.
pub(super) fn parse_header_limit(text: &str) -> Result<u32, String> {
    let size = u32::try_from(parse_byte_size(text)?).ok().filter(|bytes| (8_192..=1 << 20).contains(bytes));
    size.ok_or_else(|| format!("expected 8KiB to 1MiB, not `{text}`"))
}

/// Parses the timeout of a call in seconds: from 1 second to five minutes.
pub(super) fn parse_call_timeout(text: &str) -> Result<u32, String> {
    let seconds = parse_number(text)?;
    if (1..=300).contains(&seconds) { Ok(seconds) } else { Err(format!("expected 1 to 300, not `{text}`")) }
}

/// Parses a non-empty line of text.
pub(super) fn parse_text(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.contains(char::is_control) {
        return Err("expected one line of text".to_owned());
    }
    Ok(text.to_owned())
}

/// Parses the issuer of an OpenID Connect provider (Discovery 1.0, section 3): a URL without query and fragment. Returned
/// exactly as written, because issuers are compared as strings and a parsed URL would gain a trailing slash.
pub(super) fn parse_issuer(text: &str) -> Result<String, String> {
    let expected = || "expected an issuer, such as https://id.example.com".to_owned();
    let url = Url::parse(text.trim()).map_err(|_| expected())?;
    let is_valid = matches!(url.scheme(), "https" | "http")
        && url.has_host()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if is_valid { Ok(text.trim().to_owned()) } else { Err(expected()) }
}
