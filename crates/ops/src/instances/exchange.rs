//! Exchanges with the servers of instances: one message, and the messages of its response as received.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, header};
use waypost_core::id::{InstanceId, ToolboxId};
use waypost_core::{Error, Result};
use waypost_link::Body;
use waypost_toolbox_proto::http::{CONTAINER_KEY_HEADER, TIMEOUT_HEADER, mcp_path};

use super::call::too_large;
use super::requests::{interrupted, send_to};
use crate::Ops;

/// The server that receives a message.
#[derive(Debug, Clone, Copy)]
pub struct ExchangeTarget<'a> {
    /// The instance.
    pub instance: &'a InstanceId,
    /// The toolbox on which it runs.
    pub toolbox: &'a ToolboxId,
    /// The key of the caller's container, if the instance has several. Shared instances ignore it.
    pub key: &'a str,
}

/// The messages of the response to one message. Dropping it cancels the call.
#[derive(Debug)]
pub struct Exchange {
    body: Body,
    buffer: BytesMut,
    /// The number of bytes of the buffer that contain no line break.
    searched: usize,
    /// The maximum size of a message in bytes.
    limit: usize,
}

impl Exchange {
    /// Sends a message, which must be one line. The caller has been authorized. `limits` are the time after which the call
    /// fails, and the maximum size of each message of the response in bytes.
    ///
    /// # Errors
    /// `unavailable` if there is no link to the toolbox (`reason` is `toolbox_offline`) or the server cannot be started;
    /// `conflict` if the instance is not running; `rate_limited` if too many calls wait; `tool_server_error` if the server
    /// does not answer with MCP or in time.
    pub async fn open(
        ops: &Ops,
        target: ExchangeTarget<'_>,
        message: Bytes,
        (timeout, limit): (Duration, usize),
    ) -> Result<Self> {
        let request = Request::post(mcp_path(target.instance.as_str()))
            .header(header::CONTENT_TYPE, "application/json")
            .header(CONTAINER_KEY_HEADER, target.key)
            .header(TIMEOUT_HEADER, timeout.as_millis().to_string())
            .body(message)
            .map_err(Error::internal)?;
        let body = send_to(ops, target.toolbox, request).await?;
        Ok(Self { body, buffer: BytesMut::new(), searched: 0, limit })
    }

    /// Returns the next message; `None` after the last one.
    ///
    /// # Errors
    /// `tool_server_error` (`reason` is `too_large`) if a message is larger than the limit; `unavailable` if the link is
    /// lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(position) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(self.searched + position + 1);
                line.truncate(line.len() - 1);
                self.searched = 0;
                return if line.len() > self.limit { Err(too_large(TOO_LARGE)) } else { Ok(Some(line.freeze())) };
            }
            self.searched = self.buffer.len();
            if self.searched > self.limit {
                return Err(too_large(TOO_LARGE));
            }
            match self.body.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) => return Ok(None),
                Err(_) => return Err(interrupted()),
            }
        }
    }
}

const TOO_LARGE: &str = "The server's answer is too large.";
