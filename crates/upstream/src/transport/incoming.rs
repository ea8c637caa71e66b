//! Messages of a server on the stream of one request, and what becomes of them.

use std::collections::VecDeque;

use bytes::Bytes;
use waypost_mcp_wire::rewrite::{Member, Rewrite};
use waypost_mcp_wire::sse::Event;
use waypost_mcp_wire::strict::{Message, MessageKind, Messages};

use super::http::Wire;
use super::message::{Counters, Incoming, answer};
use crate::error::Error;

/// The messages that belong to one request, or to none if there is no ID.
pub(crate) struct Inbox<'c> {
    pub(crate) id: Option<u64>,
    pub(crate) token: Option<&'c str>,
    pub(crate) wire: &'c Wire,
    pub(crate) accepts_requests: bool,
    pub(crate) counters: &'c Counters,
}

/// The outcome of a message.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// The messages that are passed on.
    pub(crate) ready: VecDeque<Incoming>,
    /// The answers to requests that are not passed on.
    pub(crate) answers: Vec<Vec<u8>>,
    /// Whether the response is among `ready`.
    pub(crate) is_done: bool,
    /// The number of messages.
    pub(crate) count: usize,
}

impl Inbox<'_> {
    /// Reads an event.
    pub(crate) fn receive_event(&self, event: &Event, received: &mut Received) -> Result<(), Error> {
        // An event without data only announces an event ID (2025-11-25).
        if event.data.is_empty() || event.name.is_some() {
            return Ok(());
        }
        if event.is_lossy {
            Counters::add(&self.counters.invalid_messages);
            return Err(Error::invalid("the server sent an event that is not UTF-8"));
        }
        self.receive(event.data.as_bytes(), received)
    }

    /// Reads a message, or a batch if the revision has them.
    pub(crate) fn receive(&self, text: &[u8], received: &mut Received) -> Result<(), Error> {
        match read(text, self.wire) {
            Ok(messages) => {
                for message in &messages {
                    received.count += 1;
                    self.receive_one(message, received);
                }
                Ok(())
            }
            Err(error) => {
                Counters::add(&self.counters.invalid_messages);
                Err(error)
            }
        }
    }

    fn receive_one(&self, message: &Message<'_>, received: &mut Received) {
        match message.kind {
            MessageKind::Request => self.receive_request(message, received),
            MessageKind::Notification => match self.restore(message) {
                Some(notification) if !received.is_done => received.ready.push_back(notification),
                _ => Counters::add(&self.counters.dropped_notifications),
            },
            MessageKind::Result | MessageKind::Error => {
                if self.is_own(message) && !received.is_done {
                    received.is_done = true;
                    received.ready.push_back(Incoming::new(message));
                } else {
                    Counters::add(&self.counters.unmatched_responses);
                }
            }
        }
    }

    fn receive_request(&self, message: &Message<'_>, received: &mut Received) {
        let is_ping = message.method.as_deref() == Some("ping");
        // 2026-07-28: servers send no requests, and clients no responses.
        if self.wire.is_modern() {
            Counters::add(&self.counters.rejected_requests);
        } else if is_ping {
            received.answers.push(answer(message));
        } else if self.accepts_requests && !received.is_done {
            received.ready.push_back(Incoming::new(message));
        } else {
            Counters::add(&self.counters.rejected_requests);
            received.answers.push(answer(message));
        }
    }

    /// Whether a response is the one to the request. An error without ID is one about a request that the server could not
    /// read; other notations of the ID are not what was sent.
    fn is_own(&self, response: &Message<'_>) -> bool {
        let Some(id) = self.id else { return false };
        match response.raw_id {
            Some(raw) if raw != "null" => raw.parse() == Ok(id) && raw.bytes().all(|byte| byte.is_ascii_digit()),
            _ => response.kind == MessageKind::Error,
        }
    }

    /// Returns a notification with the progress token of the caller; `None` if it belongs to another request.
    fn restore(&self, notification: &Message<'_>) -> Option<Incoming> {
        if notification.method.as_deref() != Some("notifications/progress") {
            return Some(Incoming::new(notification));
        }
        let (id, token) = (self.id?.to_string(), self.token?);
        (notification.params.progress_token == Some(id.as_str())).then(|| with_token(notification, token))
    }
}

/// Reads a message, or a batch if the revision has them.
pub(crate) fn read<'a>(text: &'a [u8], wire: &Wire) -> Result<Vec<Message<'a>>, Error> {
    match Messages::read(text) {
        Ok(Messages::Single(message)) => Ok(vec![*message]),
        Ok(Messages::Batch(batch)) if wire.has_batches() => Ok(batch),
        Ok(Messages::Batch(_)) => Err(Error::invalid("the server sent a batch, which its revision does not have")),
        Err(error) => {
            let text = format!("the server sent a message that is rejected: {}", error.message);
            Err(Error::InvalidResponse(text.into()))
        }
    }
}

/// Returns a progress notification with another token.
pub(crate) fn with_token(notification: &Message<'_>, token: &str) -> Incoming {
    let mut rewrite = Rewrite::new(notification);
    rewrite.set(Member::ProgressToken, Some(token));
    Incoming { kind: notification.kind, bytes: Bytes::from(rewrite.finish()) }
}
