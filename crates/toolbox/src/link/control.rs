//! The control stream at the daemon's end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::OptionFuture;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, timeout};
use waypost_link_io::Body;
use waypost_link_io::lines::{LineError, LineReader, LineWriter};
use waypost_toolbox_proto::message::{ControlMessage, DaemonMessage, HEARTBEAT_SECONDS, Heartbeat, MAX_UNACKNOWLEDGED};

use super::requests::BoxFuture;
use super::{Shared, Status};

/// Builds a heartbeat. The link sets the revision of the last desired state.
pub type HeartbeatSource = Arc<dyn Fn() -> BoxFuture<'static, Heartbeat> + Send + Sync>;

/// The time after which a heartbeat that cannot be built is skipped.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(20);

/// Why a link ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The connection was lost or could not be opened.
    Lost(String),
    /// The next key has been created and must be presented.
    KeyCreated,
    /// The key is not accepted.
    Unauthorized(String),
}

/// Runs the control stream until it ends.
pub(super) async fn run(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: Arc<Shared>,
    heartbeat: HeartbeatSource,
) -> End {
    let stream = match respond.send_response(Response::new(()), false) {
        Ok(stream) => stream,
        Err(error) => return End::Lost(error.to_string()),
    };
    shared.status.send_replace(Status::Online);
    metrics::counter!("waypost_daemon_links_opened_total").increment(1);
    tracing::info!("the link to the control plane is open");
    let reader = LineReader::new(Body::new(request.into_body()));
    // The receiving half never waits for the sending half, so the two ends cannot block each other.
    tokio::select! {
        end = receive(reader, &shared) => end,
        error = send(stream, &shared, heartbeat) => End::Lost(error.to_string()),
    }
}

/// Applies the messages of the control plane.
async fn receive(mut reader: LineReader, shared: &Arc<Shared>) -> End {
    loop {
        match reader.next::<ControlMessage>().await {
            Ok(Some(ControlMessage::Desired { state })) => shared.apply_desired(state).await,
            Ok(Some(ControlMessage::Acknowledge { sequence })) => shared.queue.acknowledge(sequence),
            Ok(Some(ControlMessage::Secrets { request, secrets })) => shared.secrets.answer(request, secrets),
            Ok(Some(ControlMessage::RotateKey)) => {
                if shared.create_next_key().await {
                    return End::KeyCreated;
                }
            }
            Ok(None) => return End::Lost("the control plane closed it".to_owned()),
            Err(error) => return End::Lost(error.to_string()),
        }
    }
}

/// Sends heartbeats, events and requests for secrets until the stream fails.
async fn send(stream: SendStream<Bytes>, shared: &Shared, source: HeartbeatSource) -> LineError {
    let mut writer = LineWriter::new(stream);
    let (heartbeats, mut built) = mpsc::channel(1);
    let build = async {
        loop_heartbeats(source, heartbeats).await;
        std::future::pending::<()>().await;
    };
    tokio::pin!(build);
    let (mut events, mut requests) = (shared.queue.subscribe(), shared.secrets.subscribe());
    let (mut sent_event, mut sent_request) = (0, 0);
    loop {
        let result = async {
            let (last, messages) = shared.secrets.messages(sent_request);
            sent_request = last;
            for message in &messages {
                writer.send(message).await?;
            }
            let (last, lines) = shared.queue.next_lines(sent_event, MAX_UNACKNOWLEDGED);
            sent_event = last;
            for line in lines {
                writer.send_line(line).await?;
            }
            Ok(())
        };
        if let Err(error) = result.await {
            return error;
        }
        // The channels are never closed: `shared` and `build` outlive this loop.
        let heartbeat = tokio::select! {
            Some(heartbeat) = built.recv() => Some(heartbeat),
            _ = events.changed() => None,
            _ = requests.changed() => None,
            () = &mut build => None,
        };
        let sending: OptionFuture<_> = heartbeat.map(|heartbeat| send_heartbeat(&mut writer, heartbeat, shared)).into();
        if let Some(Err(error)) = sending.await {
            return error;
        }
    }
}

async fn send_heartbeat(writer: &mut LineWriter, mut heartbeat: Heartbeat, shared: &Shared) -> Result<(), LineError> {
    heartbeat.desired_revision = shared.desired_revision();
    match writer.send(&DaemonMessage::Heartbeat(heartbeat)).await {
        Err(LineError::TooLong) => {
            tracing::error!("a heartbeat is too large and was not sent");
            Ok(())
        }
        result => result,
    }
}

/// Builds a heartbeat at once, and then every 60 seconds.
async fn loop_heartbeats(source: HeartbeatSource, heartbeats: mpsc::Sender<Heartbeat>) {
    let mut interval = tokio::time::interval(Duration::from_secs(HEARTBEAT_SECONDS));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        match timeout(HEARTBEAT_LIMIT, source()).await {
            Ok(heartbeat) => {
                if heartbeats.send(heartbeat).await.is_err() {
                    return;
                }
            }
            Err(_) => tracing::warn!("a heartbeat could not be built in time"),
        }
    }
}
