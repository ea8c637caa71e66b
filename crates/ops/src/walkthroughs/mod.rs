//! Authoring of walkthroughs. This module edits walkthroughs without their steps; [`draft`] edits steps, [`publish`]
//! versions and states, and [`import`] and [`export`] handle files.
//!
//! Every edit runs in one transaction that locks the walkthrough first, so that edits of a walkthrough are serialised.
//! An edit increments `revision` if it changes anything; otherwise it writes nothing.

pub mod bulk;
pub mod draft;
pub mod export;
pub mod impact;
pub mod import;
mod list;
pub mod preview;
pub mod publish;
pub mod revisions;
pub mod trash;
mod validate;
pub mod versions;

use serde_json::{Map, Value, json};
use waypost_content::transfer::identity::title_key;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, StepId, WalkthroughId};
use waypost_core::revision::StepRevisionOperation;
use waypost_core::slug::{self, MAX_WALKTHROUGH_SLUG};
use waypost_core::step::{MAX_TITLE_CHARS, Step, StepContent};
use waypost_core::walkthrough::{MAX_WALKTHROUGHS, Walkthrough, WalkthroughFields, WalkthroughState, WalkthroughType};
use waypost_core::{Code, Error, Result, chain};
use waypost_store::{Conn, Tx, step, walkthrough};

use crate::Ops;
use crate::audit::{Entry, record, record_edit};

pub use self::list::{ListedWalkthrough, WalkthroughListQuery, WalkthroughPage, describe, list};
pub use self::trash::delete;

/// The walkthrough that an operation changes.
#[derive(Debug, Clone, Copy)]
pub struct EditTarget<'a> {
    /// The organisation that owns the walkthrough.
    pub organization_id: &'a OrganizationId,
    /// The walkthrough.
    pub walkthrough_id: &'a WalkthroughId,
    /// The revision on which the edit is based. The operation is rejected if it is not the current one. `None` skips
    /// the check.
    pub revision: Option<u32>,
}

/// A walkthrough's draft.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The walkthrough without its steps.
    pub walkthrough: Walkthrough,
    /// The steps in order.
    pub steps: Vec<Step>,
}

/// A walkthrough to create.
#[derive(Debug, Clone)]
pub struct NewWalkthrough {
    /// The fields that the author sets.
    pub fields: WalkthroughFields,
    /// The slug. `None` derives it from the title.
    pub slug: Option<String>,
}

/// Changes to the fields of a walkthrough. Fields that are `None` stay unchanged.
#[derive(Debug, Clone, Default)]
pub struct WalkthroughPatch {
    /// The title. A new title does not change the slug.
    pub title: Option<String>,
    /// The slug.
    pub slug: Option<String>,
    /// The description.
    pub description: Option<String>,
    /// The type.
    pub kind: Option<WalkthroughType>,
    /// The estimated duration in minutes. `Some(None)` clears it.
    pub estimated_duration_minutes: Option<Option<u32>>,
    /// The tags.
    pub tags: Option<Vec<String>>,
    /// Free-form metadata.
    pub metadata: Option<Map<String, Value>>,
}

/// Creates a walkthrough without steps.
///
/// # Errors
/// `invalid_arguments`, naming the field; `conflict` if the title or the slug is taken, or if the organisation has
/// 20,000 walkthroughs.
pub async fn create(cx: &Ctx, ops: &Ops, organization: &OrganizationId, new: NewWalkthrough) -> Result<Walkthrough> {
    authorize(&cx.caller, Operation::WalkthroughWrite, organization)?;
    let fields = validate::check_fields(new.fields, &validate::argument_error)?;
    let mut tx = ops.store.begin().await?;
    lock_names(&mut tx, organization).await?;
    let walkthrough = insert(cx, &mut tx, organization, fields, new.slug).await?;
    record_operation(cx, &mut tx, &walkthrough, "walkthrough.create", json!({ "title": walkthrough.title })).await?;
    tx.commit().await?;
    Ok(walkthrough)
}

/// Creates a walkthrough with steps, in one transaction.
///
/// # Errors
/// The same as for [`create`]; `invalid_arguments`, naming the field of a step.
pub async fn create_with_steps(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    new: NewWalkthrough,
    steps: Vec<StepContent>,
) -> Result<Walkthrough> {
    authorize(&cx.caller, Operation::WalkthroughWrite, organization)?;
    let fields = validate::check_fields(new.fields, &validate::argument_error)?;
    let steps = steps
        .into_iter()
        .map(|step| validate::check_step(step, &validate::argument_error))
        .collect::<Result<Vec<_>>>()?;
    let mut tx = ops.store.begin().await?;
    lock_names(&mut tx, organization).await?;
    let mut walkthrough = insert(cx, &mut tx, organization, fields, new.slug).await?;
    insert_steps(cx, &mut tx, &mut walkthrough, steps.into_iter().map(|content| (None, content))).await?;
    record_operation(cx, &mut tx, &walkthrough, "walkthrough.create", json!({ "title": walkthrough.title })).await?;
    tx.commit().await?;
    Ok(walkthrough)
}

/// Creates a copy of a walkthrough's draft. The copy is a draft, has its own steps and is assigned to no server.
///
/// # Errors
/// The same as for [`create`]; `not_found`.
pub async fn duplicate(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &WalkthroughId,
    title: Option<String>,
) -> Result<Walkthrough> {
    authorize(&cx.caller, Operation::WalkthroughWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    lock_names(&mut tx, organization).await?;
    let walkthrough = walkthrough::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let draft = load_draft(&mut tx, walkthrough).await?;
    let title = match title {
        Some(title) => title,
        None => find_free_title(&mut tx, organization, &draft.walkthrough.title, "copy").await?,
    };
    let fields =
        validate::check_fields(WalkthroughFields { title, ..draft.walkthrough.fields() }, &validate::argument_error)?;
    let mut copy = insert(cx, &mut tx, organization, fields, None).await?;
    insert_steps(cx, &mut tx, &mut copy, draft.steps.into_iter().map(|step| (step.key, step.content))).await?;
    let detail = json!({ "title": copy.title, "from": id });
    record_operation(cx, &mut tx, &copy, "walkthrough.duplicate", detail).await?;
    tx.commit().await?;
    Ok(copy)
}

/// Returns `title` followed by `word` in parentheses, numbered if necessary so that no other walkthrough has the same
/// title.
async fn find_free_title(tx: &mut Tx, organization: &OrganizationId, title: &str, word: &str) -> Result<String> {
    let short: String = title.chars().take(MAX_TITLE_CHARS - word.len() - 8).collect();
    for number in 1..=999 {
        let candidate = if number == 1 { format!("{short} ({word})") } else { format!("{short} ({word} {number})") };
        if walkthrough::find_by_title(tx, organization, &title_key(&candidate)).await?.is_none() {
            return Ok(candidate);
        }
    }
    Err(Error::new(Code::Conflict, "There are too many copies with this title. Choose another title.")
        .with("field", "title"))
}

/// Inserts the steps of a new walkthrough. `contents` contains their keys and contents, in order.
async fn insert_steps(
    cx: &Ctx,
    tx: &mut Tx,
    walkthrough: &mut Walkthrough,
    contents: impl IntoIterator<Item = (Option<String>, StepContent)>,
) -> Result<()> {
    let steps = (0..).zip(contents).map(|(ordinal, (key, content))| Step {
        id: StepId::new(&*cx.random),
        ordinal,
        key,
        next_step_id: None,
        content,
    });
    let mut steps: Vec<_> = steps.collect();
    if steps.is_empty() {
        return Ok(());
    }
    for index in 1..steps.len() {
        steps[index - 1].next_step_id = Some(steps[index].id.clone());
    }
    revisions::insert(cx, tx, walkthrough, StepRevisionOperation::Add, &steps.iter().collect::<Vec<_>>()).await?;
    walkthrough.first_step_id = steps.first().map(|step| step.id.clone());
    walkthrough.next_ordinal = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    walkthrough::update(tx, walkthrough, &title_key(&walkthrough.title)).await?;
    Ok(())
}

/// Returns a walkthrough without its steps.
///
/// # Errors
/// `not_found`.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &WalkthroughId) -> Result<Walkthrough> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let mut conn = ops.store.read().await?;
    walkthrough::find(&mut conn, organization, id).await?.ok_or_else(not_found)
}

/// Returns the draft of a walkthrough.
///
/// # Errors
/// `not_found`; `conflict` if the chain of steps is broken, naming the step.
pub async fn get_draft(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &WalkthroughId) -> Result<Draft> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let mut tx = ops.store.snapshot().await?;
    let walkthrough = walkthrough::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    load_draft(&mut tx, walkthrough).await
}

/// Returns the draft of the walkthrough with this slug.
///
/// # Errors
/// The same as for [`get_draft`].
pub async fn get_draft_by_slug(cx: &Ctx, ops: &Ops, organization: &OrganizationId, slug: &str) -> Result<Draft> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let mut tx = ops.store.snapshot().await?;
    let walkthrough = walkthrough::find_by_slug(&mut tx, organization, slug).await?.ok_or_else(not_found)?;
    load_draft(&mut tx, walkthrough).await
}

/// Changes the fields of a walkthrough. A new title does not change the slug.
///
/// # Errors
/// The same as for [`create`]; `precondition_failed` if the draft has changed since `target.revision`.
pub async fn update(cx: &Ctx, ops: &Ops, target: EditTarget<'_>, change: WalkthroughPatch) -> Result<Walkthrough> {
    authorize(&cx.caller, Operation::WalkthroughWrite, target.organization_id)?;
    let mut tx = ops.store.begin().await?;
    if change.title.is_some() || change.slug.is_some() {
        lock_names(&mut tx, target.organization_id).await?;
    }
    let before = lock_walkthrough(&mut tx, target).await?;
    let mut walkthrough = before.clone();
    let fields = before.fields();
    walkthrough.set_fields(validate::check_fields(
        WalkthroughFields {
            title: change.title.unwrap_or(fields.title),
            description: change.description.unwrap_or(fields.description),
            kind: change.kind.unwrap_or(fields.kind),
            estimated_duration_minutes: change.estimated_duration_minutes.unwrap_or(fields.estimated_duration_minutes),
            tags: change.tags.unwrap_or(fields.tags),
            metadata: change.metadata.unwrap_or(fields.metadata),
        },
        &validate::argument_error,
    )?);
    if let Some(slug) = change.slug.filter(|slug| *slug != before.slug) {
        check_slug(&slug)?;
        check_slug_is_free(&mut tx, target.organization_id, &slug).await?;
        walkthrough.slug = slug;
    }
    if walkthrough == before {
        return Ok(before);
    }
    check_title_is_free(&mut tx, &walkthrough).await?;
    // A new slug takes effect immediately; the rest of a draft is served only after publishing.
    if walkthrough.slug != before.slug {
        tx.bump_config_version(target.organization_id).await?;
    }
    save_edit(cx, &mut tx, &mut walkthrough).await?;
    let detail = json!({ "revision": walkthrough.revision, "title": walkthrough.title, "slug": walkthrough.slug });
    if walkthrough.slug == before.slug {
        record_edit_session(cx, &mut tx, &walkthrough, "walkthrough.update", walkthrough.id.as_str(), detail).await?;
    } else {
        record_operation(cx, &mut tx, &walkthrough, "walkthrough.update", detail).await?;
    }
    tx.commit().await?;
    Ok(walkthrough)
}

fn not_found() -> Error {
    Error::not_found("walkthrough")
}

/// Returns the draft of `walkthrough`: its steps in order, with their contents.
async fn load_draft(conn: &mut Conn, walkthrough: Walkthrough) -> Result<Draft> {
    let steps = step::list(conn, &walkthrough.organization_id, &walkthrough.id).await?;
    let steps = chain::order(walkthrough.first_step_id.as_ref(), steps)?;
    Ok(Draft { walkthrough, steps })
}

/// Locks the walkthrough of `target` for an edit and checks `target.revision`.
async fn lock_walkthrough(tx: &mut Tx, target: EditTarget<'_>) -> Result<Walkthrough> {
    let walkthrough = walkthrough::find_for_update(tx, target.organization_id, target.walkthrough_id).await?;
    let walkthrough = walkthrough.ok_or_else(not_found)?;
    match target.revision {
        Some(seen) if seen != walkthrough.revision => {
            let message = format!(
                "The walkthrough has changed: it is at revision {}, your copy is at revision {seen}. Reload it and try \
                 again.",
                walkthrough.revision
            );
            Err(Error::new(Code::PreconditionFailed, message).with("revision", walkthrough.revision))
        }
        _ => Ok(walkthrough),
    }
}

/// Increments the revision of a walkthrough after an edit of the draft, and writes the walkthrough.
async fn save_edit(cx: &Ctx, tx: &mut Tx, walkthrough: &mut Walkthrough) -> Result<()> {
    walkthrough.revision += 1;
    save(cx, tx, walkthrough).await
}

/// Writes a walkthrough without incrementing its revision.
async fn save(cx: &Ctx, tx: &mut Tx, walkthrough: &mut Walkthrough) -> Result<()> {
    walkthrough.updated_at = cx.now();
    walkthrough::update(tx, walkthrough, &title_key(&walkthrough.title)).await?;
    Ok(())
}

/// Records an operation on the walkthrough in the audit log.
async fn record_operation(
    cx: &Ctx,
    tx: &mut Tx,
    walkthrough: &Walkthrough,
    action: &'static str,
    detail: Value,
) -> Result<()> {
    record(cx, tx, &walkthrough.organization_id, Entry { action, target: walkthrough.id.as_str(), detail }).await
}

/// Records an edit in the audit log. Edits of `edited` by the same user in one editing session share an entry.
async fn record_edit_session(
    cx: &Ctx,
    tx: &mut Tx,
    walkthrough: &Walkthrough,
    action: &'static str,
    edited: &str,
    detail: Value,
) -> Result<()> {
    record_edit(
        cx,
        tx,
        &walkthrough.organization_id,
        &walkthrough.id,
        edited,
        Entry { action, target: walkthrough.id.as_str(), detail },
    )
    .await
}

/// Locks the titles and slugs of an organisation. Must be called before a walkthrough is locked, so that two operations
/// cannot deadlock.
async fn lock_names(tx: &mut Tx, organization: &OrganizationId) -> Result<()> {
    if walkthrough::lock_names(tx, organization).await? { Ok(()) } else { Err(Error::not_found("organisation")) }
}

/// Inserts a new walkthrough. Must be called with the names locked.
async fn insert(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    fields: WalkthroughFields,
    slug: Option<String>,
) -> Result<Walkthrough> {
    if walkthrough::count(tx, organization).await? >= i64::try_from(MAX_WALKTHROUGHS).unwrap_or(i64::MAX) {
        let message = format!(
            "An organisation can have at most {MAX_WALKTHROUGHS} walkthroughs, including those in the trash. \
             Delete one permanently first."
        );
        return Err(Error::new(Code::Conflict, message));
    }
    let slug = match slug {
        Some(slug) => {
            check_slug(&slug)?;
            check_slug_is_free(tx, organization, &slug).await?;
            slug
        }
        None => find_free_slug(tx, organization, &fields.title).await?,
    };
    let now = cx.now();
    let walkthrough = Walkthrough {
        id: WalkthroughId::new(&*cx.random),
        organization_id: organization.clone(),
        title: fields.title,
        slug,
        description: fields.description,
        kind: fields.kind,
        state: WalkthroughState::Draft,
        estimated_duration_minutes: fields.estimated_duration_minutes,
        tags: fields.tags,
        metadata: fields.metadata,
        first_step_id: None,
        current_version_id: None,
        revision: 1,
        published_revision: None,
        next_ordinal: 0,
        created_at: now,
        updated_at: now,
    };
    check_title_is_free(tx, &walkthrough).await?;
    walkthrough::insert(tx, &walkthrough, &title_key(&walkthrough.title)).await?;
    Ok(walkthrough)
}

/// Fails with `conflict` if another walkthrough has the title of `walkthrough`.
async fn check_title_is_free(tx: &mut Tx, walkthrough: &Walkthrough) -> Result<()> {
    match walkthrough::find_by_title(tx, &walkthrough.organization_id, &title_key(&walkthrough.title)).await? {
        Some(other) if other.id != walkthrough.id => {
            let message = format!("The walkthrough {} already has the title \"{}\".", other.id, other.title);
            Err(Error::new(Code::Conflict, message).with("field", "title").with("walkthrough_id", other.id.as_str()))
        }
        _ => Ok(()),
    }
}

async fn check_slug_is_free(tx: &mut Tx, organization: &OrganizationId, slug: &str) -> Result<()> {
    match walkthrough::find_by_slug(tx, organization, slug).await? {
        Some(other) => {
            let message = format!("The walkthrough {} (\"{}\") already has the slug `{slug}`.", other.id, other.title);
            Err(Error::new(Code::Conflict, message).with("field", "slug").with("walkthrough_id", other.id.as_str()))
        }
        None => Ok(()),
    }
}

/// Returns a slug for the title that no other walkthrough has.
async fn find_free_slug(tx: &mut Tx, organization: &OrganizationId, title: &str) -> Result<String> {
    let base = waypost_content::slug::from_title(title);
    if walkthrough::find_by_slug(tx, organization, &base).await?.is_none() {
        return Ok(base);
    }
    // A numbered slug may be shortened at a word boundary, so only its first word is certain to remain.
    let first_word = base.split('-').next().unwrap_or(&base);
    let first_word = &first_word[..first_word.len().min(MAX_WALKTHROUGH_SLUG / 2)];
    let taken = walkthrough::list_slugs_with_prefix(tx, organization, first_word).await?;
    let taken: std::collections::HashSet<_> = taken.iter().map(String::as_str).collect();
    Ok(slug::make_unique(&base, |slug| taken.contains(slug)))
}

/// Checks the syntax of a slug, which is used as a prompt name and in URLs.
fn check_slug(slug: &str) -> Result<()> {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = slug.as_bytes();
    let is_valid = (1..=MAX_WALKTHROUGH_SLUG).contains(&bytes.len())
        && bytes.iter().all(|&byte| is_alphanumeric(byte) || byte == b'-')
        && bytes.first().is_some_and(|&byte| is_alphanumeric(byte))
        && bytes.last().is_some_and(|&byte| is_alphanumeric(byte));
    if is_valid {
        return Ok(());
    }
    let message = format!(
        "`slug` must have 1 to {MAX_WALKTHROUGH_SLUG} characters, contain only lowercase letters from a to z, digits \
         and `-`, and begin and end with a letter or a digit."
    );
    Err(Error::invalid("slug", message))
}
