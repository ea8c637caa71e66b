//! Keeping mails, for tests.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{Mail, Mailer, Sending};

/// Keeps what is sent. Clones keep together.
#[derive(Debug, Clone)]
pub struct Memory(Arc<watch::Sender<Vec<Mail>>>);

impl Default for Memory {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Vec::new())))
    }
}

impl Memory {
    /// What was sent so far, oldest first.
    #[must_use]
    pub fn sent(&self) -> Vec<Mail> {
        self.0.borrow().clone()
    }

    /// What was sent so far, as soon as that is at least `count` mails.
    pub async fn at_least(&self, count: usize) -> Vec<Mail> {
        let mut mails = self.0.subscribe();
        // The sending side lives as long as `self`.
        let _ = mails.wait_for(|mails| mails.len() >= count).await;
        self.sent()
    }
}

impl Mailer for Memory {
    fn send<'a>(&'a self, mail: &'a Mail) -> Sending<'a> {
        Box::pin(async move {
            self.0.send_modify(|mails| mails.push(mail.clone()));
            Ok(())
        })
    }
}
