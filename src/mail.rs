//! How mail is sent, as the settings want it.

use std::time::Duration;

use anyhow::{Context, anyhow};
use waypost_jobs::Jobs;
use waypost_mail::{MailUrl, Outbox, Sender, create_mailer};
use waypost_ops::public_url::PublicUrl;

use crate::config::Settings;

/// Starts sending email, with workers among `jobs`. Returns `None` if the installation is not set up for it. The demo prints its emails to the terminal,
/// unless a mail server is set.
///
/// # Errors
/// When the mail server's URL or the sender cannot be used.
pub fn start(settings: &Settings, public_url: &PublicUrl, demo: bool, jobs: &Jobs) -> anyhow::Result<Option<Outbox>> {
    let url = settings.smtp_url.clone().or_else(|| demo.then_some(MailUrl::Console));
    let Some(url) = url else { return Ok(None) };
    let from = settings.mail_from.clone().or_else(|| Sender::for_host(public_url.host()));
    let from =
        from.ok_or_else(|| anyhow!("the setting `mail_from` is needed: no mail can come from the public URL"))?;
    let mailer = create_mailer(&url, &from).context("the setting `smtp_url` cannot be used")?;
    Ok(Some(Outbox::start_in(jobs, mailer)))
}

/// Sends the emails that are waiting, for as long as `patience`. Logs only if some of them are lost.
pub async fn finish(outbox: &Outbox, patience: Duration) {
    let lost = outbox.finish(patience).await;
    if lost > 0 {
        tracing::warn!(lost, "emails could not be sent in time and are lost");
    }
}

/// What to tell the operator at the start.
#[must_use]
pub fn notice(settings: &Settings, demo: bool) -> Option<&'static str> {
    let console = matches!(settings.smtp_url, Some(MailUrl::Console)) || settings.smtp_url.is_none() && demo;
    console.then_some("mails are not sent but printed here, codes for signing in among them (setting smtp_url)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_sends_emails_is_supervised() {
        let (jobs, public_url) = (Jobs::default(), PublicUrl::new("http://localhost:8080".parse().unwrap()));
        let outbox = start(&Settings::default(), &public_url, true, &jobs).unwrap();
        let names: Vec<_> = jobs.statuses().iter().map(|status| status.name).collect();
        assert!(
            outbox.is_some() && names.contains(&"sign-in-emails") && names.contains(&"invitation-emails"),
            "{names:?}"
        );
    }
}
