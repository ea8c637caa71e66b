//! The trash: deleted walkthroughs, which can be restored for 30 days.

use askama::Template;
use axum::extract::{Path, State};
use waypost_core::access::Operation;
use waypost_ops::walkthroughs::trash::{self, TrashedWalkthrough};

use super::walkthrough_id;
use crate::Console;
use crate::layout::{CurrentOrganization, Layout};
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, PageError, PageResult};

pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/o/{org}/walkthroughs/trash", Access::Member(Operation::WalkthroughRead), show)
        .post("/o/{org}/walkthroughs/trash/{id}/restore", Access::Member(Operation::WalkthroughWrite), restore)
        .post("/o/{org}/walkthroughs/trash/{id}/delete", Access::Member(Operation::WalkthroughPurge), purge)
}

#[derive(Template)]
#[template(path = "walkthroughs/trash.html")]
struct TrashPage {
    layout: Layout,
    org: CurrentOrganization,
    items: Vec<TrashedWalkthrough>,
}

async fn show(State(console): State<Console>, Member { cx, organization_id, org, layout }: Member) -> PageResult {
    let layout = layout.with_section("walkthroughs");
    let items = trash::list_deleted(&cx, console.ops(), &organization_id).await;
    let items = items.map_err(|error| PageError::from(error).with_layout(layout.clone()))?;
    Ok(view::page(&TrashPage { layout, org, items }))
}

async fn restore(State(console): State<Console>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let Member { cx, organization_id, org, layout } = member;
    let restored = async { trash::restore(&cx, console.ops(), &organization_id, &walkthrough_id(&id)?).await };
    let restored =
        restored.await.map_err(|error| PageError::from(error).with_layout(layout.with_section("walkthroughs")))?;
    let message = format!("“{}” restored.", restored.title);
    Ok(view::redirect_with_flash(&org.path(&format!("walkthroughs/{}", restored.id)), &message))
}

async fn purge(State(console): State<Console>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let Member { cx, organization_id, org, layout } = member;
    let purged = async { trash::purge(&cx, console.ops(), &organization_id, &walkthrough_id(&id)?).await };
    purged.await.map_err(|error| PageError::from(error).with_layout(layout.with_section("walkthroughs")))?;
    Ok(view::redirect_with_flash(&org.path("walkthroughs/trash"), "Walkthrough deleted permanently."))
}
