//! Logs of instances, read from the disk of their toolbox.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use waypost_core::access::Operation;
use waypost_core::caller::Ctx;
use waypost_core::id::{InstanceId, OrganizationId};
use waypost_core::{Error, Result};
use waypost_link::{LineError, LineReader};
use waypost_toolbox_proto::http::{LogLine, logs_path};

use super::not_found;
use super::requests::{find, get, interrupted, send, within};
use crate::Ops;

/// The number of lines that are returned by default.
pub const DEFAULT_TAIL: u32 = 200;
/// The maximum number of lines.
pub const MAX_TAIL: u32 = 2_000;
/// The maximum size of the text of all lines in bytes.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// The maximum length of a line in bytes.
const MAX_LINE: usize = 16 * 1024;
/// The time in which all lines must arrive.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Returns the last `tail` lines of the log of an instance, oldest first. If their text is larger than 8 MiB, the
/// oldest lines are left out.
///
/// # Errors
/// `not_found` if the instance does not exist or the caller cannot access it; `forbidden` for members below admin;
/// `invalid_arguments` if `tail` is greater than [`MAX_TAIL`]; `unavailable` if there is no link to the toolbox
/// (`reason` is `toolbox_offline`); `conflict` for a remote server, or if the toolbox has not received the instance
/// yet.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &InstanceId,
    tail: u32,
) -> Result<Vec<LogLine>> {
    ops.authorize_toolbox_use(cx, Operation::InstanceLogRead, organization).await?;
    check_tail(tail)?;
    let instance = find(ops, organization, id).await?;
    let body = get(ops, &instance, &logs_path(id.as_str(), tail.into(), false)).await?;
    within(TIMEOUT, read_last(LineReader::new(body), tail)).await
}

async fn read_last(mut reader: LineReader, tail: u32) -> Result<Vec<LogLine>> {
    let (mut lines, mut size) = (VecDeque::new(), 0);
    while let Some(line) = next(&mut reader).await? {
        size += line.text.len();
        lines.push_back(line);
        while size > MAX_BYTES || lines.len() > tail as usize {
            size -= lines.pop_front().map_or(0, |line: LogLine| line.text.len());
        }
    }
    Ok(lines.into())
}

/// A log that is being followed. Dropping it ends the request to the toolbox.
#[derive(Debug)]
pub struct LogFollow(LineReader);

impl LogFollow {
    /// Waits for the next line; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// `unavailable` if the link to the toolbox is lost.
    pub async fn next(&mut self) -> Result<Option<LogLine>> {
        next(&mut self.0).await
    }
}

/// Returns the last `tail` lines of the log of an instance and all lines that follow. The caller of this function must
/// call [`check`] regularly, and stop if it fails.
///
/// # Errors
/// Those of [`list`].
pub async fn follow(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &InstanceId,
    tail: u32,
) -> Result<LogFollow> {
    ops.authorize_toolbox_use(cx, Operation::InstanceLogRead, organization).await?;
    check_tail(tail)?;
    let instance = find(ops, organization, id).await?;
    let path = logs_path(id.as_str(), tail.into(), true);
    let request = Request::get(path).body(Bytes::new()).map_err(Error::internal)?;
    Ok(LogFollow(LineReader::new(within(TIMEOUT, send(ops, &instance, request)).await?)))
}

/// Checks that the caller may still read the log of an instance.
///
/// # Errors
/// Those of [`list`]; `not_found` if the instance is being removed.
pub async fn check(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &InstanceId) -> Result<()> {
    ops.authorize_toolbox_use(cx, Operation::InstanceLogRead, organization).await?;
    match find(ops, organization, id).await?.is_removing {
        true => Err(not_found()),
        false => Ok(()),
    }
}

fn check_tail(tail: u32) -> Result<()> {
    match tail <= MAX_TAIL {
        true => Ok(()),
        false => Err(Error::invalid("tail", format!("`tail` must be a number from 0 to {MAX_TAIL}."))),
    }
}

async fn next(reader: &mut LineReader) -> Result<Option<LogLine>> {
    match reader.next::<LogLine>().await {
        Ok(Some(mut line)) => {
            line.text.truncate(line.text.floor_char_boundary(MAX_LINE));
            Ok(Some(line))
        }
        Ok(None) => Ok(None),
        Err(LineError::Interrupted) => Err(interrupted()),
        Err(error) => Err(Error::internal(format!("a toolbox sent a log that cannot be read: {error}"))),
    }
}
