//! The control stream: the desired state and answers in one direction, heartbeats, events and requests for secrets in
//! the other.

use std::time::Duration;

use http::{Method, Request};
use tokio::sync::mpsc;
use waypost_core::id::ToolboxId;
use waypost_link_io::Body;
use waypost_link_io::lines::{LineError, LineReader, LineWriter};
use waypost_toolbox_proto::http::CONTROL;
use waypost_toolbox_proto::message::{ControlMessage, DaemonMessage};

use crate::Directory;
use crate::links::Link;
use crate::request::absolute;

/// The maximum number of messages that wait to be sent. If the daemon stops reading them, its own messages are no
/// longer read either.
const ANSWERS: usize = 64;
/// The first and the longest pause before a message is stored again, or the desired state is read again, after a
/// failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Runs the control stream until it ends. Returns the reason for the log.
pub(crate) async fn run(link: &Link, toolbox: &ToolboxId, directory: &dyn Directory) -> String {
    let request = Request::new(());
    let (mut parts, ()) = request.into_parts();
    parts.method = Method::POST;
    parts.uri = absolute(&http::Uri::from_static(CONTROL));
    let opened = async {
        let mut client = link.client.clone().ready().await?;
        client.send_request(Request::from_parts(parts, ()), false)
    };
    let (response, stream) = match opened.await {
        Ok(opened) => opened,
        Err(error) => return error.to_string(),
    };
    let (answers, queue) = mpsc::channel(ANSWERS);
    let receive = async {
        match response.await {
            Ok(response) if response.status().is_success() => {
                let reader = LineReader::new(Body::new(response.into_body()));
                receive(reader, &answers, toolbox, directory).await
            }
            Ok(response) => format!("the daemon refused the control stream with status {}", response.status()),
            Err(error) => error.to_string(),
        }
    };
    tokio::select! {
        end = receive => end,
        end = send(LineWriter::new(stream), queue) => end,
        end = send_desired(link, &answers, toolbox, directory) => end,
        end = send_rotate_key(link, &answers) => end,
    }
}

/// Sends messages in the order in which they are queued.
async fn send(mut writer: LineWriter, mut queue: mpsc::Receiver<ControlMessage>) -> String {
    while let Some(message) = queue.recv().await {
        match writer.send(&message).await {
            Err(LineError::TooLong) => tracing::error!("a message to a toolbox is too long and was not sent"),
            Err(error) => return error.to_string(),
            Ok(()) => {}
        }
    }
    "the queue of answers was closed".to_owned()
}

/// Sends the desired state when the link opens, and after every notification.
async fn send_desired(
    link: &Link,
    answers: &mpsc::Sender<ControlMessage>,
    toolbox: &ToolboxId,
    directory: &dyn Directory,
) -> String {
    let mut pause = RETRY.0;
    loop {
        match directory.desired_state(toolbox).await {
            Ok(Some(state)) => {
                pause = RETRY.0;
                if answers.send(ControlMessage::Desired { state }).await.is_err() {
                    return "the queue of answers was closed".to_owned();
                }
                link.desired.notified().await;
            }
            Ok(None) => return "the toolbox is revoked".to_owned(),
            Err(error) => {
                tracing::warn!(%toolbox, %error, cause = cause(&error), "failed to read the desired state of a toolbox");
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(RETRY.1);
            }
        }
    }
}

async fn send_rotate_key(link: &Link, answers: &mpsc::Sender<ControlMessage>) -> String {
    loop {
        link.rotate_key.notified().await;
        if answers.send(ControlMessage::RotateKey).await.is_err() {
            return "the queue of answers was closed".to_owned();
        }
    }
}

/// Stores the messages of the daemon, one at a time.
async fn receive(
    mut reader: LineReader,
    answers: &mpsc::Sender<ControlMessage>,
    toolbox: &ToolboxId,
    directory: &dyn Directory,
) -> String {
    loop {
        let message = match reader.next::<DaemonMessage>().await {
            Ok(Some(message)) => message,
            Ok(None) => return "the daemon ended the control stream".to_owned(),
            Err(error) => return error.to_string(),
        };
        if let Some(answer) = store(message, toolbox, directory).await
            && answers.send(answer).await.is_err()
        {
            return "the queue of answers was closed".to_owned();
        }
    }
}

/// Stores a message, and returns the answer. Failures are retried for all messages except heartbeats. An event must not
/// be skipped: the acknowledgement of a later one would delete it on the daemon.
async fn store(message: DaemonMessage, toolbox: &ToolboxId, directory: &dyn Directory) -> Option<ControlMessage> {
    let mut pause = RETRY.0;
    loop {
        match directory.receive(toolbox, message.clone()).await {
            Ok(answer) => return answer,
            Err(error) => {
                tracing::warn!(%toolbox, %error, cause = cause(&error), "failed to store a message of a toolbox");
            }
        }
        if matches!(message, DaemonMessage::Heartbeat(_)) {
            return None;
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(RETRY.1);
    }
}

fn cause(error: &waypost_core::Error) -> Option<String> {
    std::error::Error::source(error).map(ToString::to_string)
}
