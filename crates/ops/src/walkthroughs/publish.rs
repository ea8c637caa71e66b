//! Publishing: immutable versions, their withdrawal, and the states draft, published and archived.

use serde::Serialize;
use serde_json::json;
use waypost_content::clean;
use waypost_content::markdown::{clean_plain, find_bidi_in_code};
use waypost_content::transfer::lint::{self, Finding, Severity};
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, VersionId, WalkthroughId};
use waypost_core::step::Step;
use waypost_core::version::{VersionInfo, Withdrawal};
use waypost_core::walkthrough::{Walkthrough, WalkthroughState};
use waypost_core::webhook::WebhookEvent;
use waypost_core::{Code, Error, Result};
use waypost_store::{Tx, version, walkthrough};

use super::{Draft, EditTarget, load_draft, lock_walkthrough, not_found, record_operation, save};
use crate::Ops;
use crate::webhooks::{Event, enqueue};

/// The maximum number of characters in the reason of a withdrawal, which is shown to the end users who are on that
/// version.
const MAX_REASON_CHARS: usize = 500;

/// The result of publishing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublishResult {
    /// The version that is now served.
    pub version_id: VersionId,
    /// Its number.
    pub number: u32,
    /// Whether the version is new. `false` if the draft has not changed since the newest version.
    pub created: bool,
}

/// Publishes the draft as a new version, which is served on every server to which the walkthrough is assigned. A draft
/// that equals the newest version creates no new one.
///
/// `confirm_bidi` publishes the draft even if code contains bidirectional control characters, which can disguise the
/// code. They are removed when the code is served, so the author may see different code than the end users.
///
/// # Errors
/// `walkthrough_empty` if there are no steps; `invalid_arguments`, naming the step and the field, if a step lacks what
/// the walkthrough's type requires, with all such findings in `details.findings`; `confirmation_required` for
/// bidirectional control characters in code; `conflict` if the walkthrough is archived; `precondition_failed` if the
/// draft has changed since `target.revision`.
pub async fn publish(cx: &Ctx, ops: &Ops, target: EditTarget<'_>, confirm_bidi: bool) -> Result<PublishResult> {
    authorize(&cx.caller, Operation::WalkthroughWrite, target.organization_id)?;
    let mut tx = ops.store.begin().await?;
    let walkthrough = lock_walkthrough(&mut tx, target).await?;
    let draft = load_draft(&mut tx, walkthrough).await?;
    let published = publish_in(cx, &mut tx, draft, confirm_bidi).await?;
    tx.commit().await?;
    Ok(published)
}

/// Does the same as [`publish`] in a transaction that holds the lock of the walkthrough.
pub(super) async fn publish_in(cx: &Ctx, tx: &mut Tx, draft: Draft, confirm_bidi: bool) -> Result<PublishResult> {
    let Draft { mut walkthrough, steps } = draft;
    if walkthrough.state == WalkthroughState::Archived {
        return Err(Error::new(Code::Conflict, "The walkthrough is archived. Unarchive it first."));
    }
    check_publishable(&walkthrough, &steps, confirm_bidi)?;
    let newest = version::find_newest(tx, &walkthrough.organization_id, &walkthrough.id).await?;
    let (version, created) = match newest {
        Some(newest) if is_unchanged(tx, &newest, &walkthrough, &steps).await? => (newest, false),
        _ => (create_version(cx, tx, &walkthrough, &steps).await?, true),
    };
    let before = (walkthrough.state, walkthrough.current_version_id.clone());
    let is_recorded = walkthrough.published_revision.replace(walkthrough.revision) == Some(walkthrough.revision);
    walkthrough.state = WalkthroughState::Published;
    walkthrough.current_version_id = Some(version.id.clone());
    let is_served_changed = before != (walkthrough.state, walkthrough.current_version_id.clone());
    if is_served_changed {
        tx.bump_config_version(&walkthrough.organization_id).await?;
    }
    if is_served_changed || !is_recorded {
        save(cx, tx, &mut walkthrough).await?;
    }
    if is_served_changed {
        let detail = json!({ "version": version.number, "version_id": version.id, "created": created });
        record_operation(cx, tx, &walkthrough, "walkthrough.publish", detail).await?;
        let title = clean::title(&walkthrough.title);
        let text = format!("Version {} of \"{title}\" is published.", version.number);
        let data = json!({ "walkthrough": {
            "id": walkthrough.id, "slug": walkthrough.slug, "title": title, "type": walkthrough.kind.as_str(),
            "version": version.number, "step_count": version.step_count,
        } });
        let event = Event { event: WebhookEvent::WalkthroughPublished, end_user_id: None, text: &text, data };
        enqueue(cx, tx, &walkthrough.organization_id, &event).await?;
    }
    Ok(PublishResult { version_id: version.id, number: version.number, created })
}

/// Whether the draft equals the newest version. Keys of steps are not compared, because they are never served.
async fn is_unchanged(tx: &mut Tx, newest: &VersionInfo, walkthrough: &Walkthrough, steps: &[Step]) -> Result<bool> {
    if newest.fields != walkthrough.fields() || newest.step_count as usize != steps.len() {
        return Ok(false);
    }
    let published = version::list_steps(tx, &walkthrough.organization_id, &newest.id).await?;
    let is_equal = |(old, new): (&Step, &Step)| old.id == new.id && old.content == new.content;
    Ok(published.iter().zip(steps).all(is_equal))
}

async fn create_version(cx: &Ctx, tx: &mut Tx, walkthrough: &Walkthrough, steps: &[Step]) -> Result<VersionInfo> {
    let version = VersionInfo {
        id: VersionId::new(&*cx.random),
        walkthrough_id: walkthrough.id.clone(),
        number: version::max_number(tx, &walkthrough.organization_id, &walkthrough.id).await? + 1,
        fields: walkthrough.fields(),
        step_count: u32::try_from(steps.len()).unwrap_or(u32::MAX),
        created_at: cx.now(),
        withdrawal: None,
    };
    version::insert(tx, &walkthrough.organization_id, &version, steps).await?;
    Ok(version)
}

fn check_publishable(walkthrough: &Walkthrough, steps: &[Step], confirm_bidi: bool) -> Result<()> {
    if steps.is_empty() {
        return Err(Error::new(Code::WalkthroughEmpty, "The walkthrough has no steps. Add one before publishing it."));
    }
    let errors: Vec<_> =
        findings(walkthrough, steps).into_iter().filter(|finding| finding.severity == Severity::Error).collect();
    if let Some(first) = errors.first() {
        let more = match errors.len() - 1 {
            0 => String::new(),
            more => format!(" ({more} more of the same kind: run `lint`)"),
        };
        let text = first.to_string();
        let text = text.trim_start_matches("error: ");
        let error = Error::invalid(
            first.field.unwrap_or("steps"),
            format!("The walkthrough cannot be published: {text}{more}"),
        );
        return Err(error.with("step", first.step.clone()).with("findings", json!(errors)));
    }
    let bidi = steps
        .iter()
        .zip(1..)
        .find_map(|(step, number)| Some((step, number, find_bidi_in_code(&step.content.content)?)));
    match bidi {
        Some((step, number, character)) if !confirm_bidi => {
            let message = format!(
                "It cannot be published: step {number} {:?}, `content` has U+{:04X} in its code, which makes the code \
                 look different from what it is. Remove it, or confirm to publish: the code is served without it.",
                step.content.title,
                u32::from(character)
            );
            let error = Error::new(Code::ConfirmationRequired, message).with("field", "content");
            Err(error.with("step", format!("step {number} {:?}", step.content.title)).with("step_id", step.id.as_str()))
        }
        _ => Ok(()),
    }
}

pub(super) fn findings(walkthrough: &Walkthrough, steps: &[Step]) -> Vec<Finding> {
    let mut findings = lint::lint_fields(&walkthrough.title, &walkthrough.description, &walkthrough.tags);
    findings.extend(lint::lint(walkthrough.kind, steps.iter().map(|step| &step.content)));
    findings
}

/// Returns the problems that prevent publishing the draft, and warnings about probable mistakes.
///
/// # Errors
/// `not_found`.
pub async fn lint(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &WalkthroughId) -> Result<Vec<Finding>> {
    let draft = super::get_draft(cx, ops, organization, id).await?;
    Ok(findings(&draft.walkthrough, &draft.steps))
}

/// Returns the versions, newest first, including withdrawn ones.
///
/// # Errors
/// `not_found`.
pub async fn list_versions(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &WalkthroughId,
) -> Result<Vec<VersionInfo>> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let mut tx = ops.store.snapshot().await?;
    walkthrough::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    Ok(version::list(&mut tx, organization, id).await?)
}

/// Withdraws a version. At their next call, end users on it move to the newest remaining version and are shown
/// `reason`. If no version remains, the walkthrough becomes a draft again.
///
/// # Errors
/// `not_found` if the version does not exist; `conflict` if it is already withdrawn; `invalid_arguments` if `reason` is
/// empty or too long.
pub async fn withdraw(cx: &Ctx, ops: &Ops, target: EditTarget<'_>, number: u32, reason: &str) -> Result<Walkthrough> {
    authorize(&cx.caller, Operation::WalkthroughWrite, target.organization_id)?;
    let reason = clean_plain(reason).trim().to_owned();
    if !(1..=MAX_REASON_CHARS).contains(&reason.chars().count()) {
        let message = format!("`reason` must have 1 to {MAX_REASON_CHARS} characters. It is shown to users.");
        return Err(Error::invalid("reason", message));
    }
    let mut tx = ops.store.begin().await?;
    let mut walkthrough = lock_walkthrough(&mut tx, target).await?;
    let found = version::find_by_number(&mut tx, target.organization_id, target.walkthrough_id, number).await?;
    let version = found.ok_or_else(|| Error::not_found("version"))?;
    let withdrawal = Withdrawal { at: cx.now(), reason };
    if !version::withdraw(&mut tx, target.organization_id, &version.id, &withdrawal).await? {
        return Err(Error::new(Code::Conflict, format!("Version {number} is already withdrawn.")));
    }
    let newest = version::find_newest(&mut tx, target.organization_id, target.walkthrough_id).await?;
    let newest = newest.map(|version| version.id);
    if walkthrough.current_version_id != newest {
        // The draft was published as a version other than the one that is now served.
        walkthrough.published_revision = None;
    }
    walkthrough.current_version_id = newest;
    if walkthrough.current_version_id.is_none() && walkthrough.state == WalkthroughState::Published {
        walkthrough.state = WalkthroughState::Draft;
    }
    tx.bump_config_version(target.organization_id).await?;
    save(cx, &mut tx, &mut walkthrough).await?;
    let detail = json!({ "version": number, "version_id": version.id, "reason": withdrawal.reason });
    record_operation(cx, &mut tx, &walkthrough, "walkthrough.withdraw", detail).await?;
    tx.commit().await?;
    Ok(walkthrough)
}

/// Archives the walkthrough. It is no longer served; all its data is kept.
///
/// # Errors
/// `not_found`; `precondition_failed` if the draft has changed since `target.revision`.
pub async fn archive(cx: &Ctx, ops: &Ops, target: EditTarget<'_>) -> Result<Walkthrough> {
    set_state(cx, ops, target, "walkthrough.archive", |_| Ok(WalkthroughState::Archived)).await
}

/// Unarchives the walkthrough. It becomes a draft and is served again after publishing.
///
/// # Errors
/// The same as for [`archive`].
pub async fn unarchive(cx: &Ctx, ops: &Ops, target: EditTarget<'_>) -> Result<Walkthrough> {
    let next = |state| match state {
        WalkthroughState::Archived => Ok(WalkthroughState::Draft),
        other => Ok(other),
    };
    set_state(cx, ops, target, "walkthrough.unarchive", next).await
}

/// Stops serving the walkthrough. Its versions and progress are kept. It is served again after publishing.
///
/// # Errors
/// The same as for [`archive`]; `conflict` if the walkthrough is archived.
pub async fn unpublish(cx: &Ctx, ops: &Ops, target: EditTarget<'_>) -> Result<Walkthrough> {
    let next = |state| match state {
        WalkthroughState::Archived => Err(Error::new(Code::Conflict, "The walkthrough is archived, not published.")),
        _ => Ok(WalkthroughState::Draft),
    };
    set_state(cx, ops, target, "walkthrough.unpublish", next).await
}

async fn set_state(
    cx: &Ctx,
    ops: &Ops,
    target: EditTarget<'_>,
    action: &'static str,
    next: fn(WalkthroughState) -> Result<WalkthroughState>,
) -> Result<Walkthrough> {
    authorize(&cx.caller, Operation::WalkthroughWrite, target.organization_id)?;
    let mut tx = ops.store.begin().await?;
    let mut walkthrough = lock_walkthrough(&mut tx, target).await?;
    let before = walkthrough.state;
    walkthrough.state = next(before)?;
    if walkthrough.state == before {
        return Ok(walkthrough);
    }
    tx.bump_config_version(target.organization_id).await?;
    save(cx, &mut tx, &mut walkthrough).await?;
    record_operation(cx, &mut tx, &walkthrough, action, json!({ "from": before, "to": walkthrough.state })).await?;
    tx.commit().await?;
    Ok(walkthrough)
}
