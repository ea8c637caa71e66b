//! Processes the messages of a server on the stream of one request.

use std::collections::VecDeque;

use bytes::Bytes;
use waypost_mcp_wire::JsonRpcError;
use waypost_mcp_wire::memory::{Reservation, keep};
use waypost_mcp_wire::rewrite::{Member, Rewrite};
use waypost_mcp_wire::sse::Event;
use waypost_mcp_wire::strict::{Message, MessageKind, Messages, OwnedMessage};

use super::http::Wire;
use super::message::{Counters, answer};
use crate::error::Error;

/// Receives the messages that belong to one request, or to no request if there is no ID.
pub(crate) struct Inbox<'c> {
    pub(crate) id: Option<u64>,
    pub(crate) token: Option<&'c str>,
    pub(crate) wire: &'c Wire,
    pub(crate) accepts_requests: bool,
    pub(crate) counters: &'c Counters,
}

/// The messages that were received, and the answers to them.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// The messages that are passed on.
    pub(crate) ready: VecDeque<OwnedMessage>,
    /// The answers to requests that are not passed on.
    pub(crate) answers: Vec<Vec<u8>>,
    /// Whether the response is among `ready`.
    pub(crate) is_done: bool,
    /// The number of messages.
    pub(crate) count: usize,
}

impl Inbox<'_> {
    /// Reads an event. Its messages take over the memory that was reserved for it.
    pub(crate) fn receive_event(
        &self,
        event: Event,
        memory: &mut Reservation,
        received: &mut Received,
    ) -> Result<(), Error> {
        // An event without data only announces an event ID (2025-11-25).
        if event.data.is_empty() || event.name.is_some() {
            return Ok(());
        }
        if event.is_lossy {
            Counters::add(&self.counters.invalid_messages);
            return Err(Error::invalid("the server sent an event that is not UTF-8"));
        }
        self.receive(memory.hold(event.data.into())?, received)
    }

    /// Reads a message, or a batch if the revision has them.
    pub(crate) fn receive(&self, text: Bytes, received: &mut Received) -> Result<(), Error> {
        let messages = read(text, self.wire).inspect_err(|_| Counters::add(&self.counters.invalid_messages))?;
        received.count += messages.len();
        for message in messages {
            if self.receive_one(&message, received) {
                received.ready.push_back(message);
            }
        }
        Ok(())
    }

    /// Processes a message. Returns whether it is passed on unchanged.
    fn receive_one(&self, owned: &OwnedMessage, received: &mut Received) -> bool {
        let message = owned.message();
        match message.kind {
            MessageKind::Request => self.receive_request(message, received),
            MessageKind::Notification => self.receive_notification(owned, received),
            MessageKind::Result | MessageKind::Error if self.is_own(message) && !received.is_done => {
                received.is_done = true;
                true
            }
            MessageKind::Result | MessageKind::Error => {
                Counters::add(&self.counters.unmatched_responses);
                false
            }
        }
    }

    /// Processes a request. Returns whether it is passed on.
    fn receive_request(&self, message: &Message<'_>, received: &mut Received) -> bool {
        let is_ping = message.method.as_deref() == Some("ping");
        // 2026-07-28: servers send no requests, and clients no responses.
        if self.wire.is_modern() {
            Counters::add(&self.counters.rejected_requests);
            return false;
        }
        if self.accepts_requests && !is_ping && !received.is_done {
            return true;
        }
        if !is_ping {
            Counters::add(&self.counters.rejected_requests);
        }
        received.answers.push(answer(message));
        false
    }

    /// Processes a notification. Returns whether it is passed on unchanged. A progress notification is passed on with
    /// the token of the caller instead.
    fn receive_notification(&self, owned: &OwnedMessage, received: &mut Received) -> bool {
        let message = owned.message();
        let is_progress = message.method.as_deref() == Some("notifications/progress");
        if !is_progress && !received.is_done {
            return true;
        }
        match self.token.filter(|_| !received.is_done && self.is_own_progress(message)) {
            Some(token) => received.ready.extend(with_token(owned, token)),
            None => Counters::add(&self.counters.dropped_notifications),
        }
        false
    }

    /// Whether a response belongs to the request. An error without an ID refers to a request that the server could not
    /// read. An ID in another notation is not the ID that was sent.
    fn is_own(&self, response: &Message<'_>) -> bool {
        let Some(id) = self.id else { return false };
        match response.raw_id {
            Some(raw) if raw != "null" => raw.parse() == Ok(id) && raw.bytes().all(|byte| byte.is_ascii_digit()),
            _ => response.kind == MessageKind::Error,
        }
    }

    fn is_own_progress(&self, notification: &Message<'_>) -> bool {
        let id = self.id.map(|id| id.to_string());
        id.is_some() && notification.params.progress_token == id.as_deref()
    }
}

/// Reads a message, or a batch if the revision has them.
fn read(text: Bytes, wire: &Wire) -> Result<Vec<OwnedMessage>, Error> {
    if text.trim_ascii_start().first() != Some(&b'[') {
        return OwnedMessage::read(text).map(|message| vec![message]).map_err(|error| rejected(&error));
    }
    if !wire.has_batches() {
        return Err(Error::invalid("the server sent a batch, which its revision does not have"));
    }
    let Messages::Batch(batch) = Messages::read(&text).map_err(|error| rejected(&error))? else {
        return Ok(Vec::new());
    };
    // Slices, because copies would not hold the reserved memory.
    let part = |message: &Message<'_>| OwnedMessage::read(text.slice_ref(message.text.as_bytes()));
    batch.iter().map(part).collect::<Result<_, _>>().map_err(|error| rejected(&error))
}

pub(crate) fn rejected(error: &JsonRpcError) -> Error {
    Error::InvalidResponse(format!("the server sent a message that is rejected: {}", error.message).into())
}

/// Returns a progress notification with another token. Returns `None` if the notification is not valid with this token.
pub(crate) fn with_token(notification: &OwnedMessage, token: &str) -> Option<OwnedMessage> {
    let mut rewrite = Rewrite::new(notification.message());
    rewrite.set(Member::ProgressToken, Some(token));
    OwnedMessage::read(keep(rewrite.finish().into(), notification.text().clone())).ok()
}
