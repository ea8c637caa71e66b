//! Request and response bodies. A request body that is too slow or takes too much memory ends with an error.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::{Activity, Exchange, ReceivingGuard};
use super::budget::MemoryReservation;

/// The reason why a request body was not read completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The body arrived too slowly.
    #[error("the request body arrived too slowly")]
    Timeout,
    /// Incomplete bodies used too much memory, and this was the largest body of the client with the highest usage.
    #[error("too many incomplete request bodies")]
    Memory,
}

impl BodyError {
    /// Returns the value of the metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Memory => "memory",
        }
    }
}

/// The minimum transfer rate of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyRate {
    /// Bytes per second; 0 for no limit.
    pub bytes_per_second: u32,
    /// Time by which the body may lag behind that rate.
    pub grace: Duration,
}

/// Tracks the time for which a body may keep the server waiting. The credit starts at [`BodyRate::grace`], which is also
/// its maximum; every byte that arrives adds a corresponding fraction of a second. Only the time that the server spends
/// waiting for the body counts, not the time that it takes to process it.
struct BodyPacer {
    rate: BodyRate,
    credit: Duration,
    waiting_since: Option<Instant>,
}

impl BodyPacer {
    fn new(rate: BodyRate) -> Self {
        Self { rate, credit: rate.grace, waiting_since: None }
    }

    /// Records that the server is waiting. Returns the time at which it stops waiting, or `None` if there is no limit.
    fn wait(&mut self, now: Instant) -> Option<Instant> {
        let since = *self.waiting_since.get_or_insert(now);
        (self.rate.bytes_per_second > 0).then(|| since + self.credit)
    }

    fn record_arrival(&mut self, now: Instant, bytes: usize) {
        if let Some(since) = self.waiting_since.take() {
            self.credit = self.credit.saturating_sub(now.duration_since(since));
        }
        if self.rate.bytes_per_second > 0 {
            let earned = Duration::from_secs_f64(bytes as f64 / f64::from(self.rate.bytes_per_second));
            self.credit = (self.credit + earned).min(self.rate.grace);
        }
    }
}

/// A request body that is subject to the rate and memory limits while it is incomplete.
pub struct RequestBody {
    inner: Incoming,
    pacer: BodyPacer,
    sleep: Option<Pin<Box<Sleep>>>,
    reservation: MemoryReservation,
    activity: Activity,
    receiving: Option<ReceivingGuard>,
    body_error: Arc<OnceLock<BodyError>>,
}

impl RequestBody {
    /// Wraps `inner`. An error is also stored in `body_error`.
    pub fn new(
        inner: Incoming,
        rate: BodyRate,
        reservation: MemoryReservation,
        activity: Activity,
        body_error: Arc<OnceLock<BodyError>>,
    ) -> Self {
        Self { inner, pacer: BodyPacer::new(rate), sleep: None, reservation, activity, receiving: None, body_error }
    }

    fn fail(&mut self, body_error: BodyError) -> axum::Error {
        self.receiving = None;
        self.reservation.release();
        if self.body_error.set(body_error).is_ok() {
            metrics::counter!("waypost_request_bodies_rejected_total", "reason" => body_error.as_str()).increment(1);
        }
        axum::Error::new(body_error)
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        if self.receiving.is_none() {
            self.receiving = Some(self.activity.begin_receiving());
        }
        let Some(until) = self.pacer.wait(Instant::now()) else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if sleep.deadline() != until {
            sleep.as_mut().reset(until);
        }
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(BodyError::Timeout)
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(body_error) = self.body_error.get() {
            return Poll::Ready(Some(Err(axum::Error::new(*body_error))));
        }
        if self.reservation.is_evicted(cx) {
            return Poll::Ready(Some(Err(self.fail(BodyError::Memory))));
        }
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let body_error = ready!(self.wait(cx));
                return Poll::Ready(Some(Err(self.fail(body_error))));
            }
        };
        self.receiving = None;
        let Some(frame) = frame else {
            self.reservation.release();
            return Poll::Ready(None);
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                self.reservation.release();
                return Poll::Ready(Some(Err(axum::Error::new(error))));
            }
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.pacer.record_arrival(Instant::now(), bytes);
        // A body that arrives in one piece is already complete, so most bodies take no lock.
        if self.inner.is_end_stream() {
            self.reservation.release();
        } else if !self.reservation.add(bytes) {
            return Poll::Ready(Some(Err(self.fail(BodyError::Memory))));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response body that reports its state to the connection.
pub struct ResponseBody {
    inner: Body,
    exchange: Exchange,
}

impl ResponseBody {
    /// Wraps `inner`. Completes `exchange` when `inner` ends.
    pub fn new(inner: Body, mut exchange: Exchange) -> Self {
        if inner.is_end_stream() {
            exchange.complete();
        }
        Self { inner, exchange }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.exchange.set_sending(false);
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(_)) if !self.inner.is_end_stream() => self.exchange.set_sending(true),
            _ => self.exchange.complete(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_may_lag_by_the_grace_time_and_cannot_accumulate_more_credit() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut pacer = BodyPacer::new(BodyRate { bytes_per_second: 1_000, grace: 5 * second });
        assert_eq!(pacer.wait(start), Some(start + 5 * second));
        pacer.record_arrival(start + 3 * second, 1_000);
        assert_eq!(pacer.wait(start + 3 * second), Some(start + 6 * second), "two seconds were left and one was added");
        pacer.record_arrival(start + 3 * second, 900_000);
        let later = start + 20 * second;
        assert_eq!(
            pacer.wait(later),
            Some(later + 5 * second),
            "the time that the server takes to read does not count"
        );
    }
}
