//! Outgoing email: messages, mailers, and the queues that send in the background.
//!
//! Nothing here logs a recipient, a subject or a text, because they can contain codes.

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

/// An email with a plain-text body.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EmailMessage {
    /// The recipient.
    pub to: String,
    /// The subject.
    pub subject: String,
    /// The plain-text body.
    pub text: String,
    /// The same body as HTML, if the email has an HTML part.
    pub html: Option<String>,
    /// The address that replies go to, if it is not the sender. Ignored if it is not a valid address.
    pub reply_to: Option<String>,
}

impl EmailMessage {
    /// Creates an email with only a plain-text body.
    #[must_use]
    pub fn plain(to: impl Into<String>, subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { to: to.into(), subject: subject.into(), text: text.into(), html: None, reply_to: None }
    }
}

/// Omits the content.
impl fmt::Debug for EmailMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailMessage(…)")
    }
}

/// The reason why an email was not sent. It contains nothing of the email itself: responses of servers are not kept,
/// because they repeat the recipient.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The recipient is not a valid address.
    #[error("the recipient is not a valid address")]
    InvalidRecipient,
    /// The message could not be built.
    #[error("the message could not be built")]
    InvalidMessage,
    /// The server rejected the email permanently.
    #[error("the mail server rejected the email (status {0})")]
    Rejected(String),
    /// The server rejected the email temporarily.
    #[error("the mail server rejected the email temporarily (status {0})")]
    Deferred(String),
    /// The server did not respond in time.
    #[error("the mail server did not respond in time")]
    TimedOut,
    /// The TLS connection failed.
    #[error("the TLS connection to the mail server failed")]
    Tls,
    /// The server cannot be reached, or does not speak SMTP.
    #[error("the mail server cannot be reached")]
    Unreachable,
    /// The email could not be printed.
    #[error("writing to standard output failed")]
    Output,
    /// The attempt panicked.
    #[error("an attempt to send the email panicked")]
    Panicked,
}

impl Error {
    /// Whether a retry cannot succeed.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::InvalidRecipient | Self::InvalidMessage | Self::Rejected(_))
    }
}

/// The future of a send operation.
pub type SendFuture<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// A transport for email.
pub trait Mailer: Send + Sync + 'static {
    /// Attempts to send an email once.
    ///
    /// # Errors
    /// Any [`Error`] if the email was not accepted.
    fn send<'a>(&'a self, mail: &'a EmailMessage) -> SendFuture<'a>;
}

/// The sender of emails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender(Mailbox);

impl Sender {
    /// Returns the sender `waypost@HOST`. Returns `None` if the host cannot be used in an email address. An IP address
    /// is enclosed in brackets (RFC 5321, section 4.1.3).
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

/// The maximum length of a name in a subject, in characters.
const MAX_NAME: usize = 60;

/// Returns the name of an organisation or a server for a subject: in quotation marks, on one line, with at most 60
/// characters. Names are chosen by their organisation: without the quotation marks, a name could read like a message
/// from this installation.
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

/// Creates the mailer for `url`. Does not connect yet.
///
/// # Errors
/// [`Error::Tls`] if the TLS configuration for `smtps://` or `smtp://` is not valid.
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
    fn senders_are_valid_addresses() {
        assert_eq!(Sender::for_host("way.example").unwrap().to_string(), "Waypost <waypost@way.example>");
        assert_eq!(Sender::for_host("localhost").unwrap().to_string(), "Waypost <waypost@localhost>");
        assert_eq!(Sender::for_host("127.0.0.1").unwrap().to_string(), "Waypost <waypost@[127.0.0.1]>");
        assert_eq!(Sender::for_host("[::1]").unwrap().to_string(), "Waypost <waypost@[IPv6:::1]>");
        assert_eq!(Sender::for_host("a\nBcc: b"), None);
        assert!("Acme <mail@acme.example>".parse::<Sender>().is_ok());
        assert!("acme".parse::<Sender>().is_err() && "a@b.de\nBcc: c@d.de".parse::<Sender>().is_err());
    }
}
