//! Servers on standard input and output.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use waypost_toolbox_proto::http::{LogStream, MAX_MESSAGE_BYTES};

use super::interface::Failure;
use super::lines::{Line, LineReader};
use super::mux::{Cancel, Counters, Incoming, Mux, MuxCall, NewCall};
use super::wire::{Request, as_line, cancelled};
use crate::engine::{Attached, Output, OutputChunk};
use crate::logs::Bucket;
use crate::tasks;

/// The maximum number of messages that wait until the server reads them. Further callers wait.
const OUTGOING: usize = 32;
/// The maximum number of cancellations and answers that wait until the server reads them. Further ones are dropped.
const CONTROL: usize = 256;
/// The maximum length of a line of standard error. The log truncates it further.
const MAX_STDERR_LINE: usize = 64 * 1024;
/// The long-term rate in bytes per second at which the server may write anything other than messages of calls. A server
/// that writes more is read more slowly. Ten times this number can be written at once.
const IDLE_BYTES_PER_SECOND: u32 = 1024 * 1024;
/// The cost of a line in addition to its bytes.
const LINE_COST: usize = 64;

/// The reason for the end of a connection whose session is dropped.
const UNUSED: &str = "the connection is no longer used";

/// A message that waits to be written.
enum Outgoing {
    /// A request, which is written only if its call is still waiting.
    Request(u64, Bytes),
    /// Any other message. The sender reports that it has been written.
    Message(Bytes, oneshot::Sender<()>),
}

/// The connection to a server. Dropping it closes standard input and ends the connection.
pub(super) struct Stdio {
    mux: Arc<Mux>,
    outgoing: mpsc::Sender<Outgoing>,
    cancel: Cancel,
    control: mpsc::Sender<Bytes>,
    /// Ends the owner task, even while the server does not read.
    _stop: DropGuard,
}

impl Stdio {
    /// Starts the task that owns standard input and output for the lifetime of the connection.
    pub(super) fn start(attached: Attached, mux: Arc<Mux>) -> Self {
        let (outgoing, outgoing_receiver) = mpsc::channel(OUTGOING);
        let (control, control_receiver) = mpsc::channel(CONTROL);
        let cancels = control.clone();
        let cancel: Cancel = Arc::new(move |id| {
            // If the queue is full, the server is not reading, so it could not act on the cancellation anyway.
            let _ = cancels.try_send(as_line(cancelled(id)).into());
        });
        let stop = CancellationToken::new();
        let owner = Owner { mux: mux.clone(), answers: control.clone(), stop: stop.clone() };
        tasks::spawn("stdio", owner.run(attached, outgoing_receiver, control_receiver));
        Self { mux, outgoing, cancel, control, _stop: stop.drop_guard() }
    }

    /// Sends a request. Waits while the server does not read.
    pub(super) async fn open(&self, request: Request) -> Result<MuxCall, Failure> {
        let Request { id, text, original, caller, deadline, slot, is_cancellable, .. } = request;
        let cancel = is_cancellable.then(|| self.cancel.clone());
        let call = self.mux.register(NewCall { id, original, caller, deadline, slot, cancel })?;
        self.enqueue(Outgoing::Request(id, text), deadline).await?;
        Ok(call)
    }

    /// Sends a notification, which must be a line, and waits until it is written.
    pub(super) async fn notify(&self, text: Bytes, deadline: Instant) -> Result<(), Failure> {
        let (written, receiver) = oneshot::channel();
        self.enqueue(Outgoing::Message(text, written), deadline).await?;
        let result = tokio::time::timeout_at(deadline, receiver).await.map_err(|_| Failure::Timeout)?;
        result.map_err(|_| closed())
    }

    /// Sends a message, without a line feed, whose outcome nobody waits for. If the server does not read, the message
    /// is dropped.
    pub(super) fn send_detached(&self, text: Vec<u8>) {
        let _ = self.control.try_send(as_line(text).into());
    }

    async fn enqueue(&self, message: Outgoing, deadline: Instant) -> Result<(), Failure> {
        let sent = tokio::time::timeout_at(deadline, self.outgoing.send(message)).await;
        sent.map_err(|_| Failure::Timeout)?.map_err(|_| closed())
    }

    pub(super) fn mux(&self) -> &Mux {
        &self.mux
    }
}

fn closed() -> Failure {
    Failure::Closed("the server exited".to_owned())
}

/// Owns standard input and output: reads and writes until either fails.
struct Owner {
    mux: Arc<Mux>,
    answers: mpsc::Sender<Bytes>,
    stop: CancellationToken,
}

impl Owner {
    async fn run(self, attached: Attached, outgoing: mpsc::Receiver<Outgoing>, control: mpsc::Receiver<Bytes>) {
        let Attached { stdin, output } = attached;
        // The calls also end if this task panics.
        let close = CloseOnDrop(self.mux.clone());
        let cause = tokio::select! {
            cause = self.read(output) => cause,
            Err(error) = write(stdin, &self.mux, outgoing, control) => error,
            () = self.stop.cancelled() => UNUSED.to_owned(),
        };
        close.0.close(&cause);
    }

    /// Reads until the output ends, and returns the cause.
    async fn read(&self, mut output: Output) -> String {
        let mut stdout = LineReader::new(MAX_MESSAGE_BYTES, self.mux.budget.clone());
        let mut stderr = LineReader::new(MAX_STDERR_LINE, self.mux.budget.clone());
        let mut idle = Bucket::new(IDLE_BYTES_PER_SECOND);
        let cause = loop {
            let mut cost = 0;
            match output.next().await {
                Some(Ok(OutputChunk::Stdout(chunk))) => {
                    let discarded = stdout.push(&chunk, |line| cost += self.receive(line));
                    cost += discarded;
                }
                Some(Ok(OutputChunk::Stderr(chunk))) => {
                    cost += chunk.len();
                    stderr.push(&chunk, |line| cost += self.log(LogStream::Stderr, line));
                }
                Some(Err(error)) => break error.cause,
                None => break "the server exited".to_owned(),
            }
            idle.take(cost);
            if let Some(delay) = idle.delay(Instant::now()) {
                tokio::time::sleep(delay.max(Duration::from_millis(1))).await;
            }
        };
        stdout.finish(|line| _ = self.receive(line));
        stderr.finish(|line| _ = self.log(LogStream::Stderr, line));
        cause
    }

    /// Processes a line of standard output. Returns its cost, which is 0 for messages of calls, and without the bytes of a line
    /// that is too long.
    fn receive(&self, line: Line<'_>) -> usize {
        let counters = &self.mux.counters;
        let Line::Complete(text) = line else {
            // The line may have been the response to any call.
            Counters::add(&counters.oversized_messages);
            self.mux.log.line(LogStream::Toolbox, "the server wrote a line that is too long");
            self.mux.fail_all(&Failure::NotMcp("a line is too long".to_owned()));
            return LINE_COST;
        };
        match self.mux.receive(text) {
            Some(Incoming { is_delivered: true, .. }) => 0,
            Some(Incoming { answers, .. }) => {
                for answer in answers {
                    let _ = self.answers.try_send(as_line(answer).into());
                }
                text.len() + LINE_COST
            }
            None if text.trim_ascii().is_empty() => LINE_COST,
            None => {
                Counters::add(&counters.noise_lines);
                self.log(LogStream::Stdout, line) + text.len()
            }
        }
    }

    /// Writes a line to the log. Returns its cost.
    fn log(&self, stream: LogStream, line: Line<'_>) -> usize {
        match line {
            Line::Complete(text) => {
                self.mux.log.line(stream, &String::from_utf8_lossy(&text[..text.len().min(MAX_STDERR_LINE)]))
            }
            Line::TooLong => self.mux.log.line(LogStream::Toolbox, "the server wrote a line that is too long"),
        }
        LINE_COST
    }
}

struct CloseOnDrop(Arc<Mux>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close("the connection ended");
    }
}

/// Writes messages until the connection is dropped or writing fails. Returns the cause.
async fn write(
    mut stdin: std::pin::Pin<Box<dyn AsyncWrite + Send>>,
    mux: &Mux,
    mut outgoing: mpsc::Receiver<Outgoing>,
    mut control: mpsc::Receiver<Bytes>,
) -> Result<Infallible, String> {
    loop {
        let (text, written) = tokio::select! {
            biased;
            Some(text) = control.recv() => (text, None),
            message = outgoing.recv() => match message {
                Some(Outgoing::Request(id, _)) if !mux.mark_sent(id) => continue,
                Some(Outgoing::Request(_, text)) => (text, None),
                Some(Outgoing::Message(text, written)) => (text, Some(written)),
                None => return Err(UNUSED.to_owned()),
            },
        };
        let result = async {
            stdin.write_all(&text).await?;
            stdin.flush().await
        };
        result.await.map_err(|error| format!("the server closed its input ({error})"))?;
        if let Some(written) = written {
            let _ = written.send(());
        }
    }
}
