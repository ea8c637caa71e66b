//! The log of an instance. `instance-logs.js` reads and follows it through the REST API.

use askama::Template;
use waypost_ops::instances::logs::{DEFAULT_TAIL, MAX_TAIL};

use super::{InstanceContext, InstanceHeader};
use crate::layout::Layout;
use crate::view::{self, PageResult};

#[derive(Template)]
#[template(path = "instances/logs.html")]
struct LogsPage {
    layout: Layout,
    header: InstanceHeader,
    id: String,
    /// The numbers of lines that can be selected.
    tails: [u32; 3],
}

pub(super) async fn show(at: InstanceContext) -> PageResult {
    let (header, id) = (at.header("logs"), at.id().to_string());
    let tails = [DEFAULT_TAIL, MAX_TAIL / 2, MAX_TAIL];
    Ok(view::page(&LogsPage { layout: at.layout, header, id, tails }))
}
