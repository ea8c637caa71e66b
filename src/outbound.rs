//! The policy for requests to addresses that users and clients named, from the settings.

use std::path::PathBuf;

use anyhow::Context;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use waypost_outbound::{Allowance, Policy};

use crate::config::Settings;

/// Where requests to others may go, and whom they trust. The demo may also go to this machine, where its visitors try
/// out their own providers and clients.
///
/// # Errors
/// When the file of `outbound_ca_file` cannot be read.
pub fn policy(settings: &Settings, demo: bool) -> anyhow::Result<Policy> {
    let mut allow = settings.outbound_allow.clone();
    if demo {
        allow.extend(loopback().into_iter().flat_map(Allowance::for_all_purposes));
    }
    let read =
        |path: &PathBuf| std::fs::read(path).with_context(|| format!("the file {} cannot be read", path.display()));
    let roots = settings.outbound_ca_file.as_ref().map(read).transpose();
    let extra_roots_pem = roots.context("the setting `outbound_ca_file` cannot be used")?;
    Ok(Policy { allow, extra_roots_pem })
}

fn loopback() -> [IpNet; 2] {
    let v4 = Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8);
    let v6 = Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128);
    [v4.into(), v6.into()]
}

#[cfg(test)]
mod tests {
    use waypost_outbound::Purpose;

    use super::*;

    #[test]
    fn only_the_demo_goes_to_loopback() {
        let mut settings = Settings::default();
        settings.outbound_allow = vec!["10.1.0.0/16=webhooks@acme".parse().unwrap()];
        let shown = |demo, purpose| {
            let networks = policy(&settings, demo).unwrap().networks(purpose, &["acme"]);
            networks.iter().map(IpNet::to_string).collect::<Vec<_>>()
        };
        assert_eq!(shown(false, Purpose::Webhooks), ["10.1.0.0/16"]);
        assert_eq!(shown(true, Purpose::Webhooks), ["10.1.0.0/16", "127.0.0.0/8", "::1/128"]);
        for purpose in [Purpose::SignIn, Purpose::ClientDocuments, Purpose::Tools] {
            assert_eq!(shown(false, purpose), [""; 0]);
            assert_eq!(shown(true, purpose), ["127.0.0.0/8", "::1/128"], "{purpose:?}");
        }
    }

    #[test]
    fn a_file_of_roots_that_is_not_there_is_named() {
        let mut settings = Settings::default();
        settings.outbound_ca_file = Some("/nowhere/ca.pem".into());
        let error = format!("{:#}", policy(&settings, false).unwrap_err());
        assert!(
            error.starts_with("the setting `outbound_ca_file` cannot be used: the file /nowhere/ca.pem cannot be read"),
            "{error}"
        );
    }

    #[test]
    fn a_file_of_roots_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "roots").unwrap();
        let mut settings = Settings::default();
        settings.outbound_ca_file = Some(path);
        assert_eq!(policy(&settings, false).unwrap().extra_roots_pem.as_deref(), Some(&b"roots"[..]));
    }
}
