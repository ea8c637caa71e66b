//! The options of `waypost instance create` and `update`, and the arguments of `call`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ArgAction;
use serde_json::{Map, Value};
use waypost_core::grant::AccessLevel;
use waypost_core::instance::ConnectionMode;
use waypost_core::tool_definition::Class;
use waypost_ops::catalog::MAX_CONFIG_BYTES;
use waypost_toolbox_proto::entry::Transport;

use crate::cmd::session::one_of;

/// The maximum size of a file or of standard input in bytes. The limits of the API are lower.
const MAX_INPUT_BYTES: u64 = 1024 * 1024;

/// The options of `instance create`.
#[derive(Debug, clap::Args)]
pub struct CreateOptions {
    /// Catalogue entry to deploy (slug, name or ID). If its source is a remote server, it needs no toolbox.
    #[arg(long, value_name = "ENTRY", required_unless_present = "remote_url")]
    pub(in crate::cmd) entry: Option<String>,
    /// URL of a server that is already running elsewhere; `-` reads it from standard input. Each `--secret NAME=SECRET` is
    /// then the value of the header NAME, such as `Authorization`.
    #[arg(id = "remote_url", long = "remote", value_name = "URL", conflicts_with_all = ["entry", "toolbox", "learn_egress", "version", "instance_config", "personal_secrets"])]
    pub(in crate::cmd) remote: Option<String>,
    /// Transport of the remote server: `streamable_http` or `sse`.
    #[arg(long, value_name = "TRANSPORT", default_value_t = Transport::StreamableHttp, value_parser = parse_transport)]
    pub(in crate::cmd) transport: Transport,
    /// The remote server requires OAuth. An admin connects it on the page of the instance (`waypost instance connect`
    /// prints the address).
    #[arg(long, requires = "remote_url")]
    pub(in crate::cmd) oauth: bool,
    /// Owner of the OAuth connection: `shared` (one for the organisation) or `per_agent` (each agent has its own).
    #[arg(long, value_name = "MODE", default_value_t = ConnectionMode::Shared, requires = "oauth")]
    pub(in crate::cmd) connection: ConnectionMode,
    /// ID of the client that was registered at the authorization server with the redirect URI `HOST/connections/callback`, if it
    /// accepts neither metadata documents nor registrations.
    #[arg(long, value_name = "ID", requires = "oauth")]
    pub(in crate::cmd) client_id: Option<String>,
    /// Secret (name or ID) whose value is the secret of this client.
    #[arg(long, value_name = "SECRET", requires = "client_id")]
    pub(in crate::cmd) client_secret: Option<String>,
    /// Toolbox to run on (name or ID) [default: the online toolbox with the most free memory]. Rejected for a remote server.
    #[arg(long, value_name = "TOOLBOX")]
    pub(in crate::cmd) toolbox: Option<String>,
    /// Record the connections that the instance attempts and that are rejected.
    #[arg(long)]
    pub(in crate::cmd) learn_egress: bool,
    /// Approve everything that the server lists at its first check within an hour, with this class for its tools: `read`,
    /// `write` (the default) or `destructive`.
    #[arg(long, value_name = "CLASS", num_args = 0..=1, require_equals = true, default_missing_value = "write", value_parser = one_of(Class::ALL, Class::as_str))]
    pub(in crate::cmd) approve: Option<Class>,
    /// Grant an agent (name or ID) access at once: `read_only` or `full_access`; can be repeated.
    #[arg(long = "grant", value_name = "AGENT=ACCESS", value_parser = parse_grant)]
    pub(in crate::cmd) grants: Vec<GrantArg>,
    #[command(flatten)]
    pub(in crate::cmd) settings: InstanceSettings,
}

impl CreateOptions {
    /// Returns the URL of the remote server, which may be read from standard input; `None` for a catalogue entry.
    ///
    /// # Errors
    /// If standard input cannot be read, or is not text.
    pub(in crate::cmd) fn read_url(&self) -> anyhow::Result<Option<String>> {
        match self.remote.as_deref() {
            Some("-") => {
                let text = read(std::io::stdin()).context("cannot read the URL from standard input")?;
                let text = String::from_utf8(text).context("the URL on standard input is not text")?;
                Ok(Some(text.trim().to_owned()))
            }
            url => Ok(url.map(str::to_owned)),
        }
    }
}

/// The options of `instance update`.
#[derive(Debug, clap::Args)]
pub struct UpdateOptions {
    /// Whether to record the connections that the instance attempts and that are rejected.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(in crate::cmd) learn_egress: Option<bool>,
    /// Whether to record arguments and results of calls through the gateway, with secrets masked.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(in crate::cmd) record_contents: Option<bool>,
    #[command(flatten)]
    pub(in crate::cmd) settings: InstanceSettings,
}

/// The options of both commands.
#[derive(Debug, clap::Args)]
pub struct InstanceSettings {
    /// Version of the catalogue entry (number or ID) [default: for a new instance, the newest].
    #[arg(long, value_name = "VERSION")]
    pub(in crate::cmd) version: Option<String>,
    /// JSON file with the complete configuration of the instance; `-` reads standard input. Waypost's own configuration file
    /// can be given before `instance`: `waypost --config FILE instance …`.
    #[arg(id = "instance_config", long = "config", value_name = "FILE")]
    pub(in crate::cmd) config: Option<PathBuf>,
    /// Secret to use (name or ID) for a name that the catalogue entry declares, or for a header of a remote server; can be
    /// repeated. When an instance is updated, its other secrets stay unchanged, and `NAME=` removes one.
    #[arg(long = "secret", value_name = "NAME=SECRET", value_parser = parse_secret)]
    pub(in crate::cmd) secrets: Vec<SecretArg>,
    /// Name of a declared secret for which each agent supplies its own value; can be repeated. Requires an entry with `sharing:
    /// per_agent`. When an instance is updated, its other secrets stay unchanged, and `NAME=` removes one.
    #[arg(long = "personal-secret", value_name = "NAME")]
    pub(in crate::cmd) personal_secrets: Vec<String>,
    /// Display name [default: for a new instance, the name of the catalogue entry, or the slug of a remote server].
    #[arg(long)]
    pub(in crate::cmd) name: Option<String>,
    /// Wait until the instance is healthy, and exit with 1 if its deployment fails or a remote server does not answer.
    #[arg(long)]
    pub(in crate::cmd) wait: bool,
}

/// An assignment of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretArg {
    /// The name that the catalogue entry declares.
    pub(in crate::cmd) name: String,
    /// The name or ID of the secret. `None` removes the assignment.
    pub(in crate::cmd) secret: Option<String>,
}

/// An agent that is granted access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantArg {
    /// The name or ID of the agent.
    pub(in crate::cmd) agent: String,
    /// The access level.
    pub(in crate::cmd) access: AccessLevel,
}

fn parse_grant(text: &str) -> Result<GrantArg, &'static str> {
    let parsed = text.rsplit_once('=').and_then(|(agent, access)| {
        let access = access.parse().ok().filter(|access| *access != AccessLevel::Custom)?;
        (!agent.is_empty()).then(|| GrantArg { agent: agent.to_owned(), access })
    });
    parsed.ok_or("expected AGENT=ACCESS, where ACCESS is `read_only` or `full_access`")
}

fn parse_transport(text: &str) -> Result<Transport, String> {
    match text.parse()? {
        Transport::Stdio => Err("the transport of a remote server is `streamable_http` or `sse`".to_owned()),
        transport => Ok(transport),
    }
}

fn parse_secret(text: &str) -> Result<SecretArg, &'static str> {
    match text.split_once('=') {
        Some((name, secret)) if !name.is_empty() => {
            Ok(SecretArg { name: name.to_owned(), secret: Some(secret.to_owned()).filter(|secret| !secret.is_empty()) })
        }
        _ => Err("expected NAME=SECRET, with the name or ID of a secret from `waypost secret list`"),
    }
}

/// Returns the assigned `secrets` after the `changes`, in which `None` removes a name.
pub(in crate::cmd) fn apply_secrets<T>(
    mut secrets: BTreeMap<String, T>,
    changes: Vec<(&SecretArg, Option<T>)>,
) -> BTreeMap<String, T> {
    for (SecretArg { name, .. }, secret) in changes {
        match secret {
            Some(secret) => drop(secrets.insert(name.clone(), secret)),
            None => drop(secrets.remove(name)),
        }
    }
    secrets
}

/// Returns the assigned secrets and the names of personal secrets after the changes. A name has one source: an option
/// that sets a new source removes the old one.
pub(in crate::cmd) fn apply_all_secrets<T>(
    (secrets, mut personal): (BTreeMap<String, T>, BTreeSet<String>),
    changes: Vec<(&SecretArg, Option<T>)>,
    names: &[String],
) -> (BTreeMap<String, T>, BTreeSet<String>) {
    for (change, secret) in &changes {
        if secret.is_some() {
            personal.remove(&change.name);
        }
    }
    let assigned: BTreeSet<String> =
        changes.iter().filter(|(_, secret)| secret.is_some()).map(|(change, _)| change.name.clone()).collect();
    let mut secrets = apply_secrets(secrets, changes);
    for name in names {
        match name.strip_suffix('=') {
            Some(name) => drop(personal.remove(name)),
            None => {
                // Both options for one name contradict each other, which the operation reports.
                if !assigned.contains(name) {
                    secrets.remove(name);
                }
                personal.insert(name.clone());
            }
        }
    }
    (secrets, personal)
}

impl InstanceSettings {
    /// Reads the configuration file. Returns `None` if the option is missing.
    ///
    /// # Errors
    /// If the file cannot be read, is too large, or is not a JSON object.
    pub(in crate::cmd) fn read_config(&self) -> anyhow::Result<Option<Map<String, Value>>> {
        let Some(path) = &self.config else { return Ok(None) };
        let (text, name) = match path == Path::new("-") {
            true => (read(std::io::stdin()), "standard input".to_owned()),
            false => (std::fs::File::open(path).and_then(read), path.display().to_string()),
        };
        let text = text.with_context(|| format!("cannot read the configuration from {name}"))?;
        if text.len() > MAX_INPUT_BYTES as usize {
            anyhow::bail!("the configuration in {name} is too large: the maximum is {MAX_CONFIG_BYTES} bytes");
        }
        match serde_json::from_slice(&text) {
            Ok(Value::Object(config)) => Ok(Some(config)),
            Ok(_) => anyhow::bail!("the configuration in {name} must be a JSON object"),
            Err(error) => anyhow::bail!("the configuration in {name} is not valid JSON: {error}"),
        }
    }
}

/// The arguments of a tool.
#[derive(Debug, Clone)]
pub enum ToolArguments {
    /// The arguments are read from standard input.
    StandardInput,
    /// The arguments are given on the command line.
    Object(Map<String, Value>),
}

impl ToolArguments {
    /// Returns the arguments, which may be read from standard input.
    ///
    /// # Errors
    /// If standard input cannot be read, is too large, or is not a JSON object.
    pub(in crate::cmd) fn read(self) -> anyhow::Result<Map<String, Value>> {
        match self {
            Self::Object(arguments) => Ok(arguments),
            Self::StandardInput => {
                let text = read(std::io::stdin()).context("cannot read the arguments from standard input")?;
                if text.len() > MAX_INPUT_BYTES as usize {
                    anyhow::bail!("the arguments are larger than 1 MiB");
                }
                parse_object(&text).map_err(anyhow::Error::msg)
            }
        }
    }
}

pub(super) fn parse_arguments(text: &str) -> Result<ToolArguments, String> {
    match text {
        "-" => Ok(ToolArguments::StandardInput),
        text => parse_object(text.as_bytes()).map(ToolArguments::Object),
    }
}

fn parse_object(text: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(arguments)) => Ok(arguments),
        Ok(_) => Err("the arguments of a tool must be a JSON object, such as '{\"query\": \"docs\"}'".to_owned()),
        Err(error) => Err(format!("the arguments are not valid JSON: {error}")),
    }
}

/// Reads at most one byte more than the maximum, which is enough to recognise an input that is too large.
fn read(input: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The name and the description of a tool for agents.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub struct OverrideOptions {
    /// Name, which follows the slug of the instance and `__`; an empty text restores the original name.
    #[arg(long)]
    name: Option<String>,
    /// Description; an empty text restores the original description.
    #[arg(long)]
    description: Option<String>,
}

impl OverrideOptions {
    /// Returns the change of the name: `Some(None)` restores the original one.
    pub(in crate::cmd) fn name(&self) -> Option<Option<String>> {
        change(self.name.as_deref())
    }

    /// Returns the change of the description: `Some(None)` restores the original one.
    pub(in crate::cmd) fn description(&self) -> Option<Option<String>> {
        change(self.description.as_deref())
    }
}

fn change(text: Option<&str>) -> Option<Option<String>> {
    text.map(|text| (!text.is_empty()).then(|| text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_assignments_are_parsed_and_applied() {
        let parse = |text| parse_secret(text).unwrap();
        assert_eq!(parse("A=b=c"), SecretArg { name: "A".to_owned(), secret: Some("b=c".to_owned()) });
        assert!(parse_secret("A").is_err() && parse_secret("=b").is_err());
        let (set, removed, unknown) = (parse("A=new"), parse("B="), parse("C="));
        let current = [("A", 1), ("B", 2), ("D", 4)].map(|(name, id)| (name.to_owned(), id)).into();
        let changed = apply_secrets(current, vec![(&set, Some(5)), (&removed, None), (&unknown, None)]);
        assert_eq!(changed, [("A", 5), ("D", 4)].map(|(name, id)| (name.to_owned(), id)).into());
    }

    #[test]
    fn grants_of_a_new_instance_are_parsed() {
        let grant = |agent: &str, access| Ok(GrantArg { agent: agent.to_owned(), access });
        assert_eq!(parse_grant("ci=read_only"), grant("ci", AccessLevel::ReadOnly));
        assert_eq!(parse_grant("a=b=full_access"), grant("a=b", AccessLevel::FullAccess));
        for text in ["ci", "ci=", "ci=custom", "=read_only", "ci=write"] {
            assert!(parse_grant(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tool_arguments_must_be_an_object() {
        let object = parse_arguments("{\"a\": 1}").unwrap();
        assert!(matches!(object, ToolArguments::Object(arguments) if arguments["a"] == 1));
        assert!(matches!(parse_arguments("-"), Ok(ToolArguments::StandardInput)));
        for text in ["[]", "1", "{", ""] {
            assert!(parse_arguments(text).is_err(), "{text}");
        }
    }
}
