//! The setting for outgoing email. It may contain a password, which is never shown.

use std::fmt;
use std::str::FromStr;

use url::Url;

/// The transport for email.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailUrl {
    /// `console:`: prints to standard output.
    Console,
    /// `smtp://…` or `smtps://…`: sends through a mail server.
    Smtp(SmtpUrl),
}

/// The security of the connection to a mail server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    /// Implicit TLS (RFC 8314, section 3.3).
    ImplicitTls,
    /// STARTTLS (RFC 3207) is required.
    Required,
    /// STARTTLS if the server offers it.
    Opportunistic,
    /// No TLS.
    Off,
}

/// The URL of a mail server, which may contain a username and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct SmtpUrl {
    url: Url,
    security: Security,
}

const EXPECTED: &str = "expected `smtp://USER:PASSWORD@HOST:587`, `smtps://USER:PASSWORD@HOST` or `console:`";

impl SmtpUrl {
    pub(crate) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    pub(crate) fn security(&self) -> Security {
        self.security
    }

    /// Returns the port. The default is 465 for implicit TLS, otherwise 587 (RFC 8314, section 3.3).
    pub(crate) fn port(&self) -> u16 {
        self.url.port().unwrap_or(if self.security == Security::ImplicitTls { 465 } else { 587 })
    }

    /// Returns the decoded username and password. Returns `None` if the URL has none.
    pub(crate) fn credentials(&self) -> Option<(String, String)> {
        let decoded = |text: &str| {
            // The `url` crate decodes only form data, in which a plus sign means a space.
            let pair = format!("x={}", text.replace('+', "%2B"));
            url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned())
        };
        let password = self.url.password()?;
        Some((decoded(self.url.username())?, decoded(password)?))
    }
}

impl FromStr for MailUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "console:" {
            return Ok(Self::Console);
        }
        // The message of the URL parser may contain part of the text, which may be the password.
        let url = Url::parse(text).map_err(|_| EXPECTED.to_owned())?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(EXPECTED)?;
        let is_origin = matches!(url.path(), "" | "/") && url.fragment().is_none();
        let has_only_one_credential = url.password().is_some() == url.username().is_empty();
        if !matches!(url.scheme(), "smtp" | "smtps") || !is_origin || has_only_one_credential {
            return Err(EXPECTED.to_owned());
        }
        let is_loopback = host == "localhost"
            || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        let security = match (url.scheme(), url.query()) {
            ("smtps", None) => Security::ImplicitTls,
            ("smtp", None) if is_loopback => Security::Opportunistic,
            ("smtp", None | Some("tls=required")) => Security::Required,
            ("smtp", Some("tls=opportunistic")) => Security::Opportunistic,
            ("smtp", Some("tls=off")) => Security::Off,
            _ => {
                return Err(
                    "only `tls=required`, `tls=opportunistic` and `tls=off` are allowed after `smtp://…?`".into()
                );
            }
        };
        Ok(Self::Smtp(SmtpUrl { url, security }))
    }
}

impl fmt::Display for MailUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Console => f.write_str("console:"),
            Self::Smtp(url) => write!(f, "{url}"),
        }
    }
}

impl fmt::Display for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = if self.url.username().is_empty() { String::new() } else { format!("{}@", self.url.username()) };
        let host = self.url.host_str().unwrap_or_default();
        write!(f, "{}://{user}{host}:{}", self.url.scheme(), self.port())
    }
}

impl fmt::Debug for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smtp(text: &str) -> SmtpUrl {
        match text.parse() {
            Ok(MailUrl::Smtp(url)) => url,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn urls_are_parsed_and_the_password_is_never_shown() {
        let url = smtp("smtp://an%40na:5eC%2Bre+t%2F@mail.example:2525");
        assert_eq!((url.host(), url.port(), url.security()), ("mail.example", 2525, Security::Required));
        assert_eq!(url.credentials(), Some(("an@na".into(), "5eC+re+t/".into())));
        for shown in [url.to_string(), format!("{url:?}"), MailUrl::Smtp(url.clone()).to_string()] {
            assert_eq!(shown, "smtp://an%40na@mail.example:2525");
        }
        assert_eq!(format!("{:?}", MailUrl::Smtp(url)), "Smtp(smtp://an%40na@mail.example:2525)");
        assert_eq!(smtp("smtps://mail.example").port(), 465);
        assert_eq!(smtp("smtp://mail.example").port(), 587);
        assert_eq!(smtp("smtp://mail.example").credentials(), None);
        for (text, security) in [
            ("smtps://mail.example", Security::ImplicitTls),
            ("smtp://localhost:1025", Security::Opportunistic),
            ("smtp://[::1]:1025", Security::Opportunistic),
            ("smtp://localhost:1025?tls=required", Security::Required),
            ("smtp://mailpit:1025?tls=off", Security::Off),
        ] {
            assert_eq!(smtp(text).security(), security, "{text}");
        }
        assert_eq!("console:".parse(), Ok(MailUrl::Console));
    }

    #[test]
    fn invalid_urls_are_rejected_without_repeating_them() {
        for text in [
            "",
            "console",
            "smtp:5eC2e7",
            "smtp://",
            "http://u:5eC2e7@mail.example",
            "smtp://u:5eC2e7@[mail",
            "smtp://u:5eC2e7@mail.example/path",
            "smtp://u:5eC2e7@mail.example?tls=5eC2e7",
            "smtps://u:5eC2e7@mail.example?tls=off",
            "smtp://:5eC2e7@mail.example",
            "smtp://5eC2e7@mail.example",
        ] {
            let error = text.parse::<MailUrl>().unwrap_err();
            assert!(!error.contains("5eC2e7"), "{error}");
        }
    }
}
