//! A mailer for tests that stores emails.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{EmailMessage, Mailer, SendFuture};

/// Stores sent emails. Clones share them.
#[derive(Debug, Clone)]
pub struct MemoryMailer(Arc<watch::Sender<Vec<EmailMessage>>>);

impl Default for MemoryMailer {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Vec::new())))
    }
}

impl MemoryMailer {
    /// Returns the sent emails, oldest first.
    #[must_use]
    pub fn sent(&self) -> Vec<EmailMessage> {
        self.0.borrow().clone()
    }

    /// Waits for at least `count` sent emails and returns all of them.
    pub async fn wait_for_count(&self, count: usize) -> Vec<EmailMessage> {
        let mut mails = self.0.subscribe();
        // The sender lives as long as `self`.
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
