//! Imports of entries from files.

use serde_json::{Map, Value, json};
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::catalog::{
    CatalogEntry, CatalogEntryState, CatalogVersion, MAX_ENTRIES, MAX_VERSIONS, Source, VersionDefinition,
};
use waypost_core::id::{CatalogEntryId, CatalogVersionId, OrganizationId};
use waypost_core::{Code, Error, Result};
use waypost_outbound::Purpose;
use waypost_store::{Tx, catalog_entry, catalog_version, organization, tool_secret};

use super::file::{EntryFile, SourceReference};
use super::image::{ImageReference, ImageVersion};
use super::registry::{RegistryCredentials, resolve_digest};
use crate::Ops;
use crate::audit::{Entry, record};
use crate::remote_endpoint::{find_address_problem, open_version_url, version_location};
use crate::tool_secrets;

/// The effect of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportChange {
    /// The entry is new.
    Created,
    /// The version is new.
    VersionAdded,
    /// Fields of the entry, such as its description, changed.
    Updated,
    /// The file contained nothing new.
    Unchanged,
}

impl ImportChange {
    /// Returns the name used in the API, in the audit log and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::VersionAdded => "version_added",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
        }
    }
}

/// The result of an import.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportReport {
    /// The entry after the import.
    pub entry: CatalogEntry,
    /// The ID of the version in the file.
    pub version_id: CatalogVersionId,
    /// The effect.
    pub change: ImportChange,
}

/// Imports an entry with one version, and publishes it. If the entry exists, its fields are updated, and the version is added
/// if it is new. Importing the same file again changes nothing. A tag is resolved to a digest when its version is imported
/// for the first time.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `forbidden` for members below admin; `conflict` if the
/// version has other content, or the organisation has too many entries or versions; `image_not_found`, `image_denied` and
/// `invalid_arguments` if the image cannot be resolved; `invalid_arguments` if the URL of a remote server cannot be used.
pub async fn import(cx: &Ctx, ops: &Ops, organization: &OrganizationId, file: &EntryFile) -> Result<ImportReport> {
    authorize(&cx.caller, Operation::CatalogWrite, organization)?;
    let known = find_version(ops, organization, file).await?;
    // Before the transaction, which must not wait for a registry.
    let definition = prepare(ops, organization, file, known.as_ref()).await?;
    let mut tx = ops.store.begin().await?;
    if !organization::lock(&mut tx, organization).await? {
        return Err(Error::not_found("organisation"));
    }
    let before = catalog_entry::find_by_slug(&mut tx, organization, &file.slug).await?;
    let mut entry = save_entry(cx, &mut tx, organization, file, before.as_ref()).await?;
    let (version_id, is_added) = match entry.versions.iter().find(|version| version.version == file.version) {
        Some(version) => {
            // Another request may have imported it in the meantime, and the tag may have moved.
            let is_same = is_same_reference(file, version);
            let definition = if is_same { with_source(file, &version.definition) } else { definition };
            check_unchanged(ops, file, version, &definition)?;
            (version.id.clone(), false)
        }
        None => (add_version(cx, ops, &mut tx, (file, &entry), definition).await?, true),
    };
    let change = match (&before, is_added) {
        (None, _) => ImportChange::Created,
        (Some(_), true) => ImportChange::VersionAdded,
        (Some(before), false) if *before != entry => ImportChange::Updated,
        (Some(_), false) => return Ok(ImportReport { entry, version_id, change: ImportChange::Unchanged }),
    };
    if is_added {
        entry = catalog_entry::find(&mut tx, organization, &entry.id).await?.unwrap_or(entry);
    }
    record_import(cx, &mut tx, file, &entry, &version_id, change).await?;
    tx.commit().await?;
    Ok(ImportReport { entry, version_id, change })
}

/// Parses a file and imports it. `name` is used in messages.
///
/// # Errors
/// Those of [`import`], and `invalid_arguments` naming the file and the field.
pub async fn import_text(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    name: &str,
    text: &str,
) -> Result<ImportReport> {
    authorize(&cx.caller, Operation::CatalogWrite, organization)?;
    import(cx, ops, organization, &EntryFile::parse(name, text)?).await
}

/// Returns the version in the file, if it was imported before.
async fn find_version(ops: &Ops, organization: &OrganizationId, file: &EntryFile) -> Result<Option<CatalogVersion>> {
    let entry = catalog_entry::find_by_slug(&mut ops.store.read().await?, organization, &file.slug).await?;
    let mut versions = entry.into_iter().flat_map(|entry| entry.versions);
    Ok(versions.find(|version| version.version == file.version))
}

/// Whether the file names the image of a known version in the same way, so that its digest is known.
fn is_same_reference(file: &EntryFile, known: &CatalogVersion) -> bool {
    let Source::Image(image) = &known.definition.source else { return false };
    let SourceReference::Image(named) = &file.reference else { return false };
    let is_same_name = image.parse().is_ok_and(|image: ImageReference| {
        matches!(image.version(), ImageVersion::Digest(digest) if named.with_digest(digest) == image)
    });
    is_same_name && file.definition.image_tag.is_some() && file.definition.image_tag == known.definition.image_tag
}

/// Returns the definition of the file with the image of `known`.
fn with_source(file: &EntryFile, known: &VersionDefinition) -> VersionDefinition {
    VersionDefinition { source: known.source.clone(), ..file.definition.clone() }
}

/// Returns the definition of the file with the digest of its image. Checks the URL of a remote server that is new.
async fn prepare(
    ops: &Ops,
    organization: &OrganizationId,
    file: &EntryFile,
    known: Option<&CatalogVersion>,
) -> Result<VersionDefinition> {
    match (&file.reference, known) {
        (SourceReference::Image(_), Some(known)) if is_same_reference(file, known) => {
            Ok(with_source(file, &known.definition))
        }
        (SourceReference::Image(image), _) => {
            resolve(ops, organization, (file, image)).await.map_err(|error| with_image_field(file, error))
        }
        (SourceReference::Remote(url), None) => match find_address_problem(ops, organization, url).await? {
            Some(problem) => Err(file.source.reject("source.remote.url", format!("is rejected. {problem}"))),
            None => Ok(file.definition.clone()),
        },
        (SourceReference::Remote(_), Some(_)) => Ok(file.definition.clone()),
    }
}

async fn resolve(
    ops: &Ops,
    organization: &OrganizationId,
    (file, image): (&EntryFile, &ImageReference),
) -> Result<VersionDefinition> {
    if matches!(image.version(), ImageVersion::Digest(_)) {
        return Ok(file.definition.clone());
    }
    let credentials = match &file.definition.registry_secret {
        Some(name) => Some(credentials(ops, organization, file, name).await?),
        None => None,
    };
    let route = ops.route(Purpose::Tools, organization).await?;
    let digest = resolve_digest(&route, image, credentials.as_ref()).await?;
    let source = Source::Image(image.with_digest(&digest).to_string());
    Ok(VersionDefinition { source, ..file.definition.clone() })
}

/// Adds the field of the image to an error of its resolution, unless the error already names a field.
fn with_image_field(file: &EntryFile, mut error: Error) -> Error {
    if error.details.contains_key("field")
        || !matches!(error.code, Code::ImageNotFound | Code::ImageDenied | Code::InvalidArguments)
    {
        return error;
    }
    error.message = format!("{}: `source.image`: {}", file.source.file_name(), error.message);
    error.with("field", "source.image").with("file", file.source.file_name())
}

async fn credentials(
    ops: &Ops,
    organization: &OrganizationId,
    file: &EntryFile,
    name: &str,
) -> Result<RegistryCredentials> {
    let value = tool_secrets::open_by_name(ops, &mut ops.store.read().await?, organization, name).await?;
    let value = value.ok_or_else(|| missing_secret(file, name))?;
    RegistryCredentials::parse(&value).ok_or_else(|| {
        let problem = format!("names the secret `{name}`, whose value is not `USERNAME:PASSWORD`. Rotate it.");
        file.source.reject("registry_secret", problem)
    })
}

fn missing_secret(file: &EntryFile, name: &str) -> Error {
    let problem = format!(
        "names the secret `{name}`, which does not exist. Create it with the value `USERNAME:PASSWORD`: \
         `waypost secret create {name}`."
    );
    file.source.reject("registry_secret", problem)
}

/// Inserts or updates the entry of the file. Returns it with its versions before the import.
async fn save_entry(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    file: &EntryFile,
    before: Option<&CatalogEntry>,
) -> Result<CatalogEntry> {
    let now = cx.now();
    let mut entry = before.cloned().unwrap_or_else(|| CatalogEntry {
        id: CatalogEntryId::new(&*cx.random),
        organization_id: organization.clone(),
        slug: file.slug.clone(),
        name: String::new(),
        description: String::new(),
        categories: Vec::new(),
        license: None,
        documentation_url: None,
        state: CatalogEntryState::Published,
        versions: Vec::new(),
        deployments: 0,
        created_at: now,
        updated_at: now,
    });
    entry.name.clone_from(&file.name);
    entry.description.clone_from(&file.description);
    entry.categories.clone_from(&file.categories);
    entry.license.clone_from(&file.license);
    entry.documentation_url.clone_from(&file.documentation_url);
    entry.state = CatalogEntryState::Published;
    match before {
        None => {
            if is_full(catalog_entry::count(tx, organization).await?, MAX_ENTRIES) {
                let message =
                    format!("An organisation can have at most {MAX_ENTRIES} catalogue entries. Delete one first.");
                return Err(Error::new(Code::Conflict, message));
            }
            catalog_entry::insert(tx, &entry).await?;
        }
        Some(before) if *before != entry => {
            entry.updated_at = now;
            catalog_entry::update(tx, &entry).await?;
        }
        Some(_) => {}
    }
    Ok(entry)
}

fn is_full(count: i64, maximum: usize) -> bool {
    usize::try_from(count).is_ok_and(|count| count >= maximum)
}

async fn add_version(
    cx: &Ctx,
    ops: &Ops,
    tx: &mut Tx,
    (file, entry): (&EntryFile, &CatalogEntry),
    definition: VersionDefinition,
) -> Result<CatalogVersionId> {
    let organization = &entry.organization_id;
    if entry.versions.len() >= MAX_VERSIONS {
        let message =
            format!("The entry `{}` has {MAX_VERSIONS} versions, the maximum. Import a new entry.", entry.slug);
        return Err(Error::new(Code::Conflict, message));
    }
    if let Some(name) = &definition.registry_secret
        && tool_secret::find_value(tx, organization, name).await?.is_none()
    {
        return Err(missing_secret(file, name));
    }
    let id = CatalogVersionId::new(&*cx.random);
    let sealed_url = match &file.reference {
        SourceReference::Image(_) => None,
        SourceReference::Remote(url) => {
            Some(ops.keyring()?.seal(&version_location(&id), url.as_str().as_bytes(), &*cx.random))
        }
    };
    let version = CatalogVersion {
        id,
        sealed_url,
        organization_id: organization.clone(),
        catalog_entry_id: entry.id.clone(),
        version: file.version.clone(),
        definition,
        created_at: cx.now(),
    };
    catalog_version::insert(tx, &version).await?;
    Ok(version.id)
}

/// Rejects a file whose version exists with other content. The tag is not content: an import by tag and one by the same
/// digest are equal.
fn check_unchanged(ops: &Ops, file: &EntryFile, known: &CatalogVersion, new: &VersionDefinition) -> Result<()> {
    let has_same_url = match &file.reference {
        SourceReference::Remote(url) if known.definition.is_remote() => open_version_url(ops, known)? == *url,
        _ => true,
    };
    let old = members(&known.definition)?;
    let new = members(new)?;
    let is_different = |name: &&String| old.get(*name) != new.get(*name) || (*name == "source" && !has_same_url);
    let names: Vec<_> =
        old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))).filter(is_different).collect();
    let Some(first) = names.first() else { return Ok(()) };
    let fields = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let message = format!(
        "{}: version `{}` of `{}` exists with other content ({fields}). Versions cannot be changed. Set `version` to a new \
         one.",
        file.source.file_name(),
        file.version,
        file.slug
    );
    let error = Error::new(Code::Conflict, message).with("field", first.as_str());
    Err(error.with("file", file.source.file_name()))
}

fn members(definition: &VersionDefinition) -> Result<Map<String, Value>> {
    let definition = VersionDefinition { image_tag: None, ..definition.clone() };
    match serde_json::to_value(definition).map_err(Error::internal)? {
        Value::Object(members) => Ok(members),
        _ => Ok(Map::new()),
    }
}

async fn record_import(
    cx: &Ctx,
    tx: &mut Tx,
    file: &EntryFile,
    entry: &CatalogEntry,
    version_id: &CatalogVersionId,
    change: ImportChange,
) -> Result<()> {
    let version = entry.versions.iter().find(|version| version.id == *version_id);
    let mut detail = json!({
        "slug": entry.slug,
        "version": file.version,
        "version_id": version_id,
        "change": change.as_str(),
    });
    match version.map(|version| &version.definition.source) {
        Some(Source::Image(image)) => detail["image"] = json!(image),
        Some(Source::Remote(remote)) => detail["remote"] = json!(remote.origin),
        _ => {}
    }
    let audit = Entry { action: "catalog.import", target: entry.id.as_str(), detail };
    record(cx, tx, &entry.organization_id, audit).await
}
