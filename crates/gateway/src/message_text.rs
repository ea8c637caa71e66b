//! The text of a message for an agent, in pieces. The long pieces are parts of the server's message, which are not
//! copied.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// The text of a message.
#[derive(Debug)]
pub(crate) struct MessageText {
    pieces: VecDeque<Bytes>,
    length: usize,
}

impl MessageText {
    pub(crate) fn new(pieces: Vec<Bytes>) -> Self {
        let length = pieces.iter().map(Bytes::len).sum();
        Self { pieces: pieces.into(), length }
    }

    /// Returns the size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Returns the pieces in order.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter()
    }
}

impl From<Bytes> for MessageText {
    fn from(text: Bytes) -> Self {
        Self::new(vec![text])
    }
}

impl From<String> for MessageText {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<MessageText> for Body {
    fn from(mut text: MessageText) -> Self {
        match text.pieces.len() {
            1 => Self::from(text.pieces.pop_front().unwrap_or_default()),
            _ => Self::new(text),
        }
    }
}

impl HttpBody for MessageText {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let piece = self.pieces.pop_front();
        self.length -= piece.as_ref().map_or(0, Bytes::len);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn the_pieces_are_sent_in_order_with_their_length() {
        let pieces = ["a", "bc", "d"].map(Bytes::from);
        let text = || MessageText::new(pieces.to_vec());
        assert_eq!((text().len(), text().pieces().cloned().collect::<Vec<_>>()), (4, pieces.to_vec()));
        let mut body = Body::from(text());
        let mut sent = Vec::new();
        for left in [4, 3, 1, 0] {
            assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(left), left == 0));
            sent.extend(body.frame().await.map(|frame| frame.unwrap().into_data().unwrap()));
        }
        assert_eq!(sent, pieces);
        let one = Body::from(MessageText::from("abcd".to_owned()));
        assert_eq!((one.size_hint().exact(), one.collect().await.unwrap().to_bytes()), (Some(4), "abcd".into()));
    }
}
