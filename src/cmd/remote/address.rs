//! Where a command works: on the database, or through the REST API of a running server.

use std::io::Read;

use anyhow::Context;
use url::Url;
use waypost_core::seal::SecretText;

use crate::cmd::{Command, Global, Usage, walkthrough};
use crate::config;

/// Names the installation, as `--url` does.
const URL: &str = "WAYPOST_URL";
/// Holds the key, as `--api-key` does.
const API_KEY: &str = "WAYPOST_API_KEY";
/// A key is short.
const MAX_KEY: u64 = 4 * 1024;

/// A running installation, and the key to work on it with.
#[derive(Debug)]
pub struct Address {
    /// Its origin.
    pub origin: Url,
    /// The API key.
    pub key: SecretText,
}

/// What a command works on.
enum Reach {
    /// Data that the REST API also has.
    Data,
    /// The database itself, or what is around it on this machine.
    Machine(&'static str),
    /// Neither.
    Nothing(&'static str),
}

fn reach(command: &Command) -> Reach {
    match command {
        Command::Walkthrough(walkthrough::Command::Lint { .. }) => Reach::Nothing("walkthrough lint"),
        Command::Walkthrough(_)
        | Command::Org(_)
        | Command::User(_)
        | Command::Server(_)
        | Command::OauthConfig(_)
        | Command::Key(_)
        | Command::Join(_)
        | Command::Assignment(_) => Reach::Data,
        Command::Serve(_) => Reach::Nothing("serve"),
        Command::Walk(_) => Reach::Nothing("walk"),
        Command::Audit(_) => Reach::Machine("audit"),
        Command::Migrate(_) => Reach::Machine("migrate"),
        Command::Doctor => Reach::Machine("doctor"),
        Command::Secret(_) => Reach::Machine("secret"),
        Command::Backup(_) => Reach::Machine("backup"),
        Command::Restore(_) => Reach::Machine("restore"),
    }
}

/// The installation that the command is to work on through its API; none when it works on the database.
///
/// # Errors
/// Wrong usage: when the command cannot do that, two places are named, the URL is none, or there is no key.
pub fn find(global: &Global, command: &Command) -> anyhow::Result<Option<Address>> {
    let here = global.database.is_some() || global.data_dir.is_some();
    let Some(url) = wanted(global, command, here)? else {
        if global.api_key.is_some() {
            return usage("--api-key goes with --url, which says where the key is for");
        }
        return Ok(None);
    };
    let origin = config::origin(&url).map_err(|why| Usage(format!("the URL of the installation is wrong: {why}")))?;
    Ok(Some(Address { origin, key: key(global)? }))
}

fn wanted(global: &Global, command: &Command, here: bool) -> anyhow::Result<Option<String>> {
    let reach = reach(command);
    if let Some(url) = &global.remote {
        return match reach {
            Reach::Data if here => usage("--url and --database or --data-dir name two places to work on: say one"),
            Reach::Data => Ok(Some(url.clone())),
            Reach::Machine(name) => usage(&format!(
                "`waypost {name}` works on the database itself, not through --url: run it on its machine"
            )),
            Reach::Nothing(name) => usage(&format!("`waypost {name}` does not work with --url: leave it out")),
        };
    }
    // A flag comes before the environment: who names a database means it.
    let url = environment(URL)?.filter(|_| !here);
    match (url, reach) {
        (Some(url), Reach::Data) => Ok(Some(url)),
        // Nobody should have a backup of another installation than they think.
        (Some(_), Reach::Machine(name)) => usage(&format!(
            "{URL} is set, and `waypost {name}` works on the database itself: unset it, or name the database with --database or --data-dir"
        )),
        (Some(_), Reach::Nothing(_)) | (None, _) => Ok(None),
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
    Err(Usage(message.to_owned()).into())
}
