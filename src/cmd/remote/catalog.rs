//! `waypost catalog` through the REST API. The files are read here and sent unchanged; the installation, not this
//! machine, resolves the tags of images.

use std::path::Path;

use reqwest::Method;
use serde_json::Value;
use waypost_core::id::CatalogEntryId;

use super::client::Body;
use super::error::ApiError;
use super::{RemoteSession, find_item, not_found_message, text};
use crate::cmd::catalog::{
    Command, ImportResult, MEMBERS, Outcome, SourceFile, confirm_deletion, print, print_deleted, print_list, read_files,
};
use crate::cmd::output;

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    let (Command::Import { org, .. } | Command::List { org } | Command::Show { org, .. } | Command::Delete { org, .. }) =
        &command;
    remote.check_organization(org.org.as_deref())?;
    match command {
        Command::Import { files, .. } => {
            let files = read_files(&files)?;
            let mut outcome = Outcome::new(remote.json, files.len());
            for file in &files {
                let result = import(remote, file).await;
                outcome.add(file, result)?;
            }
            outcome.finish()
        }
        Command::List { .. } => {
            let items = client.list_paged(&["catalog"], &[]).await?;
            print_list(remote.json, remote.select_all(&items, MEMBERS))
        }
        Command::Show { entry, .. } => print(remote.json, remote.select(&find(remote, &entry).await?, MEMBERS)),
        Command::Delete { entry, yes, .. } => {
            let entry = find(remote, &entry).await?;
            let (id, slug) = (text(&entry, "id"), text(&entry, "slug"));
            confirm_deletion(yes, slug)?;
            client.delete(&["catalog", id]).await?;
            print_deleted(remote.json, id, slug)
        }
    }
}

async fn import(remote: &RemoteSession, file: &SourceFile) -> anyhow::Result<ImportResult> {
    // Messages contain the name that is sent. The path on this machine is of no use to the installation.
    let sent_name = Path::new(&file.name).file_name().map(|name| name.to_string_lossy().into_owned());
    let sent_name = sent_name.unwrap_or_else(|| file.name.clone());
    let body = Body::Bytes("application/octet-stream".to_owned(), file.text.clone().into_bytes());
    let query = [("filename", sent_name.as_str())];
    let result = remote.client.send(Method::POST, &["catalog", "import"], &query, body).await;
    let localize = |message: &str| match message.strip_prefix(&sent_name) {
        Some(rest) => format!("{}{rest}", file.name),
        None => message.to_owned(),
    };
    let report = result.map_err(|error| match error.downcast::<ApiError>() {
        Ok(error) => error.map_message(localize).into(),
        Err(error) => error,
    })?;
    let member = |name: &str| text(&report, name).to_owned();
    Ok(ImportResult { id: member("id"), version_id: member("version_id"), change: member("change") })
}

/// Returns an entry by ID, slug or name.
pub(super) async fn find(remote: &RemoteSession, text: &str) -> anyhow::Result<Value> {
    if text.parse::<CatalogEntryId>().is_ok() {
        let found = remote.client.find(&["catalog", text]).await?;
        return found.ok_or_else(|| anyhow::anyhow!(not_found_message("catalogue entry", text, "catalog")));
    }
    let mut entries = remote.client.list_paged(&["catalog"], &[]).await?;
    if let Some(at) = entries.iter().position(|entry| entry["slug"] == text) {
        return Ok(entries.swap_remove(at));
    }
    entries.retain(|entry| entry["name"] == text);
    if entries.len() > 1 {
        anyhow::bail!("Several entries are named `{}`. Use the slug or the ID.", output::clean(text));
    }
    find_item(entries, |_| true, "catalogue entry", text, "catalog")
}
