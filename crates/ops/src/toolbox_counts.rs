//! Numbers of toolboxes and instances by state, for the metrics.

use waypost_core::access::authorize_operator;
use waypost_core::caller::Ctx;
use waypost_core::toolbox::{ToolboxState, UNRESPONSIVE_AFTER_MS};
use waypost_core::{Error, Result};
use waypost_store::system;
use waypost_toolbox_proto::instance::InstanceState;

use crate::Ops;

/// Sets the metrics `waypost_toolboxes` and `waypost_instances`. States that do not occur are set to 0. Called by a
/// job.
///
/// # Errors
/// `forbidden` for everyone except the operator; any error of the store.
pub async fn observe(cx: &Ctx, ops: &Ops) -> Result<()> {
    let (toolboxes, instances) = count(cx, ops).await?;
    for (state, count) in toolboxes {
        metrics::gauge!("waypost_toolboxes", "state" => state.as_str()).set(count as f64);
    }
    for (state, count) in instances {
        metrics::gauge!("waypost_instances", "state" => state.as_str()).set(count as f64);
    }
    Ok(())
}

/// The numbers of toolboxes and of instances in every state.
type Counts = (Vec<(ToolboxState, u64)>, Vec<(InstanceState, u64)>);

/// Returns the numbers of toolboxes and of instances in every state, in the whole installation.
///
/// # Errors
/// Those of [`observe`].
pub async fn count(cx: &Ctx, ops: &Ops) -> Result<Counts> {
    authorize_operator(&cx.caller)?;
    let mut conn = ops.store.read().await?;
    let toolboxes = system::count_toolboxes(&mut conn, cx.now().plus(-UNRESPONSIVE_AFTER_MS)).await?;
    let instances = system::count_instances(&mut conn).await?;
    Ok((
        by_state(ToolboxState::ALL, ToolboxState::as_str, &toolboxes)?,
        by_state(InstanceState::ALL, InstanceState::as_str, &instances)?,
    ))
}

fn by_state<S: Copy>(all: &[S], name: fn(S) -> &'static str, found: &[(String, i64)]) -> Result<Vec<(S, u64)>> {
    let count = |state: S| found.iter().find(|(found, _)| found == name(state)).map_or(0, |(_, count)| *count);
    all.iter().map(|state| Ok((*state, u64::try_from(count(*state)).map_err(Error::internal)?))).collect()
}
