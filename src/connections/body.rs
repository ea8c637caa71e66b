//! The bodies of requests and responses: what arrives too slowly or takes too much memory ends with an error.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::{Activity, Exchange, Receiving};
use super::budget::Share;

/// Why a request body was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It arrived too slowly.
    #[error("the request body arrived too slowly")]
    Timeout,
    /// Incomplete bodies held too much memory, and this one was the largest of the client that held the most.
    #[error("too many incomplete request bodies")]
    Memory,
}

impl Fault {
    /// The value of the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Memory => "memory",
        }
    }
}

/// How fast a request body has to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Bytes per second; 0 is no limit.
    pub bytes_per_second: u32,
    /// How far the body may be behind that rate.
    pub grace: Duration,
}

/// How long a body may still keep the server waiting: [`Rate::grace`] at first, and at most; every byte that arrives adds
/// its share of a second. Only time that the server spends waiting for the body counts, not time that it takes to read.
struct Pace {
    rate: Rate,
    credit: Duration,
    waiting_since: Option<Instant>,
}

impl Pace {
    fn new(rate: Rate) -> Self {
        Self { rate, credit: rate.grace, waiting_since: None }
    }

    /// The server waits; returns the time at which it stops waiting.
    fn wait(&mut self, now: Instant) -> Option<Instant> {
        let since = *self.waiting_since.get_or_insert(now);
        (self.rate.bytes_per_second > 0).then(|| since + self.credit)
    }

    fn arrived(&mut self, now: Instant, bytes: usize) {
        if let Some(since) = self.waiting_since.take() {
            self.credit = self.credit.saturating_sub(now.duration_since(since));
        }
        if self.rate.bytes_per_second > 0 {
            let earned = Duration::from_secs_f64(bytes as f64 / f64::from(self.rate.bytes_per_second));
            self.credit = (self.credit + earned).min(self.rate.grace);
        }
    }
}

/// A request body that counts against the limits of rate and memory while it is incomplete.
pub struct RequestBody {
    inner: Incoming,
    pace: Pace,
    sleep: Option<Pin<Box<Sleep>>>,
    share: Share,
    activity: Activity,
    receiving: Option<Receiving>,
    fault: Arc<OnceLock<Fault>>,
}

impl RequestBody {
    /// Limits `inner`. A fault is also written to `fault`.
    pub fn new(inner: Incoming, rate: Rate, share: Share, activity: Activity, fault: Arc<OnceLock<Fault>>) -> Self {
        Self { inner, pace: Pace::new(rate), sleep: None, share, activity, receiving: None, fault }
    }

    fn fail(&mut self, fault: Fault) -> axum::Error {
        self.receiving = None;
        self.share.release();
        if self.fault.set(fault).is_ok() {
            metrics::counter!("waypost_request_bodies_rejected_total", "reason" => fault.as_str()).increment(1);
        }
        axum::Error::new(fault)
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        if self.receiving.is_none() {
            self.receiving = Some(self.activity.receive());
        }
        let Some(until) = self.pace.wait(Instant::now()) else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if sleep.deadline() != until {
            sleep.as_mut().reset(until);
        }
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Fault::Timeout)
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(fault) = self.fault.get() {
            return Poll::Ready(Some(Err(axum::Error::new(*fault))));
        }
        if self.share.is_evicted(cx) {
            return Poll::Ready(Some(Err(self.fail(Fault::Memory))));
        }
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let fault = ready!(self.wait(cx));
                return Poll::Ready(Some(Err(self.fail(fault))));
            }
        };
        self.receiving = None;
        let Some(frame) = frame else {
            self.share.release();
            return Poll::Ready(None);
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                self.share.release();
                return Poll::Ready(Some(Err(axum::Error::new(error))));
            }
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.pace.arrived(Instant::now(), bytes);
        // What comes in one piece is complete at once: most bodies take no lock.
        if self.inner.is_end_stream() {
            self.share.release();
        } else if !self.share.add(bytes) {
            return Poll::Ready(Some(Err(self.fail(Fault::Memory))));
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

/// A response body that tells the connection whose turn it is.
pub struct ResponseBody {
    inner: Body,
    exchange: Exchange,
}

impl ResponseBody {
    /// Ends `exchange` when `inner` has ended.
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
    async fn a_body_may_be_behind_by_the_grace_and_earns_no_more() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut pace = Pace::new(Rate { bytes_per_second: 1_000, grace: 5 * second });
        assert_eq!(pace.wait(start), Some(start + 5 * second));
        pace.arrived(start + 3 * second, 1_000);
        assert_eq!(pace.wait(start + 3 * second), Some(start + 6 * second), "two seconds were left, one was earned");
        pace.arrived(start + 3 * second, 900_000);
        let later = start + 20 * second;
        assert_eq!(pace.wait(later), Some(later + 5 * second), "what the server took to read does not count");
    }
}
