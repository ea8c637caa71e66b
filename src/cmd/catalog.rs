//! `waypost catalog`: the tool servers that an organisation can deploy.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use waypost_core::catalog::{CatalogEntry, CatalogVersion};
use waypost_core::id::OrganizationId;
use waypost_ops::catalog::{self, EntryFile, MAX_FILE_BYTES};

use super::session::{Session, not_found_message};
use super::user::Org;
use super::{App, output};

/// The number of entries that are read at a time.
const PAGE_SIZE: u32 = 200;

/// Subcommands of `waypost catalog`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Import entries from files and publish them. A tag of an image is resolved to a digest once.
    Import {
        /// YAML or JSON files, each with one version of an entry.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        org: Org,
    },
    /// List the catalogue of an organisation.
    List {
        #[command(flatten)]
        org: Org,
    },
    /// Show an entry with its versions.
    Show {
        /// Slug, name or ID of the entry.
        entry: String,
        #[command(flatten)]
        org: Org,
    },
    /// Delete an entry that no instance uses, with its versions.
    Delete {
        /// Slug, name or ID of the entry.
        entry: String,
        #[command(flatten)]
        org: Org,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
}

/// A file to import.
pub(super) struct SourceFile {
    /// The path as given by the user, for messages.
    pub(super) name: String,
    /// The content of the file.
    pub(super) text: String,
    /// The parsed entry.
    pub(super) entry: EntryFile,
}

/// Reads and parses all files, so that an invalid file is reported before anything is imported.
///
/// # Errors
/// If a file cannot be read or is not an entry.
pub(super) fn read_files(paths: &[PathBuf]) -> anyhow::Result<Vec<SourceFile>> {
    paths.iter().map(|path| read_file(path)).collect()
}

fn read_file(path: &Path) -> anyhow::Result<SourceFile> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    // One byte more than the maximum is enough to recognise a file that is too large.
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes));
    read.with_context(|| format!("cannot read {name}"))?;
    let text = String::from_utf8(bytes).with_context(|| format!("{name} is not valid UTF-8: save it as UTF-8"))?;
    let entry = EntryFile::parse(&name, &text)?;
    Ok(SourceFile { name, text, entry })
}

/// Collects the results of several files.
pub(super) struct Outcome {
    json: bool,
    files: usize,
    items: Vec<Value>,
    errors: Vec<anyhow::Error>,
}

impl Outcome {
    pub(super) fn new(json: bool, files: usize) -> Self {
        Self { json, files, items: Vec::new(), errors: Vec::new() }
    }

    /// Prints the result of a file, or stores it for [`Self::finish`].
    ///
    /// # Errors
    /// If the import failed and the file is the only one, or standard output is closed.
    pub(super) fn add(&mut self, file: &SourceFile, result: anyhow::Result<ImportResult>) -> anyhow::Result<()> {
        let result = match result {
            Ok(result) => result,
            Err(error) if self.files == 1 => return Err(error),
            Err(error) => {
                self.errors.push(error);
                return Ok(());
            }
        };
        let ImportResult { id, version_id, change } = &result;
        let (slug, version) = (&file.entry.slug, &file.entry.version);
        if self.json {
            let item = json!({
                "file": file.name, "id": id, "slug": slug, "version": version, "version_id": version_id, "change": change,
            });
            self.items.push(item);
            return Ok(());
        }
        let action = match change.as_str() {
            "created" => "Created",
            "version_added" => "Added a version to",
            "updated" => "Updated",
            _ => "No changes in",
        };
        let name = output::clean(&file.name);
        output::text(&format!("{action} {slug} ({}) from {name}: version {version}\n", output::clean(id)))
    }

    /// Prints the stored results and errors.
    ///
    /// # Errors
    /// If a file was rejected, or standard output is closed.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        if self.json {
            match self.items.pop() {
                Some(item) if self.files == 1 => output::json(&item)?,
                last => {
                    self.items.extend(last);
                    output::json(&json!({ "items": self.items }))?;
                }
            }
        }
        if self.errors.is_empty() {
            return Ok(());
        }
        self.errors.iter().for_each(|error| eprintln!("error: {}", output::clean(&error.to_string())));
        bail!("{} of {} files were not imported", self.errors.len(), self.files)
    }
}

/// The result of an import.
pub(super) struct ImportResult {
    /// The ID of the entry.
    pub(super) id: String,
    /// The ID of the version.
    pub(super) version_id: String,
    /// The kind of change, as in the API.
    pub(super) change: String,
}

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(app: &App, session: &Session, command: Command) -> anyhow::Result<()> {
    let Session { cx, ops, json, .. } = session;
    let (Command::Import { org, .. } | Command::List { org } | Command::Show { org, .. } | Command::Delete { org, .. }) =
        &command;
    let organization = session.organization(org.org.as_deref()).await?.id;
    match command {
        Command::Import { files, .. } => import(app, session, &organization, &files).await,
        Command::List { .. } => {
            let (mut items, mut cursor) = (Vec::new(), None::<String>);
            loop {
                let page = catalog::list(cx, ops, &organization, PAGE_SIZE, cursor.as_deref()).await?;
                for entry in &page.items {
                    items.push(to_json(entry)?);
                }
                cursor = page.next_cursor;
                if cursor.is_none() {
                    return print_list(*json, items);
                }
            }
        }
        Command::Show { entry, .. } => print(*json, to_json(&find(session, &organization, &entry).await?)?),
        Command::Delete { entry, yes, .. } => {
            let entry = find(session, &organization, &entry).await?;
            confirm_deletion(yes, &entry.slug)?;
            catalog::delete(cx, ops, &organization, &entry.id).await?;
            print_deleted(*json, entry.id.as_str(), &entry.slug)
        }
    }
}

async fn import(app: &App, session: &Session, organization: &OrganizationId, paths: &[PathBuf]) -> anyhow::Result<()> {
    let files = read_files(paths)?;
    let ops = session.connected_ops(app)?;
    let mut outcome = Outcome::new(session.json, files.len());
    for file in &files {
        let result = catalog::import(&session.cx, &ops, organization, &file.entry).await.map(|report| ImportResult {
            id: report.entry.id.to_string(),
            version_id: report.version_id.to_string(),
            change: report.change.as_str().to_owned(),
        });
        outcome.add(file, result.map_err(Into::into))?;
    }
    outcome.finish()
}

async fn find(session: &Session, organization: &OrganizationId, text: &str) -> anyhow::Result<CatalogEntry> {
    let entry = catalog::resolve(&session.cx, &session.ops, organization, text).await;
    entry.map_err(|error| not_found_message(error, "catalogue entry", text, "catalog"))
}

/// Prints an entry. Text output shows one line per version.
pub(super) fn print(json: bool, mut entry: Value) -> anyhow::Result<()> {
    if json {
        return output::object(true, &entry);
    }
    let versions = entry["versions"].take();
    if let Some(members) = entry.as_object_mut() {
        members.shift_remove("versions");
    }
    output::object(false, &entry)?;
    output::text("\n")?;
    let versions = versions.as_array().cloned().unwrap_or_default();
    let rows = versions.into_iter().map(|mut version| {
        let remote = version["source"]["remote"].as_object();
        let source = remote.map_or(&version["source"]["image"], |remote| &remote["origin"]).clone();
        if remote.is_some() {
            // A remote server has no container.
            version["resources"] = Value::Null;
        }
        version["source"] = source;
        version
    });
    output::list(false, &["version", "transport", "resources", "source", "id"], rows.collect())
}

/// Prints the entries. Text output shows the newest version of each.
pub(super) fn print_list(json: bool, mut items: Vec<Value>) -> anyhow::Result<()> {
    if !json {
        for item in &mut items {
            item["version"] = item["versions"][0]["version"].take();
        }
    }
    output::list(json, &["slug", "name", "version", "deployments", "state", "id"], items)
}

pub(super) fn confirm_deletion(yes: bool, slug: &str) -> anyhow::Result<()> {
    output::confirm(yes, &format!("Delete the catalogue entry {} with its versions?", output::clean(slug)))
}

pub(super) fn print_deleted(json: bool, id: &str, slug: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Deleted the catalogue entry {}.", output::clean(slug)))
}

/// The members of the output, in the order of [`to_json`].
pub(super) const MEMBERS: &[&str] = &[
    "id",
    "slug",
    "name",
    "description",
    "categories",
    "license",
    "documentation_url",
    "state",
    "versions",
    "deployments",
    "created_at",
    "updated_at",
];

fn to_json(entry: &CatalogEntry) -> anyhow::Result<Value> {
    let versions = entry.versions.iter().map(version_to_json).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(json!({
        "id": entry.id,
        "slug": entry.slug,
        "name": entry.name,
        "description": entry.description,
        "categories": entry.categories,
        "license": entry.license,
        "documentation_url": entry.documentation_url,
        "state": entry.state.as_str(),
        "versions": versions,
        "deployments": entry.deployments,
        "created_at": entry.created_at.rfc3339(),
        "updated_at": entry.updated_at.rfc3339(),
    }))
}

/// Returns a version with the same members as in the API.
fn version_to_json(version: &CatalogVersion) -> anyhow::Result<Value> {
    let mut members = Map::new();
    members.insert("id".to_owned(), json!(version.id));
    members.insert("version".to_owned(), json!(version.version));
    if let Value::Object(definition) = serde_json::to_value(&version.definition)? {
        members.extend(definition);
    }
    members.insert("created_at".to_owned(), json!(version.created_at.rfc3339()));
    Ok(Value::Object(members))
}
