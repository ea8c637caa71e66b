//! Where a command works: on the database, or through the REST API of a running server.

use std::io::Read;

use anyhow::Context;
use url::Url;
use waypost_core::seal::SecretText;

use crate::cmd::{Command, Global, UsageError, walkthrough};
use crate::config;

/// Names the installation, as `--url` does.
const URL: &str = "WAYPOST_URL";
/// Holds the key, as `--api-key` does.
const API_KEY: &str = "WAYPOST_API_KEY";
/// A key is short.
const MAX_KEY: u64 = 4 * 1024;

/// A running installation, and the key to work on it with.
#[derive(Debug)]
pub struct ApiEndpoint {
    /// Its origin.
    pub origin: Url,
    /// The API key.
    pub key: SecretText,
}

/// What a command works on.
enum CommandScope {
    /// Data that the REST API also has.
    Data,
    /// The database itself, or what is around it on this machine.
    Machine(&'static str),
    /// Neither.
    Nothing(&'static str),
}

fn reach(command: &Command) -> CommandScope {
    match command {
        Command::Walkthrough(walkthrough::Command::Lint { .. }) => CommandScope::Nothing("walkthrough lint"),
        Command::Walkthrough(_)
        | Command::Org(_)
        | Command::User(_)
        | Command::Server(_)
        | Command::OauthConfig(_)
        | Command::Key(_)
        | Command::Join(_)
        | Command::Assignment(_) => CommandScope::Data,
        Command::Serve(_) => CommandScope::Nothing("serve"),
        Command::Walk(_) => CommandScope::Nothing("walk"),
        Command::Audit(_) => CommandScope::Machine("audit"),
        Command::Migrate(_) => CommandScope::Machine("migrate"),
        Command::Doctor => CommandScope::Machine("doctor"),
        Command::Secret(_) => CommandScope::Machine("secret"),
        Command::Backup(_) => CommandScope::Machine("backup"),
        Command::Restore(_) => CommandScope::Machine("restore"),
    }
}

/// The installation that the command is to work on through its API; none when it works on the database.
///
/// # Errors
/// Wrong usage: when the command cannot do that, two places are named, the URL is none, or there is no key.
pub fn find(global: &Global, command: &Command) -> anyhow::Result<Option<ApiEndpoint>> {
    let here = global.database.is_some() || global.data_dir.is_some();
    let Some(url) = wanted(global, command, here)? else {
        if global.api_key.is_some() {
            return usage("--api-key goes with --url, which says where the key is for");
        }
        return Ok(None);
    };
    let origin =
        config::origin(&url).map_err(|why| UsageError(format!("the URL of the installation is wrong: {why}")))?;
    Ok(Some(ApiEndpoint { origin, key: key(global)? }))
}

fn wanted(global: &Global, command: &Command, here: bool) -> anyhow::Result<Option<String>> {
    let reach = reach(command);
    if let Some(url) = &global.remote {
        return match reach {
            CommandScope::Data if here => {
                usage("--url and --database or --data-dir name two places to work on: say one")
            }
            CommandScope::Data => Ok(Some(url.clone())),
            CommandScope::Machine(name) => usage(&format!(
                "`waypost {name}` works on the database itself, not through --url: run it on its machine"
            )),
            CommandScope::Nothing(name) => usage(&format!("`waypost {name}` does not work with --url: leave it out")),
        };
    }
    // A flag comes before the environment: who names a database means it.
    let url = environment(URL)?.filter(|_| !here);
    match (url, reach) {
        (Some(url), CommandScope::Data) => Ok(Some(url)),
        // Nobody should have a backup of another installation than they think.
        (Some(_), CommandScope::Machine(name)) => usage(&format!(
            "{URL} is set, and `waypost {name}` works on the database itself: unset it, or name the database with --database or --data-dir"
        )),
        (Some(_), CommandScope::Nothing(_)) | (None, _) => Ok(None),
    }
}

fn key(global: &Global) -> anyhow::Result<SecretText> {
    let key = match &global.api_key {
        Some(key) if key.expose() == "-" => {
            let mut text = String::new();
            let read = std::io::stdin().take(MAX_KEY).read_to_string(&mut text);
            read.context("cannot read the API key from standard input")?;
            SecretText::new(text.trim())
        }
        Some(key) => key.clone(),
        None => SecretText::new(environment(API_KEY)?.unwrap_or_default().trim()),
    };
    if key.expose().is_empty() {
        return usage(&format!(
            "say the API key: set {API_KEY}, or write it to standard input with `--api-key -`; the console makes keys, and so does `waypost key create`"
        ));
    }
    if !key.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return usage("the API key holds characters that no key has: copy it again, it begins with wpk_");
    }
    Ok(key)
}

/// A variable that is empty is not set.
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
