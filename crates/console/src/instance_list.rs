//! All instances of an organisation, for pages of other resources.

use waypost_core::Result;
use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_core::instance::Instance;
use waypost_ops::instances;

use crate::Console;

/// The number of instances that are read at a time.
const PAGE: u32 = 200;

/// Returns all instances of an organisation, ordered by slug.
///
/// # Errors
/// Those of [`instances::list`].
pub(crate) async fn list_all(cx: &Ctx, console: &Console, organization: &OrganizationId) -> Result<Vec<Instance>> {
    let mut all: Vec<Instance> = Vec::new();
    loop {
        let after = all.last().map(|instance| instance.slug.clone());
        let page = instances::list(cx, console.ops(), organization, after.as_deref(), PAGE).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page.into_iter().map(|view| view.instance));
    }
}
