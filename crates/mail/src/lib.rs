//! Mails that people get: what one is, the ways to send it, and the queue that sends in the background.
//!
//! Nothing here logs an address, a subject or a text: codes stand in them.

mod console;
mod fair;
mod memory;
mod outbox;
mod smtp;
mod url;

use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;

use lettre::message::Mailbox;

pub use console::ConsoleMailer;
pub use fair::QueueFull;
pub use memory::MemoryMailer;
pub use outbox::{EmailKind, Outbox};
pub use smtp::SmtpMailer;
pub use url::{MailUrl, SmtpUrl};

/// A mail in plain text.
#[derive(Clone, PartialEq, Eq)]
pub struct EmailMessage {
    /// The address that it goes to.
    pub to: String,
    /// Its subject.
    pub subject: String,
    /// What it says.
    pub text: String,
}

/// Never shows what stands in it.
impl fmt::Debug for EmailMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailMessage(…)")
    }
}

/// Why a mail was not sent. Says nothing of the mail itself: servers repeat the address in their answers, so these are
/// not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The address is none that can be written into a mail.
    #[error("the address cannot be written into a mail")]
    Address,
    /// The mail could not be put together.
    #[error("the mail could not be put together")]
    Message,
    /// The server refused for good.
    #[error("the mail server refused the mail (status {0})")]
    Refused(String),
    /// The server cannot at the moment.
    #[error("the mail server cannot take the mail at the moment (status {0})")]
    Later(String),
    /// The server did not answer in time.
    #[error("the mail server did not answer in time")]
    TimedOut,
    /// The connection could not be secured.
    #[error("no TLS connection to the mail server could be made")]
    Tls,
    /// The server cannot be reached, or speaks something else.
    #[error("the mail server cannot be reached")]
    Unreachable,
    /// The mail could not be printed.
    #[error("standard output cannot be written to")]
    Output,
    /// The attempt panicked.
    #[error("an attempt to send the mail panicked")]
    Panicked,
}

impl Error {
    /// Whether trying again is of no use.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Address | Self::Message | Self::Refused(_))
    }
}

/// A sending that is under way.
pub type SendFuture<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// A way to send mails.
pub trait Mailer: Send + Sync + 'static {
    /// Sends a mail, once.
    ///
    /// # Errors
    /// When it was not taken.
    fn send<'a>(&'a self, mail: &'a EmailMessage) -> SendFuture<'a>;
}

/// Whom mails come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender(Mailbox);

impl Sender {
    /// `waypost@HOST`; none when no mail can come from there. An IP address stands in brackets (RFC 5321, section 4.1.3).
    #[must_use]
    pub fn for_host(host: &str) -> Option<Self> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let domain = match bare.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(address)) => format!("[{address}]"),
            Ok(std::net::IpAddr::V6(address)) => format!("[IPv6:{address}]"),
            Err(_) => bare.to_owned(),
        };
        let address = lettre::Address::new("waypost", domain).ok()?;
        Some(Self(Mailbox::new(Some("Waypost".to_owned()), address)))
    }
}

impl FromStr for Sender {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mailbox = text.parse().map(Self);
        mailbox
            .map_err(|_| "expected an address such as `waypost@example.com` or `Acme <waypost@example.com>`".to_owned())
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Characters of a name in a subject at most.
const MAX_NAME: usize = 60;

/// The name of an organisation or a server for a subject: in quotation marks, in one line, 60 characters at most. Names are
/// chosen by their organisation: without the marks one could read as a sentence of this installation.
#[must_use]
pub fn quote_name(name: &str) -> String {
    let visible = |c: char| match c {
        '“' | '”' | '„' | '‟' | '"' => '\'',
        c if c.is_control() || c.is_whitespace() => ' ',
        c => c,
    };
    let line: String = name.chars().map(visible).collect();
    let line = line.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_NAME) {
        Some((end, _)) => format!("“{}…”", line[..end].trim_end()),
        None => format!("“{line}”"),
    }
}

/// The way that a setting names.
///
/// # Errors
/// When the connection of `smtps://` or `smtp://` cannot be set up; nothing is connected yet.
pub fn create_mailer(url: &MailUrl, from: &Sender) -> Result<Arc<dyn Mailer>, Error> {
    match url {
        MailUrl::Console => Ok(Arc::new(ConsoleMailer)),
        MailUrl::Smtp(url) => Ok(Arc::new(SmtpMailer::new(url, from.clone())?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_subjects_are_quoted_and_short() {
        assert_eq!(quote_name("Acme"), "“Acme”");
        assert_eq!(quote_name(" A\r\nBcc: b@c.de\u{1b}[2J\u{2028}x "), "“A Bcc: b@c.de [2J x”");
        assert_eq!(quote_name("Acme” is closed. Call “us\""), "“Acme' is closed. Call 'us'”");
        assert_eq!(quote_name(&"ä".repeat(61)), format!("“{}…”", "ä".repeat(60)));
        assert_eq!(quote_name(&"ä".repeat(60)), format!("“{}”", "ä".repeat(60)));
    }

    #[test]
    fn senders_are_addresses() {
        assert_eq!(Sender::for_host("way.example").unwrap().to_string(), "Waypost <waypost@way.example>");
        assert_eq!(Sender::for_host("localhost").unwrap().to_string(), "Waypost <waypost@localhost>");
        assert_eq!(Sender::for_host("127.0.0.1").unwrap().to_string(), "Waypost <waypost@[127.0.0.1]>");
        assert_eq!(Sender::for_host("[::1]").unwrap().to_string(), "Waypost <waypost@[IPv6:::1]>");
        assert_eq!(Sender::for_host("a\nBcc: b"), None);
        assert!("Acme <mail@acme.example>".parse::<Sender>().is_ok());
        assert!("acme".parse::<Sender>().is_err() && "a@b.de\nBcc: c@d.de".parse::<Sender>().is_err());
    }
}
