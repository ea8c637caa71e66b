//! `waypost walkthrough`: authoring from files, and the lifecycle of walkthroughs.

pub(super) mod files;
pub(super) mod import;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use waypost_core::Code;
use waypost_core::id::{OrganizationId, WalkthroughId};
use waypost_core::version::VersionInfo;
use waypost_core::walkthrough::{Walkthrough, WalkthroughState, WalkthroughType};
use waypost_ops::assignments;
use waypost_ops::walkthroughs::{self, EditTarget, WalkthroughListQuery, WalkthroughPatch, export, publish, trash};

use super::session::{Session, one_of};
use super::user::Org;
use super::{App, output};

/// Subcommands of `waypost walkthrough`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create or update walkthroughs from files (JSON, Markdown, CodeTour) or folders (Markdown, Killercoda, CodeTour).
    Import(import::Args),
    /// Export the draft of a walkthrough as JSON or Markdown. Importing the file creates the same walkthrough.
    Export {
        #[command(flatten)]
        one: WalkthroughArg,
        /// Format [default: markdown if FILE ends in `.md`, otherwise json].
        #[arg(long, value_parser = one_of(&Format::ALL, Format::as_str))]
        format: Option<Format>,
        /// Output file [default: standard output].
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Check files without importing them. Requires no database.
    Lint {
        /// JSON, Markdown or CodeTour files, or folders.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// List walkthroughs by title.
    List {
        #[command(flatten)]
        org: Org,
        /// Show only walkthroughs in this state.
        #[arg(long, value_parser = one_of(WalkthroughState::ALL, WalkthroughState::as_str))]
        state: Option<WalkthroughState>,
        /// List deleted walkthroughs instead. They can be restored for 30 days.
        #[arg(long, conflicts_with = "state")]
        trash: bool,
    },
    /// Show a walkthrough with the titles of its steps.
    Show(WalkthroughArg),
    /// Change the given properties of a walkthrough.
    Update(Box<Update>),
    /// Publish the draft as a new version. An unchanged draft creates no version.
    Publish {
        #[command(flatten)]
        one: WalkthroughArg,
        /// Publish even if code contains characters that change the text direction. They are removed when served.
        #[arg(long)]
        confirm_bidi: bool,
    },
    /// Stop offering a walkthrough. Versions and progress are kept.
    Unpublish(WalkthroughArg),
    /// List the published versions, newest first.
    Versions(WalkthroughArg),
    /// Withdraw a version. Its users are moved to the newest remaining version.
    Withdraw {
        #[command(flatten)]
        one: WalkthroughArg,
        /// Version number.
        #[arg(long, value_name = "N")]
        version: u32,
        /// Reason, shown to the users of the version.
        #[arg(long)]
        reason: String,
    },
    /// Archive a walkthrough. All data is kept.
    Archive(WalkthroughArg),
    /// Unarchive a walkthrough, as a draft.
    Unarchive(WalkthroughArg),
    /// Move a walkthrough to the trash. It can be restored for 30 days.
    Delete {
        #[command(flatten)]
        one: WalkthroughArg,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
    /// Restore a walkthrough from the trash, with its assignments and the progress of all users.
    Restore {
        /// ID of the walkthrough, shown by `walkthrough list --trash`.
        #[arg(value_name = "ID")]
        walkthrough: WalkthroughId,
        #[command(flatten)]
        org: Org,
    },
}

/// The format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The JSON envelope, version 1.1.
    Json,
    /// One Markdown file.
    Markdown,
}

impl Format {
    const ALL: [Self; 2] = [Self::Json, Self::Markdown];

    /// Returns the name used by the API.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Markdown => "markdown",
        }
    }

    /// Returns the chosen format, or else the format that matches the file extension.
    pub(super) fn choose(chosen: Option<Self>, file: Option<&Path>) -> Self {
        let extension = file.and_then(Path::extension).and_then(|extension| extension.to_str());
        let is_markdown = extension.is_some_and(|extension| {
            extension.eq_ignore_ascii_case("md") || extension.eq_ignore_ascii_case("markdown")
        });
        chosen.unwrap_or(if is_markdown { Self::Markdown } else { Self::Json })
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|format| format.as_str() == text);
        found.ok_or_else(|| "expected `json` or `markdown`".to_owned())
    }
}

/// The walkthrough to work on.
#[derive(Debug, clap::Args)]
pub struct WalkthroughArg {
    /// ID or slug of the walkthrough.
    #[arg(value_name = "ID")]
    pub(super) walkthrough: String,
    #[command(flatten)]
    pub(super) org: Org,
}

/// Arguments of `waypost walkthrough update`.
#[derive(Debug, clap::Args)]
pub struct Update {
    #[command(flatten)]
    pub(super) one: WalkthroughArg,
    /// Title. The slug does not change.
    #[arg(long)]
    pub(super) title: Option<String>,
    /// Slug, used in URLs and as the prompt name.
    #[arg(long)]
    pub(super) slug: Option<String>,
    /// Description: one paragraph, shown in lists.
    #[arg(long)]
    pub(super) description: Option<String>,
    /// Type of the walkthrough.
    #[arg(long = "type", value_parser = one_of(WalkthroughType::ALL, WalkthroughType::as_str))]
    pub(super) kind: Option<WalkthroughType>,
    /// Estimated duration in minutes; 0 for unknown.
    #[arg(long, value_name = "N")]
    pub(super) minutes: Option<u32>,
    /// Comma-separated tags, which replace the existing ones.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(super) tags: Option<Vec<String>>,
}

/// Runs the command.
///
/// # Errors
/// If a file cannot be read or an operation is rejected.
pub async fn run(app: &App, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Lint { files } => import::lint(app, &files),
        Command::Import(args) => import::run(app, args).await,
        other => Session::run(app, async |session| run_in_session(session, other).await).await,
    }
}

async fn run_in_session(session: &Session, command: Command) -> anyhow::Result<()> {
    let Session { cx, ops, json, .. } = session;
    match command {
        Command::Import(_) | Command::Lint { .. } => Ok(()),
        Command::List { org, trash: true, .. } => list_trash(session, &org).await,
        Command::List { org, state, .. } => list(session, &org, state).await,
        Command::Export { one, format, output } => {
            let format = Format::choose(format, output.as_deref());
            export_walkthrough(session, &find(session, &one).await?, format, output).await
        }
        Command::Show(one) => show(session, &find(session, &one).await?).await,
        Command::Update(update) => update_walkthrough(session, *update).await,
        Command::Publish { one, confirm_bidi } => {
            let head = find(session, &one).await?;
            let published = publish::publish(cx, ops, target(&head), confirm_bidi).await?;
            let servers = assignments::list_for_walkthrough(cx, ops, &head.organization_id, &head.id).await?;
            let published = serde_json::to_value(&published)?;
            print_published(*json, &published, &head.title, servers.is_empty().then_some(head.slug.as_str()))
        }
        Command::Versions(one) => {
            let head = find(session, &one).await?;
            let versions = publish::list_versions(cx, ops, &head.organization_id, &head.id).await?;
            output::list(*json, VERSION_MEMBERS, versions.iter().map(version_to_json).collect())
        }
        Command::Withdraw { one, version, reason } => {
            let head = find(session, &one).await?;
            let updated = publish::withdraw(cx, ops, target(&head), version, &reason).await?;
            output::object(*json, &to_json(&updated))
        }
        Command::Unpublish(one) => {
            let head = find(session, &one).await?;
            output::object(*json, &to_json(&publish::unpublish(cx, ops, target(&head)).await?))
        }
        Command::Archive(one) => {
            let head = find(session, &one).await?;
            output::object(*json, &to_json(&publish::archive(cx, ops, target(&head)).await?))
        }
        Command::Unarchive(one) => {
            let head = find(session, &one).await?;
            output::object(*json, &to_json(&publish::unarchive(cx, ops, target(&head)).await?))
        }
        Command::Delete { one, yes } => {
            let head = find(session, &one).await?;
            confirm_deletion(yes, &head.title)?;
            walkthroughs::delete(cx, ops, target(&head)).await?;
            print_deleted(*json, head.id.as_str(), &head.title)
        }
        Command::Restore { walkthrough, org } => {
            let organization = session.organization(org.org.as_deref()).await?.id;
            output::object(*json, &to_json(&trash::restore(cx, ops, &organization, &walkthrough).await?))
        }
    }
}

/// Targets any revision, because commands do not show a revision that could be outdated.
fn target(head: &Walkthrough) -> EditTarget<'_> {
    EditTarget { organization_id: &head.organization_id, walkthrough_id: &head.id, revision: None }
}

async fn list(session: &Session, org: &Org, state: Option<WalkthroughState>) -> anyhow::Result<()> {
    let organization = session.organization(org.org.as_deref()).await?.id;
    let (mut items, mut cursor) = (Vec::new(), None);
    loop {
        let query = WalkthroughListQuery { state, limit: Some(200), cursor, ..WalkthroughListQuery::default() };
        let page = walkthroughs::list(&session.cx, &session.ops, &organization, query).await?;
        items.extend(page.items.iter().map(|row| to_json(&row.walkthrough)));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return print_list(session.json, items);
        }
    }
}

async fn list_trash(session: &Session, org: &Org) -> anyhow::Result<()> {
    let organization = session.organization(org.org.as_deref()).await?.id;
    let items = trash::list_deleted(&session.cx, &session.ops, &organization).await?;
    let row = |trashed: &trash::TrashedWalkthrough| {
        json!({
            "id": trashed.walkthrough.id,
            "slug": trashed.walkthrough.slug,
            "title": trashed.walkthrough.title,
            "type": trashed.walkthrough.kind.as_str(),
            "state": trashed.walkthrough.state.as_str(),
            "deleted_at": trashed.deleted_at.rfc3339(),
            "purged_at": trashed.purged_at.rfc3339(),
        })
    };
    output::list(session.json, TRASH_MEMBERS, items.iter().map(row).collect())
}

async fn export_walkthrough(
    session: &Session,
    head: &Walkthrough,
    format: Format,
    file: Option<PathBuf>,
) -> anyhow::Result<()> {
    let (cx, ops, organization) = (&session.cx, &session.ops, &head.organization_id);
    let text = match format {
        Format::Json => format!("{:#}\n", export::export(cx, ops, organization, &head.id).await?),
        Format::Markdown => export::export_as_markdown(cx, ops, organization, &head.id).await?,
    };
    write_export(session.json, file, &text, head.id.as_str(), &head.title)
}

/// Writes an export to a file, or to standard output if `file` is `None`.
pub(super) fn write_export(json: bool, file: Option<PathBuf>, text: &str, id: &str, title: &str) -> anyhow::Result<()> {
    let Some(file) = file else { return output::file(text) };
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let file = file.display().to_string();
    if json {
        return output::json(&json!({"id": id, "file": file}));
    }
    output::text(&format!("Wrote {} to {file}.\n", output::clean(title)))
}

/// Prints the result of publishing. `unassigned` is the slug of a walkthrough without assignments; the output then
/// explains how to assign it.
pub(super) fn print_published(
    json: bool,
    published: &Value,
    title: &str,
    unassigned: Option<&str>,
) -> anyhow::Result<()> {
    if json {
        return output::json(published);
    }
    let result = if published["created"] == true { "Published" } else { "No changes since" };
    output::text(&format!("{result} version {} of {}.\n", published["number"], output::clean(title)))?;
    let Some(slug) = unassigned else { return Ok(()) };
    output::text(&format!(
        "It is not assigned to a server yet. To assign it: waypost assignment add --server SLUG --walkthrough {}\n",
        output::clean(slug)
    ))
}

pub(super) fn print_list(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, &["id", "slug", "title", "type", "state", "updated_at"], items)
}

pub(super) fn confirm_deletion(yes: bool, title: &str) -> anyhow::Result<()> {
    let title = output::clean(title);
    output::confirm(yes, &format!("Move {title} to the trash? Users cannot continue it until it is restored."))
}

pub(super) fn print_deleted(json: bool, id: &str, title: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Moved {} to the trash. It can be restored for 30 days.", output::clean(title)))
}

async fn show(session: &Session, head: &Walkthrough) -> anyhow::Result<()> {
    let draft = walkthroughs::get_draft(&session.cx, &session.ops, &head.organization_id, &head.id).await?;
    let steps: Vec<_> = (1..)
        .zip(&draft.steps)
        .map(|(position, step): (u32, _)| {
            json!({
                "position": position,
                "id": step.id,
                "title": step.content.title,
                "section_title": step.content.section_title,
            })
        })
        .collect();
    print_draft(session.json, to_json(&draft.walkthrough), steps)
}

/// Prints a walkthrough with the titles of its steps.
pub(super) fn print_draft(json: bool, mut value: Value, steps: Vec<Value>) -> anyhow::Result<()> {
    if json {
        value["steps"] = Value::Array(steps);
        return output::json(&value);
    }
    output::object(false, &value)?;
    output::text("\n")?;
    output::list(false, &["position", "id", "section_title", "title"], steps)
}

async fn update_walkthrough(session: &Session, update: Update) -> anyhow::Result<()> {
    let head = find(session, &update.one).await?;
    let change = WalkthroughPatch {
        title: update.title,
        slug: update.slug,
        description: update.description,
        kind: update.kind,
        estimated_duration_minutes: update.minutes.map(|minutes| Some(minutes).filter(|minutes| *minutes > 0)),
        tags: update.tags.map(|tags| tags.into_iter().filter(|tag| !tag.trim().is_empty()).collect()),
        metadata: None,
    };
    let updated = walkthroughs::update(&session.cx, &session.ops, target(&head), change).await?;
    output::object(session.json, &to_json(&updated))
}

/// Returns a walkthrough by ID in any organisation, or by slug in the given organisation.
async fn find(session: &Session, one: &WalkthroughArg) -> anyhow::Result<Walkthrough> {
    let text = &one.walkthrough;
    let org = one.org.org.as_deref();
    // A slug is only unique within an organisation.
    let candidates = if text.parse::<WalkthroughId>().is_ok() {
        session.candidates(org).await?
    } else {
        vec![session.organization(org).await?.id]
    };
    for organization in &candidates {
        if let Some(found) = find_by_id_or_slug(session, organization, text).await? {
            return Ok(found);
        }
    }
    bail!("there is no walkthrough `{}`: run `waypost walkthrough list` to see all", output::clean(text))
}

/// Returns a walkthrough by ID or slug in one organisation.
pub(super) async fn find_in(
    session: &Session,
    organization: &OrganizationId,
    text: &str,
) -> anyhow::Result<Walkthrough> {
    find_by_id_or_slug(session, organization, text).await?.with_context(|| {
        let text = output::clean(text);
        format!(
            "there is no walkthrough `{text}` in the server's organisation: run `waypost walkthrough list` to see all"
        )
    })
}

async fn find_by_id_or_slug(
    session: &Session,
    organization: &OrganizationId,
    text: &str,
) -> anyhow::Result<Option<Walkthrough>> {
    let found = match text.parse::<WalkthroughId>() {
        Ok(id) => walkthroughs::get_draft(&session.cx, &session.ops, organization, &id).await,
        Err(_) => walkthroughs::get_draft_by_slug(&session.cx, &session.ops, organization, text).await,
    };
    match found {
        Ok(draft) => Ok(Some(draft.walkthrough)),
        Err(error) if error.code == Code::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The members of the output, in the order of [`to_json`].
pub(super) const MEMBERS: &[&str] = &[
    "id",
    "organization_id",
    "slug",
    "title",
    "description",
    "type",
    "state",
    "estimated_duration_minutes",
    "tags",
    "current_version_id",
    "revision",
    "created_at",
    "updated_at",
];
/// The members of a deleted walkthrough that are shown.
pub(super) const TRASH_MEMBERS: &[&str] = &["id", "slug", "title", "type", "state", "deleted_at", "purged_at"];
/// The members of a step that are shown.
pub(super) const STEP_MEMBERS: &[&str] = &["position", "id", "title", "section_title"];
/// The members of a version that are shown, in the order of [`version_to_json`].
pub(super) const VERSION_MEMBERS: &[&str] =
    &["number", "id", "title", "step_count", "created_at", "withdrawn_at", "withdrawn_reason"];

fn to_json(head: &Walkthrough) -> Value {
    json!({
        "id": head.id,
        "organization_id": head.organization_id,
        "slug": head.slug,
        "title": head.title,
        "description": head.description,
        "type": head.kind.as_str(),
        "state": head.state.as_str(),
        "estimated_duration_minutes": head.estimated_duration_minutes,
        "tags": head.tags,
        "current_version_id": head.current_version_id,
        "revision": head.revision,
        "created_at": head.created_at.rfc3339(),
        "updated_at": head.updated_at.rfc3339(),
    })
}

fn version_to_json(version: &VersionInfo) -> Value {
    json!({
        "number": version.number,
        "id": version.id,
        "title": version.fields.title,
        "step_count": version.step_count,
        "created_at": version.created_at.rfc3339(),
        "withdrawn_at": version.withdrawal.as_ref().map(|withdrawal| withdrawal.at.rfc3339()),
        "withdrawn_reason": version.withdrawal.as_ref().map(|withdrawal| withdrawal.reason.as_str()),
    })
}
