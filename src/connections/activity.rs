//! The activity of a connection, and the deadlines that follow from it.
//!
//! Invariants:
//!
//! 1. Timeouts apply only while the *client* must act: send a request or read a response. There is no deadline while a
//!    request is being processed or a stream has nothing to send.
//! 2. Incomplete data does not extend a deadline, for example a head that arrives byte by byte, or pings on a connection
//!    without requests.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// The period in which cancelled and completed requests are counted.
const CANCELLATION_WINDOW: Duration = Duration::from_secs(60);

/// Timeouts of a connection that waits for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Timeout for a complete request head, from the start of the connection or the first byte of a further request.
    pub header: Duration,
    /// Idle timeout between requests.
    pub keep_alive: Duration,
    /// Timeout for the client to accept any bytes of a pending response.
    pub response: Duration,
}

/// The reason why the server closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The request head was not completed in time.
    Header,
    /// No further request arrived in time.
    Idle,
    /// The client did not read its response.
    Response,
    /// The connection was closed in favour of another one.
    Evicted,
    /// Too many requests were cancelled (HTTP/2 rapid reset, CVE-2023-44487).
    Resets,
}

impl Reason {
    /// Returns the value of the metric label.
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

/// The activity of a connection, shared by its socket, its requests and the task that closes it.
#[derive(Clone)]
pub struct Activity(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Maximum number of cancelled requests within the window; 0 for no limit.
    reset_limit: u32,
    watchdog: AtomicWaker,
    closed: CancellationToken,
    reason: OnceLock<Reason>,
}

struct State {
    is_http2: bool,
    /// Number of requests with a complete head and an incomplete response.
    exchanges: usize,
    /// Number of exchanges that wait for more of their request body.
    receiving: usize,
    /// Number of exchanges with response data that the client has not accepted.
    sending: usize,
    /// Whether the socket currently accepts no more bytes.
    is_write_blocked: bool,
    /// Start time of the incomplete head.
    head_since: Option<Instant>,
    /// Time since which the client must act.
    waiting_since: Instant,
    /// Time at which the client last accepted bytes of a response.
    last_progress: Instant,
    window_start: Instant,
    completed: u32,
    cancelled: u32,
}

impl Activity {
    /// Creates the activity of a newly accepted connection. The connection is closed if more than `reset_limit` of its
    /// requests, and more than half of them, are cancelled within a minute; 0 for no limit.
    pub fn new(reset_limit: u32) -> Self {
        let now = Instant::now();
        let state = State {
            is_http2: false,
            exchanges: 0,
            receiving: 0,
            sending: 0,
            is_write_blocked: false,
            head_since: Some(now),
            waiting_since: now,
            last_progress: now,
            window_start: now,
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

    /// Records that bytes were received.
    pub fn record_received(&self) {
        let mut state = self.state();
        // Between requests, HTTP/1 clients send only the next head; HTTP/2 clients also send settings, windows and pings.
        if state.exchanges == 0 && state.head_since.is_none() && !state.is_http2 {
            state.head_since = Some(Instant::now());
        }
    }

    /// Records whether the socket accepted bytes.
    pub fn record_write(&self, accepted: bool) {
        let mut state = self.state();
        if accepted && !state.is_write_blocked {
            return;
        }
        if accepted || !state.is_write_blocked {
            state.last_progress = Instant::now();
        }
        if accepted && state.exchanges == 0 {
            state.waiting_since = Instant::now();
        }
        state.is_write_blocked = !accepted;
    }

    /// Records that a request head is complete.
    pub fn begin(&self, is_http2: bool) -> Exchange {
        let mut state = self.state();
        state.is_http2 = is_http2;
        state.exchanges += 1;
        state.head_since = None;
        state.waiting_since = Instant::now();
        drop(state);
        Exchange { activity: self.clone(), is_sending: false, is_complete: false }
    }

    /// Marks a request as waiting for more of its body until the returned guard is dropped.
    pub fn begin_receiving(&self) -> ReceivingGuard {
        self.state().receiving += 1;
        ReceivingGuard(self.clone())
    }

    /// Requests that the connection be closed.
    pub fn close(&self, reason: Reason) {
        let _ = self.0.reason.set(reason);
        self.0.closed.cancel();
    }

    /// Waits for [`Activity::close`].
    pub async fn closed(&self) -> Reason {
        self.0.closed.cancelled().await;
        self.0.reason.get().copied().unwrap_or(Reason::Evicted)
    }

    /// Returns the time since which the connection has been waiting for its client; `None` while a request is being processed
    /// or a response is being sent.
    pub fn waiting_since(&self) -> Option<Instant> {
        let state = self.state();
        let is_waiting = state.exchanges == state.receiving && !state.is_write_blocked;
        is_waiting.then(|| state.head_since.unwrap_or(state.waiting_since))
    }

    /// Whether no request is open and all data is sent.
    pub fn is_between_requests(&self) -> bool {
        let state = self.state();
        state.exchanges == 0 && !state.is_write_blocked
    }

    /// Returns the time at which the connection must be closed unless something happens, and the reason.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<(Instant, Reason)> {
        let state = self.state();
        if state.is_write_blocked || state.sending > 0 && state.sending == state.exchanges {
            Some((state.last_progress + timeouts.response, Reason::Response))
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
        if now.duration_since(state.window_start) >= CANCELLATION_WINDOW {
            (state.window_start, state.completed, state.cancelled) = (now, 0, 0);
        }
        let count = if is_complete { &mut state.completed } else { &mut state.cancelled };
        *count = count.saturating_add(1);
        let limit = self.0.reset_limit;
        let is_abusive = limit > 0 && state.cancelled > limit && state.cancelled > state.completed;
        drop(state);
        if is_abusive {
            self.close(Reason::Resets);
        }
        self.0.watchdog.wake();
    }
}

/// A request and its response. Ends when dropped.
pub struct Exchange {
    activity: Activity,
    is_sending: bool,
    is_complete: bool,
}

impl Exchange {
    /// Sets whether the response has data that waits for the client.
    pub fn set_sending(&mut self, is_sending: bool) {
        if is_sending != self.is_sending {
            self.is_sending = is_sending;
            let mut state = self.activity.state();
            if is_sending {
                state.sending += 1;
            } else {
                state.sending -= 1;
            }
            // Data that goes into a buffer in front of a blocked socket is not progress.
            if !state.is_write_blocked {
                state.last_progress = Instant::now();
            }
            drop(state);
            // HTTP/2 requests run in separate tasks.
            self.activity.0.watchdog.wake();
        }
    }

    /// Marks the response as completely delivered.
    pub fn complete(&mut self) {
        self.is_complete = true;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.activity.end(self.is_complete, self.is_sending);
    }
}

/// Marks a request as waiting for more of its body.
pub struct ReceivingGuard(Activity);

impl Drop for ReceivingGuard {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.receiving -= 1;
        state.waiting_since = Instant::now();
    }
}

/// A future that resolves with the reason when the connection must be closed.
pub struct Watchdog {
    activity: Activity,
    timeouts: Timeouts,
    sleep: Pin<Box<Sleep>>,
}

impl Watchdog {
    /// Creates a watchdog for `activity`. Must be polled whenever the connection is polled.
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
            // A timer that is too early is not moved: moving it for every request costs more than one early wake-up.
            if at < self.sleep.deadline() || self.sleep.is_elapsed() {
                self.sleep.as_mut().reset(at);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
