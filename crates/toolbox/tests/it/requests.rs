//! Requests from the control plane.

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use tokio::sync::oneshot;
use waypost_link::{BodyError, LinkError};
use waypost_toolbox::link::requests::{ResponseBody, error_response};
use waypost_toolbox::tasks;
use waypost_toolbox_proto::http::{CallError, MAX_MESSAGE_BYTES, mcp_path};

use crate::control_plane::ControlPlane;
use crate::machine::Machine;

type Outcome = Result<Response<waypost_link::Body>, LinkError>;

fn request(control: &ControlPlane, body: Bytes) -> tokio::task::JoinHandle<Option<Outcome>> {
    let links = control.links.clone();
    let request = Request::post(mcp_path("ins_1")).body(body).unwrap();
    tasks::spawn("request", async move { links.request(&ControlPlane::toolbox(), request).await })
}

#[tokio::test]
async fn the_largest_messages_are_transferred() {
    let control = ControlPlane::new();
    let machine = Machine::online(&control).await;
    let message = Bytes::from(vec![5; MAX_MESSAGE_BYTES]);
    let response = request(&control, message.clone());
    let call = machine.call().await;
    assert_eq!((call.parts.method.as_str(), call.parts.uri.path()), ("POST", "/v1/instances/ins_1/mcp"));
    let received = call.body.read_to_end(MAX_MESSAGE_BYTES).await.unwrap();
    call.respond.send(Response::new(ResponseBody::Complete(received))).ok().unwrap();
    let response = response.await.unwrap().unwrap().unwrap();
    assert_eq!(response.into_body().read_to_end(MAX_MESSAGE_BYTES).await.unwrap(), message);
}

#[tokio::test]
async fn a_stream_is_produced_as_fast_as_it_is_read_and_dropped_when_cancelled() {
    /// Notifies when it is dropped.
    struct Guard(Option<oneshot::Sender<()>>);
    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(());
        }
    }
    let control = ControlPlane::new();
    let machine = Machine::online(&control).await;
    let response = request(&control, Bytes::new());
    let call = machine.call().await;
    let (dropped, is_dropped) = oneshot::channel();
    let guard = Guard(Some(dropped));
    let endless = futures::stream::repeat_with(move || {
        let _ = &guard;
        Ok(Bytes::from(vec![0; 10_000]))
    });
    call.respond.send(Response::new(ResponseBody::stream(endless))).ok().unwrap();
    let mut body = response.await.unwrap().unwrap().unwrap().into_body();
    let mut received = 0;
    while received < 1_000_000 {
        received += body.chunk().await.unwrap().unwrap().len();
    }
    drop(body);
    is_dropped.await.unwrap();
}

#[tokio::test]
async fn a_cancelled_request_drops_its_handler() {
    let control = ControlPlane::new();
    let machine = Machine::online(&control).await;
    let response = request(&control, Bytes::new());
    let mut call = machine.call().await;
    response.abort();
    call.respond.closed().await;
}

#[tokio::test]
async fn the_end_of_the_link_drops_the_handlers() {
    let control = ControlPlane::new();
    let machine = Machine::online(&control).await;
    let response = request(&control, Bytes::new());
    let mut call = machine.call().await;
    control.links.close(&ControlPlane::toolbox());
    call.respond.closed().await;
    assert_eq!(response.await.unwrap().unwrap().unwrap_err(), LinkError::Interrupted);
}

#[tokio::test]
async fn a_body_that_fails_is_not_mistaken_for_a_complete_one() {
    let control = ControlPlane::new();
    let machine = Machine::online(&control).await;
    let response = request(&control, Bytes::new());
    let call = machine.call().await;
    let (fail, failed) = oneshot::channel();
    let first = futures::stream::iter([Ok(Bytes::from_static(b"first"))]);
    let failure = futures::stream::once(async move { failed.await.unwrap() });
    call.respond.send(Response::new(ResponseBody::stream(first.chain(failure)))).ok().unwrap();
    let mut body = response.await.unwrap().unwrap().unwrap().into_body();
    assert_eq!(body.chunk().await.unwrap().unwrap(), "first");
    fail.send(Err(BodyError::Interrupted)).unwrap();
    assert_eq!(body.chunk().await, Err(BodyError::Interrupted));
}

#[tokio::test]
async fn errors_have_a_status_and_a_message() {
    let control = ControlPlane::new();
    let machine = Machine::online(&control).await;
    let response = request(&control, Bytes::new());
    let call = machine.call().await;
    call.respond.send(error_response(StatusCode::NOT_FOUND, "There is no such instance.")).ok().unwrap();
    let response = response.await.unwrap().unwrap().unwrap();
    assert_eq!(response.status(), 404);
    let error: CallError = serde_json::from_slice(&response.into_body().read_to_end(1_000).await.unwrap()).unwrap();
    assert_eq!(error.message, "There is no such instance.");
}

#[tokio::test]
async fn a_handler_that_panics_ends_only_its_request() {
    let control = ControlPlane::new();
    let machine = Machine::online(&control).await;
    let response = request(&control, Bytes::new());
    drop(machine.call().await.respond);
    assert_eq!(response.await.unwrap().unwrap().unwrap_err(), LinkError::Interrupted);
    let response = request(&control, Bytes::new());
    machine.call().await.respond.send(Response::new(ResponseBody::Complete(Bytes::new()))).ok().unwrap();
    assert_eq!(response.await.unwrap().unwrap().unwrap().status(), 200);
}
