//! Import of a file into a draft, in one transaction.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use serde_json::json;
use waypost_content::clean;
use waypost_content::transfer::file::{ImportStep, WalkthroughFile};
use waypost_content::transfer::identity::title_key;
use waypost_content::transfer::lint::{self, Finding};
use waypost_content::transfer::plan::{self, ImportPlan, StepChange};
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::chain::LinkUpdate;
use waypost_core::id::{OrganizationId, ServerId, StepId, WalkthroughId};
use waypost_core::revision::StepRevisionOperation;
use waypost_core::step::Step;
use waypost_core::{Code, Error, Result};
use waypost_store::{Tx, assignment, step, system, trash, walkthrough};

use super::publish::publish_in;
use super::{
    Draft, check_title_is_free, load_draft, lock_names, not_found, record_operation, revisions, save_edit, validate,
};
use crate::Ops;
use crate::assignments::{self, AssignmentPatch};

/// The maximum number of warnings about fields that are changed when they are served.
const MAX_CHANGE_WARNINGS: usize = 20;

/// The options of an import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The walkthrough to update. `None` finds it by its title.
    pub id: Option<WalkthroughId>,
    /// Overrides the title of the file.
    pub title: Option<String>,
    /// Assigns the walkthrough to the server with this slug, after the existing assignments. An existing assignment of
    /// the walkthrough stays unchanged.
    pub server: Option<String>,
    /// Publishes the draft afterwards.
    pub publish: bool,
    /// Publishes even if code contains bidirectional control characters. The code is served without them.
    pub confirm_bidi: bool,
    /// Accepts a file that matches less than half of the existing steps.
    pub replace: bool,
    /// Returns the report without changing anything.
    pub dry_run: bool,
}

/// The change that an import makes to a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImportedStep {
    /// `added`, `updated`, `moved`, `unchanged` or `removed`.
    pub change: &'static str,
    /// The step's title.
    pub title: String,
    /// The changed fields.
    pub fields: Vec<&'static str>,
}

fn list_imported_steps(plan: &ImportPlan) -> Vec<ImportedStep> {
    let kept = plan.steps.iter().map(|step| {
        let (change, fields) = match &step.change {
            StepChange::Unchanged => ("unchanged", Vec::new()),
            StepChange::Moved => ("moved", Vec::new()),
            StepChange::Updated { fields, .. } => ("updated", fields.clone()),
            StepChange::Added => ("added", Vec::new()),
        };
        ImportedStep { change, title: step.content.title.clone(), fields }
    });
    let removed = plan.removed.iter().map(|(_, title)| ImportedStep {
        change: "removed",
        title: title.clone(),
        fields: Vec::new(),
    });
    kept.chain(removed).collect()
}

/// The result of an import or of a dry run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImportReport {
    /// The walkthrough. `None` if a dry run would create it.
    pub id: Option<WalkthroughId>,
    /// Its slug.
    pub slug: String,
    /// Its title.
    pub title: String,
    /// Whether the walkthrough is new.
    pub created: bool,
    /// Whether the draft changed.
    pub changed: bool,
    /// The draft's revision.
    pub revision: u32,
    /// A one-line summary of the changes to the steps.
    pub summary: String,
    /// The changes to the steps, in order, followed by the removed steps.
    pub steps: Vec<ImportedStep>,
    /// The changes to the steps as text, one per line, with the summary.
    pub plan: String,
    /// The published version. `None` if the import did not publish.
    pub published_version: Option<u32>,
    /// Whether that version is new.
    pub published_new: bool,
    /// Whether the import assigned the walkthrough to the server. `false` if it was already assigned or no server was
    /// given.
    pub assigned: bool,
    /// Warnings that do not prevent the import.
    pub warnings: Vec<String>,
    /// Whether this is the report of a dry run.
    pub dry_run: bool,
}

/// Creates or updates a draft from a file. Publishes and assigns the walkthrough if `options` request it.
///
/// Importing the same file again changes nothing. Steps keep their IDs, and with them the end users' progress.
///
/// # Errors
/// The errors of creating, editing and publishing a walkthrough, naming the file, the step and the field;
/// `confirmation_required` if the file matches less than half of the existing steps; `not_found` for an unknown ID or
/// server. After an error nothing is written.
pub async fn import(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    file: WalkthroughFile,
    options: ImportOptions,
) -> Result<ImportReport> {
    authorize(&cx.caller, Operation::WalkthroughWrite, organization)?;
    if options.server.is_some() {
        authorize(&cx.caller, Operation::AssignmentWrite, organization)?;
    }
    let name = file.name.clone();
    let (steps, warnings) = check_steps(&file)?;
    let mut tx = ops.store.begin().await?;
    lock_names(&mut tx, organization).await?;
    let mut report =
        run(cx, &mut tx, organization, file, steps, &options).await.map_err(|error| add_file_name(error, &name))?;
    report.warnings = warnings;
    // A dry run executes everything and drops the transaction, which rolls it back, so that its report is exact.
    if options.dry_run {
        report.id = report.id.filter(|_| !report.created);
    } else {
        tx.commit().await?;
    }
    Ok(report)
}

/// Returns the findings about a file without importing it, including text that would be served differently.
///
/// # Errors
/// `invalid_arguments` if a field exceeds a limit, naming the file, the step and the field.
pub fn lint_file(file: &WalkthroughFile) -> Result<Vec<Finding>> {
    let (steps, _) = check_steps(file)?;
    let kind = file.kind.unwrap_or(file.default_kind);
    let (title, description) = (file.title.as_deref(), file.description.as_deref());
    let tags = file.tags.as_deref().unwrap_or_default();
    let mut findings = lint::lint_fields(title.unwrap_or_default(), description.unwrap_or_default(), tags);
    findings.extend(lint::lint(kind, steps.iter().map(|step| &step.content)));
    Ok(findings)
}

/// Adds the file's name to an error that does not name it yet.
fn add_file_name(mut error: Error, name: &str) -> Error {
    let is_author_error = !matches!(error.code, Code::Internal | Code::Unavailable | Code::Forbidden);
    if is_author_error && !error.details.contains_key("file") {
        error.message = format!("{name}: {}", error.message);
        error = error.with("file", name);
    }
    error
}

/// Returns the steps as they are stored, and the file's warnings with those about text that is served differently.
fn check_steps(file: &WalkthroughFile) -> Result<(Vec<ImportStep>, Vec<String>)> {
    let mut warnings = file.warnings.clone();
    let mut steps = Vec::with_capacity(file.steps.len());
    let mut more = 0;
    for (number, step) in (1..).zip(&file.steps) {
        let content = validate::check_step(step.content.clone(), &|field, problem| step.source.reject(field, problem))?;
        for change in clean::changes(&content, &clean::step(&content)) {
            if warnings.len() - file.warnings.len() >= MAX_CHANGE_WARNINGS {
                more += 1;
                continue;
            }
            let label = step.source.step_label().map_or_else(|| format!("step {number}"), str::to_owned);
            warnings.push(format!("{}: {label}, `{}` {change}", file.name, change.field));
        }
        steps.push(ImportStep { content, ..step.clone() });
    }
    if more > 0 {
        warnings.push(format!(
            "{}: {more} more fields are changed when they are served. `lint` lists all of them.",
            file.name
        ));
    }
    Ok((steps, warnings))
}

async fn run(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    file: WalkthroughFile,
    steps: Vec<ImportStep>,
    options: &ImportOptions,
) -> Result<ImportReport> {
    let server = find_server(tx, organization, options.server.as_deref()).await?;
    let existing = find_draft(tx, organization, &file, options).await?;
    let before = existing.as_ref().map(|draft| draft.walkthrough.fields());
    let reject = |field: &str, problem: &str| file.source().reject(field, problem);
    let fields = validate::check_fields(file.fields(options.title.as_deref(), before.as_ref())?, &reject)?;
    let plan = plan::plan(before.as_ref().zip(existing.as_ref().map(|draft| &draft.steps[..])), &fields, steps);
    if plan.needs_replace() && !options.replace {
        return Err(replace_required(&plan));
    }
    let created = existing.is_none();
    let mut draft = match existing {
        Some(draft) => draft,
        None => {
            let walkthrough = super::insert(cx, tx, organization, fields.clone(), None).await?;
            Draft { walkthrough, steps: Vec::new() }
        }
    };
    let changed = created || !plan.is_unchanged();
    if changed {
        draft.walkthrough.set_fields(fields);
        check_title_is_free(tx, &draft.walkthrough).await?;
        draft = apply(cx, tx, draft, &plan).await?;
        // A new walkthrough has revision 1 with all its steps.
        if created {
            draft.walkthrough.revision = 0;
        }
        save_edit(cx, tx, &mut draft.walkthrough).await?;
        let detail = json!({ "file": file.name, "created": created, "summary": plan.summary() });
        record_operation(cx, tx, &draft.walkthrough, "walkthrough.import", detail).await?;
    }
    let walkthrough = draft.walkthrough.clone();
    let published = if options.publish { Some(publish_in(cx, tx, draft, options.confirm_bidi).await?) } else { None };
    let assigned = match server {
        Some(server) => assign(cx, tx, organization, &server, &walkthrough.id).await?,
        None => false,
    };
    Ok(ImportReport {
        id: Some(walkthrough.id),
        slug: walkthrough.slug,
        title: walkthrough.title,
        created,
        changed,
        revision: walkthrough.revision,
        summary: plan.summary(),
        steps: list_imported_steps(&plan),
        plan: plan.to_string(),
        published_version: published.as_ref().map(|published| published.number),
        published_new: published.is_some_and(|published| published.created),
        assigned,
        warnings: Vec::new(),
        dry_run: options.dry_run,
    })
}

fn replace_required(plan: &ImportPlan) -> Error {
    let message = format!(
        "The file has only {} of the {} steps that the walkthrough has, so it is probably another one. Pass --replace \
         to import it anyway, or give it another title.",
        plan.matched, plan.existing
    );
    Error::new(Code::ConfirmationRequired, message).with("matched", plan.matched).with("existing", plan.existing)
}

/// Locks and returns the draft to update, found by the ID in `options`, otherwise by the title. Returns `None` if
/// there is none.
async fn find_draft(
    tx: &mut Tx,
    organization: &OrganizationId,
    file: &WalkthroughFile,
    options: &ImportOptions,
) -> Result<Option<Draft>> {
    let id = match (&options.id, options.title.as_ref().or(file.title.as_ref())) {
        (Some(id), _) => Some(id.clone()),
        (None, Some(title)) => {
            let key = title_key(title);
            walkthrough::find_by_title(tx, organization, &key).await?.map(|walkthrough| walkthrough.id)
        }
        (None, None) => None,
    };
    let Some(id) = id else { return Ok(None) };
    match walkthrough::find_for_update(tx, organization, &id).await? {
        Some(walkthrough) => load_draft(tx, walkthrough).await.map(Some),
        None if trash::find_for_update(tx, organization, &id).await?.is_some() => {
            let message = "The walkthrough is in the trash. Restore it first.";
            Err(Error::new(Code::Conflict, message).with("walkthrough_id", id.as_str()))
        }
        None => Err(not_found().with("walkthrough_id", id.as_str())),
    }
}

/// Writes the planned changes to the steps. Unchanged rows are not written.
async fn apply(cx: &Ctx, tx: &mut Tx, draft: Draft, plan: &ImportPlan) -> Result<Draft> {
    let Draft { mut walkthrough, steps: chain } = draft;
    let before: HashMap<StepId, Step> = chain.iter().cloned().map(|step| (step.id.clone(), step)).collect();
    let mut steps = build_steps(cx, &mut walkthrough.next_ordinal, &before, plan);
    for index in 1..steps.len() {
        steps[index - 1].next_step_id = Some(steps[index].id.clone());
    }
    if !plan.removed.is_empty() {
        let removed: HashSet<_> = plan.removed.iter().map(|(step, _)| step).collect();
        revisions::delete(cx, tx, &walkthrough, &revisions::select(&chain, |step| removed.contains(&step.id))).await?;
    }
    let with_change = |is_match: fn(&StepChange) -> bool| {
        let pairs = steps.iter().zip(&plan.steps);
        pairs.filter(move |(_, planned)| is_match(&planned.change)).map(|(step, _)| step).collect::<Vec<_>>()
    };
    let updated = with_change(|change| matches!(change, StepChange::Updated { .. }));
    if !updated.is_empty() {
        revisions::update(cx, tx, &walkthrough, StepRevisionOperation::Import, &updated).await?;
    }
    let added = with_change(|change| *change == StepChange::Added);
    if !added.is_empty() {
        revisions::insert(cx, tx, &walkthrough, StepRevisionOperation::Import, &added).await?;
    }
    let relinked =
        steps.iter().filter(|step| before.get(&step.id).is_some_and(|old| old.next_step_id != step.next_step_id));
    let links: Vec<_> =
        relinked.map(|step| LinkUpdate { from: Some(step.id.clone()), to: step.next_step_id.clone() }).collect();
    step::relink(tx, &walkthrough.organization_id, &walkthrough.id, &links).await?;
    walkthrough.first_step_id = steps.first().map(|step| step.id.clone());
    Ok(Draft { walkthrough, steps })
}

/// Returns the planned steps, without links. Existing steps keep their ID and ordinal; new steps get the next free
/// ordinals.
fn build_steps(cx: &Ctx, next_ordinal: &mut u32, before: &HashMap<StepId, Step>, plan: &ImportPlan) -> Vec<Step> {
    let steps = plan.steps.iter().map(|planned| {
        let existing = planned.existing.as_ref().and_then(|id| before.get(id));
        let (id, ordinal) = match existing {
            Some(step) => (step.id.clone(), step.ordinal),
            None => {
                let ordinal = *next_ordinal;
                *next_ordinal += 1;
                (StepId::new(&*cx.random), ordinal)
            }
        };
        Step { id, ordinal, key: planned.key.clone(), next_step_id: None, content: planned.content.clone() }
    });
    steps.collect()
}

async fn find_server(tx: &mut Tx, organization: &OrganizationId, slug: Option<&str>) -> Result<Option<ServerId>> {
    let Some(slug) = slug else { return Ok(None) };
    match system::find_server_by_slug(tx, slug).await? {
        Some((server, _)) if server.organization_id == *organization => Ok(Some(server.id)),
        _ => {
            let message = format!("The organisation has no server `{slug}`.");
            Err(Error::new(Code::NotFound, message).with("field", "server"))
        }
    }
}

/// Assigns the walkthrough to the server, after the existing assignments. Returns `false` if it is already assigned.
async fn assign(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    server: &ServerId,
    walkthrough: &WalkthroughId,
) -> Result<bool> {
    if assignment::find_by_walkthrough(tx, organization, server, walkthrough).await?.is_some() {
        return Ok(false);
    }
    assignments::upsert(cx, tx, organization, server, walkthrough, AssignmentPatch::default()).await?;
    Ok(true)
}
