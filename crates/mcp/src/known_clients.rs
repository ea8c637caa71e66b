//! Clients that fail if they are asked to sign in during a session.
//!
//! A server with `sign_in = auto` asks these clients when they connect, and every other client when a call needs a
//! user. [`KNOWN_CLIENTS`] is the only list; the table in `docs/sign-in.md` is generated from it. Add or change a row
//! only after testing the client itself.

use waypost_core::server::SignInPolicy;

/// A client that fails if it is asked to sign in during a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownClient {
    /// The product's display name.
    pub product: &'static str,
    /// The pattern that matches the client's `clientInfo.name`.
    pub name: NamePattern,
    /// The first version that no longer fails; `None` if no such version is known.
    pub fixed_in: Option<&'static str>,
    /// The versions that were tested.
    pub tested_versions: &'static str,
    /// The effect of a 401 response to a call in the middle of a session.
    pub reason: &'static str,
}

/// A pattern for `clientInfo.name` that identifies a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamePattern {
    /// The complete name. The version is `clientInfo.version`.
    Exact(&'static str),
    /// The name of another client with the suffix ` (via PROXY VERSION)`. The version is the one in the suffix.
    Via(&'static str),
    /// The complete name of a probe that does not send its version. Versions that send `Mcp-Method` with `initialize`
    /// do not fail.
    Probe(&'static str),
}

/// The client's description of itself in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectingClient<'a> {
    /// `clientInfo.name`.
    pub name: &'a str,
    /// `clientInfo.version`; empty if absent.
    pub version: &'a str,
    /// Whether the request has an `Mcp-Method` header.
    pub has_method_header: bool,
}

/// All clients that are known to fail.
pub const KNOWN_CLIENTS: &[KnownClient] = &[
    KnownClient {
        product: "Codex",
        name: NamePattern::Exact("codex-mcp-client"),
        fixed_in: None,
        tested_versions: "0.169.0",
        reason: "The call ends in an error. If asked on connect, it suggests `codex mcp login`, which works.",
    },
    KnownClient {
        product: "Gemini CLI",
        name: NamePattern::Exact("gemini-cli-mcp-client"),
        fixed_in: None,
        tested_versions: "0.61.0",
        reason: "The model sees a raw 401 and the user is not asked.",
    },
    KnownClient {
        product: "opencode",
        name: NamePattern::Exact("opencode"),
        fixed_in: None,
        tested_versions: "1.18.33",
        reason: "`opencode mcp auth` connects, gets no 401, and reports success without signing in.",
    },
    KnownClient {
        product: "mcp-remote (its probe)",
        name: NamePattern::Probe("mcp-remote-fallback-test"),
        fixed_in: None,
        tested_versions: "0.1.38, 0.1.49, 0.2.7",
        reason: "Only its first request, a probe, waits for the sign-in. A later request that returns 401 is lost, \
                 and the client behind it waits forever.",
    },
    KnownClient {
        product: "mcp-remote (for its client)",
        name: NamePattern::Via("mcp-remote"),
        fixed_in: Some("0.4.1"),
        tested_versions: "0.1.38 (reports itself as 0.1.37), 0.1.49, 0.2.7",
        reason: "As above: the request is lost. It already has a token by then, unless the probe did not need one.",
    },
];

/// Whether a server asks this client to sign in when it connects; `client` is `None` if the client is unknown.
#[must_use]
pub fn is_asked_on_connect(sign_in: SignInPolicy, client: Option<ConnectingClient<'_>>) -> bool {
    match sign_in {
        SignInPolicy::OnConnect => true,
        SignInPolicy::WhenNeeded => false,
        SignInPolicy::Auto => client.is_some_and(|client| KNOWN_CLIENTS.iter().any(|known| known.matches(client))),
    }
}

impl KnownClient {
    /// Whether `client` is this client in a version that fails.
    fn matches(&self, client: ConnectingClient<'_>) -> bool {
        let version = match self.name {
            NamePattern::Exact(name) => (client.name == name).then_some(client.version),
            NamePattern::Probe(name) => (client.name == name && !client.has_method_header).then_some(client.version),
            NamePattern::Via(proxy) => version_via(client.name, proxy),
        };
        version.is_some_and(|version| self.fixed_in.is_none_or(|fixed| is_before(version, fixed)))
    }

    /// Describes the versions that fail, for the documentation.
    fn versions(&self) -> String {
        match (self.name, self.fixed_in) {
            (NamePattern::Probe(_), _) => "those that send `initialize` without `Mcp-Method`".to_owned(),
            (_, Some(fixed)) => format!("before {fixed}"),
            (_, None) => "all".to_owned(),
        }
    }
}

/// Returns the version in `HOST (via PROXY VERSION)`.
fn version_via<'a>(name: &'a str, proxy: &str) -> Option<&'a str> {
    let (_, rest) = name.rsplit_once(" (via ")?;
    rest.strip_suffix(')')?.strip_prefix(proxy)?.strip_prefix(' ')
}

/// Compares the numbers of two versions. Parts that are not numbers count as 0, so a version that cannot be parsed
/// counts as old.
fn is_before(version: &str, other: &str) -> bool {
    parse_version(version) < parse_version(other)
}

fn parse_version(version: &str) -> [u32; 3] {
    let plain = version.split(['-', '+']).next().unwrap_or_default();
    let mut parts = plain.split('.').map(|part| part.parse().unwrap_or(0));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

/// Returns the Markdown table for `docs/sign-in.md`.
#[must_use]
pub fn markdown_table() -> String {
    let mut table = String::from(
        "| Client | `clientInfo.name` | Versions | Tested versions | Effect of a sign-in request during a session |\n|---|---|---|---|---|\n",
    );
    for client in KNOWN_CLIENTS {
        let name = match client.name {
            NamePattern::Exact(name) | NamePattern::Probe(name) => format!("`{name}`"),
            NamePattern::Via(proxy) => format!("`… (via {proxy} VERSION)`"),
        };
        let KnownClient { product, tested_versions, reason, .. } = client;
        table.push_str(&format!("| {product} | {name} | {} | {tested_versions} | {reason} |\n", client.versions()));
    }
    table
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const BEGIN: &str = "<!-- known clients: written by a test of waypost-mcp -->\n";
    const END: &str = "<!-- end of known clients -->\n";

    fn is_asked(name: &str, version: &str, has_method_header: bool) -> bool {
        is_asked_on_connect(SignInPolicy::Auto, Some(ConnectingClient { name, version, has_method_header }))
    }

    #[test]
    fn clients_are_recognised_by_name_and_version() {
        // The values are those that the clients send.
        assert!(is_asked("codex-mcp-client", "0.169.0", false));
        assert!(is_asked("gemini-cli-mcp-client", "0.61.0", false));
        assert!(is_asked("opencode", "1.18.33", false));
        assert!(is_asked("mcp-remote-fallback-test", "0.0.0", false), "the probe of mcp-remote 0.1.38");
        assert!(is_asked("claude-ai (via mcp-remote 0.1.37)", "0.1.0", false));
        assert!(is_asked("claude-ai (via mcp-remote 0.2.7)", "0.1.0", false));
        // A later version, and one that cannot be parsed.
        assert!(is_asked("codex-mcp-client", "1.0.0-alpha.1", false) && is_asked("opencode", "", false));
        assert!(is_asked("x (via mcp-remote next)", "9", false));

        assert!(!is_asked("mcp-remote-fallback-test", "0.0.0", true), "the probe of mcp-remote 0.15.1");
        assert!(!is_asked("claude-ai (via mcp-remote 0.15.1)", "0.1.0", true));
        assert!(!is_asked("claude-ai (via mcp-remote 0.4.1)", "0.1.0", true));
        for other in ["claude-code", "Visual Studio Code", "Cursor", "Codex", "opencode-fork", "", "x (via mcp-remote"]
        {
            assert!(!is_asked(other, "0.1.0", false), "{other}");
        }
        assert!(!is_asked_on_connect(SignInPolicy::Auto, None), "a client that sends no name");
    }

    #[test]
    fn other_sign_in_settings_apply_to_every_client() {
        let codex = ConnectingClient { name: "codex-mcp-client", version: "0.169.0", has_method_header: false };
        assert!(!is_asked_on_connect(SignInPolicy::WhenNeeded, Some(codex)));
        assert!(is_asked_on_connect(SignInPolicy::OnConnect, None));
    }

    /// Run with `WAYPOST_TEST_WRITE=1` to update the table.
    #[test]
    fn the_documentation_has_the_table() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sign-in.md");
        let text = std::fs::read_to_string(&file).unwrap();
        let (before, rest) = text.split_once(BEGIN).unwrap();
        let (table, after) = rest.split_once(END).unwrap();
        if std::env::var_os("WAYPOST_TEST_WRITE").is_some() {
            std::fs::write(&file, format!("{before}{BEGIN}{}{END}{after}", markdown_table())).unwrap();
            return;
        }
        assert_eq!(table, markdown_table(), "docs/sign-in.md is stale: run the test with WAYPOST_TEST_WRITE=1");
    }
}
