//! Statistics of instances, read from the disk of their toolbox.

use std::time::Duration;

use waypost_core::access::Operation;
use waypost_core::caller::Ctx;
use waypost_core::id::{InstanceId, OrganizationId};
use waypost_core::{Error, Result};
use waypost_link::{LineError, LineReader};
use waypost_toolbox_proto::http::{StatsSample, stats_path};

use super::requests::{find, get, interrupted, within};
use crate::Ops;

/// The maximum number of samples. The daemon combines samples, so that it sends at most 1,000.
const MAX_SAMPLES: usize = 10_000;
/// The time in which all samples must arrive.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Returns the resource usage of an instance over the last seven days, oldest first.
///
/// # Errors
/// `not_found` if the instance does not exist or the caller cannot access it; `unavailable` if there is no link to the
/// toolbox (`reason` is `toolbox_offline`); `conflict` for a remote server, or if the toolbox has not received the instance
/// yet.
pub async fn list(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &InstanceId) -> Result<Vec<StatsSample>> {
    ops.authorize_toolbox_use(cx, Operation::InstanceRead, organization).await?;
    let instance = find(ops, organization, id).await?;
    let body = get(ops, &instance, &stats_path(id.as_str())).await?;
    within(TIMEOUT, read(LineReader::new(body))).await
}

async fn read(mut reader: LineReader) -> Result<Vec<StatsSample>> {
    let mut samples = Vec::new();
    loop {
        match reader.next::<StatsSample>().await {
            Ok(Some(_)) if samples.len() == MAX_SAMPLES => return Err(unreadable("too many samples")),
            Ok(Some(sample)) => samples.push(sample),
            Ok(None) => return Ok(samples),
            Err(LineError::Interrupted) => return Err(interrupted()),
            Err(error) => return Err(unreadable(&error.to_string())),
        }
    }
}

fn unreadable(cause: &str) -> Error {
    Error::internal(format!("a toolbox sent statistics that cannot be read: {cause}"))
}
