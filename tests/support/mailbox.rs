//! The mail that `waypost serve` prints when its setting `smtp_url` is `console:`.

use std::collections::HashMap;
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

    /// The next one-time code that was sent to `address`; every code is given out once.
    ///
    /// # Errors
    /// What was printed, when no code comes in time.
    pub async fn code(&self, address: &str) -> Result<String, String> {
        let waiting = async {
            loop {
                let arrived = self.arrived.notified();
                if let Some(code) = self.take(address) {
                    return code;
                }
                arrived.await;
            }
        };
        let code = timeout(PATIENCE, waiting).await;
        code.map_err(|_| format!("no code was sent to {address}; the server printed:\n{}", self.text()))
    }

    /// Everything that was printed.
    pub fn text(&self) -> String {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner).lines.join("\n")
    }

    /// The code in the next whole mail to `address` that has one.
    fn take(&self, address: &str) -> Option<String> {
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        let heading = format!("│ Mail to {address}");
        let mut from = printed.read.get(address).copied().unwrap_or(0);
        loop {
            let start = from + printed.lines[from..].iter().position(|line| *line == heading)?;
            let end = start + printed.lines[start..].iter().position(|line| line.starts_with('└'))?;
            from = end;
            if let Some(code) = printed.lines[start + 1..end].iter().find_map(|line| code_in(line)) {
                printed.read.insert(address.to_owned(), end);
                return Some(code);
            }
        }
    }
}

/// The one-time code in a line: a word of just so many digits.
fn code_in(line: &str) -> Option<String> {
    let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
    words.find(|word| word.len() == DIGITS && word.bytes().all(|b| b.is_ascii_digit())).map(str::to_owned)
}
