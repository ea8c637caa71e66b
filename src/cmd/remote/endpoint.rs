//! Determines whether a command works on the database or through the REST API of a running installation.

use std::io::Read;

use anyhow::Context;
use url::Url;
use waypost_core::seal::SecretText;

use crate::cmd::{Command, Global, UsageError, toolbox, walkthrough};
use crate::config;

/// Environment variable for `--url`.
const URL: &str = "WAYPOST_URL";
/// Environment variable for `--api-key`.
const API_KEY: &str = "WAYPOST_API_KEY";
/// Maximum length of an API key in bytes.
const MAX_KEY_BYTES: u64 = 4 * 1024;

/// The URL and API key of a running installation.
#[derive(Debug)]
pub struct ApiEndpoint {
    /// Origin of the installation.
    pub origin: Url,
    /// API key.
    pub key: SecretText,
}

/// The data that a command works on.
enum CommandScope {
    /// Data that is also available through the REST API.
    Data,
    /// The database itself, or files on its machine. Contains the name of the command.
    Local(&'static str),
    /// Neither. Contains the name of the command.
    None(&'static str),
}

fn command_scope(command: &Command) -> CommandScope {
    match command {
        Command::Walkthrough(walkthrough::Command::Lint { .. }) => CommandScope::None("walkthrough lint"),
        Command::Walkthrough(_)
        | Command::Org(_)
        | Command::User(_)
        | Command::Server(_)
        | Command::OauthConfig(_)
        | Command::Key(_)
        | Command::Join(_)
        | Command::Assignment(_)
        | Command::Catalog(_)
        | Command::Secret(_)
        | Command::Toolbox(toolbox::Command::Operator(_))
        | Command::Approval(_)
        | Command::Instance(_)
        | Command::Agent(_)
        | Command::Grant(_)
        | Command::ToolSet(_)
        | Command::Call(_) => CommandScope::Data,
        // These run on a machine other than that of the installation, and are handled before this function is called.
        Command::Toolbox(toolbox::Command::Machine(_)) => CommandScope::None("toolbox"),
        Command::Gateway(_) => CommandScope::None("gateway"),
        Command::Serve(_) => CommandScope::None("serve"),
        Command::Walk(_) => CommandScope::None("walk"),
        Command::Audit(_) => CommandScope::Local("audit"),
        Command::Migrate(_) => CommandScope::Local("migrate"),
        Command::Doctor => CommandScope::Local("doctor"),
        Command::SecretKey(_) => CommandScope::Local("secret-key"),
        Command::Backup(_) => CommandScope::Local("backup"),
        Command::Restore(_) => CommandScope::Local("restore"),
    }
}

/// Returns the installation whose API the command uses; `None` if it works on the database.
///
/// # Errors
/// A usage error if the command does not support `--url`, both a URL and a database are given, the URL is invalid, or
/// the API key is missing.
pub fn find(global: &Global, command: &Command) -> anyhow::Result<Option<ApiEndpoint>> {
    let has_database = global.database.is_some() || global.data_dir.is_some();
    let Some(url) = requested_url(global, command, has_database)? else {
        if global.api_key.is_some() {
            return usage("--api-key requires --url");
        }
        return Ok(None);
    };
    let origin =
        config::parse_origin(&url).map_err(|reason| UsageError(format!("invalid installation URL: {reason}")))?;
    Ok(Some(ApiEndpoint { origin, key: api_key(global)? }))
}

fn requested_url(global: &Global, command: &Command, has_database: bool) -> anyhow::Result<Option<String>> {
    let scope = command_scope(command);
    if let Some(url) = &global.remote {
        return match scope {
            CommandScope::Data if has_database => usage("--url cannot be combined with --database or --data-dir"),
            CommandScope::Data => Ok(Some(url.clone())),
            CommandScope::Local(name) => usage(&format!(
                "`waypost {name}` works directly on the database and does not support --url: run it on the machine of the installation"
            )),
            CommandScope::None(name) => usage(&format!("`waypost {name}` does not support --url")),
        };
    }
    // Flags take precedence over the environment.
    let url = environment(URL)?.filter(|_| !has_database);
    match (url, scope) {
        (Some(url), CommandScope::Data) => Ok(Some(url)),
        // Prevents, for example, a backup of a different installation than intended.
        (Some(_), CommandScope::Local(name)) => usage(&format!(
            "{URL} is set, but `waypost {name}` works directly on the database: unset it, or specify the database with --database or --data-dir"
        )),
        (Some(_), CommandScope::None(_)) | (None, _) => Ok(None),
    }
}

fn api_key(global: &Global) -> anyhow::Result<SecretText> {
    let key = match &global.api_key {
        Some(key) if key.expose() == "-" => {
            let mut text = String::new();
            let read = std::io::stdin().take(MAX_KEY_BYTES).read_to_string(&mut text);
            read.context("cannot read the API key from standard input")?;
            SecretText::new(text.trim())
        }
        Some(key) => key.clone(),
        None => SecretText::new(environment(API_KEY)?.unwrap_or_default().trim()),
    };
    if key.expose().is_empty() {
        return usage(&format!(
            "an API key is required: set {API_KEY}, or pass `--api-key -` and write the key to standard input; create keys in the console or with `waypost key create`"
        ));
    }
    if !key.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return usage("the API key contains invalid characters: copy it again, it starts with wpk_");
    }
    Ok(key)
}

/// Returns an environment variable; `None` if it is empty.
fn environment(name: &str) -> anyhow::Result<Option<String>> {
    match std::env::var(name) {
        Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => usage(&format!("{name} is not valid UTF-8")),
    }
}

fn usage<T>(message: &str) -> anyhow::Result<T> {
    Err(UsageError(message.to_owned()).into())
}
