//! The deadline of a call, which limits the time that its server takes. Neither the time spent asking the agent nor the
//! time spent waiting for other calls counts: otherwise, a healthy server with many calls would seem to answer late.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use waypost_core::{Code, Error, Result};

use crate::record::TIMEOUT_REASON;

/// The time at which a call times out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallDeadline {
    at: Instant,
    /// The time that the server has left while the agent is being asked; `None` otherwise.
    left: Option<Duration>,
}

impl CallDeadline {
    /// Creates the deadline of a call that begins now.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self { at: Instant::now() + timeout, left: None }
    }

    /// Returns the time at which the call times out.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    /// Whether the deadline has passed.
    pub(crate) fn has_passed(&self) -> bool {
        Instant::now() >= self.at
    }

    /// Pauses the server's time, and gives the agent `time` to answer.
    pub(crate) fn pause(&mut self, time: Duration) {
        let now = Instant::now();
        let left = self.at.saturating_duration_since(now);
        self.left.get_or_insert(left);
        self.at = now + time;
    }

    /// Resumes the server's remaining time, if the agent was asked.
    pub(crate) fn resume(&mut self) {
        if let Some(left) = self.left.take() {
            self.at = Instant::now() + left;
        }
    }

    /// Waits for something other than the server or the agent. This time does not count, so `wait` must have its own
    /// timeout.
    pub(crate) async fn exclude<T>(&mut self, wait: impl Future<Output = T>) -> T {
        let left = self.at.saturating_duration_since(Instant::now());
        let result = wait.await;
        self.at = Instant::now() + left;
        result
    }

    /// Runs a part of the call, and returns its result.
    ///
    /// # Errors
    /// Those of `work`, and [`late`] if the deadline passes first.
    pub(crate) async fn limit<T>(self, work: impl Future<Output = Result<T>>) -> Result<T> {
        timeout_at(self.at, work).await.unwrap_or_else(|_| Err(late()))
    }
}

/// Returns the error for a server that has not answered in time.
pub(crate) fn late() -> Error {
    Error::new(Code::ToolServerError, "The server did not answer in time.").with("reason", TIMEOUT_REASON)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_spent_asking_the_agent_does_not_count() {
        let seconds = Duration::from_secs;
        let mut deadline = CallDeadline::after(seconds(30));
        deadline.resume();
        advance(seconds(20)).await;
        // Two questions, one after the other.
        for _ in 0..2 {
            deadline.pause(seconds(300));
            advance(seconds(299)).await;
            assert!(!deadline.has_passed());
        }
        deadline.resume();
        deadline.resume();
        assert_eq!(deadline.limit(async { Ok(7) }).await.unwrap(), 7);
        let begun = Instant::now();
        let error = deadline.limit(std::future::pending::<Result<()>>()).await.unwrap_err();
        assert_eq!((error.reason(), begun.elapsed().as_secs()), (Some(TIMEOUT_REASON), 10));
        assert!(deadline.has_passed());
    }

    #[tokio::test(start_paused = true)]
    async fn time_spent_waiting_for_other_calls_does_not_count() {
        let seconds = Duration::from_secs;
        let mut deadline = CallDeadline::after(seconds(30));
        advance(seconds(10)).await;
        deadline.exclude(advance(seconds(29))).await;
        let begun = Instant::now();
        let error = deadline.limit(std::future::pending::<Result<()>>()).await.unwrap_err();
        assert_eq!((error.reason(), begun.elapsed().as_secs()), (Some(TIMEOUT_REASON), 20));
    }
}
