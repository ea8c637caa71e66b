//! The messages of a response: a single JSON message, or the events of a stream.

use std::collections::VecDeque;
use std::mem;

use http::HeaderValue;
use http::header::CONTENT_TYPE;
use waypost_mcp_wire::media_type::MediaType;
use waypost_mcp_wire::sse::EventParser;
use waypost_outbound::{Error, StreamResponse};

/// A response whose messages are read one by one.
#[derive(Debug)]
pub(super) struct Incoming {
    response: StreamResponse,
    format: Format,
    /// The complete messages that have not been returned yet.
    ready: VecDeque<Vec<u8>>,
    has_ended: bool,
}

#[derive(Debug)]
enum Format {
    /// The part of the message that has been read.
    Json(Vec<u8>),
    Events(EventParser),
}

impl Incoming {
    /// Begins to read a response. Returns `None` if it contains no messages. JSON is accepted with any status, because
    /// JSON-RPC errors have statuses such as 400 and 404.
    pub(super) fn new(response: StreamResponse) -> Option<Self> {
        let values = response.headers.get_all(CONTENT_TYPE).iter().map(HeaderValue::as_bytes);
        let format = match MediaType::of(values)? {
            MediaType::Json => Format::Json(Vec::new()),
            MediaType::Events if response.status.is_success() => Format::Events(EventParser::new()),
            MediaType::Events => return None,
        };
        Some(Self { response, format, ready: VecDeque::new(), has_ended: false })
    }

    /// Whether the response is a stream of events.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self.format, Format::Events(_))
    }

    /// Returns the next message, which has not been checked; `None` at the end.
    ///
    /// # Errors
    /// Those of [`StreamResponse::chunk`].
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(Some(message));
            }
            if self.has_ended {
                return Ok(None);
            }
            let chunk = self.response.chunk().await?;
            self.has_ended = chunk.is_none();
            match (&mut self.format, chunk) {
                (Format::Json(body), Some(chunk)) => body.extend_from_slice(&chunk),
                (Format::Json(body), None) => self.ready.push_back(mem::take(body)),
                (Format::Events(events), Some(chunk)) => {
                    self.ready.extend(events.push(&chunk).into_iter().map(|event| event.data.into_bytes()));
                }
                (Format::Events(_), None) => {}
            }
        }
    }
}
