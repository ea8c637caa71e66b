//! `/walkthroughs/{id}/versions`, `/publish`, `/impact` and `/lint`: from the draft to what is served, and back.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::compare::{Comparison, FieldDifference, StepDifference};
use waypost_core::id::WalkthroughId;
use waypost_core::impact::AttemptImpact;
use waypost_core::transfer::lint;
use waypost_core::version::VersionInfo;
use waypost_core::{Error, Result};
use waypost_ops::walkthroughs::{self, publish, versions};

use super::dto::{Step, Walkthrough, WalkthroughType};
use super::{conflict, full, target, walkthrough_id};
use crate::Web;
use crate::api::extract::{IfMatch, Json, Path, Query, Scope, with_etag};
use crate::api::page::Page;
use crate::diff::{DiffLine, Differ};
use crate::impact;
use crate::problem::{ApiResult, Problems};

/// The operations on versions.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new()
        .routes(routes!(publish_draft))
        .routes(routes!(lint_draft))
        .routes(routes!(show_impact))
        .routes(routes!(list))
        .routes(routes!(compare))
        .routes(routes!(show))
        .routes(routes!(restore))
        .routes(routes!(withdraw))
}

/// A published version without its steps.
#[derive(Debug, Serialize, ToSchema)]
struct VersionSummary {
    #[schema(example = "wv_0123456789abcdef")]
    id: String,
    /// Counts from 1; never given twice.
    number: u32,
    title: String,
    description: String,
    #[serde(rename = "type")]
    kind: WalkthroughType,
    estimated_duration_minutes: Option<u32>,
    tags: Vec<String>,
    step_count: u32,
    /// When it was published.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was taken back; null for one that was not.
    #[schema(format = DateTime)]
    withdrawn_at: Option<String>,
    withdrawn_reason: Option<String>,
}

impl From<&VersionInfo> for VersionSummary {
    fn from(it: &VersionInfo) -> Self {
        Self {
            id: it.id.to_string(),
            number: it.number,
            title: it.fields.title.clone(),
            description: it.fields.description.clone(),
            kind: it.fields.kind.into(),
            estimated_duration_minutes: it.fields.estimated_duration_minutes,
            tags: it.fields.tags.clone(),
            step_count: it.step_count,
            created_at: it.created_at.rfc3339(),
            withdrawn_at: it.withdrawal.as_ref().map(|withdrawal| withdrawal.at.rfc3339()),
            withdrawn_reason: it.withdrawal.as_ref().map(|withdrawal| withdrawal.reason.clone()),
        }
    }
}

/// A version in the history.
#[derive(Debug, Serialize, ToSchema)]
struct VersionListItem {
    #[serde(flatten)]
    version: VersionSummary,
    /// People in progress on it.
    in_progress: u64,
    /// Whether it is the one that is served.
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

/// How to publish.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PublishOptions {
    /// Publishes although code has characters that change the direction of text; it is served without them.
    #[serde(default)]
    confirm_bidi: bool,
}

/// What publishing gave.
#[derive(Debug, Serialize, ToSchema)]
struct PublishResult {
    version_id: String,
    /// The number of the version that is served now.
    number: u32,
    /// Whether it is new; false when the draft was published before.
    created: bool,
    /// The revision of the draft, which publishing does not change.
    revision: u32,
}

/// Freezes the draft as a new version, which is served wherever the walkthrough is assigned. An unchanged draft makes no new
/// version.
#[utoipa::path(post, path = "/walkthroughs/{id}/publish", tag = "versions", operation_id = "publish_walkthrough",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header)),
    request_body = PublishOptions, responses((status = 200, body = PublishResult), Problems))]
async fn publish_draft(
    State(web): State<Web>,
    scope: Scope,
    Path(id): Path<String>,
    seen: IfMatch,
    Json(how): Json<PublishOptions>,
) -> ApiResult<Response> {
    let id = walkthrough_id(&id)?;
    match publish::publish(&scope.cx, web.ops(), target(&scope, &id, seen), how.confirm_bidi).await {
        Ok(published) => {
            let draft = walkthroughs::get_draft(&scope.cx, web.ops(), &scope.organization_id, &id).await?;
            let revision = draft.walkthrough.revision;
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

/// Something that was found in the draft.
#[derive(Debug, Serialize, ToSchema)]
struct LintFinding {
    /// `error`: publishing is refused. `warning`: worth a look. `notice`: a field is served otherwise than it was typed.
    severity: &'static str,
    /// Where the step stands, from 1; null for the walkthrough.
    position: Option<usize>,
    /// Such as `step 3 "Install"`.
    step: Option<String>,
    step_id: Option<String>,
    field: Option<&'static str>,
    message: String,
}

impl LintFinding {
    fn new(it: &lint::Finding, steps: &[waypost_core::step::Step]) -> Self {
        let step = it.position.and_then(|position| steps.get(position - 1));
        Self {
            severity: it.severity.as_str(),
            position: it.position,
            step: it.step.clone(),
            step_id: step.map(|step| step.id.to_string()),
            field: it.field,
            message: it.message.clone(),
        }
    }
}

/// What stands in the way of publishing, and what its author probably did not mean.
#[utoipa::path(get, path = "/walkthroughs/{id}/lint", tag = "versions", operation_id = "lint_walkthrough",
    params(("id" = String, Path)), responses((status = 200, body = Page<LintFinding>), Problems))]
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

/// A field that is different.
#[derive(Debug, Serialize, ToSchema)]
struct FieldDiff {
    field: &'static str,
    before: String,
    after: String,
    /// What is different, line by line.
    lines: Vec<DiffLine>,
}

impl FieldDiff {
    fn new(it: FieldDifference, differ: &Differ) -> Self {
        let lines = differ.lines(&it.before, &it.after);
        Self { field: it.field, before: it.before, after: it.after, lines }
    }
}

/// A step on one side or both.
#[derive(Debug, Serialize, ToSchema)]
struct StepDiff {
    id: String,
    title: String,
    /// `added`, `removed`, `changed`, `moved` or `unchanged`.
    change: &'static str,
    /// Whether it stands elsewhere among the steps that stayed.
    moved: bool,
    /// Where it stood, from 1.
    from_position: Option<usize>,
    /// Where it stands, from 1.
    to_position: Option<usize>,
    fields: Vec<FieldDiff>,
}

/// The word for what became of a step.
pub(crate) fn change(it: &StepDifference) -> &'static str {
    match it {
        it if it.is_added() => "added",
        it if it.is_removed() => "removed",
        it if it.is_changed() => "changed",
        it if it.moved => "moved",
        _ => "unchanged",
    }
}

impl StepDiff {
    fn new(it: StepDifference, differ: &Differ) -> Self {
        Self {
            change: change(&it),
            id: it.id.to_string(),
            title: it.title,
            moved: it.moved,
            from_position: it.before,
            to_position: it.after,
            fields: it.fields.into_iter().map(|field| FieldDiff::new(field, differ)).collect(),
        }
    }
}

/// What is different between two states.
#[derive(Debug, Serialize, ToSchema)]
struct WalkthroughDiff {
    /// Whether there is no difference.
    is_same: bool,
    /// Fields of the head.
    head: Vec<FieldDiff>,
    /// Every step of either side, in the order of the later one.
    steps: Vec<StepDiff>,
}

impl From<Comparison> for WalkthroughDiff {
    fn from(it: Comparison) -> Self {
        let differ = Differ::default();
        Self {
            is_same: it.is_empty(),
            head: it.head.into_iter().map(|field| FieldDiff::new(field, &differ)).collect(),
            steps: it.steps.into_iter().map(|step| StepDiff::new(step, &differ)).collect(),
        }
    }
}

/// So many people, by so many steps.
#[derive(Debug, Serialize, ToSchema)]
struct StepCountGroup {
    steps: u32,
    people: u64,
}

fn groups(counted: &BTreeMap<u32, u64>) -> Vec<StepCountGroup> {
    counted.iter().map(|(steps, people)| StepCountGroup { steps: *steps, people: *people }).collect()
}

/// So many people on a version.
#[derive(Debug, Serialize, ToSchema)]
struct VersionUserCount {
    version: u32,
    people: u64,
}

/// People to whom the same happens on moving.
#[derive(Debug, Serialize, ToSchema)]
struct MigrationGroup {
    people: u64,
    /// How many completed steps each of them loses.
    lose: u32,
    /// For how many steps each of them has to go back.
    repeat: u32,
    /// Whether moving completes the walkthrough for them.
    complete: bool,
}

impl MigrationGroup {
    fn new(AttemptImpact { lost, repeat, completes }: AttemptImpact, people: u64) -> Self {
        Self { people, lose: lost, repeat, complete: completes }
    }
}

/// What moving to the new version means for the people in progress. Everybody is in exactly one of `groups`. The other
/// members are sums over the groups and overlap: somebody who loses steps and has to go back for others is in `lose` and in
/// `repeat`, and somebody in `complete` is in `lose_nothing`, `lose` or `repeat` as well.
#[derive(Debug, Serialize, ToSchema)]
struct MigrationImpact {
    /// Their `people` add up to `in_progress`.
    groups: Vec<MigrationGroup>,
    /// Who keeps every completed step and goes on where they were.
    lose_nothing: u64,
    /// Who loses completed steps, because the new version does not have them.
    lose: Vec<StepCountGroup>,
    /// Who has to go back for steps that stand before where they were.
    repeat: Vec<StepCountGroup>,
    /// For whom moving completes the walkthrough.
    complete: u64,
}

/// What publishing the draft would change, and whom it would affect.
#[derive(Debug, Serialize, ToSchema)]
struct PublishImpact {
    /// The revision of the draft that this is said of.
    revision: u32,
    /// The newest version; null before the first.
    from_version: Option<u32>,
    /// The number that the new version would have.
    to_version: u32,
    diff: WalkthroughDiff,
    /// People in the midst of it. They stay on their version until they ask for the newest.
    in_progress: u64,
    by_version: Vec<VersionUserCount>,
    on_moving: MigrationImpact,
    /// The same in sentences.
    sentences: Vec<String>,
}

/// What publishing the draft would change since the newest version, and whom it would affect: exact, from the open attempts.
#[utoipa::path(get, path = "/walkthroughs/{id}/impact", tag = "versions", operation_id = "get_impact",
    params(("id" = String, Path)), responses((status = 200, body = PublishImpact), Problems))]
async fn show_impact(State(web): State<Web>, scope: Scope, Path(id): Path<String>) -> ApiResult<Response> {
    let id = walkthrough_id(&id)?;
    let found = versions::get_impact(&scope.cx, web.ops(), &scope.organization_id, &id).await?;
    let mut sentences = vec![impact::summary(&found)];
    sentences.extend(impact::sentences(&found));
    let means = &found.consequences;
    let body = PublishImpact {
        revision: found.revision,
        from_version: found.from_version,
        to_version: found.to_version,
        in_progress: means.users,
        by_version: found
            .by_version
            .iter()
            .map(|(version, people)| VersionUserCount { version: *version, people: *people })
            .collect(),
        on_moving: MigrationImpact {
            groups: means.groups.iter().map(|(it, people)| MigrationGroup::new(*it, *people)).collect(),
            lose_nothing: means.lose_nothing,
            lose: groups(&means.lose),
            repeat: groups(&means.repeat),
            complete: means.complete,
        },
        sentences,
        diff: found.comparison.into(),
    };
    Ok(with_etag(body.revision, Json(body)))
}

/// The versions, newest first, withdrawn ones included.
#[utoipa::path(get, path = "/walkthroughs/{id}/versions", tag = "versions", operation_id = "list_versions",
    params(("id" = String, Path)), responses((status = 200, body = Page<VersionListItem>), Problems))]
async fn list(State(web): State<Web>, scope: Scope, Path(id): Path<String>) -> ApiResult<Json<Page<VersionListItem>>> {
    let id = walkthrough_id(&id)?;
    let found = versions::list(&scope.cx, web.ops(), &scope.organization_id, &id).await?;
    let listed = found.iter().map(|it| VersionListItem {
        version: (&it.head).into(),
        in_progress: it.in_progress,
        is_current: it.is_current,
    });
    Ok(Json(Page::complete(listed.collect())))
}

/// The number of a version as it stands in a path.
fn number(text: &str) -> Result<u32> {
    text.parse().map_err(|_| Error::not_found("version"))
}

/// A version with its steps.
#[utoipa::path(get, path = "/walkthroughs/{id}/versions/{number}", tag = "versions", operation_id = "get_version",
    params(("id" = String, Path), ("number" = u32, Path, minimum = 1)),
    responses((status = 200, body = Version), Problems))]
async fn show(
    State(web): State<Web>,
    scope: Scope,
    Path((id, version)): Path<(String, String)>,
) -> ApiResult<Json<Version>> {
    let (id, version) = (walkthrough_id(&id)?, number(&version)?);
    let (head, steps) = versions::get(&scope.cx, web.ops(), &scope.organization_id, &id, version).await?;
    let kind = head.fields.kind;
    Ok(Json(Version {
        version: (&head).into(),
        steps: (1..).zip(&steps).map(|(position, step)| Step::new(kind, position, step)).collect(),
        metadata: head.fields.metadata,
    }))
}

/// What to compare.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CompareQuery {
    /// The number of a version.
    #[param(minimum = 1)]
    from: u32,
    /// The number of another version, or `draft`.
    #[param(pattern = "^(draft|[1-9][0-9]*)$")]
    to: String,
}

/// What is different between a version and another one, or the draft: step by step, field by field, line by line.
#[utoipa::path(get, path = "/walkthroughs/{id}/versions/compare", tag = "versions", operation_id = "compare_versions",
    params(("id" = String, Path), CompareQuery), responses((status = 200, body = WalkthroughDiff), Problems))]
async fn compare(
    State(web): State<Web>,
    scope: Scope,
    Path(id): Path<String>,
    Query(CompareQuery { from, to }): Query<CompareQuery>,
) -> ApiResult<Json<WalkthroughDiff>> {
    let id = walkthrough_id(&id)?;
    let to = match to.as_str() {
        "draft" => None,
        text => Some(text.parse().map_err(|_| Error::invalid("to", "`to` is the number of a version, or `draft`."))?),
    };
    let found = versions::compare(&scope.cx, web.ops(), &scope.organization_id, &id, (from, to)).await?;
    Ok(Json(found.into()))
}

/// Makes the draft what a version is. Nothing is published; steps keep their ids.
#[utoipa::path(post, path = "/walkthroughs/{id}/versions/{number}/restore", tag = "versions",
    operation_id = "restore_version",
    params(("id" = String, Path), ("number" = u32, Path, minimum = 1), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = Walkthrough), Problems))]
async fn restore(
    State(web): State<Web>,
    scope: Scope,
    Path((id, version)): Path<(String, String)>,
    seen: IfMatch,
) -> ApiResult<Response> {
    let (id, version) = (walkthrough_id(&id)?, number(&version)?);
    match versions::restore(&scope.cx, web.ops(), target(&scope, &id, seen), version).await {
        Ok(_) => answer(&scope, &web, &id).await,
        Err(error) => Err(conflict(&scope, &web, &id, error).await),
    }
}

async fn answer(scope: &Scope, web: &Web, id: &WalkthroughId) -> ApiResult<Response> {
    let body = full(&scope.cx, web, &scope.organization_id, id).await?;
    Ok(with_etag(body.head.summary.revision, Json(body)))
}

/// Why a version is taken back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VersionWithdrawal {
    /// Told to the users who were on it.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// Takes a version back: who is on it is moved to the newest one that is left at their next call, and told the reason.
#[utoipa::path(post, path = "/walkthroughs/{id}/versions/{number}/withdraw", tag = "versions",
    operation_id = "withdraw_version",
    params(("id" = String, Path), ("number" = u32, Path, minimum = 1), ("If-Match" = Option<String>, Header)),
    request_body = VersionWithdrawal, responses((status = 200, body = Walkthrough), Problems))]
async fn withdraw(
    State(web): State<Web>,
    scope: Scope,
    Path((id, version)): Path<(String, String)>,
    seen: IfMatch,
    Json(why): Json<VersionWithdrawal>,
) -> ApiResult<Response> {
    let (id, version) = (walkthrough_id(&id)?, number(&version)?);
    match publish::withdraw(&scope.cx, web.ops(), target(&scope, &id, seen), version, &why.reason).await {
        Ok(_) => answer(&scope, &web, &id).await,
        Err(error) => Err(conflict(&scope, &web, &id, error).await),
    }
}
