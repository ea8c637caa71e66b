//! Background tasks of the daemon.

use std::any::Any;

use futures::FutureExt;
use tokio::task::JoinHandle;

/// Starts a task. A panic is logged and ends only this task.
pub fn spawn<T: Send + 'static>(
    name: &'static str,
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<Option<T>> {
    #[expect(clippy::disallowed_methods, reason = "the daemon's only place that starts tasks; panics are logged here")]
    tokio::spawn(async move {
        match std::panic::AssertUnwindSafe(work).catch_unwind().await {
            Ok(result) => Some(result),
            Err(panic) => {
                tracing::error!(task = name, panic = message(&*panic), "task panicked");
                None
            }
        }
    })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown")
}
