//! Starts the sending of email according to the settings.

use std::time::Duration;

use anyhow::{Context, anyhow};
use waypost_jobs::Jobs;
use waypost_mail::{MailUrl, Outbox, Sender, create_mailer};
use waypost_ops::public_url::PublicUrl;

use crate::config::Settings;

/// Starts the email workers in `jobs`. Returns `None` if email is not configured. Without a mail server, the demo prints
/// emails to the terminal.
///
/// # Errors
/// If the mail server's URL or the sender is not usable.
pub fn start(settings: &Settings, public_url: &PublicUrl, demo: bool, jobs: &Jobs) -> anyhow::Result<Option<Outbox>> {
    let url = settings.smtp_url.clone().or_else(|| demo.then_some(MailUrl::Console));
    let Some(url) = url else { return Ok(None) };
    let from = settings.mail_from.clone().or_else(|| Sender::for_host(public_url.host()));
    let from = from.ok_or_else(|| {
        anyhow!("the setting `mail_from` is required, because the public URL contains no domain for a sender")
    })?;
    let mailer = create_mailer(&url, &from).context("invalid setting `smtp_url`")?;
    Ok(Some(Outbox::start_in(jobs, mailer)))
}

/// Sends the queued emails within `timeout`. Logs only if some of them are lost.
pub async fn finish(outbox: &Outbox, timeout: Duration) {
    let lost = outbox.finish(timeout).await;
    if lost > 0 {
        tracing::warn!(lost, "queued emails could not be sent in time and were discarded");
    }
}

/// Returns a notice for the operator to print at start-up.
#[must_use]
pub fn notice(settings: &Settings, demo: bool) -> Option<&'static str> {
    let prints_emails = matches!(settings.smtp_url, Some(MailUrl::Console)) || settings.smtp_url.is_none() && demo;
    prints_emails.then_some("emails, including sign-in codes, are printed here and not sent (setting smtp_url)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn email_workers_are_supervised() {
        let (jobs, public_url) = (Jobs::default(), PublicUrl::new("http://localhost:8080".parse().unwrap()));
        let outbox = start(&Settings::default(), &public_url, true, &jobs).unwrap();
        let names: Vec<_> = jobs.statuses().iter().map(|status| status.name).collect();
        assert!(
            outbox.is_some() && names.contains(&"sign-in-emails") && names.contains(&"invitation-emails"),
            "{names:?}"
        );
    }
}
