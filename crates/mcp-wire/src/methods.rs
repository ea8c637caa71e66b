//! The methods of each protocol revision, for the message of a `-32601` error.

use crate::revision::{LEGACY, MODERN};

/// The maximum number of characters of a method name that are echoed.
const MAX_NAME: usize = 64;

/// The revisions that define a method.
#[derive(Debug, Clone, Copy)]
enum DefinedIn {
    /// All revisions with a handshake, and 2026-07-28.
    Always,
    /// The revisions with a handshake.
    Handshake,
    /// 2026-07-28.
    Stateless,
    /// 2025-11-25, as an experimental feature.
    Tasks,
    /// 2025-11-25, as an experimental feature, and an extension of 2026-07-28.
    TasksExtension,
    /// All revisions with a handshake, sent by servers.
    ByServers,
}

/// The methods of all requests of the protocol.
const METHODS: &[(&str, DefinedIn)] = &[
    ("initialize", DefinedIn::Handshake),
    ("ping", DefinedIn::Handshake),
    ("logging/setLevel", DefinedIn::Handshake),
    ("resources/subscribe", DefinedIn::Handshake),
    ("resources/unsubscribe", DefinedIn::Handshake),
    ("server/discover", DefinedIn::Stateless),
    ("subscriptions/listen", DefinedIn::Stateless),
    ("tools/list", DefinedIn::Always),
    ("tools/call", DefinedIn::Always),
    ("prompts/list", DefinedIn::Always),
    ("prompts/get", DefinedIn::Always),
    ("resources/list", DefinedIn::Always),
    ("resources/templates/list", DefinedIn::Always),
    ("resources/read", DefinedIn::Always),
    ("completion/complete", DefinedIn::Always),
    ("tasks/list", DefinedIn::Tasks),
    ("tasks/result", DefinedIn::Tasks),
    ("tasks/get", DefinedIn::TasksExtension),
    ("tasks/cancel", DefinedIn::TasksExtension),
    ("tasks/update", DefinedIn::Stateless),
    ("sampling/createMessage", DefinedIn::ByServers),
    ("roots/list", DefinedIn::ByServers),
    ("elicitation/create", DefinedIn::ByServers),
];

/// Whether a request for `method` can fail with `-32601`, because not every revision defines it.
#[must_use]
pub fn may_be_missing(method: &str, is_modern: bool) -> bool {
    match METHODS.iter().find(|(known, _)| *known == method) {
        Some((_, DefinedIn::Always)) => false,
        Some(("initialize" | "ping", _)) => is_modern,
        _ => true,
    }
}

/// Returns the message of a `-32601` error, which names the method and the revisions that define it. `is_modern` states
/// whether the request uses 2026-07-28.
#[must_use]
pub fn not_found(method: &str, is_modern: bool) -> String {
    let name: String = method.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    let handshake = LEGACY.join(", ");
    let known = METHODS.iter().find(|(known, _)| *known == method).map(|(_, defined_in)| *defined_in);
    let (revisions, is_in_era) = match known {
        None => {
            return format!(
                "Method not found: {name}. No revision from {} to {MODERN} defines it.",
                LEGACY.first().copied().unwrap_or_default()
            );
        }
        Some(DefinedIn::ByServers) => {
            return format!(
                "Method not found: {name}. In the revisions that define it ({handshake}), servers send it to clients."
            );
        }
        Some(DefinedIn::Always) => (format!("{handshake}, {MODERN}"), true),
        Some(DefinedIn::Handshake) => (handshake, !is_modern),
        Some(DefinedIn::Stateless) => (MODERN.to_owned(), is_modern),
        Some(DefinedIn::Tasks) => ("2025-11-25".to_owned(), !is_modern),
        Some(DefinedIn::TasksExtension) => (format!("2025-11-25, {MODERN}"), true),
    };
    let reason = match (is_in_era, is_modern) {
        (true, _) => "this server does not offer it".to_owned(),
        (false, true) => format!("this request uses {MODERN}"),
        (false, false) => "this request uses a revision with a handshake".to_owned(),
    };
    format!("Method not found: {name}. It exists in {revisions}; {reason}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_the_method_and_its_revisions() {
        let legacy = "2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25";
        let cases = [
            ("ping", true, format!("Method not found: ping. It exists in {legacy}; this request uses 2026-07-28.")),
            (
                "logging/setLevel",
                false,
                format!("Method not found: logging/setLevel. It exists in {legacy}; this server does not offer it."),
            ),
            (
                "subscriptions/listen",
                false,
                "Method not found: subscriptions/listen. It exists in 2026-07-28; this request uses a revision with a \
                 handshake."
                    .to_owned(),
            ),
            (
                "no/such",
                true,
                "Method not found: no/such. No revision from 2024-11-05 to 2026-07-28 defines it.".to_owned(),
            ),
        ];
        for (method, is_modern, expected) in cases {
            assert_eq!(not_found(method, is_modern), expected);
        }
        assert!(not_found(&"x\n".repeat(10_000), false).len() < 200, "a long method name is truncated");
    }
}
