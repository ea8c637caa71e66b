//! Messages that own their text.

use bytes::Bytes;
use self_cell::self_cell;

use super::Message;
use crate::error::JsonRpcError;

self_cell!(
    struct Cell {
        owner: Bytes,

        #[covariant]
        dependent: Message,
    }
);

/// A message that owns its text. It is parsed only once, however often it is passed on.
pub struct OwnedMessage(Cell);

impl std::fmt::Debug for OwnedMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.message().fmt(f)
    }
}

impl OwnedMessage {
    /// Reads one message, as [`Message::read`] does, without copying it.
    ///
    /// # Errors
    /// The errors of [`Message::read`].
    pub fn read(text: Bytes) -> Result<Self, JsonRpcError> {
        Cell::try_new(text, |text| Message::read(text)).map(Self)
    }

    /// Returns the message.
    #[must_use]
    pub fn message(&self) -> &Message<'_> {
        self.0.borrow_dependent()
    }

    /// Returns the complete text.
    #[must_use]
    pub fn text(&self) -> &Bytes {
        self.0.borrow_owner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_not_copied_and_the_message_can_be_moved() {
        let text = Bytes::from_static(br#"{"jsonrpc":"2.0","id":7,"result":{"a":1}}"#);
        let owned = Box::new(OwnedMessage::read(text.clone()).unwrap());
        assert_eq!(owned.message().text.as_ptr(), text.as_ptr());
        assert_eq!(owned.text().as_ptr(), text.as_ptr());
        let moved = *owned;
        drop(text);
        assert_eq!((moved.message().raw_id, moved.message().text.len()), (Some("7"), moved.text().len()));
        assert!(OwnedMessage::read(Bytes::from_static(b"{")).is_err());
    }
}
