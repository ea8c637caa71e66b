//! `waypost secret`: secrets of tool servers.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};
use waypost_core::Timestamp;
use waypost_core::id::OrganizationId;
use waypost_core::seal::SecretText;
use waypost_core::tool_secret::{MAX_VALUE, ToolSecret};
use waypost_ops::tool_secrets;

use super::session::{Session, not_found_message};
use super::user::Org;
use super::{App, UsageError, output};

/// The number of secrets that are read at a time.
const PAGE_SIZE: u32 = 200;

/// Subcommands of `waypost secret`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a secret. Its value is encrypted and cannot be read back.
    Create {
        /// Name, unique in the organisation: letters, digits, `_` and `-`.
        name: String,
        #[command(flatten)]
        value: ValueSource,
        #[command(flatten)]
        org: Org,
    },
    /// List the secrets of an organisation and the instances that use them, without values.
    List {
        #[command(flatten)]
        org: Org,
    },
    /// Show a secret and the instances that use it, without its value.
    Show {
        /// Name or ID of the secret.
        secret: String,
        #[command(flatten)]
        org: Org,
    },
    /// Replace the value of a secret.
    Rotate {
        /// Name or ID of the secret.
        secret: String,
        #[command(flatten)]
        value: ValueSource,
        #[command(flatten)]
        org: Org,
    },
    /// Delete a secret that no instance and no catalogue entry uses.
    Delete {
        /// Name or ID of the secret.
        secret: String,
        #[command(flatten)]
        org: Org,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
}

/// Where a value is read from. It is never an argument: a command line is visible to other users of the machine and is
/// kept in the shell's history.
#[derive(Debug, clap::Args)]
pub struct ValueSource {
    /// File with the value; `-` reads standard input, which is the default. One line break at the end is removed.
    #[arg(long, value_name = "FILE")]
    value_file: Option<PathBuf>,
    /// `-` reads the value from standard input.
    #[arg(value_name = "-", value_parser = standard_input, conflicts_with = "value_file")]
    standard_input: Option<()>,
}

fn standard_input(text: &str) -> Result<(), &'static str> {
    match text {
        "-" => Ok(()),
        _ => Err("pass the value with --value-file or on standard input: other users of the machine can see arguments"),
    }
}

impl ValueSource {
    /// Reads the value. Removes one line break at its end, which editors and `echo` add.
    ///
    /// # Errors
    /// If the file cannot be read, is not UTF-8 or is too large, or standard input is a terminal.
    pub(super) fn read(&self) -> anyhow::Result<SecretText> {
        let file = self.value_file.as_deref().filter(|path| *path != Path::new("-"));
        let mut bytes = Vec::new();
        // One byte and a line break more than the maximum are enough to recognise a value that is too large.
        let maximum = (MAX_VALUE + 3) as u64;
        let shown = match file {
            Some(path) => {
                let opened = std::fs::File::open(path);
                let read = opened.and_then(|file| file.take(maximum).read_to_end(&mut bytes));
                read.with_context(|| format!("cannot read the value from {}", path.display()))?;
                path.display().to_string()
            }
            None if self.standard_input.is_none() && self.value_file.is_none() && std::io::stdin().is_terminal() => {
                let message = "pass the value with --value-file FILE, or pipe it to standard input";
                return Err(UsageError(message.to_owned()).into());
            }
            None => {
                let read = std::io::stdin().take(maximum).read_to_end(&mut bytes);
                read.context("cannot read the value from standard input")?;
                "standard input".to_owned()
            }
        };
        let mut text = String::from_utf8(bytes).map_err(|_| {
            anyhow::anyhow!("the value from {shown} is not UTF-8: encode binary data, for example in base 64")
        })?;
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Ok(SecretText::new(text))
    }
}

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(app: &App, session: &Session, command: Command) -> anyhow::Result<()> {
    let Session { cx, ops, json, .. } = session;
    let (Command::Create { org, .. }
    | Command::List { org }
    | Command::Show { org, .. }
    | Command::Rotate { org, .. }
    | Command::Delete { org, .. }) = &command;
    let organization = session.organization(org.org.as_deref()).await?.id;
    match command {
        Command::Create { name, value, .. } => {
            let (ops, value) = (session.connected_ops(app)?, value.read()?);
            let created = tool_secrets::create(cx, &ops, &organization, &name, &value).await?;
            print(*json, to_json(&created))
        }
        Command::List { .. } => {
            let (mut items, mut cursor) = (Vec::new(), None::<String>);
            loop {
                let page = tool_secrets::list(cx, ops, &organization, PAGE_SIZE, cursor.as_deref()).await?;
                items.extend(page.items.iter().map(to_json));
                cursor = page.next_cursor;
                if cursor.is_none() {
                    return print_list(*json, items);
                }
            }
        }
        Command::Show { secret, .. } => print(*json, to_json(&find(session, &organization, &secret).await?)),
        Command::Rotate { secret, value, .. } => {
            let secret = find(session, &organization, &secret).await?;
            let (ops, value) = (session.connected_ops(app)?, value.read()?);
            let rotated = tool_secrets::rotate(cx, &ops, &organization, &secret.id, &value).await?;
            print(*json, to_json(&rotated))
        }
        Command::Delete { secret, yes, .. } => {
            let secret = find(session, &organization, &secret).await?;
            confirm_deletion(yes, &secret.name)?;
            tool_secrets::delete(cx, ops, &organization, &secret.id).await?;
            print_deleted(*json, secret.id.as_str(), &secret.name)
        }
    }
}

async fn find(session: &Session, organization: &OrganizationId, text: &str) -> anyhow::Result<ToolSecret> {
    let secret = tool_secrets::resolve(&session.cx, &session.ops, organization, text).await;
    secret.map_err(|error| not_found_message(error, "secret", text, "secret"))
}

/// Prints a secret. Text output shows the slugs of the instances.
pub(super) fn print(json: bool, secret: Value) -> anyhow::Result<()> {
    output::object(json, &if json { secret } else { with_slugs(secret) })
}

pub(super) fn print_list(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    let items = if json { items } else { items.into_iter().map(with_slugs).collect() };
    output::list(json, &["name", "version", "used_by", "id", "created_at", "rotated_at"], items)
}

fn with_slugs(mut secret: Value) -> Value {
    for user in secret["used_by"].as_array_mut().into_iter().flatten() {
        *user = user["slug"].take();
    }
    secret
}

pub(super) fn confirm_deletion(yes: bool, name: &str) -> anyhow::Result<()> {
    output::confirm(yes, &format!("Delete the secret {}?", output::clean(name)))
}

pub(super) fn print_deleted(json: bool, id: &str, name: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Deleted the secret {}.", output::clean(name)))
}

/// The members of the output, in the order of [`to_json`].
pub(super) const MEMBERS: &[&str] = &["id", "name", "version", "used_by", "created_at", "rotated_at"];

fn to_json(secret: &ToolSecret) -> Value {
    let users = secret.used_by.iter().map(|user| json!({ "id": user.instance_id, "slug": user.slug }));
    json!({
        "id": secret.id,
        "name": secret.name,
        "version": secret.version,
        "used_by": users.collect::<Vec<_>>(),
        "created_at": secret.created_at.rfc3339(),
        "rotated_at": secret.rotated_at.map(Timestamp::rfc3339),
    })
}
