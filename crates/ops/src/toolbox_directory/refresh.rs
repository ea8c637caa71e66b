//! Notices changes that other processes make, such as another replica or the command line.

use std::collections::HashMap;

use waypost_core::Result;
use waypost_core::id::ToolboxId;

use super::ToolboxDirectory;

/// The revisions of the desired states of the toolboxes with a link to this process, at the last run.
#[derive(Debug, Default)]
pub struct KnownRevisions(HashMap<ToolboxId, u64>);

impl ToolboxDirectory {
    /// Sends the desired states that have changed since the last run through the links of this process, and closes the
    /// links of toolboxes that were revoked, deleted or switched off, whose join token was renewed, or that another replica
    /// has claimed. The state is also sent through links that are new since the last run: it may have changed between the
    /// time at which the link read it and this run.
    ///
    /// # Errors
    /// Any error of the store. No desired state is sent then.
    pub async fn refresh_links(&self, known: &mut KnownRevisions) -> Result<()> {
        let links = self.ops.links();
        let open = links.toolboxes();
        if open.is_empty() {
            known.0.clear();
            return Ok(());
        }
        if let Some(leases) = &self.leases {
            for toolbox in leases.list_lost(&open.iter().collect::<Vec<_>>()).await? {
                tracing::info!(%toolbox, "closed a link because the toolbox opened a newer one to another replica");
                links.close(&toolbox);
            }
        }
        let current = self.list_revisions(&open.iter().collect::<Vec<_>>()).await?;
        let mut revisions = HashMap::with_capacity(current.len());
        for (toolbox, revision) in current {
            match revision {
                None => links.close(&toolbox),
                Some(revision) => {
                    if known.0.get(&toolbox).is_none_or(|known| *known != revision) {
                        links.notify_desired(&toolbox);
                    }
                    revisions.insert(toolbox, revision);
                }
            }
        }
        known.0 = revisions;
        Ok(())
    }
}
