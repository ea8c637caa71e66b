//! Keeping mails, for tests.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{EmailMessage, Mailer, SendFuture};

/// Keeps what is sent. Clones keep together.
#[derive(Debug, Clone)]
pub struct MemoryMailer(Arc<watch::Sender<Vec<EmailMessage>>>);

impl Default for MemoryMailer {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Vec::new())))
    }
}

impl MemoryMailer {
    /// What was sent so far, oldest first.
    #[must_use]
    pub fn sent(&self) -> Vec<EmailMessage> {
        self.0.borrow().clone()
    }

    /// What was sent so far, as soon as that is at least `count` mails.
    pub async fn wait_for_count(&self, count: usize) -> Vec<EmailMessage> {
        let mut mails = self.0.subscribe();
        // The sending side lives as long as `self`.
        let _ = mails.wait_for(|mails| mails.len() >= count).await;
        self.sent()
    }
}

impl Mailer for MemoryMailer {
    fn send<'a>(&'a self, mail: &'a EmailMessage) -> SendFuture<'a> {
        Box::pin(async move {
            self.0.send_modify(|mails| mails.push(mail.clone()));
            Ok(())
        })
    }
}
