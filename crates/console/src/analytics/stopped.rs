//! The end users who stopped at a step of a walkthrough.

use askama::Template;
use axum::extract::{Path, Query, State};
use waypost_core::id::StepId;
use waypost_core::{Code, Error, Result};
use waypost_ops::analytics::{self, ReportParts};
use waypost_ops::end_users;

use super::fields::AnalyticsFilter;
use crate::Console;
use crate::end_users::EndUserRow;
use crate::layout::{CurrentOrganization, Layout};
use crate::session::Member;
use crate::view::{self, PageResult};
use crate::walkthroughs::{DraftContext, WalkthroughHeader};

/// The maximum number of end users on the page.
const MAX_ROWS: usize = 100;

#[derive(Template)]
#[template(path = "analytics/stopped.html")]
struct StoppedPage {
    layout: Layout,
    org: CurrentOrganization,
    header: WalkthroughHeader,
    /// The title of the step.
    step: String,
    /// The number of end users, including those who are not on the page.
    count: usize,
    rows: Vec<EndUserRow>,
    /// The path of the walkthrough's analytics, with the filter.
    back: String,
}

pub(super) async fn show(
    State(console): State<Console>,
    member: Member,
    Path((_, id, step)): Path<(String, String, String)>,
    Query(fields): Query<AnalyticsFilter>,
) -> PageResult {
    let context = DraftContext::new(&console, member, &id).await?;
    let fields = AnalyticsFilter { walkthrough: context.id.to_string(), ..fields };
    let page = load(&console, &context, &step, &fields).await.map_err(|error| context.page_error(error))?;
    Ok(view::page(&page))
}

async fn load(console: &Console, context: &DraftContext, step: &str, fields: &AnalyticsFilter) -> Result<StoppedPage> {
    let Member { cx, organization_id, org, .. } = &context.member;
    let missing = || Error::not_found("step");
    let step: StepId = step.parse().map_err(|_| missing())?;
    let query = fields.to_query(cx.now())?;
    let find = move |report: &analytics::Report| report.stopped_users(&step);
    let stopped = analytics::run(cx, console.ops(), organization_id, &query, ReportParts::EVENTS, find).await?;
    let (title, users) = stopped.ok_or_else(missing)?;
    let mut rows = Vec::new();
    for id in users.iter().take(MAX_ROWS) {
        match end_users::get(cx, console.ops(), organization_id, id).await {
            Ok(user) => rows.push(EndUserRow::from(user)),
            // The end user was erased after the report was loaded.
            Err(error) if error.code == Code::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(StoppedPage {
        layout: context.layout(),
        org: org.clone(),
        header: context.header("analytics"),
        step: title,
        count: users.len(),
        rows,
        back: format!("{}/analytics?{}", context.path, fields.query("")),
    })
}
