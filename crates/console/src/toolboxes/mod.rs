//! `/o/{org}/toolboxes`: the machines that run tool servers.

mod list;
mod show;

use waypost_core::access::Operation;
use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_core::toolbox::{MAX_TOOLBOXES, ToolboxState};
use waypost_core::{Error, Result};
use waypost_ops::toolboxes::{self, ToolboxView};
use waypost_toolbox_proto::entry::CPU_OVERCOMMIT;

use crate::Console;
use crate::live::bytes;
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::PageError;

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Operation::ToolboxRead);
    const WRITE: Access = Access::Member(Operation::ToolboxWrite);
    Routes::new()
        .get("/o/{org}/toolboxes", READ, list::show)
        .get("/o/{org}/toolboxes/rows", READ, list::rows)
        .post("/o/{org}/toolboxes", WRITE, list::create)
        .get("/o/{org}/toolboxes/{id}", READ, show::show)
        .get("/o/{org}/toolboxes/{id}/status", READ, show::status)
        .post("/o/{org}/toolboxes/{id}", WRITE, show::rename)
        .post("/o/{org}/toolboxes/{id}/rotate-key", WRITE, show::rotate_key)
        .post("/o/{org}/toolboxes/{id}/renew-token", WRITE, show::renew_token)
        .post("/o/{org}/toolboxes/{id}/revoke", WRITE, show::revoke)
        .post("/o/{org}/toolboxes/{id}/delete", WRITE, show::delete)
}

/// Returns all toolboxes of an organisation, ordered by name.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation.
pub(crate) async fn list_all(cx: &Ctx, console: &Console, organization: &OrganizationId) -> Result<Vec<ToolboxView>> {
    let limit = u32::try_from(MAX_TOOLBOXES).unwrap_or(u32::MAX);
    toolboxes::list(cx, console.ops(), organization, None, limit).await
}

/// Returns the badge class of a state.
pub(crate) fn badge(state: ToolboxState) -> &'static str {
    match state {
        ToolboxState::Online => "good",
        ToolboxState::Pending => "info",
        ToolboxState::Unresponsive => "warn",
        ToolboxState::Revoked => "",
    }
}

fn page_error(member: &Member) -> impl Fn(Error) -> PageError + use<> {
    let layout = member.layout.clone().with_section("toolboxes");
    move |error| PageError::from(error).with_layout(layout.clone())
}

/// The part of a resource that is allocated to instances.
struct Usage {
    /// The share in percent, from 0 to 100.
    percent: f64,
    /// The amounts: `1.5 GiB of 4 GiB`.
    text: String,
}

impl Usage {
    fn new(used: f64, available: f64, text: String) -> Self {
        let percent = if available > 0.0 { (used / available * 100.0).clamp(0.0, 100.0) } else { 0.0 };
        Self { percent, text }
    }
}

/// Returns the allocated memory of a toolbox, or `None` before its first heartbeat.
fn memory(view: &ToolboxView) -> Option<Usage> {
    let (used, available) = (view.allocated.memory_bytes, view.toolbox.capacity?.memory_bytes);
    let text = format!("{} of {}", bytes(used), bytes(available));
    Some(Usage::new(used as f64, available as f64, text))
}

/// Returns the allocated CPU limits of a toolbox, or `None` before its first heartbeat.
fn cpu(view: &ToolboxView) -> Option<Usage> {
    let used = view.allocated.millicpus as f64 / 1_000.0;
    let available = view.toolbox.capacity?.cpus * CPU_OVERCOMMIT as f64;
    Some(Usage::new(used, available, format!("{used} of {available} CPUs")))
}
