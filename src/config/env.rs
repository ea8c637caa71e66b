//! Settings from environment variables. Every variable that starts with `WAYPOST_` must be known.

use std::ffi::OsString;
use std::path::PathBuf;

use super::table::{SETTINGS, Setting};
use super::{Error, Origin, closest};

const PREFIX: &str = "WAYPOST_";
/// The path of the configuration file, like `--config`.
pub(super) const FILE: &str = "WAYPOST_CONFIG";
/// Variables for commands, which `serve` does not use: the remote installation, like `--url` and `--api-key`, and the
/// token of `toolbox join` and of `gateway stdio`.
pub(super) const COMMANDS: [&str; 4] =
    ["WAYPOST_URL", "WAYPOST_API_KEY", "WAYPOST_TOOLBOX_TOKEN", "WAYPOST_AGENT_TOKEN"];
/// Prefix of variables used by the project's tests.
const TEST_PREFIX: &str = "WAYPOST_TEST_";
/// Set in every Kubernetes container.
const KUBERNETES: &str = "KUBERNETES_SERVICE_HOST";

/// A setting with its source and text.
pub(super) type SettingValue = (&'static Setting, Origin, String);

/// Returns the configuration file and the settings from the environment. The settings are in the order of the table.
pub(super) fn settings(environment: &[(OsString, OsString)]) -> Result<(Option<PathBuf>, Vec<SettingValue>), Error> {
    let in_kubernetes = environment.iter().any(|(name, _)| name == KUBERNETES);
    let mut file = None;
    let mut found = Vec::new();
    for (name, value) in environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        if name == FILE {
            file = Some(PathBuf::from(value));
            continue;
        }
        if COMMANDS.contains(&name) || name.starts_with(TEST_PREFIX) || (in_kubernetes && is_service_link(name)) {
            continue;
        }
        let origin = Origin::Environment(name.to_owned());
        let Some(at) = SETTINGS.iter().position(|setting| setting.environment() == name) else {
            let others = COMMANDS.iter().chain([&FILE]).map(|name| (*name).to_owned());
            let names = SETTINGS.iter().map(Setting::environment).chain(others);
            return Err(Error::Unknown { name: name.to_owned(), origin, suggestion: closest(name, names) });
        };
        let setting = &SETTINGS[at];
        let Some(text) = value.to_str() else {
            return Err(Error::Invalid { name: setting.name, origin, reason: "it is not valid UTF-8".to_owned() });
        };
        found.push((at, (setting, origin, text.to_owned())));
    }
    found.sort_by_key(|(at, _)| *at);
    Ok((file, found.into_iter().map(|(_, found)| found).collect()))
}

/// Whether the variable was set by Kubernetes for a service. Kubernetes passes such variables for every service in the
/// namespace to each container
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>), and a service named
/// `waypost` must not prevent Waypost from starting.
fn is_service_link(name: &str) -> bool {
    let port = |rest: &str| {
        let mut parts = rest.splitn(3, '_');
        let number = parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        number && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.match_indices("_PORT_").any(|(at, found)| port(&name[at + found.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_links_are_recognised() {
        for name in ["WAYPOST_SERVICE_HOST", "WAYPOST_PORT", "WAYPOST_PORT_8080_TCP_ADDR", "WAYPOST_DB_SERVICE_PORT_PG"]
        {
            assert!(is_service_link(name), "{name}");
        }
        for name in ["WAYPOST_LISTENN", "WAYPOST_PORT_NUMBER"] {
            assert!(!is_service_link(name), "{name}");
        }
    }
}
