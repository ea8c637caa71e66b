//! The queue of mails: a page does not wait for the mail server, and takes the same time for every address.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use crate::{Error, Mail, Mailer};

/// Mails that may wait.
const QUEUE: usize = 1_000;
/// Mails that are sent at the same time.
const WORKERS: usize = 4;
/// How long to wait before each further try.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];

/// Too many mails wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many mails wait to be sent")]
pub struct QueueFull;

/// The sending side: clone it freely.
#[derive(Debug, Clone)]
pub struct Outbox(mpsc::Sender<Mail>);

impl Outbox {
    /// Starts the tasks that send by `mailer`. They end when every [`Outbox`] is dropped and the queue is empty.
    #[must_use]
    pub fn start(mailer: Arc<dyn Mailer>) -> (Self, Vec<JoinHandle<()>>) {
        Self::start_with(&mailer, QUEUE, PAUSES)
    }

    fn start_with(mailer: &Arc<dyn Mailer>, queue: usize, pauses: [Duration; 2]) -> (Self, Vec<JoinHandle<()>>) {
        let (sender, mails) = mpsc::channel(queue);
        let mails = Arc::new(Mutex::new(mails));
        let work = |_| tokio::spawn(work(Arc::clone(mailer), Arc::clone(&mails), pauses));
        (Self(sender), (0..WORKERS).map(work).collect())
    }

    /// Queues a mail.
    ///
    /// # Errors
    /// When too many wait already.
    pub fn send(&self, mail: Mail) -> Result<(), QueueFull> {
        self.0.try_send(mail).map_err(|_| QueueFull)
    }
}

async fn work(mailer: Arc<dyn Mailer>, mails: Arc<Mutex<mpsc::Receiver<Mail>>>, pauses: [Duration; 2]) {
    loop {
        let next = mails.lock().await.recv().await;
        let Some(mail) = next else { return };
        if let Err(error) = deliver(&*mailer, &mail, pauses).await {
            tracing::error!(%error, "a mail could not be sent");
        }
    }
}

/// Tries up to three times.
async fn deliver(mailer: &dyn Mailer, mail: &Mail, pauses: [Duration; 2]) -> Result<(), Error> {
    for pause in pauses {
        match mailer.send(mail).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_final() => return Err(error),
            Err(error) => tracing::warn!(%error, "a mail was not taken, it is tried again"),
        }
        tokio::time::sleep(pause).await;
    }
    mailer.send(mail).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{Memory, Sending};

    const AT_ONCE: [Duration; 2] = [Duration::ZERO; 2];

    fn mail(n: usize) -> Mail {
        Mail { to: format!("a{n}@b.de"), subject: "Code".into(), text: "1".into() }
    }

    /// Fails a number of times, then keeps what it is given.
    struct Failing {
        error: Error,
        left: AtomicUsize,
        tried: AtomicUsize,
        taken: Memory,
    }

    impl Failing {
        fn new(error: Error, times: usize) -> Arc<Self> {
            let (left, tried) = (AtomicUsize::new(times), AtomicUsize::new(0));
            Arc::new(Self { error, left, tried, taken: Memory::default() })
        }
    }

    impl Mailer for Failing {
        fn send<'a>(&'a self, mail: &'a Mail) -> Sending<'a> {
            self.tried.fetch_add(1, Ordering::SeqCst);
            if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                return Box::pin(std::future::ready(Err(self.error.clone())));
            }
            self.taken.send(mail)
        }
    }

    #[tokio::test]
    async fn three_tries_and_no_more() {
        for (error, failures, tries, taken) in [
            (Error::Unreachable, 0, 1, 1),
            (Error::Unreachable, 2, 3, 1),
            (Error::Later("451".into()), 3, 3, 0),
            (Error::Refused("550".into()), 1, 1, 0),
        ] {
            let failing = Failing::new(error, failures);
            let mailer: Arc<dyn Mailer> = failing.clone();
            let (outbox, tasks) = Outbox::start_with(&mailer, 10, AT_ONCE);
            outbox.send(mail(1)).unwrap();
            drop(outbox);
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!((failing.tried.load(Ordering::SeqCst), failing.taken.sent().len()), (tries, taken));
        }
    }

    /// Never finishes.
    struct Stuck;

    impl Mailer for Stuck {
        fn send<'a>(&'a self, _: &'a Mail) -> Sending<'a> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let stuck: Arc<dyn Mailer> = Arc::new(Stuck);
        let (outbox, tasks) = Outbox::start_with(&stuck, 3, AT_ONCE);
        let taken = (0..WORKERS + 10).take_while(|n| outbox.send(mail(*n)).is_ok()).count();
        assert!((3..=3 + WORKERS).contains(&taken), "{taken}");
        tasks.iter().for_each(JoinHandle::abort);
    }
}
