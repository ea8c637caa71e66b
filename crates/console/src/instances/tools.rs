//! The tools of an instance. `instance-tools.js` lists and calls them through the REST API.

use askama::Template;

use super::{InstanceContext, InstanceHeader};
use crate::layout::Layout;
use crate::view::{self, PageResult};

#[derive(Template)]
#[template(path = "instances/tools.html")]
struct ToolsPage {
    layout: Layout,
    header: InstanceHeader,
    id: String,
}

pub(super) async fn show(at: InstanceContext) -> PageResult {
    let (header, id) = (at.header("tools"), at.id().to_string());
    Ok(view::page(&ToolsPage { layout: at.layout, header, id }))
}
