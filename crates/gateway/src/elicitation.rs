//! Elicitation: the messages that servers show to the users of agents, and the pages that they ask them to open.
//!
//! Invariants:
//! 1. The message begins with the slug of the instance whose server asks, and contains no invisible characters, which
//!    could hide the slug.
//! 2. A page is shown only if the operator lists its host, and only over https, or over http on the user's device. The
//!    agent gets the URL in the form that was checked, from which every parser reads the same host.
//! 3. This applies to every message in which clients look for elicitations: `elicitation/create`, `inputRequests`, and
//!    the error of 2025-11-25 that lists pages.

use std::str::FromStr;

use serde_json::{Value, json};
use url::{Host, Url};
use waypost_content::invisible;
use waypost_core::id::InstanceId;
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::client_capabilities::ClientCapabilities;
use waypost_mcp_wire::elicitation::Elicitation;
use waypost_mcp_wire::strict::{ErrorMembers, Message};
use waypost_mcp_wire::{INVALID_PARAMS, JsonRpcError, URL_ELICITATION_REQUIRED};
use waypost_ops::redirect_uri::is_loopback;

use crate::reply::server_error;

/// The maximum number of hosts.
const MAX_HOSTS: usize = 100;
/// The maximum number of characters of a host in an error message: the maximum length of a DNS name.
const MAX_HOST: usize = 253;
/// The reason of the error for a page that is not shown.
const BLOCKED: &str = "elicitation_url_blocked";

/// The hosts whose pages servers may ask users to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElicitationHosts {
    /// Every host.
    Any,
    /// These hosts, in the form in which parsed URLs contain them.
    Listed(Vec<String>),
}

impl Default for ElicitationHosts {
    /// Returns an empty list.
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

impl FromStr for ElicitationHosts {
    type Err = String;

    /// Parses a comma-separated list of host names and addresses, or `*` for every host. The error says which entry is
    /// invalid.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let names: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        if names == ["*"] {
            return Ok(Self::Any);
        }
        let mut hosts = Vec::new();
        for name in names {
            let host = parse_host(name).ok_or_else(|| {
                format!("expected names of hosts, such as auth.example.com, or `*` for every host, not `{name}`")
            })?;
            if hosts.contains(&host) {
                return Err(format!("the host `{host}` is listed twice"));
            }
            hosts.push(host);
        }
        if hosts.len() > MAX_HOSTS {
            return Err(format!("expected at most {MAX_HOSTS} hosts"));
        }
        Ok(Self::Listed(hosts))
    }
}

/// Returns a host in the form in which parsed URLs contain it; `None` if it is neither a plain host name nor an
/// address.
fn parse_host(name: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    match Host::parse(name).ok()? {
        Host::Domain(domain) => (domain.chars().all(is_plain) && !domain.ends_with('.')).then_some(domain),
        address => Some(address.to_string()),
    }
}

impl ElicitationHosts {
    fn has(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(hosts) => hosts.iter().any(|listed| listed == host),
        }
    }

    /// Returns the capabilities of an agent that servers may use. Without listed hosts, they do not include URLs,
    /// because no page is ever shown.
    pub(crate) fn limit(&self, capabilities: ClientCapabilities) -> ClientCapabilities {
        match self {
            Self::Listed(hosts) if hosts.is_empty() => capabilities.without_urls(),
            Self::Any | Self::Listed(_) => capabilities,
        }
    }

    /// Checks a URL, and returns it in the form in which it is shown.
    ///
    /// # Errors
    /// `tool_server_error` with the reason `elicitation_url_blocked`. If the host is not listed, the details contain it
    /// as `host`.
    fn check(&self, url: &str) -> Result<String> {
        let blocked = |message: String| Error::new(Code::ToolServerError, message).with("reason", BLOCKED);
        let Some(url) = parse_url(url) else {
            let message = "The server asks the user to open a URL that is not valid, contains credentials or does not use https, \
                           so it is not shown.";
            return Err(blocked(message.to_owned()));
        };
        let host = url.host_str().unwrap_or_default();
        if !self.has(host) {
            let host: String = host.chars().take(MAX_HOST).collect();
            let message = format!(
                "The server asks the user to open a page on the host `{host}`, which this installation does not allow. Its \
                 operator can list the host in the setting `gateway_elicitation_hosts`."
            );
            return Err(blocked(message).with("host", host));
        }
        Ok(url.into())
    }
}

/// Parses a URL that may be shown if its host is listed. Returns `None` if it uses neither https nor http on the user's
/// device, contains credentials, or contains characters that some parsers remove and others read as the end of the
/// host.
fn parse_url(text: &str) -> Option<Url> {
    if text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\') {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let is_secure = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
    let has_credentials = !url.username().is_empty() || url.password().is_some();
    (is_secure && !has_credentials).then_some(url)
}

/// The rules for what the server of one instance may show.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ElicitationPolicy<'a> {
    pub(crate) hosts: &'a ElicitationHosts,
    pub(crate) instance: &'a InstanceId,
    /// The slug of the instance.
    pub(crate) slug: &'a str,
}

impl ElicitationPolicy<'_> {
    /// Returns the parameters (JSON text) that replace those of a request of the server; `None` if they are unchanged,
    /// because the request is not an elicitation.
    ///
    /// # Errors
    /// `tool_server_error` with the reason `input_required` if the parameters are not valid, or
    /// `elicitation_url_blocked` if the page must not be shown.
    pub(crate) fn apply(&self, method: &str, params: Option<&str>) -> Result<Option<String>> {
        if method != "elicitation/create" {
            return Ok(None);
        }
        let elicitation = params.and_then(Elicitation::parse).ok_or_else(invalid_input)?;
        self.shown(&elicitation).map(Some)
    }

    /// Returns the elicitations in an error of the server that lists pages, each with the text that replaces it.
    ///
    /// # Errors
    /// Those of [`Self::apply`].
    pub(crate) fn apply_to_error<'m>(&self, error: Option<&ErrorMembers<'m>>) -> Result<Vec<(&'m str, String)>> {
        let error = error.filter(|error| error.code == URL_ELICITATION_REQUIRED);
        let Some(data) = error.and_then(|error| error.data).filter(|data| *data != "null") else {
            return Ok(Vec::new());
        };
        let all = Elicitation::parse_required(data).ok_or_else(invalid_input)?;
        all.iter().map(|elicitation| self.shown(elicitation).map(|text| (elicitation.raw, text))).collect()
    }

    fn shown(&self, elicitation: &Elicitation<'_>) -> Result<String> {
        let url = elicitation.url.as_deref().map(|url| self.hosts.check(url)).transpose().inspect_err(|error| {
            let host = error.details.get("host").and_then(Value::as_str);
            tracing::warn!(instance = %self.instance, host, "blocked a page that a server asks a user to open");
        })?;
        let message = format!("[{}] {}", self.slug, invisible::remove(&elicitation.message));
        Ok(elicitation.rewritten(&message, url.as_deref()))
    }
}

/// Returns the error for a request to an agent that is not valid, or that the agent does not support.
pub(crate) fn invalid_input() -> Error {
    let text = "The server asks for something that the client does not support, or in a way that is not valid.";
    server_error(text, "input_required")
}

/// Returns the response to a server's request that [`ElicitationPolicy::apply`] has rejected.
pub(crate) fn refusal(error: &Error, request: &Message<'_>) -> JsonRpcError {
    JsonRpcError::new(INVALID_PARAMS, error.message.as_str(), request.id())
        .with_data(json!({ "reason": error.reason() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> ElicitationHosts {
        text.parse().unwrap()
    }

    #[test]
    fn hosts_are_listed_in_the_form_of_urls() {
        assert_eq!(hosts(""), ElicitationHosts::default());
        assert_eq!(hosts(" * "), ElicitationHosts::Any);
        let listed = ["auth.example.com", "xn--bcher-kva.example", "127.0.0.1", "[::1]", "localhost"];
        assert_eq!(
            hosts("AUTH.example.com, bücher.example,127.1,[0:0::1],localhost,"),
            ElicitationHosts::Listed(listed.map(str::to_owned).to_vec())
        );
        for invalid in [
            "*.example.com",
            "a.example,*",
            "https://a.example",
            "a.example/",
            "a.example:443",
            "user@a.example",
            "a b",
            "a.example.",
            "::1",
            "256.0.0.1",
            "a.example,A.EXAMPLE",
        ] {
            assert!(invalid.parse::<ElicitationHosts>().is_err(), "{invalid}");
        }
        let names = |number: usize| (0..number).map(|n| format!("h{n}")).collect::<Vec<_>>().join(",");
        assert!(names(MAX_HOSTS).parse::<ElicitationHosts>().is_ok());
        assert!(names(MAX_HOSTS + 1).parse::<ElicitationHosts>().is_err());
    }

    #[test]
    fn a_page_on_a_listed_host_is_shown_in_the_form_that_was_checked() {
        let hosts = hosts("a.example,xn--bcher-kva.example,localhost,127.0.0.1,[::1]");
        for (url, shown) in [
            ("https://a.example", "https://a.example/"),
            ("https://a.example/in?x=%20&y=1#z", "https://a.example/in?x=%20&y=1#z"),
            ("HTTPS://A.Example:443/./b/../c", "https://a.example/c"),
            ("https://a.example:8443/", "https://a.example:8443/"),
            ("https:a.example", "https://a.example/"),
            ("https:///a.example", "https://a.example/"),
            ("https://@a.example/", "https://a.example/"),
            ("https://%61.example/", "https://a.example/"),
            // Full-width letters, and an ideographic full stop.
            ("https://\u{ff41}\u{3002}example/", "https://a.example/"),
            ("https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC"),
            ("https://a.example/@b.example", "https://a.example/@b.example"),
            ("https://a.example?@b.example", "https://a.example/?@b.example"),
            ("http://localhost:3000/in", "http://localhost:3000/in"),
            ("http://0x7f.1/", "http://127.0.0.1/"),
            ("http://[0::1]:80/", "http://[::1]/"),
        ] {
            assert_eq!(hosts.check(url).unwrap(), shown, "{url}");
        }
    }

    #[test]
    fn a_page_on_another_host_is_not_shown() {
        let hosts = hosts("a.example,localhost,127.0.0.1");
        for (url, host) in [
            ("https://b.example/", "b.example"),
            ("https://a.example.b.example/", "a.example.b.example"),
            ("https://b.a.example/", "b.a.example"),
            ("https://example/a.example", "example"),
            ("https://a.example./", "a.example."),
            ("https://xa.example/", "xa.example"),
            // The Cyrillic letter а.
            ("https://\u{430}.example/", "xn--80a.example"),
            ("https://b.example#a.example", "b.example"),
            ("https://b.example?.a.example", "b.example"),
            ("https://0x7f000002/", "127.0.0.2"),
            ("http://[::1]/", "[::1]"),
            ("https://[::ffff:127.0.0.1]/", "[::ffff:7f00:1]"),
        ] {
            let error = hosts.check(url).unwrap_err();
            assert_eq!((error.reason(), &error.details["host"]), (Some(BLOCKED), &host.into()), "{url}");
            assert!(error.message.contains(&format!("`{host}`")), "{}", error.message);
            assert!(error.message.contains("`gateway_elicitation_hosts`"), "{}", error.message);
        }
        let long = hosts.check(&format!("https://{}/", "a".repeat(5_000))).unwrap_err();
        assert_eq!(long.details["host"], "a".repeat(MAX_HOST));
        assert_eq!(ElicitationHosts::default().check("https://a.example/").unwrap_err().details["host"], "a.example");
        assert!(ElicitationHosts::Any.check("https://b.example/").is_ok());
    }

    #[test]
    fn urls_that_parsers_read_differently_are_never_shown() {
        for url in [
            "",
            "a.example",
            "//a.example/",
            "/in",
            "https://",
            "https://a.example@b.example/",
            "https://a.example:@b.example/",
            "https://:p@a.example/",
            "https://a.example:443@b.example/",
            "https://b.example\\@a.example/",
            "https://a.example\\.b.example/",
            "https:\\\\a.example/",
            " https://a.example/",
            "https://a.example/\n",
            "https://a.exa\tmple/",
            "https://a.example/a b",
            "https://a.example/\u{0}",
            "https://a.example/\u{a0}",
            "https://a.example/\u{2028}",
            "https://a.example%00.b.example/",
            "https://a.example%2f.b.example/",
            "https://a.example%5c.b.example/",
            "https://a<b/",
            "https://a.example:99999/",
            "https://[::1/",
            "http://a.example/",
            "http://localhost.a.example/",
            "http://localhost./",
            "http://127.0.0.1.a.example/",
            "http://10.0.0.1/",
            "ftp://a.example/",
            "wss://a.example/",
            "file://a.example/",
            "javascript://a.example/%0aalert(1)",
            "data:text/html,https://a.example/",
            "blob:https://a.example/x",
            "view-source:https://a.example/",
            "intent://a.example/#Intent;scheme=https;end",
            "waypost://a.example/",
        ] {
            let error = ElicitationHosts::Any.check(url).unwrap_err();
            assert_eq!((error.reason(), error.details.get("host")), (Some(BLOCKED), None), "{url}");
        }
    }

    #[test]
    fn a_message_names_the_server_that_asks() {
        let instance = InstanceId::from_store("ins_1".to_owned());
        let hosts = hosts("a.example");
        let policy = ElicitationPolicy { hosts: &hosts, instance: &instance, slug: "far" };
        let apply = |params: &str| policy.apply("elicitation/create", Some(params));
        for (params, shown) in [
            (r#"{"message":"Name?","x":1.0}"#, r#"{"message":"[far] Name?","x":1.0}"#),
            (r#"{"message":"[near]\nName?"}"#, r#"{"message":"[far] [near]\nName?"}"#),
            // Terminals would overwrite the slug, and pages show it elsewhere.
            (r#"{"message":"\r\u001b[2K\u202e\u200bName?"}"#, r#"{"message":"[far] [2KName?"}"#),
            (
                r#"{"mode":"url","message":"","url":"https:\/\/a.example"}"#,
                r#"{"mode":"url","message":"[far] ","url":"https://a.example/"}"#,
            ),
        ] {
            assert_eq!(apply(params).unwrap().as_deref(), Some(shown), "{params}");
        }
        let reason = |params: &str| apply(params).unwrap_err().reason().unwrap_or_default().to_owned();
        assert_eq!(reason(r#"{"mode":"url","message":"","url":"https://b.example"}"#), BLOCKED);
        assert_eq!(reason(r#"{"mode":"form","message":"","url":"https://b.example"}"#), BLOCKED, "in every mode");
        assert_eq!(reason(r#"{"mode":"form"}"#), "input_required");
        assert!(policy.apply("elicitation/create", None).is_err());
        for method in ["sampling/createMessage", "roots/list"] {
            assert_eq!(policy.apply(method, Some(r#"{"message":"M"}"#)).unwrap(), None, "{method}");
        }
    }

    #[test]
    fn pages_in_errors_are_checked_as_well() {
        let instance = InstanceId::from_store("ins_1".to_owned());
        let hosts = hosts("a.example");
        let policy = ElicitationPolicy { hosts: &hosts, instance: &instance, slug: "far" };
        let apply = |code: i64, data: &str| {
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"","data":{data}}}}}"#);
            let message = Message::read(text.as_bytes()).unwrap();
            let shown = policy.apply_to_error(message.error.as_ref());
            shown.map(|all| all.into_iter().map(|(_, text)| text).collect::<Vec<_>>())
        };
        let page = |host: &str| format!(r#"{{"mode":"url","message":"M","url":"https://{host}/","x":1.0}}"#);
        let pages = format!(r#"{{"elicitations":[{},{}]}}"#, page("a.example"), page("A.EXAMPLE"));
        let shown = page("a.example").replace("\"M\"", "\"[far] M\"");
        assert_eq!(apply(URL_ELICITATION_REQUIRED, &pages).unwrap(), vec![shown; 2]);
        let pages = format!(r#"{{"elicitations":[{},{}]}}"#, page("a.example"), page("b.example"));
        assert_eq!(apply(URL_ELICITATION_REQUIRED, &pages).unwrap_err().reason(), Some(BLOCKED));
        assert_eq!(apply(URL_ELICITATION_REQUIRED, "7").unwrap_err().reason(), Some("input_required"));
        for (code, data) in [(URL_ELICITATION_REQUIRED, "null"), (-32_000, pages.as_str())] {
            assert_eq!(apply(code, data).unwrap(), Vec::<String>::new());
        }
    }

    #[test]
    fn servers_are_not_told_of_pages_that_are_never_shown() {
        let declared = ClientCapabilities::parse(Some(r#"{"elicitation":{"form":{},"url":{}}}"#));
        assert_eq!(ElicitationHosts::default().limit(declared).to_json(), r#"{"elicitation":{}}"#);
        for listed in [ElicitationHosts::Any, hosts("a.example")] {
            assert_eq!(listed.limit(declared), declared);
        }
    }
}
