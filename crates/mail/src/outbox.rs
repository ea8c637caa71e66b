//! The email queues. Because of them, a page does not wait for the mail server, and takes the same time for every
//! recipient.
//!
//! Each kind of email has its own queue and workers, so that nothing else can fill or slow down the queue of sign-in
//! emails. Each queue is shared fairly between organisations ([`crate::fair`]).
//!
//! Invariants:
//! - An accepted email is sent, dropped after its last attempt, evicted from a full queue, or counted by
//!   [`Outbox::finish`]. A panic counts as a failed attempt and affects no other email.
//! - The workers are supervised ([`waypost_jobs`]): a worker that panics is restarted, and a worker that hangs is
//!   reported as late.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use waypost_jobs::{Job, Jobs, WorkerHandle};

use crate::fair::{Bounds, FairQueue, QueueFull};
use crate::{EmailMessage, Error, Mailer};

/// The delays before further attempts.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];
/// The time after which a worker that is sending one email counts as late. The timeout of SMTP is half of it.
const LATE: Duration = Duration::from_secs(120);
/// The pause of a worker after a panic. It is short, because other emails are waiting.
const PAUSE_AFTER_PANIC: Duration = Duration::from_millis(100);

/// The kind of an email, which determines its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailKind {
    /// Codes and links for sign-in.
    SignIn,
    /// Invitations.
    Invitation,
}

impl EmailKind {
    const ALL: [Self; 2] = [Self::SignIn, Self::Invitation];

    fn name(self) -> &'static str {
        match self {
            Self::SignIn => "sign_in",
            Self::Invitation => "invitation",
        }
    }

    /// Returns the bounds of the queue. An email is a few kilobytes, so a full queue is a few megabytes.
    fn bounds(self) -> Bounds {
        match self {
            Self::SignIn => Bounds { per_share: 100, total: 2_000, at_once: 2 },
            // The maximum number of pending invitations of an organisation.
            Self::Invitation => Bounds { per_share: 200, total: 2_000, at_once: 1 },
        }
    }

    /// Returns the names of the workers. Each of them sends one email at a time. There are more than `at_once`, so that
    /// one organisation cannot occupy every worker.
    fn workers(self) -> &'static [&'static str] {
        match self {
            Self::SignIn => &["sign-in-emails", "sign-in-emails-2", "sign-in-emails-3", "sign-in-emails-4"],
            Self::Invitation => &["invitation-emails", "invitation-emails-2"],
        }
    }
}

/// The email queues. Clones share the same queues.
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);

struct Inner {
    mailer: Arc<dyn Mailer>,
    queues: Vec<Arc<Queue>>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    closed: watch::Sender<bool>,
}

struct Queue {
    kind: EmailKind,
    fair: Mutex<FairQueue<Attempt>>,
    added: Notify,
    since: Instant,
    pauses: [Duration; 2],
}

#[derive(Clone)]
struct Attempt {
    mail: Arc<EmailMessage>,
    /// The number of failed attempts.
    failed: usize,
}

/// An email that a worker has taken. When dropped, the email leaves the queue or is put back, unless the attempt was
/// aborted.
struct Delivery<'a> {
    queue: &'a Queue,
    share: String,
    attempt: Attempt,
    /// `None` until the attempt has ended.
    result: Option<Result<(), Error>>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("waiting", &self.waiting()).finish()
    }
}

impl Outbox {
    /// Starts workers that send with `mailer`. They end with [`Outbox::finish`], or when every [`Outbox`] is dropped.
    #[must_use]
    pub fn start(mailer: Arc<dyn Mailer>) -> Self {
        Self::start_in(&Jobs::default(), mailer)
    }

    /// Starts the workers as part of `jobs`. They end like those of [`Outbox::start`].
    #[must_use]
    pub fn start_in(jobs: &Jobs, mailer: Arc<dyn Mailer>) -> Self {
        Self::start_with(jobs, mailer, PAUSES)
    }

    fn start_with(jobs: &Jobs, mailer: Arc<dyn Mailer>, pauses: [Duration; 2]) -> Self {
        let closed = watch::Sender::new(false);
        let mut workers = Vec::new();
        let queues = EmailKind::ALL.map(|kind| {
            let fair = Mutex::new(FairQueue::new(kind.bounds()));
            let queue = Arc::new(Queue { kind, fair, added: Notify::new(), since: Instant::now(), pauses });
            for name in kind.workers() {
                let job = Job { late_after: LATE, max_pause: PAUSE_AFTER_PANIC, ..Job::new(name, Duration::ZERO) };
                let (mailer, queue, closed) = (Arc::clone(&mailer), Arc::clone(&queue), closed.subscribe());
                let run = move |handle| work(Arc::clone(&mailer), Arc::clone(&queue), closed.clone(), handle);
                workers.push(jobs.start_worker(job, run));
            }
            queue
        });
        Self(Arc::new(Inner { mailer, queues: queues.into(), workers: Mutex::new(workers), closed }))
    }

    /// Enqueues an email. `share` is the ID of the organisation that the email counts against, or empty for none.
    ///
    /// # Errors
    /// [`QueueFull`] if the organisation has reached its share of the queue, if the queue is full and no email is
    /// evicted for this one, or after [`Outbox::finish`].
    pub fn enqueue(&self, kind: EmailKind, share: &str, mail: EmailMessage) -> Result<(), QueueFull> {
        let Some(queue) = self.0.queues.iter().find(|queue| queue.kind == kind) else { return Err(QueueFull) };
        let pushed = if *self.0.closed.borrow() {
            Err(QueueFull)
        } else {
            queue.fair().push(share, Attempt { mail: Arc::new(mail), failed: 0 })
        };
        match pushed {
            Ok(evicted) => {
                if evicted.is_some() {
                    queue.count("dropped");
                    tracing::warn!(kind = kind.name(), "email queue is full, dropped newest email of longest line");
                }
                queue.added.notify_one();
                Ok(())
            }
            Err(full) => {
                queue.count("rejected");
                Err(full)
            }
        }
    }

    /// Sends an email that is stored elsewhere until it is sent: one attempt, without the queues.
    ///
    /// # Errors
    /// Any [`Error`] if the mail server does not accept the email.
    pub async fn deliver(&self, mail: &EmailMessage) -> Result<(), Error> {
        self.0.mailer.send(mail).await
    }

    /// Stops accepting emails and sends the waiting ones for at most `patience`. Returns the number of emails that are
    /// still in the queues and therefore lost.
    pub async fn finish(&self, patience: Duration) -> usize {
        self.0.closed.send_replace(true);
        let workers = std::mem::take(&mut *self.0.workers.lock().unwrap_or_else(PoisonError::into_inner));
        let aborts: Vec<_> = workers.iter().map(JoinHandle::abort_handle).collect();
        let all = async {
            for worker in workers {
                // Panics of a worker do not end its task.
                let _ = worker.await;
            }
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
        }
        self.waiting()
    }

    /// Returns the number of emails that are waiting or being sent.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.queues.iter().map(|queue| queue.fair().len()).sum()
    }
}

impl Queue {
    fn fair(&self) -> MutexGuard<'_, FairQueue<Attempt>> {
        self.fair.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, outcome: &'static str) {
        metrics::counter!("waypost_emails_total", "kind" => self.kind.name(), "outcome" => outcome).increment(1);
    }

    /// Ends an attempt. An email with remaining attempts is put back into the queue, so that no worker waits for it.
    fn end(&self, share: &str, attempt: &Attempt, result: Result<(), Error>) {
        let Err(error) = result else {
            self.fair().done(share);
            return self.count("sent");
        };
        match self.pauses.get(attempt.failed) {
            Some(pause) if !error.is_final() => {
                tracing::warn!(%error, kind = self.kind.name(), "failed to send email, will retry");
                let again = Attempt { failed: attempt.failed + 1, ..attempt.clone() };
                self.fair().put_back(share, again, self.since.elapsed() + *pause);
            }
            _ => {
                tracing::error!(%error, kind = self.kind.name(), "failed to send email");
                self.fair().done(share);
                self.count("failed");
            }
        }
    }
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        let result = match self.result.take() {
            Some(result) => result,
            None if std::thread::panicking() => Err(Error::Panicked),
            // Aborted by `Outbox::finish`, which counts the email as lost.
            None => return,
        };
        self.queue.end(&self.share, &self.attempt, result);
    }
}

async fn work(mailer: Arc<dyn Mailer>, queue: Arc<Queue>, mut closed: watch::Receiver<bool>, handle: WorkerHandle) {
    loop {
        let closing = *closed.borrow();
        let now = queue.since.elapsed();
        // While closing, emails do not wait for their next attempt.
        let until = if closing { Duration::MAX } else { now };
        let (next, next_at) = {
            let mut fair = queue.fair();
            (fair.pop(until), fair.next_at(now))
        };
        if let Some((share, attempt)) = next {
            let _busy = handle.begin_item();
            let mut taken = Delivery { queue: &queue, share, attempt, result: None };
            taken.result = Some(mailer.send(&taken.attempt.mail).await);
            continue;
        }
        if closing {
            // Other workers finish the emails that they have taken.
            return;
        }
        let retry = async {
            match next_at {
                Some(at) => tokio::time::sleep_until(queue.since + at).await,
                None => std::future::pending().await,
            }
        };
        let is_gone = async { closed.wait_for(|closed| *closed).await.is_err() };
        tokio::select! {
            () = queue.added.notified() => {}
            () = retry => {}
            is_gone = is_gone => if is_gone { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::{MemoryMailer, SendFuture};

    const NO_PAUSES: [Duration; 2] = [Duration::ZERO; 2];
    const LONG: Duration = Duration::from_secs(3_600);

    fn mail(n: usize) -> EmailMessage {
        EmailMessage::plain(format!("a{n}@b.de"), "Code", "1")
    }

    /// Fails a number of times, then stores emails.
    struct FailingMailer {
        error: Error,
        left: AtomicUsize,
        tried: AtomicUsize,
        taken: MemoryMailer,
    }

    impl FailingMailer {
        fn new(error: Error, times: usize) -> Arc<Self> {
            let (left, tried) = (AtomicUsize::new(times), AtomicUsize::new(0));
            Arc::new(Self { error, left, tried, taken: MemoryMailer::default() })
        }
    }

    impl Mailer for FailingMailer {
        fn send<'a>(&'a self, mail: &'a EmailMessage) -> SendFuture<'a> {
            self.tried.fetch_add(1, Ordering::SeqCst);
            if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                assert!(self.error != Error::Panicked, "a bug in a mailer");
                return Box::pin(std::future::ready(Err(self.error.clone())));
            }
            self.taken.send(mail)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_email_has_three_attempts() {
        for (error, failures, attempts, sent) in [
            (Error::Unreachable, 0, 1, 1),
            (Error::Unreachable, 2, 3, 1),
            (Error::Panicked, 1, 2, 1),
            (Error::Deferred("451".into()), 3, 3, 0),
            (Error::Rejected("550".into()), 1, 1, 0),
        ] {
            let failing = FailingMailer::new(error, failures);
            let outbox = Outbox::start_with(&Jobs::default(), failing.clone(), NO_PAUSES);
            outbox.enqueue(EmailKind::SignIn, "org_1", mail(1)).unwrap();
            assert_eq!(outbox.finish(LONG).await, 0);
            assert_eq!((failing.tried.load(Ordering::SeqCst), failing.taken.sent().len()), (attempts, sent));
            assert_eq!(
                outbox.enqueue(EmailKind::SignIn, "org_1", mail(2)),
                Err(QueueFull),
                "no email is accepted after the end"
            );
        }
    }

    /// Finishing is not delayed and loses nothing, even if a clone of the outbox is still held, for example by a
    /// request that does not end.
    #[tokio::test]
    async fn finishing_a_shared_outbox_loses_nothing() {
        let memory = MemoryMailer::default();
        let outbox = Outbox::start(Arc::new(memory.clone()));
        let held = outbox.clone();
        for n in 0..50 {
            outbox.enqueue(EmailKind::SignIn, "org_1", mail(n)).unwrap();
            outbox.enqueue(EmailKind::Invitation, "org_1", mail(n)).unwrap();
        }
        assert_eq!(outbox.finish(LONG).await, 0);
        assert_eq!((memory.sent().len(), held.waiting()), (100, 0));
    }

    /// An email that waits for its next attempt is tried once more at the end, without the delay.
    #[tokio::test]
    async fn finishing_does_not_wait_for_a_delay() {
        let failing = FailingMailer::new(Error::Unreachable, 1);
        let outbox = Outbox::start_with(&Jobs::default(), failing.clone(), [LONG; 2]);
        outbox.enqueue(EmailKind::SignIn, "org_1", mail(1)).unwrap();
        assert_eq!((outbox.finish(LONG).await, failing.taken.sent().len()), (0, 1));
    }

    /// Sending an email with the subject `slow` never ends.
    struct Stuck(MemoryMailer);

    impl Mailer for Stuck {
        fn send<'a>(&'a self, mail: &'a EmailMessage) -> SendFuture<'a> {
            if mail.subject == "slow" { Box::pin(std::future::pending()) } else { self.0.send(mail) }
        }
    }

    #[tokio::test]
    async fn unsent_emails_are_counted() {
        let outbox = Outbox::start(Arc::new(Stuck(MemoryMailer::default())));
        for n in 0..7 {
            outbox.enqueue(EmailKind::SignIn, "org_1", EmailMessage { subject: "slow".into(), ..mail(n) }).unwrap();
        }
        assert_eq!(outbox.finish(Duration::ZERO).await, 7);
    }

    #[tokio::test]
    async fn a_stuck_organisation_and_a_full_queue_delay_no_one_else() {
        let memory = MemoryMailer::default();
        let outbox = Outbox::start(Arc::new(Stuck(memory.clone())));
        let slow = |n| EmailMessage { subject: "slow".into(), ..mail(n) };
        for (kind, most) in [(EmailKind::Invitation, 200), (EmailKind::SignIn, 100)] {
            let taken = (0..1_000).take_while(|n| outbox.enqueue(kind, "org_flood", slow(*n)).is_ok()).count();
            assert_eq!(taken, most, "the share of an organisation");
        }
        outbox.enqueue(EmailKind::SignIn, "org_other", mail(1)).unwrap();
        assert_eq!(memory.wait_for_count(1).await.len(), 1);
    }

    /// Panics for the subject `panic` and stores all other emails.
    struct PanickingMailer(MemoryMailer);

    impl Mailer for PanickingMailer {
        fn send<'a>(&'a self, mail: &'a EmailMessage) -> SendFuture<'a> {
            Box::pin(async move {
                // As during a conversation with a mail server.
                tokio::task::yield_now().await;
                assert_ne!(mail.subject, "panic", "a bug in a mailer");
                self.0.send(mail).await
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_counted_and_loses_no_other_email() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        let _recording = metrics::set_default_local_recorder(&recorder);
        let (jobs, memory) = (Jobs::default(), MemoryMailer::default());
        let outbox = Outbox::start_in(&jobs, Arc::new(PanickingMailer(memory.clone())));
        for n in 0..20 {
            let subject = if n % 2 == 0 { "panic" } else { "Code" };
            outbox
                .enqueue(EmailKind::Invitation, "org_1", EmailMessage { subject: subject.into(), ..mail(n) })
                .unwrap();
        }
        assert_eq!(memory.wait_for_count(10).await.len(), 10, "the workers are restarted");
        outbox.enqueue(EmailKind::Invitation, "org_1", mail(20)).unwrap();
        memory.wait_for_count(11).await;
        while outbox.waiting() > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let panics: u64 = jobs.statuses().iter().map(|status| status.panics).sum();
        assert_eq!(panics, 30, "three attempts for each of ten emails");
        let text = metrics.render();
        let counted =
            text.lines().filter_map(|line| line.strip_prefix("waypost_job_panics_total{job=\"invitation-emails"));
        let counted: u64 = counted.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
        assert_eq!(counted, 30, "{text}");
        assert!(text.contains(r#"waypost_emails_total{kind="invitation",outcome="failed"} 10"#), "{text}");
        assert_eq!(outbox.finish(LONG).await, 0);
        assert!(jobs.statuses().is_empty(), "workers end with their queue");
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_hangs_on_an_email_is_late() {
        let (jobs, memory) = (Jobs::default(), MemoryMailer::default());
        let outbox = Outbox::start_in(&jobs, Arc::new(Stuck(memory.clone())));
        let late = || jobs.late_jobs().iter().map(|status| status.name).collect::<Vec<_>>();
        tokio::time::sleep(LONG).await;
        assert_eq!(late(), Vec::<&str>::new(), "a worker that waits for emails is not late");
        outbox.enqueue(EmailKind::SignIn, "org_1", EmailMessage { subject: "slow".into(), ..mail(1) }).unwrap();
        outbox.enqueue(EmailKind::SignIn, "org_1", mail(2)).unwrap();
        tokio::time::sleep(LATE - Duration::from_secs(1)).await;
        assert_eq!((late(), memory.sent().len()), (vec![], 1));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(matches!(late()[..], [name] if EmailKind::SignIn.workers().contains(&name)), "{:?}", late());
    }
}
