//! `/walkthroughs/{id}/versions`, `/publish` and `/lint`: publishing a draft, and the published versions.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use waypost_content::compare::{Comparison, FieldDifference, StepDifference};
use waypost_content::transfer::lint;
use waypost_core::id::WalkthroughId;
use waypost_core::version::VersionInfo;
use waypost_core::{Error, Result};
use waypost_ops::walkthroughs::{self, publish, versions};

use waypost_core::walkthrough::WalkthroughType;

use super::dto::{Step, Walkthrough};
use super::{conflict, full_walkthrough, target, walkthrough_id};
use crate::Web;
use crate::extract::{IfMatch, Json, Path, Query, Scope, with_etag};
use crate::page::Page;
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};
use waypost_content::diff::{DiffLine, Differ};

/// The operations on versions.
pub(super) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(publish_draft))
        .routes(routes!(lint_draft))
        .routes(routes!(list))
        .routes(routes!(compare))
        .routes(routes!(get))
        .routes(routes!(restore))
        .routes(routes!(withdraw))
}

/// A published version without its steps.
#[derive(Debug, Serialize, ToSchema)]
struct VersionSummary {
    #[schema(example = "wv_0123456789abcdef")]
    id: String,
    /// The number of the version, starting at 1. Numbers are never reused.
    number: u32,
    title: String,
    description: String,
    #[serde(rename = "type")]
    kind: WalkthroughType,
    estimated_duration_minutes: Option<u32>,
    tags: Vec<String>,
    step_count: u32,
    /// The time at which the version was published.
    #[schema(format = DateTime)]
    created_at: String,
    /// The time at which the version was withdrawn. Null if it has not been withdrawn.
    #[schema(format = DateTime)]
    withdrawn_at: Option<String>,
    /// The reason for the withdrawal.
    withdrawn_reason: Option<String>,
}

impl From<&VersionInfo> for VersionSummary {
    fn from(version: &VersionInfo) -> Self {
        Self {
            id: version.id.to_string(),
            number: version.number,
            title: version.fields.title.clone(),
            description: version.fields.description.clone(),
            kind: version.fields.kind,
            estimated_duration_minutes: version.fields.estimated_duration_minutes,
            tags: version.fields.tags.clone(),
            step_count: version.step_count,
            created_at: version.created_at.rfc3339(),
            withdrawn_at: version.withdrawal.as_ref().map(|withdrawal| withdrawal.at.rfc3339()),
            withdrawn_reason: version.withdrawal.as_ref().map(|withdrawal| withdrawal.reason.clone()),
        }
    }
}

/// A version in the list of versions.
#[derive(Debug, Serialize, ToSchema)]
struct VersionListItem {
    #[serde(flatten)]
    version: VersionSummary,
    /// The number of end users in progress on this version.
    in_progress: u64,
    /// Whether this is the version that is served.
    is_current: bool,
}

/// A version with its steps.
#[derive(Debug, Serialize, ToSchema)]
struct Version {
    #[serde(flatten)]
    version: VersionSummary,
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
    steps: Vec<Step>,
}

/// The options for publishing.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PublishOptions {
    /// Whether to publish even if code contains characters that change the text direction. They are removed when the
    /// code is served.
    #[serde(default)]
    confirm_bidi: bool,
}

/// The result of publishing.
#[derive(Debug, Serialize, ToSchema)]
struct PublishResult {
    version_id: String,
    /// The number of the version that is now served.
    number: u32,
    /// Whether a new version was created. False if the draft has not changed since it was last published.
    created: bool,
    /// The revision of the draft. Publishing does not change it.
    revision: u32,
}

/// Publishes the draft as a new version.
///
/// The version is served on every server that the walkthrough is assigned to. An unchanged draft does not create a new
/// version.
#[utoipa::path(post, path = "/walkthroughs/{id}/publish", tag = "versions", operation_id = "publish_walkthrough",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the walkthrough.")),
    request_body = PublishOptions, responses((status = 200, body = PublishResult), Problems))]
async fn publish_draft(
    State(web): State<Web>,
    scope: Scope,
    Path(id): Path<String>,
    if_match: IfMatch,
    Json(options): Json<PublishOptions>,
) -> ApiResult<Response> {
    let id = walkthrough_id(&id)?;
    match publish::publish(&scope.cx, web.ops(), target(&scope, &id, if_match), options.confirm_bidi).await {
        Ok(published) => {
            let walkthrough = walkthroughs::get(&scope.cx, web.ops(), &scope.organization_id, &id).await?;
            let revision = walkthrough.revision;
            let body = PublishResult {
                version_id: published.version_id.to_string(),
                number: published.number,
                created: published.created,
                revision,
            };
            Ok(with_etag(revision, Json(body)))
        }
        Err(error) => Err(conflict(&scope, &web, &id, error).await),
    }
}

/// A finding in a draft.
#[derive(Debug, Serialize, ToSchema)]
struct LintFinding {
    /// `error`: prevents publishing. `warning`: probably a mistake. `notice`: the served text of a field differs from
    /// the text that was entered.
    severity: &'static str,
    /// The position of the step, starting at 1. Null if the finding is about the whole walkthrough.
    position: Option<usize>,
    /// A readable label for the step, such as `step 3 "Install"`.
    step: Option<String>,
    step_id: Option<String>,
    /// The name of the field. Null if the finding is not about a field.
    field: Option<&'static str>,
    /// A description of the finding and how to fix it.
    message: String,
}

impl LintFinding {
    fn new(finding: &lint::Finding, steps: &[waypost_core::step::Step]) -> Self {
        let step = finding.position.and_then(|position| steps.get(position - 1));
        Self {
            severity: finding.severity.as_str(),
            position: finding.position,
            step: finding.step.clone(),
            step_id: step.map(|step| step.id.to_string()),
            field: finding.field,
            message: finding.message.clone(),
        }
    }
}

/// Lints the draft.
///
/// Lists errors that prevent publishing, probable mistakes, and text that changes when it is served. The list is
/// complete: `next_cursor` is always null.
#[utoipa::path(get, path = "/walkthroughs/{id}/lint", tag = "versions", operation_id = "lint_walkthrough",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`).")),
    responses((status = 200, body = Page<LintFinding>), Problems))]
async fn lint_draft(
    State(web): State<Web>,
    scope: Scope,
    Path(id): Path<String>,
) -> ApiResult<Json<Page<LintFinding>>> {
    let id = walkthrough_id(&id)?;
    let draft = walkthroughs::get_draft(&scope.cx, web.ops(), &scope.organization_id, &id).await?;
    let findings = publish::lint(&scope.cx, web.ops(), &scope.organization_id, &id).await?;
    Ok(Json(Page::complete(findings.iter().map(|finding| LintFinding::new(finding, &draft.steps)).collect())))
}

/// A field that differs.
#[derive(Debug, Serialize, ToSchema)]
struct FieldDiff {
    /// The name of the field.
    field: &'static str,
    /// The text in the earlier version.
    before: String,
    /// The text in the later version.
    after: String,
    /// The differences, line by line.
    lines: Vec<DiffLine>,
}

impl FieldDiff {
    fn new(difference: FieldDifference, differ: &Differ) -> Self {
        let lines = differ.lines(&difference.before, &difference.after);
        Self { field: difference.field, before: difference.before, after: difference.after, lines }
    }
}

/// A step in one or both of the compared versions.
#[derive(Debug, Serialize, ToSchema)]
struct StepDiff {
    id: String,
    title: String,
    /// `added`, `removed`, `changed`, `moved` or `unchanged`.
    change: &'static str,
    /// Whether the step moved relative to the other steps that both versions contain.
    moved: bool,
    /// The position in the earlier version, starting at 1.
    from_position: Option<usize>,
    /// The position in the later version, starting at 1.
    to_position: Option<usize>,
    /// The fields that differ.
    fields: Vec<FieldDiff>,
}

/// Returns the name of the change to a step.
pub(crate) fn change(difference: &StepDifference) -> &'static str {
    match difference {
        difference if difference.is_added() => "added",
        difference if difference.is_removed() => "removed",
        difference if difference.is_changed() => "changed",
        difference if difference.moved => "moved",
        _ => "unchanged",
    }
}

impl StepDiff {
    fn new(difference: StepDifference, differ: &Differ) -> Self {
        Self {
            change: change(&difference),
            id: difference.id.to_string(),
            title: difference.title,
            moved: difference.moved,
            from_position: difference.before,
            to_position: difference.after,
            fields: difference.fields.into_iter().map(|field| FieldDiff::new(field, differ)).collect(),
        }
    }
}

/// The differences between two versions, or between a version and the draft.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WalkthroughDiff {
    /// Whether there are no differences.
    is_same: bool,
    /// The fields of the walkthrough that differ.
    fields: Vec<FieldDiff>,
    /// Every step of either version, in the order of the later one.
    steps: Vec<StepDiff>,
}

impl From<Comparison> for WalkthroughDiff {
    fn from(comparison: Comparison) -> Self {
        let differ = Differ::default();
        Self {
            is_same: comparison.is_empty(),
            fields: comparison.fields.into_iter().map(|field| FieldDiff::new(field, &differ)).collect(),
            steps: comparison.steps.into_iter().map(|step| StepDiff::new(step, &differ)).collect(),
        }
    }
}

/// Lists the versions, newest first, including withdrawn ones.
///
/// The list is complete: `next_cursor` is always null.
#[utoipa::path(get, path = "/walkthroughs/{id}/versions", tag = "versions", operation_id = "list_versions",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`).")),
    responses((status = 200, body = Page<VersionListItem>), Problems))]
async fn list(State(web): State<Web>, scope: Scope, Path(id): Path<String>) -> ApiResult<Json<Page<VersionListItem>>> {
    let id = walkthrough_id(&id)?;
    let versions = versions::list(&scope.cx, web.ops(), &scope.organization_id, &id).await?;
    let listed = versions.iter().map(|version| VersionListItem {
        version: (&version.info).into(),
        in_progress: version.in_progress,
        is_current: version.is_current,
    });
    Ok(Json(Page::complete(listed.collect())))
}

/// Parses a version number. A malformed number results in `not_found`.
fn parse_number(text: &str) -> Result<u32> {
    text.parse().map_err(|_| Error::not_found("version"))
}

/// Returns a version with its steps.
#[utoipa::path(get, path = "/walkthroughs/{id}/versions/{number}", tag = "versions", operation_id = "get_version",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("number" = u32, Path, description = "The number of the version.", minimum = 1)),
    responses((status = 200, body = Version), Problems))]
async fn get(
    State(web): State<Web>,
    scope: Scope,
    Path((id, version)): Path<(String, String)>,
) -> ApiResult<Json<Version>> {
    let (id, version) = (walkthrough_id(&id)?, parse_number(&version)?);
    let (info, steps) = versions::get(&scope.cx, web.ops(), &scope.organization_id, &id, version).await?;
    let kind = info.fields.kind;
    Ok(Json(Version {
        version: (&info).into(),
        steps: (1..).zip(&steps).map(|(position, step)| Step::new(kind, position, step)).collect(),
        metadata: info.fields.metadata,
    }))
}

/// The versions to compare.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CompareQuery {
    /// The number of the earlier version.
    #[param(minimum = 1)]
    from: u32,
    /// The number of the later version, or `draft`.
    #[param(pattern = "^(draft|[1-9][0-9]*)$")]
    to: String,
}

/// Compares a version with another version or with the draft.
///
/// The text of each field is compared line by line.
#[utoipa::path(get, path = "/walkthroughs/{id}/versions/compare", tag = "versions", operation_id = "compare_versions",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."), CompareQuery),
    responses((status = 200, body = WalkthroughDiff), Problems))]
async fn compare(
    State(web): State<Web>,
    scope: Scope,
    Path(id): Path<String>,
    Query(CompareQuery { from, to }): Query<CompareQuery>,
) -> ApiResult<Json<WalkthroughDiff>> {
    let id = walkthrough_id(&id)?;
    let to = match to.as_str() {
        "draft" => None,
        text => {
            Some(text.parse().map_err(|_| Error::invalid("to", "`to` must be the number of a version or `draft`."))?)
        }
    };
    let comparison = versions::compare(&scope.cx, web.ops(), &scope.organization_id, &id, from, to).await?;
    Ok(Json(comparison.into()))
}

/// Restores the draft to a version.
///
/// Steps keep their IDs. Nothing is published.
#[utoipa::path(post, path = "/walkthroughs/{id}/versions/{number}/restore", tag = "versions",
    operation_id = "restore_version",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("number" = u32, Path, description = "The number of the version.", minimum = 1),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the walkthrough.")),
    responses((status = 200, body = Walkthrough), Problems))]
async fn restore(
    State(web): State<Web>,
    scope: Scope,
    Path((id, version)): Path<(String, String)>,
    if_match: IfMatch,
) -> ApiResult<Response> {
    let (id, version) = (walkthrough_id(&id)?, parse_number(&version)?);
    match versions::restore(&scope.cx, web.ops(), target(&scope, &id, if_match), version).await {
        Ok(_) => full_response(&scope, &web, &id).await,
        Err(error) => Err(conflict(&scope, &web, &id, error).await),
    }
}

async fn full_response(scope: &Scope, web: &Web, id: &WalkthroughId) -> ApiResult<Response> {
    let body = full_walkthrough(&scope.cx, web, &scope.organization_id, id).await?;
    Ok(with_etag(body.details.summary.revision, Json(body)))
}

/// The withdrawal of a version.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VersionWithdrawal {
    /// The reason, shown to the end users who are on the version.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// Withdraws a version.
///
/// End users on the version are moved to the newest remaining version on their next call, and are told the reason.
#[utoipa::path(post, path = "/walkthroughs/{id}/versions/{number}/withdraw", tag = "versions",
    operation_id = "withdraw_version",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("number" = u32, Path, description = "The number of the version.", minimum = 1),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the walkthrough.")),
    request_body = VersionWithdrawal, responses((status = 200, body = Walkthrough), Problems))]
async fn withdraw(
    State(web): State<Web>,
    scope: Scope,
    Path((id, version)): Path<(String, String)>,
    if_match: IfMatch,
    Json(withdrawal): Json<VersionWithdrawal>,
) -> ApiResult<Response> {
    let (id, version) = (walkthrough_id(&id)?, parse_number(&version)?);
    match publish::withdraw(&scope.cx, web.ops(), target(&scope, &id, if_match), version, &withdrawal.reason).await {
        Ok(_) => full_response(&scope, &web, &id).await,
        Err(error) => Err(conflict(&scope, &web, &id, error).await),
    }
}
