//! Finds the objects to which the options of `waypost instance` refer: secrets, catalogue entries and their versions.

use waypost_core::catalog::{CatalogEntry, CatalogVersion};
use waypost_core::id::{CatalogVersionId, OrganizationId, ToolSecretId};
use waypost_core::instance::{Instance, RegisteredClient};
use waypost_ops::{catalog, tool_secrets};

use super::PAGE_SIZE;
use super::options::{CreateOptions, SecretArg};
use crate::cmd::output;
use crate::cmd::session::{Session, not_found_message};

/// Returns the secret of an option `--secret NAME=SECRET`; `None` if SECRET is empty.
pub(super) async fn find_secret(
    session: &Session,
    organization: &OrganizationId,
    argument: &SecretArg,
) -> anyhow::Result<Option<ToolSecretId>> {
    match &argument.secret {
        Some(text) => find_secret_id(session, organization, text).await.map(Some),
        None => Ok(None),
    }
}

async fn find_secret_id(session: &Session, organization: &OrganizationId, text: &str) -> anyhow::Result<ToolSecretId> {
    let secret = tool_secrets::resolve(&session.cx, &session.ops, organization, text).await;
    Ok(secret.map_err(|error| not_found_message(error, "secret", text, "secret"))?.id)
}

/// Returns the registered client of a remote server; `None` without `--client-id`.
pub(super) async fn find_client(
    session: &Session,
    organization: &OrganizationId,
    options: &CreateOptions,
) -> anyhow::Result<Option<RegisteredClient>> {
    let Some(client_id) = options.client_id.clone() else { return Ok(None) };
    let secret_id = match &options.client_secret {
        Some(text) => Some(find_secret_id(session, organization, text).await?),
        None => None,
    };
    Ok(Some(RegisteredClient { client_id, secret_id }))
}

/// Returns the catalogue version of an instance.
pub(super) fn find_version_id(instance: &Instance) -> anyhow::Result<&CatalogVersionId> {
    instance.catalog_version_id().ok_or_else(no_entry)
}

/// Returns the entry that contains a version.
pub(super) async fn find_entry(
    session: &Session,
    organization: &OrganizationId,
    version: &CatalogVersionId,
) -> anyhow::Result<CatalogEntry> {
    let mut cursor = None::<String>;
    loop {
        let page = catalog::list(&session.cx, &session.ops, organization, PAGE_SIZE, cursor.as_deref()).await?;
        let contains = |entry: &CatalogEntry| entry.versions.iter().any(|found| found.id == *version);
        if let Some(entry) = page.items.into_iter().find(contains) {
            return Ok(entry);
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            anyhow::bail!("the catalogue entry of this instance does not exist")
        }
    }
}

/// Returns the version with this number or ID; without one, the newest.
pub(super) fn find_version(
    versions: &[CatalogVersion],
    text: Option<&str>,
    entry: &str,
) -> anyhow::Result<CatalogVersionId> {
    let matches =
        |version: &&CatalogVersion| text.is_none_or(|text| version.version == text || version.id.as_str() == text);
    let found = versions.iter().find(matches).map(|version| version.id.clone());
    found.ok_or_else(|| no_version(text, entry))
}

/// Returns the error for an instance that has no version, because it is not in the catalogue.
pub(in crate::cmd) fn no_entry() -> anyhow::Error {
    anyhow::anyhow!("this remote server is not in the catalogue, so it has no versions: change its URL in the console")
}

/// Returns the error for a version that does not exist.
pub(in crate::cmd) fn no_version(text: Option<&str>, entry: &str) -> anyhow::Error {
    let entry = output::clean(entry);
    match text {
        Some(text) => {
            let text = output::clean(text);
            anyhow::anyhow!("`{entry}` has no version `{text}`: run `waypost catalog show {entry}` to see all")
        }
        None => anyhow::anyhow!("`{entry}` has no versions: import one with `waypost catalog import FILE`"),
    }
}
