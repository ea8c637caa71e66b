//! Messages with their text.

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

/// A message together with its text. It is read once, however often it is passed on.
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
