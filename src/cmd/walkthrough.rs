//! `waypost walkthrough`: authoring from files, and the life of walkthroughs.

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

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Makes or updates walkthroughs from files (JSON, Markdown, CodeTour) or folders (Markdown, Killercoda, CodeTour).
    Import(import::Args),
    /// Writes a walkthrough's draft as a file: JSON or Markdown. Importing it makes the same walkthrough.
    Export {
        #[command(flatten)]
        one: WalkthroughArg,
        /// `json` or `markdown`; by default Markdown if FILE ends in `.md`, else JSON.
        #[arg(long, value_parser = one_of(&Format::ALL, Format::as_str))]
        format: Option<Format>,
        /// Where to; standard output by default.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Checks files without importing them; needs no database.
    Lint {
        /// JSON or Markdown files, or folders.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Lists walkthroughs by title.
    List {
        #[command(flatten)]
        org: Org,
        /// Only those in this state.
        #[arg(long, value_parser = one_of(WalkthroughState::ALL, WalkthroughState::as_str))]
        state: Option<WalkthroughState>,
        /// Lists deleted walkthroughs instead, which can be restored for 30 days.
        #[arg(long, conflicts_with = "state")]
        trash: bool,
    },
    /// Shows a walkthrough with the titles of its steps.
    Show(WalkthroughArg),
    /// Changes what is named.
    Update(Box<Update>),
    /// Publishes the draft as a new version; an unchanged draft makes none.
    Publish {
        #[command(flatten)]
        one: WalkthroughArg,
        /// Publishes although code has characters that change the direction of text; it is served without them.
        #[arg(long)]
        confirm_bidi: bool,
    },
    /// Stops serving a walkthrough. Versions and progress are kept.
    Unpublish(WalkthroughArg),
    /// Lists the published versions, newest first.
    Versions(WalkthroughArg),
    /// Takes a version back: whoever is on it is moved to the newest one that is left.
    Withdraw {
        #[command(flatten)]
        one: WalkthroughArg,
        /// Number of the version.
        #[arg(long, value_name = "N")]
        version: u32,
        /// Why; users who were on it are told.
        #[arg(long)]
        reason: String,
    },
    /// Takes a walkthrough out of use. Everything is kept.
    Archive(WalkthroughArg),
    /// Takes a walkthrough out of the archive, as a draft.
    Unarchive(WalkthroughArg),
    /// Moves a walkthrough to the trash, where it can be restored for 30 days.
    Delete {
        #[command(flatten)]
        one: WalkthroughArg,
        /// Does not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Takes a walkthrough out of the trash, with its assignments and everybody's progress.
    Restore {
        /// ID of the walkthrough: `walkthrough list --trash` shows it.
        #[arg(value_name = "ID")]
        walkthrough: WalkthroughId,
        #[command(flatten)]
        org: Org,
    },
}

/// The format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The envelope of version 1.1.
    Json,
    /// WalkthroughArg Markdown file.
    Markdown,
}

impl Format {
    const ALL: [Self; 2] = [Self::Json, Self::Markdown];

    /// The name, as the API has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Markdown => "markdown",
        }
    }

    /// The format that was chosen, else the one that the name of the file asks for.
    pub(super) fn choose(chosen: Option<Self>, file: Option<&Path>) -> Self {
        let extension = file.and_then(Path::extension).and_then(|extension| extension.to_str());
        let is_markdown =
            extension.is_some_and(|it| it.eq_ignore_ascii_case("md") || it.eq_ignore_ascii_case("markdown"));
        chosen.unwrap_or(if is_markdown { Self::Markdown } else { Self::Json })
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|format| format.as_str() == text);
        found.ok_or_else(|| "it is `json` or `markdown`".to_owned())
    }
}

/// Which walkthrough.
#[derive(Debug, clap::Args)]
pub struct WalkthroughArg {
    /// Id or slug of the walkthrough.
    #[arg(value_name = "ID")]
    pub(super) walkthrough: String,
    #[command(flatten)]
    pub(super) org: Org,
}

/// Flags of `update`.
#[derive(Debug, clap::Args)]
pub struct Update {
    #[command(flatten)]
    pub(super) one: WalkthroughArg,
    /// Title; the slug stays.
    #[arg(long)]
    pub(super) title: Option<String>,
    /// Slug: the name in addresses and of the prompt.
    #[arg(long)]
    pub(super) slug: Option<String>,
    /// WalkthroughArg paragraph for a list.
    #[arg(long)]
    pub(super) description: Option<String>,
    /// What it is for.
    #[arg(long = "type", value_parser = one_of(WalkthroughType::ALL, WalkthroughType::as_str))]
    pub(super) kind: Option<WalkthroughType>,
    /// How long it takes, in minutes; 0 for unknown.
    #[arg(long, value_name = "N")]
    pub(super) minutes: Option<u32>,
    /// Labels, separated by commas, all of them.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(super) tags: Option<Vec<String>>,
}

/// Does it.
///
/// # Errors
/// When a file cannot be read or an act is refused.
pub async fn run(app: &App, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Lint { files } => import::lint(app, &files),
        Command::Import(args) => import::run(app, args).await,
        other => Session::run(app, async |session| act(session, other).await).await,
    }
}

async fn act(session: &Session, command: Command) -> anyhow::Result<()> {
    let Session { cx, ops, json, .. } = session;
    match command {
        Command::Import(_) | Command::Lint { .. } => Ok(()),
        Command::List { org, trash: true, .. } => list_trash(session, &org).await,
        Command::List { org, state, .. } => list(session, &org, state).await,
        Command::Export { one, format, output } => {
            let format = Format::choose(format, output.as_deref());
            export_to(session, &find(session, &one).await?, format, output).await
        }
        Command::Show(one) => show(session, &find(session, &one).await?).await,
        Command::Update(update) => change(session, *update).await,
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
            output::list(*json, VERSION_MEMBERS, versions.iter().map(version_shape).collect())
        }
        Command::Withdraw { one, version, reason } => {
            let head = find(session, &one).await?;
            let changed = publish::withdraw(cx, ops, target(&head), version, &reason).await?;
            output::object(*json, &shape(&changed))
        }
        Command::Unpublish(one) => {
            let head = find(session, &one).await?;
            output::object(*json, &shape(&publish::unpublish(cx, ops, target(&head)).await?))
        }
        Command::Archive(one) => {
            let head = find(session, &one).await?;
            output::object(*json, &shape(&publish::archive(cx, ops, target(&head)).await?))
        }
        Command::Unarchive(one) => {
            let head = find(session, &one).await?;
            output::object(*json, &shape(&publish::unarchive(cx, ops, target(&head)).await?))
        }
        Command::Delete { one, yes } => {
            let head = find(session, &one).await?;
            confirm_deletion(yes, &head.title)?;
            walkthroughs::delete(cx, ops, target(&head)).await?;
            deleted(*json, head.id.as_str(), &head.title)
        }
        Command::Restore { walkthrough, org } => {
            let organization = session.organization(org.org.as_deref()).await?.id;
            output::object(*json, &shape(&trash::restore(cx, ops, &organization, &walkthrough).await?))
        }
    }
}

/// Whatever revision is there: a command has shown none to its user.
fn target(head: &Walkthrough) -> EditTarget<'_> {
    EditTarget { organization_id: &head.organization_id, walkthrough_id: &head.id, revision: None }
}

async fn list(session: &Session, org: &Org, state: Option<WalkthroughState>) -> anyhow::Result<()> {
    let organization = session.organization(org.org.as_deref()).await?.id;
    let (mut items, mut cursor) = (Vec::new(), None);
    loop {
        let wanted = WalkthroughListQuery { state, limit: Some(200), cursor, ..WalkthroughListQuery::default() };
        let page = walkthroughs::list(&session.cx, &session.ops, &organization, wanted).await?;
        items.extend(page.items.iter().map(|row| shape(&row.walkthrough)));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return print_list(session.json, items);
        }
    }
}

async fn list_trash(session: &Session, org: &Org) -> anyhow::Result<()> {
    let organization = session.organization(org.org.as_deref()).await?.id;
    let items = trash::list_deleted(&session.cx, &session.ops, &organization).await?;
    let row = |it: &trash::TrashedWalkthrough| {
        json!({
            "id": it.walkthrough.id,
            "slug": it.walkthrough.slug,
            "title": it.walkthrough.title,
            "type": it.walkthrough.kind.as_str(),
            "state": it.walkthrough.state.as_str(),
            "deleted_at": it.deleted_at.rfc3339(),
            "purged_at": it.purged_at.rfc3339(),
        })
    };
    output::list(session.json, TRASH_MEMBERS, items.iter().map(row).collect())
}

async fn export_to(session: &Session, head: &Walkthrough, format: Format, file: Option<PathBuf>) -> anyhow::Result<()> {
    let (cx, ops, organization) = (&session.cx, &session.ops, &head.organization_id);
    let text = match format {
        Format::Json => format!("{:#}\n", export::export(cx, ops, organization, &head.id).await?),
        Format::Markdown => export::export_as_markdown(cx, ops, organization, &head.id).await?,
    };
    write_export(session.json, file, &text, (head.id.as_str(), &head.title))
}

/// Writes an export where it is wanted, and says so when that is a file.
pub(super) fn write_export(
    json: bool,
    file: Option<PathBuf>,
    text: &str,
    (id, title): (&str, &str),
) -> anyhow::Result<()> {
    let Some(file) = file else { return output::file(text) };
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let file = file.display().to_string();
    if json {
        return output::json(&json!({"id": id, "file": file}));
    }
    output::text(&format!("Wrote {} to {file}.\n", output::clean(title)))
}

/// Prints the result of publishing; for a walkthrough that is on no server (`unassigned` is its slug) also how to assign it.
pub(super) fn print_published(
    json: bool,
    published: &Value,
    title: &str,
    unassigned: Option<&str>,
) -> anyhow::Result<()> {
    if json {
        return output::json(published);
    }
    let news = if published["created"] == true { "Published" } else { "Nothing has changed since" };
    output::text(&format!("{news} version {} of {}.\n", published["number"], output::clean(title)))?;
    let Some(slug) = unassigned else { return Ok(()) };
    output::text(&format!(
        "It is not on any server yet. Assign it: waypost assignment add --server SLUG --walkthrough {}\n",
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

pub(super) fn deleted(json: bool, id: &str, title: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Moved {} to the trash, where it is kept for 30 days.", output::clean(title)))
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
    print_draft(session.json, shape(&draft.walkthrough), steps)
}

/// Shows a walkthrough with the titles of its steps.
pub(super) fn print_draft(json: bool, mut value: Value, steps: Vec<Value>) -> anyhow::Result<()> {
    if json {
        value["steps"] = Value::Array(steps);
        return output::json(&value);
    }
    output::object(false, &value)?;
    output::text("\n")?;
    output::list(false, &["position", "id", "section_title", "title"], steps)
}

async fn change(session: &Session, update: Update) -> anyhow::Result<()> {
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
    let changed = walkthroughs::update(&session.cx, &session.ops, target(&head), change).await?;
    output::object(session.json, &shape(&changed))
}

/// The walkthrough, by id wherever it is, or by slug in the organisation.
async fn find(session: &Session, one: &WalkthroughArg) -> anyhow::Result<Walkthrough> {
    let text = &one.walkthrough;
    let named = one.org.org.as_deref();
    // A slug is only unique within an organisation; an id needs none.
    let candidates = if text.parse::<WalkthroughId>().is_ok() {
        session.candidates(named).await?
    } else {
        vec![session.organization(named).await?.id]
    };
    for organization in &candidates {
        if let Some(found) = look_up(session, organization, text).await? {
            return Ok(found);
        }
    }
    bail!("there is no walkthrough `{}`: `waypost walkthrough list` shows them", output::clean(text))
}

/// The walkthrough by id or slug, in one organisation.
pub(super) async fn find_in(
    session: &Session,
    organization: &OrganizationId,
    text: &str,
) -> anyhow::Result<Walkthrough> {
    look_up(session, organization, text).await?.with_context(|| {
        let text = output::clean(text);
        format!("there is no walkthrough `{text}` in the server's organisation: `waypost walkthrough list` shows them")
    })
}

async fn look_up(session: &Session, organization: &OrganizationId, text: &str) -> anyhow::Result<Option<Walkthrough>> {
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

/// What is shown of one, as [`shape`] writes it.
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
/// The members of a deleted walkthrough in a list.
pub(super) const TRASH_MEMBERS: &[&str] = &["id", "slug", "title", "type", "state", "deleted_at", "purged_at"];
/// What is shown of a step, in `show`.
pub(super) const STEP_MEMBERS: &[&str] = &["position", "id", "title", "section_title"];
/// What is shown of a version, as [`version_shape`] writes it.
pub(super) const VERSION_MEMBERS: &[&str] =
    &["number", "id", "title", "step_count", "created_at", "withdrawn_at", "withdrawn_reason"];

fn shape(head: &Walkthrough) -> Value {
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

fn version_shape(version: &VersionInfo) -> Value {
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
