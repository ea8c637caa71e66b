//! Sends emails through a mail server (RFC 5321, RFC 6409).
//!
//! Each email has its own connection, which is closed if sending is cancelled. A connection that was abandoned during
//! an email must not be reused: the next email would mistake the responses to this one for its own.

use std::time::Duration;

use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use crate::url::{Security, SmtpUrl};
use crate::{EmailMessage, Error, Mailer, SendFuture, Sender};

/// The timeout for connecting, for each address of the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The timeout for an email, from connecting to the end of the connection. `lettre` itself waits for responses without
/// a limit.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A mailer that uses a mail server.
pub struct SmtpMailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Sender,
}

impl SmtpMailer {
    /// Creates a mailer for the server at `url`. Connects when it sends an email.
    ///
    /// # Errors
    /// [`Error::Tls`] if the TLS configuration for the host is not valid.
    pub fn new(url: &SmtpUrl, from: Sender) -> Result<Self, Error> {
        let parameters = || TlsParameters::new(url.host().to_owned()).map_err(|_| Error::Tls);
        let tls = match url.security() {
            Security::ImplicitTls => Tls::Wrapper(parameters()?),
            Security::Required => Tls::Required(parameters()?),
            Security::Opportunistic => Tls::Opportunistic(parameters()?),
            Security::Off => Tls::None,
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(url.host())
            .port(url.port())
            .tls(tls)
            .timeout(Some(CONNECT_TIMEOUT));
        if let Some((user, password)) = url.credentials() {
            builder = builder.credentials(Credentials::new(user, password));
        }
        Ok(Self { transport: builder.build(), from })
    }
}

impl Mailer for SmtpMailer {
    fn send<'a>(&'a self, mail: &'a EmailMessage) -> SendFuture<'a> {
        Box::pin(async move {
            let message = build_message(mail, &self.from)?;
            match tokio::time::timeout(TIMEOUT, self.transport.send(message)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(convert_error(&error)),
                Err(_) => Err(Error::TimedOut),
            }
        })
    }
}

/// Converts an error. Keeps only its kind and the three digits of a response.
fn convert_error(error: &lettre::transport::smtp::Error) -> Error {
    let status = || error.status().map(|status| status.to_string()).unwrap_or_default();
    if error.is_permanent() {
        Error::Rejected(status())
    } else if error.is_transient() {
        Error::Deferred(status())
    } else if error.is_timeout() {
        Error::TimedOut
    } else if error.is_tls() {
        Error::Tls
    } else {
        Error::Unreachable
    }
}

/// A header that asks mail systems not to send automatic replies (RFC 3834, section 5).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// Builds the message. The types that encode the recipient and the subject exclude line breaks, so neither can add
/// headers.
fn build_message(mail: &EmailMessage, from: &Sender) -> Result<Message, Error> {
    let to = mail.to.parse().map_err(|_| Error::InvalidRecipient)?;
    // A line break would become an encoded word, which mail programs show differently.
    let subject: String = mail.subject.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut builder = Message::builder()
        .from(from.0.clone())
        .to(Mailbox::new(None, to))
        .subject(subject)
        .header(AutoSubmitted)
        .message_id(None);
    if let Some(address) = mail.reply_to.as_deref().and_then(|address| address.parse().ok()) {
        builder = builder.reply_to(Mailbox::new(None, address));
    }
    let message = match &mail.html {
        Some(html) => builder.multipart(MultiPart::alternative_plain_html(mail.text.clone(), html.clone())),
        None => builder.header(ContentType::TEXT_PLAIN).body(mail.text.clone()),
    };
    message.map_err(|_| Error::InvalidMessage)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests start a mail server")]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;
    use crate::MailUrl;

    fn mail(to: &str, subject: &str) -> EmailMessage {
        EmailMessage::plain(to, subject, "12345678\n\nValid for 10 minutes.")
    }

    fn sender() -> Sender {
        "Acme <mail@acme.example>".parse().unwrap()
    }

    #[test]
    fn recipient_and_subject_cannot_add_headers() {
        let injected = "Code\r\nBcc: evil@example.com\r\n\r\nBody\nX-Evil: 1";
        let written = build_message(&mail("anna@example.com", injected), &sender()).unwrap().formatted();
        let written = String::from_utf8(written).unwrap();
        let (headers, body) = written.split_once("\r\n\r\n").unwrap();
        let names: Vec<_> = headers
            .split("\r\n")
            .filter(|line| !line.starts_with([' ', '\t']))
            .map(|line| line.split_once(':').unwrap().0)
            .collect();
        for name in &names {
            let known =
                ["From", "To", "Subject", "Auto-Submitted", "Message-ID", "Content-Type", "Date", "MIME-Version"];
            assert!(known.contains(name) || *name == "Content-Transfer-Encoding", "{name} in {headers}");
        }
        assert!(names.contains(&"Auto-Submitted") && names.contains(&"Message-ID"), "{headers}");
        assert!(body.starts_with("12345678"), "{body}");
        for to in ["anna@example.com\r\nBcc: evil@example.com", "a@b.de, c@d.de", "a@b.de\n", "anna", "<a@b.de>", ""] {
            assert_eq!(build_message(&mail(to, "Code"), &sender()).unwrap_err(), Error::InvalidRecipient, "{to:?}");
        }
    }

    #[test]
    fn an_email_has_an_html_part_and_an_address_for_replies() {
        let plain = mail("anna@example.com", "Reply");
        let html = Some("<p>Open the <strong>valve</strong>.</p>".to_owned());
        let written = |reply_to: Option<&str>| {
            let mail = EmailMessage { html: html.clone(), reply_to: reply_to.map(str::to_owned), ..plain.clone() };
            String::from_utf8(build_message(&mail, &sender()).unwrap().formatted()).unwrap()
        };
        let message = written(Some("team@acme.example"));
        for expected in [
            "Reply-To: team@acme.example\r\n",
            "Content-Type: multipart/alternative;",
            "Content-Type: text/plain; charset=utf-8\r\n",
            "12345678",
            "Content-Type: text/html; charset=utf-8\r\n",
            "<p>Open the <strong>valve</strong>.</p>",
        ] {
            assert!(message.contains(expected), "{expected} in {message}");
        }
        for reply_to in [None, Some("a@b.de\r\nBcc: evil@example.com"), Some("a@b.de, c@d.de"), Some("")] {
            let message = written(reply_to);
            assert!(!message.contains("Reply-To") && !message.contains("evil"), "{message}");
        }
    }

    /// Starts a mail server that responds to `RCPT` with `rcpt`. Returns its URL, and a task that returns everything
    /// that the server received.
    async fn server(rcpt: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://u:5eC2e7@{}?tls=off", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (reader, mut writer) = stream.into_split();
            let (mut lines, mut received, mut data) = (BufReader::new(reader).lines(), String::new(), false);
            writer.write_all(b"220 hello\r\n").await.unwrap();
            while let Ok(Some(line)) = lines.next_line().await {
                received.push_str(&format!("{line}\n"));
                let response = match line.split([' ', ':']).next().unwrap_or_default() {
                    "." => "250 taken",
                    _ if data => continue,
                    "EHLO" => "250-here\r\n250 AUTH PLAIN",
                    "AUTH" => "235 fine",
                    "RCPT" => rcpt,
                    "DATA" => "354 go on",
                    "QUIT" => "221 bye",
                    _ => "250 fine",
                };
                data = line == "DATA";
                writer.write_all(format!("{response}\r\n").as_bytes()).await.unwrap();
            }
            received
        });
        (url, task)
    }

    async fn send(url: &str) -> Result<(), Error> {
        let Ok(MailUrl::Smtp(url)) = url.parse() else { panic!("{url}") };
        SmtpMailer::new(&url, sender()).unwrap().send(&mail("anna@example.com", "Your code")).await
    }

    #[tokio::test]
    async fn a_server_accepts_the_email() {
        let (url, server) = server("250 fine").await;
        send(&url).await.unwrap();
        let received = server.await.unwrap();
        for line in ["MAIL FROM:<mail@acme.example>", "RCPT TO:<anna@example.com>", "Subject: Your code", "12345678"] {
            assert!(received.contains(line), "{line} in {received}");
        }
    }

    #[tokio::test]
    async fn errors_do_not_contain_the_recipient() {
        let (url, _server) = server("550 5.1.1 <anna@example.com> is unknown").await;
        let error = send(&url).await.unwrap_err();
        assert_eq!((error.to_string().contains("anna"), error.is_final()), (false, true), "{error}");
        let (url, _server) = server("451 4.7.1 <anna@example.com> later").await;
        assert!(!send(&url).await.unwrap_err().is_final());
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(send(&format!("smtp://{unused}?tls=off")).await, Err(Error::Unreachable));
    }

    /// The server accepts the connection and does not respond after `EHLO`.
    #[tokio::test]
    async fn a_server_that_does_not_respond_times_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}?tls=off", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (reader, mut writer) = stream.into_split();
            let mut lines = BufReader::new(reader).lines();
            writer.write_all(b"220 hello\r\n").await.unwrap();
            assert!(lines.next_line().await.unwrap().unwrap().starts_with("EHLO"));
            // From here on, only the timeout can end the attempt.
            tokio::time::pause();
            lines.next_line().await.unwrap()
        });
        let started = tokio::time::Instant::now();
        assert_eq!(send(&url).await, Err(Error::TimedOut));
        let elapsed = started.elapsed();
        assert!(elapsed < TIMEOUT + Duration::from_secs(5), "{elapsed:?}");
        assert_eq!(server.await.unwrap(), None, "the connection is closed");
    }
}
