//! Clients that fail if they are asked to sign in during a session.
//!
//! A server with `sign_in = auto` asks these clients when they connect, and every other client when a call needs a
//! user. [`CLIENTS`] is the only list; the table in `docs/sign-in.md` is written from it. A row is added or changed
//! only after a run of the client itself.

use waypost_core::server::SignIn;

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownClient {
    /// The product's name, for people.
    pub product: &'static str,
    /// What the client sends as `clientInfo.name`.
    pub name: Name,
    /// The first version that no longer fails; `None` if no such version is known.
    pub fixed_in: Option<&'static str>,
    /// The version that was run.
    pub measured: &'static str,
    /// What happens if a call in the middle of a session returns 401.
    pub reason: &'static str,
}

/// How a client is recognised by `clientInfo.name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// The whole name; its version is `clientInfo.version`.
    Exact(&'static str),
    /// The name of another client with the suffix ` (via PROXY VERSION)`: the version is the one in the name.
    Via(&'static str),
    /// The whole name of a probe that does not tell its own version. Versions that send `Mcp-Method` with
    /// `initialize` are new enough.
    Probe(&'static str),
}

/// What a request says about the client that sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender<'a> {
    /// `clientInfo.name`.
    pub name: &'a str,
    /// `clientInfo.version`; empty if absent.
    pub version: &'a str,
    /// Whether the request has an `Mcp-Method` header.
    pub method_header: bool,
}

/// Every client that is known to fail.
pub const CLIENTS: &[KnownClient] = &[
    KnownClient {
        product: "Codex",
        name: Name::Exact("codex-mcp-client"),
        fixed_in: None,
        measured: "0.169.0",
        reason: "The call ends in an error. Asked on connect, it names `codex mcp login`, which works.",
    },
    KnownClient {
        product: "Gemini CLI",
        name: Name::Exact("gemini-cli-mcp-client"),
        fixed_in: None,
        measured: "0.61.0",
        reason: "The model sees a raw 401 and the user is not asked.",
    },
    KnownClient {
        product: "opencode",
        name: Name::Exact("opencode"),
        fixed_in: None,
        measured: "1.18.33",
        reason: "`opencode mcp auth` connects, gets no 401, and reports success without signing in.",
    },
    KnownClient {
        product: "mcp-remote, its probe",
        name: Name::Probe("mcp-remote-fallback-test"),
        fixed_in: None,
        measured: "0.1.38, 0.1.49, 0.2.7",
        reason: "Only the probe that it sends first waits for the sign-in. A later request that returns 401 is lost, \
                 and the client behind it waits for ever.",
    },
    KnownClient {
        product: "mcp-remote, for its client",
        name: Name::Via("mcp-remote"),
        fixed_in: Some("0.4.1"),
        measured: "0.1.38 (it calls itself 0.1.37), 0.1.49, 0.2.7",
        reason: "As above: the request is lost. It has a token by then, unless the probe needed none.",
    },
];

/// Whether a server asks this client to sign in when it connects; `sender` is `None` if the client is unknown.
#[must_use]
pub fn asks_on_connect(sign_in: SignIn, sender: Option<Sender<'_>>) -> bool {
    match sign_in {
        SignIn::OnConnect => true,
        SignIn::WhenNeeded => false,
        SignIn::Auto => sender.is_some_and(|sender| CLIENTS.iter().any(|client| client.matches(sender))),
    }
}

impl KnownClient {
    /// Whether `sender` is this client in a version that fails.
    fn matches(&self, sender: Sender<'_>) -> bool {
        let version = match self.name {
            Name::Exact(name) => (sender.name == name).then_some(sender.version),
            Name::Probe(name) => (sender.name == name && !sender.method_header).then_some(sender.version),
            Name::Via(proxy) => via(sender.name, proxy),
        };
        version.is_some_and(|version| self.fixed_in.is_none_or(|fixed| is_before(version, fixed)))
    }

    /// The versions that fail, for people.
    fn versions(&self) -> String {
        match (self.name, self.fixed_in) {
            (Name::Probe(_), _) => "those that send `initialize` without `Mcp-Method`".to_owned(),
            (_, Some(fixed)) => format!("before {fixed}"),
            (_, None) => "all".to_owned(),
        }
    }
}

/// The version in `HOST (via PROXY VERSION)`.
fn via<'a>(name: &'a str, proxy: &str) -> Option<&'a str> {
    let (_, rest) = name.rsplit_once(" (via ")?;
    rest.strip_suffix(')')?.strip_prefix(proxy)?.strip_prefix(' ')
}

/// Compares the numbers of two versions. What is no number counts as 0, so a version that cannot be read is an old one.
fn is_before(version: &str, other: &str) -> bool {
    numbers(version) < numbers(other)
}

fn numbers(version: &str) -> [u32; 3] {
    let plain = version.split(['-', '+']).next().unwrap_or_default();
    let mut parts = plain.split('.').map(|part| part.parse().unwrap_or(0));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

/// The table in Markdown, as it is in `docs/sign-in.md`.
#[must_use]
pub fn markdown() -> String {
    let mut table = String::from(
        "| Client | `clientInfo.name` | Versions | Measured with | Asked during a session |\n|---|---|---|---|---|\n",
    );
    for client in CLIENTS {
        let name = match client.name {
            Name::Exact(name) | Name::Probe(name) => format!("`{name}`"),
            Name::Via(proxy) => format!("`… (via {proxy} VERSION)`"),
        };
        let KnownClient { product, measured, reason, .. } = client;
        table.push_str(&format!("| {product} | {name} | {} | {measured} | {reason} |\n", client.versions()));
    }
    table
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const BEGIN: &str = "<!-- known clients: written by a test of waypost-mcp -->\n";
    const END: &str = "<!-- end of known clients -->\n";

    fn asked(name: &str, version: &str, method_header: bool) -> bool {
        asks_on_connect(SignIn::Auto, Some(Sender { name, version, method_header }))
    }

    #[test]
    fn clients_are_recognised_by_name_and_version() {
        // Each as the client itself sends it.
        assert!(asked("codex-mcp-client", "0.169.0", false));
        assert!(asked("gemini-cli-mcp-client", "0.61.0", false));
        assert!(asked("opencode", "1.18.33", false));
        assert!(asked("mcp-remote-fallback-test", "0.0.0", false), "the probe of mcp-remote 0.1.38");
        assert!(asked("claude-ai (via mcp-remote 0.1.37)", "0.1.0", false));
        assert!(asked("claude-ai (via mcp-remote 0.2.7)", "0.1.0", false));
        // A later version, and one that cannot be read.
        assert!(asked("codex-mcp-client", "1.0.0-alpha.1", false) && asked("opencode", "", false));
        assert!(asked("x (via mcp-remote next)", "9", false));

        assert!(!asked("mcp-remote-fallback-test", "0.0.0", true), "the probe of mcp-remote 0.15.1");
        assert!(!asked("claude-ai (via mcp-remote 0.15.1)", "0.1.0", true));
        assert!(!asked("claude-ai (via mcp-remote 0.4.1)", "0.1.0", true));
        for other in ["claude-code", "Visual Studio Code", "Cursor", "Codex", "opencode-fork", "", "x (via mcp-remote"]
        {
            assert!(!asked(other, "0.1.0", false), "{other}");
        }
        assert!(!asks_on_connect(SignIn::Auto, None), "a client that does not name itself");
    }

    #[test]
    fn the_other_values_hold_for_every_client() {
        let codex = Sender { name: "codex-mcp-client", version: "0.169.0", method_header: false };
        assert!(!asks_on_connect(SignIn::WhenNeeded, Some(codex)));
        assert!(asks_on_connect(SignIn::OnConnect, None));
    }

    /// Run with `WAYPOST_TEST_WRITE=1` to write the table anew.
    #[test]
    fn the_documentation_has_the_table() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sign-in.md");
        let text = std::fs::read_to_string(&file).unwrap();
        let (before, rest) = text.split_once(BEGIN).unwrap();
        let (table, after) = rest.split_once(END).unwrap();
        if std::env::var_os("WAYPOST_TEST_WRITE").is_some() {
            std::fs::write(&file, format!("{before}{BEGIN}{}{END}{after}", markdown())).unwrap();
            return;
        }
        assert_eq!(table, markdown(), "docs/sign-in.md is stale: run the test with WAYPOST_TEST_WRITE=1");
    }
}
