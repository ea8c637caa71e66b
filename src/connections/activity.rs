//! What one connection is doing, and until when it may go on doing it.
//!
//! Invariants:
//!
//! 1. Time counts against a connection only while its *client* has to act: send a request, read a response. While a
//!    request is being processed, or a stream has nothing to send, there is no deadline.
//! 2. Bytes that complete nothing extend no deadline: a head that arrives byte by byte, or pings on a connection
//!    without requests.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// The period over which cancelled requests are compared with completed ones.
const CANCELLATION_WINDOW: Duration = Duration::from_secs(60);

/// How long a connection may wait for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a complete request head: from the start of the connection, or from the first byte of a further request.
    pub header: Duration,
    /// Between requests.
    pub keep_alive: Duration,
    /// For the client to accept any bytes of a response that is waiting to be sent.
    pub response: Duration,
}

/// Why the server closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No complete request head in time.
    Header,
    /// No further request in time.
    Idle,
    /// The client did not read its response.
    Response,
    /// Another connection needed the place.
    Evicted,
    /// Nearly all of its requests were cancelled (HTTP/2 rapid reset, CVE-2023-44487).
    Resets,
}

impl Reason {
    /// The value of the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header_timeout",
            Self::Idle => "idle",
            Self::Response => "response_timeout",
            Self::Evicted => "evicted",
            Self::Resets => "resets",
        }
    }
}

/// The activity of one connection, shared by its socket, its requests and the task that closes it.
#[derive(Clone)]
pub struct Activity(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Cancelled requests within the window that a connection may have; 0 is no limit.
    reset_limit: u32,
    watchdog: AtomicWaker,
    closed: CancellationToken,
    reason: OnceLock<Reason>,
}

struct State {
    http2: bool,
    /// Requests whose head is complete and whose response is not handed over yet.
    exchanges: usize,
    /// Of these, requests that wait for more of their body.
    receiving: usize,
    /// Of these, responses with data that the client has not made room for.
    sending: usize,
    /// The socket takes no more bytes at the moment.
    write_blocked: bool,
    /// When the head that is incomplete began.
    head_since: Option<Instant>,
    /// When the client was last given the turn.
    waiting_since: Instant,
    /// When the client last took bytes of a response.
    progress: Instant,
    window: Instant,
    completed: u32,
    cancelled: u32,
}

impl Activity {
    /// A connection that was accepted now. It is closed if more than `reset_limit` of its requests, and more than half
    /// of them, are cancelled within a minute; 0 is no limit.
    pub fn new(reset_limit: u32) -> Self {
        let now = Instant::now();
        let state = State {
            http2: false,
            exchanges: 0,
            receiving: 0,
            sending: 0,
            write_blocked: false,
            head_since: Some(now),
            waiting_since: now,
            progress: now,
            window: now,
            completed: 0,
            cancelled: 0,
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            reset_limit,
            watchdog: AtomicWaker::new(),
            closed: CancellationToken::new(),
            reason: OnceLock::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes have arrived.
    pub fn received(&self) {
        let mut state = self.state();
        // Between requests, HTTP/1 sends nothing but the next head; HTTP/2 also sends settings, windows and pings.
        if state.exchanges == 0 && state.head_since.is_none() && !state.http2 {
            state.head_since = Some(Instant::now());
        }
    }

    /// The socket took bytes (`true`), or has no room for any.
    pub fn wrote(&self, taken: bool) {
        let mut state = self.state();
        if taken && !state.write_blocked {
            return;
        }
        if taken || !state.write_blocked {
            state.progress = Instant::now();
        }
        if taken && state.exchanges == 0 {
            state.waiting_since = Instant::now();
        }
        state.write_blocked = !taken;
    }

    /// A request head is complete.
    pub fn begin(&self, http2: bool) -> Exchange {
        let mut state = self.state();
        state.http2 = http2;
        state.exchanges += 1;
        state.head_since = None;
        state.waiting_since = Instant::now();
        drop(state);
        Exchange { activity: self.clone(), is_sending: false, is_complete: false }
    }

    /// A request waits for more of its body until the returned value is dropped.
    pub fn receive(&self) -> ReceivingGuard {
        self.state().receiving += 1;
        ReceivingGuard(self.clone())
    }

    /// Asks the connection's task to close it.
    pub fn close(&self, reason: Reason) {
        let _ = self.0.reason.set(reason);
        self.0.closed.cancel();
    }

    /// Waits for [`Activity::close`].
    pub async fn closed(&self) -> Reason {
        self.0.closed.cancelled().await;
        self.0.reason.get().copied().unwrap_or(Reason::Evicted)
    }

    /// Since when nothing on this connection can proceed before its client sends more; `None` while a request is
    /// being processed or a response is being sent.
    pub fn waiting_since(&self) -> Option<Instant> {
        let state = self.state();
        let waiting = state.exchanges == state.receiving && !state.write_blocked;
        waiting.then(|| state.head_since.unwrap_or(state.waiting_since))
    }

    /// Whether no request is open and everything is sent.
    pub fn is_between_requests(&self) -> bool {
        let state = self.state();
        state.exchanges == 0 && !state.write_blocked
    }

    /// When the connection has to be closed, and why, if nothing happens until then.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<(Instant, Reason)> {
        let state = self.state();
        if state.write_blocked || state.sending > 0 && state.sending == state.exchanges {
            Some((state.progress + timeouts.response, Reason::Response))
        } else if state.exchanges > 0 {
            None
        } else if let Some(since) = state.head_since {
            Some((since + timeouts.header, Reason::Header))
        } else {
            Some((state.waiting_since + timeouts.keep_alive, Reason::Idle))
        }
    }

    fn end(&self, is_complete: bool, is_sending: bool) {
        let mut state = self.state();
        let now = Instant::now();
        state.exchanges -= 1;
        state.sending -= usize::from(is_sending);
        state.waiting_since = now;
        if now.duration_since(state.window) >= CANCELLATION_WINDOW {
            (state.window, state.completed, state.cancelled) = (now, 0, 0);
        }
        let count = if is_complete { &mut state.completed } else { &mut state.cancelled };
        *count = count.saturating_add(1);
        let limit = self.0.reset_limit;
        let abusive = limit > 0 && state.cancelled > limit && state.cancelled > state.completed;
        drop(state);
        if abusive {
            self.close(Reason::Resets);
        }
        self.0.watchdog.wake();
    }
}

/// A request and its response, until dropped.
pub struct Exchange {
    activity: Activity,
    is_sending: bool,
    is_complete: bool,
}

impl Exchange {
    /// Whether the response has data that waits for the client.
    pub fn set_sending(&mut self, is_sending: bool) {
        if is_sending != self.is_sending {
            self.is_sending = is_sending;
            let mut state = self.activity.state();
            if is_sending {
                state.sending += 1;
            } else {
                state.sending -= 1;
            }
            // What goes into a buffer in front of a full socket is no progress of the client.
            if !state.write_blocked {
                state.progress = Instant::now();
            }
            drop(state);
            // Requests of HTTP/2 run in tasks of their own.
            self.activity.0.watchdog.wake();
        }
    }

    /// The client was given everything, and cancelled nothing.
    pub fn complete(&mut self) {
        self.is_complete = true;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.activity.end(self.is_complete, self.is_sending);
    }
}

/// A request that waits for more of its body.
pub struct ReceivingGuard(Activity);

impl Drop for ReceivingGuard {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.receiving -= 1;
        state.waiting_since = Instant::now();
    }
}

/// Ends when the connection has to be closed, with the reason.
pub struct Watchdog {
    activity: Activity,
    timeouts: Timeouts,
    sleep: Pin<Box<Sleep>>,
}

impl Watchdog {
    /// Watches `activity`. Must be polled whenever the connection was.
    pub fn new(activity: Activity, timeouts: Timeouts) -> Self {
        let first = activity.deadline(&timeouts).map_or_else(Instant::now, |(at, _)| at);
        Self { activity, timeouts, sleep: Box::pin(sleep_until(first)) }
    }
}

impl Future for Watchdog {
    type Output = Reason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reason> {
        self.activity.0.watchdog.register(cx.waker());
        loop {
            let Some((at, reason)) = self.activity.deadline(&self.timeouts) else { return Poll::Pending };
            if at <= Instant::now() {
                return Poll::Ready(reason);
            }
            // A timer that is too early is left alone: moving it at each request costs more than one early wake-up.
            if at < self.sleep.deadline() || self.sleep.is_elapsed() {
                self.sleep.as_mut().reset(at);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
