//! The emails that `waypost serve` prints if `smtp_url` is `console:`.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::timeout;

use super::TIMEOUT;

/// The number of digits of a one-time code.
const CODE_DIGITS: usize = 8;

/// The output of a server so far, including earlier runs.
#[derive(Clone, Default)]
pub struct Mailbox {
    output: Arc<Mutex<Output>>,
    new_line: Arc<Notify>,
}

#[derive(Default)]
struct Output {
    lines: Vec<String>,
    /// For each address, the first line that has not been returned yet.
    read: HashMap<String, usize>,
}

impl Mailbox {
    /// Adds a line that the server printed.
    pub fn push_line(&self, line: String) {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).lines.push(line);
        self.new_line.notify_waiters();
    }

    /// Returns the one-time code in the next email to `address` that contains one. Each email is read once.
    ///
    /// # Errors
    /// Returns the output if no such email is printed in time.
    pub async fn next_code(&self, address: &str) -> Result<String, String> {
        self.wait_for_mail(address, find_code).await
    }

    /// Returns the link in the next email to `address` that contains one. Each email is read once.
    ///
    /// # Errors
    /// Returns the output if no such email is printed in time.
    pub async fn next_link(&self, address: &str) -> Result<String, String> {
        self.wait_for_mail(address, find_link).await
    }

    /// Waits for a line that begins with `start` and returns the rest of the line.
    ///
    /// # Errors
    /// Returns the output if no such line is printed in time.
    pub async fn wait_for_line(&self, start: &str) -> Result<String, String> {
        let waiting = async {
            loop {
                let mut new_line = pin!(self.new_line.notified());
                new_line.as_mut().enable();
                if let Some(found) = self.text().lines().find_map(|line| line.strip_prefix(start)) {
                    return found.to_owned();
                }
                new_line.await;
            }
        };
        let found = timeout(TIMEOUT, waiting).await;
        found.map_err(|_| format!("no line begins with {start:?}; the server printed:\n{}", self.text()))
    }

    async fn wait_for_mail(&self, address: &str, find: fn(&str) -> Option<String>) -> Result<String, String> {
        let waiting = async {
            loop {
                let mut new_line = pin!(self.new_line.notified());
                // Registers before looking, so that no line is missed in between.
                new_line.as_mut().enable();
                if let Some(found) = self.take_match(address, find) {
                    return found;
                }
                new_line.await;
            }
        };
        let found = timeout(TIMEOUT, waiting).await;
        found.map_err(|_| format!("no such email was sent to {address}; the server printed:\n{}", self.text()))
    }

    /// Returns the whole output.
    pub fn text(&self) -> String {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).lines.join("\n")
    }

    /// Returns the match of `find` in the next complete email to `address` that has one.
    fn take_match(&self, address: &str, find: fn(&str) -> Option<String>) -> Option<String> {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let heading = format!("│ Mail to {address}");
        let mut from = output.read.get(address).copied().unwrap_or(0);
        loop {
            let start = from + output.lines[from..].iter().position(|line| *line == heading)?;
            let end = start + output.lines[start..].iter().position(|line| line.starts_with('└'))?;
            from = end;
            if let Some(found) = output.lines[start + 1..end].iter().find_map(|line| find(line)) {
                output.read.insert(address.to_owned(), end);
                return Some(found);
            }
        }
    }
}

/// Returns the one-time code in a line, if any.
fn find_code(line: &str) -> Option<String> {
    let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
    words.find(|word| word.len() == CODE_DIGITS && word.bytes().all(|b| b.is_ascii_digit())).map(str::to_owned)
}

/// Returns the link in a line, if any.
fn find_link(line: &str) -> Option<String> {
    line.split_whitespace()
        .find(|word| word.starts_with("http") && (word.contains("/oauth/") || word.contains("/invite?")))
        .map(str::to_owned)
}
