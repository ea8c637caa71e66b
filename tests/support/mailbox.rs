//! The mail that `waypost serve` prints when its setting `smtp_url` is `console:`.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::timeout;

use super::PATIENCE;

/// How many digits a one-time code has.
const DIGITS: usize = 8;

/// What a server has printed so far, also over its restarts.
#[derive(Clone, Default)]
pub struct Mailbox {
    printed: Arc<Mutex<Printed>>,
    arrived: Arc<Notify>,
}

#[derive(Default)]
struct Printed {
    lines: Vec<String>,
    /// For each address, the first line that was not given out yet.
    read: HashMap<String, usize>,
}

impl Mailbox {
    /// Adds a line that the server printed.
    pub fn print(&self, line: String) {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner).lines.push(line);
        self.arrived.notify_waiters();
    }

    /// The one-time code in the next mail to `address` that has one; every mail is read once.
    ///
    /// # Errors
    /// What was printed, when no such mail comes in time.
    pub async fn code(&self, address: &str) -> Result<String, String> {
        self.wait(address, code_in).await
    }

    /// The link in the next mail to `address` that has one; every mail is read once.
    ///
    /// # Errors
    /// What was printed, when no such mail comes in time.
    pub async fn link(&self, address: &str) -> Result<String, String> {
        self.wait(address, link_in).await
    }

    /// What stands behind `start` in the first line that begins so, as soon as it is printed.
    ///
    /// # Errors
    /// What was printed, when no such line comes in time.
    pub async fn line(&self, start: &str) -> Result<String, String> {
        let waiting = async {
            loop {
                let mut arrived = pin!(self.arrived.notified());
                arrived.as_mut().enable();
                if let Some(found) = self.text().lines().find_map(|line| line.strip_prefix(start)) {
                    return found.to_owned();
                }
                arrived.await;
            }
        };
        let found = timeout(PATIENCE, waiting).await;
        found.map_err(|_| format!("no line begins with {start:?}; the server printed:\n{}", self.text()))
    }

    async fn wait(&self, address: &str, find: fn(&str) -> Option<String>) -> Result<String, String> {
        let waiting = async {
            loop {
                let mut arrived = pin!(self.arrived.notified());
                // Before looking, so that nothing arrives unseen in between.
                arrived.as_mut().enable();
                if let Some(found) = self.take(address, find) {
                    return found;
                }
                arrived.await;
            }
        };
        let found = timeout(PATIENCE, waiting).await;
        found.map_err(|_| format!("no such mail was sent to {address}; the server printed:\n{}", self.text()))
    }

    /// Everything that was printed.
    pub fn text(&self) -> String {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner).lines.join("\n")
    }

    /// The first line of the next whole mail to `address` in which there is something to find.
    fn take(&self, address: &str, find: fn(&str) -> Option<String>) -> Option<String> {
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        let heading = format!("│ Mail to {address}");
        let mut from = printed.read.get(address).copied().unwrap_or(0);
        loop {
            let start = from + printed.lines[from..].iter().position(|line| *line == heading)?;
            let end = start + printed.lines[start..].iter().position(|line| line.starts_with('└'))?;
            from = end;
            if let Some(found) = printed.lines[start + 1..end].iter().find_map(|line| find(line)) {
                printed.read.insert(address.to_owned(), end);
                return Some(found);
            }
        }
    }
}

/// The one-time code in a line: a word of just so many digits.
fn code_in(line: &str) -> Option<String> {
    let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
    words.find(|word| word.len() == DIGITS && word.bytes().all(|b| b.is_ascii_digit())).map(str::to_owned)
}

/// The link in a line.
fn link_in(line: &str) -> Option<String> {
    line.split_whitespace()
        .find(|word| word.starts_with("http") && (word.contains("/oauth/") || word.contains("/invite?")))
        .map(str::to_owned)
}
