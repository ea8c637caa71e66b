//! `/walkthroughs/{id}/impact`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use waypost_core::impact::AttemptImpact;
use waypost_ops::walkthroughs::{impact, versions};

use super::versions::WalkthroughDiff;
use super::walkthrough_id;
use crate::Web;
use crate::extract::{Json, Path, Scope, with_etag};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The operation on the impact of publishing.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(get_impact))
}

/// A group of end users with the same number of affected steps.
#[derive(Debug, Serialize, ToSchema)]
struct StepCountGroup {
    /// The number of affected steps.
    steps: u32,
    /// The number of end users.
    end_users: u64,
}

fn groups(counted: &BTreeMap<u32, u64>) -> Vec<StepCountGroup> {
    counted.iter().map(|(steps, end_users)| StepCountGroup { steps: *steps, end_users: *end_users }).collect()
}

/// The number of end users in progress on a version.
#[derive(Debug, Serialize, ToSchema)]
struct VersionUserCount {
    /// The number of the version.
    version: u32,
    /// The number of end users.
    end_users: u64,
}

/// A group of end users for whom moving to the new version has the same consequences.
#[derive(Debug, Serialize, ToSchema)]
struct MigrationGroup {
    /// The number of end users.
    end_users: u64,
    /// The number of completed steps that each of them loses.
    lose: u32,
    /// The number of earlier steps that each of them has to go back for.
    repeat: u32,
    /// Whether moving completes the walkthrough for them.
    complete: bool,
}

impl MigrationGroup {
    fn new(AttemptImpact { lost, repeat, completes }: AttemptImpact, end_users: u64) -> Self {
        Self { end_users, lose: lost, repeat, complete: completes }
    }
}

/// The consequences of moving end users in progress to the new version. Each end user is in exactly one of `groups`.
/// The other members are totals over the groups and overlap: an end user who loses steps and has to go back for others
/// counts in both `lose` and `repeat`, and an end user in `complete` also counts in `lose_nothing`, `lose` or `repeat`.
#[derive(Debug, Serialize, ToSchema)]
struct MigrationImpact {
    /// The groups. Their `end_users` add up to `in_progress`.
    groups: Vec<MigrationGroup>,
    /// The number of end users who keep every completed step and continue where they are.
    lose_nothing: u64,
    /// End users who lose completed steps that the new version does not contain.
    lose: Vec<StepCountGroup>,
    /// End users who have to go back for steps that come before their current position.
    repeat: Vec<StepCountGroup>,
    /// The number of end users for whom moving completes the walkthrough.
    complete: u64,
}

/// The impact of publishing the draft.
#[derive(Debug, Serialize, ToSchema)]
struct PublishImpact {
    /// The revision of the draft that the impact describes.
    revision: u32,
    /// The number of the newest version. Null if there is none.
    from_version: Option<u32>,
    /// The number that the new version would have.
    to_version: u32,
    diff: WalkthroughDiff,
    /// The number of end users in progress. They stay on their version until they ask for the newest one.
    in_progress: u64,
    /// The number of end users in progress on each version.
    by_version: Vec<VersionUserCount>,
    migration: MigrationImpact,
    /// The impact in sentences.
    sentences: Vec<String>,
}

/// Returns the impact of publishing the draft.
///
/// Compares the draft with the newest version and counts the affected end users exactly, from their open attempts.
#[utoipa::path(get, path = "/walkthroughs/{id}/impact", tag = "versions", operation_id = "get_impact",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`).")),
    responses((status = 200, body = PublishImpact), Problems))]
async fn get_impact(State(web): State<Web>, scope: Scope, Path(id): Path<String>) -> ApiResult<Response> {
    let id = walkthrough_id(&id)?;
    let impact = versions::get_impact(&scope.cx, web.ops(), &scope.organization_id, &id).await?;
    let mut sentences = vec![impact::summary(&impact)];
    sentences.extend(impact::sentences(&impact));
    let consequences = &impact.consequences;
    let body = PublishImpact {
        revision: impact.revision,
        from_version: impact.from_version,
        to_version: impact.to_version,
        in_progress: consequences.users,
        by_version: impact
            .by_version
            .iter()
            .map(|(version, end_users)| VersionUserCount { version: *version, end_users: *end_users })
            .collect(),
        migration: MigrationImpact {
            groups: consequences
                .groups
                .iter()
                .map(|(group, end_users)| MigrationGroup::new(*group, *end_users))
                .collect(),
            lose_nothing: consequences.lose_nothing,
            lose: groups(&consequences.lose),
            repeat: groups(&consequences.repeat),
            complete: consequences.complete,
        },
        sentences,
        diff: impact.comparison.into(),
    };
    Ok(with_etag(body.revision, Json(body)))
}
