//! Prints emails to the terminal, to try out Waypost without a mail server. Does not use the log, because logs are
//! stored and emails contain codes.

use std::io::Write;

use crate::{EmailMessage, Error, Mailer, SendFuture};

/// Prints emails to standard output.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConsoleMailer;

impl Mailer for ConsoleMailer {
    fn send<'a>(&'a self, mail: &'a EmailMessage) -> SendFuture<'a> {
        Box::pin(async move {
            let mut out = std::io::stdout().lock();
            out.write_all(frame(mail).as_bytes()).and_then(|()| out.flush()).map_err(|_| Error::Output)
        })
    }
}

/// Returns the email with a frame. Control characters, which could change what the terminal shows, are removed.
fn frame(mail: &EmailMessage) -> String {
    let printable = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let rule = "─".repeat(72);
    let mut framed = format!("\n┌{rule}\n│ Mail to {}\n│ {}\n│\n", printable(&mail.to), printable(&mail.subject));
    for line in mail.text.lines() {
        framed.push_str(format!("│ {}", printable(line)).trim_end());
        framed.push('\n');
    }
    framed.push_str(&format!("└{rule}\n"));
    framed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_starts_a_line() {
        let (subject, text) = ("12345678 is\u{1b}[2J your code", "12345678\n\nValid for\u{7} 10 minutes.\n");
        let mail = EmailMessage::plain("anna@example.com", subject, text);
        let rule = "─".repeat(72);
        let expected = format!(
            "\n┌{rule}\n│ Mail to anna@example.com\n│ 12345678 is[2J your code\n│\n│ 12345678\n│\n\
             │ Valid for 10 minutes.\n└{rule}\n"
        );
        assert_eq!(frame(&mail), expected);
    }
}
