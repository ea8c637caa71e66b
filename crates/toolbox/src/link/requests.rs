//! Requests from the control plane.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use waypost_link_io::{Body, BodyError, send};
use waypost_toolbox_proto::http::CallError;

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Answers all requests from the control plane except the control stream.
pub trait Requests: Send + Sync + 'static {
    /// Answers a request (see [`waypost_toolbox_proto::http`]). The future and the body of the response are dropped if
    /// the control plane cancels the request, or the link is lost.
    fn handle(&self, request: Parts, body: Body) -> BoxFuture<'_, Response<ResponseBody>>;
}

/// The body of a response.
pub enum ResponseBody {
    /// A complete body.
    Complete(Bytes),
    /// A body that is sent as fast as the control plane reads it. An error resets the stream, so that the control plane
    /// does not mistake the body for a complete one.
    Stream(Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>),
}

impl ResponseBody {
    /// Creates a body from a stream.
    pub fn stream(stream: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Self {
        Self::Stream(Box::pin(stream))
    }
}

/// Creates a response with [`CallError`] as its body.
#[must_use]
pub fn error_response(status: StatusCode, message: &str) -> Response<ResponseBody> {
    let body = serde_json::to_vec(&CallError { message: message.to_owned() }).unwrap_or_default();
    let mut response = Response::new(ResponseBody::Complete(body.into()));
    *response.status_mut() = status;
    response
}

/// Answers one request.
pub(super) async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    requests: Arc<dyn Requests>,
) {
    let (parts, body) = request.into_parts();
    let response = tokio::select! {
        response = requests.handle(parts, Body::new(body)) => response,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    let (parts, body) = response.into_parts();
    let head = Response::from_parts(parts, ());
    let is_empty = matches!(&body, ResponseBody::Complete(bytes) if bytes.is_empty());
    // An error means that the request was cancelled.
    let Ok(mut stream) = respond.send_response(head, is_empty) else { return };
    match body {
        ResponseBody::Complete(bytes) if bytes.is_empty() => {}
        ResponseBody::Complete(bytes) => {
            let _ = stream.send_data(bytes, true);
        }
        ResponseBody::Stream(chunks) => send_stream(&mut stream, chunks).await,
    }
}

async fn send_stream(
    stream: &mut SendStream<Bytes>,
    mut chunks: Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>,
) {
    loop {
        let chunk = tokio::select! {
            chunk = chunks.next() => chunk,
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return,
        };
        match chunk {
            Some(Ok(chunk)) => {
                if send(stream, chunk).await.is_err() {
                    return;
                }
            }
            Some(Err(_)) => return stream.send_reset(Reason::INTERNAL_ERROR),
            None => {
                let _ = stream.send_data(Bytes::new(), true);
                return;
            }
        }
    }
}
