//! The policy for outgoing requests, from the settings.

use std::path::PathBuf;

use anyhow::Context;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use waypost_outbound::{Allowance, Policy};

use crate::config::Settings;

/// Returns the policy for outgoing requests. In the demo, requests may also reach loopback, so that users can try local
/// providers and clients.
///
/// # Errors
/// If the file named by `outbound_ca_file` cannot be read.
pub fn policy(settings: &Settings, demo: bool) -> anyhow::Result<Policy> {
    let mut allow = settings.outbound_allow.clone();
    if demo {
        allow.extend(loopback().into_iter().flat_map(Allowance::for_all_purposes));
    }
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read the file {}", path.display()));
    let roots = settings.outbound_ca_file.as_ref().map(read).transpose();
    let extra_roots_pem = roots.context("invalid setting `outbound_ca_file`")?;
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
    fn only_the_demo_may_reach_loopback() {
        let mut settings = Settings::default();
        settings.outbound_allow = vec!["10.1.0.0/16=webhooks@acme".parse().unwrap()];
        let allowed = |demo, purpose| {
            let networks = policy(&settings, demo).unwrap().networks(purpose, &["acme"]);
            networks.iter().map(IpNet::to_string).collect::<Vec<_>>()
        };
        assert_eq!(allowed(false, Purpose::Webhooks), ["10.1.0.0/16"]);
        assert_eq!(allowed(true, Purpose::Webhooks), ["10.1.0.0/16", "127.0.0.0/8", "::1/128"]);
        for purpose in [Purpose::SignIn, Purpose::ClientDocuments, Purpose::Tools] {
            assert_eq!(allowed(false, purpose), [""; 0]);
            assert_eq!(allowed(true, purpose), ["127.0.0.0/8", "::1/128"], "{purpose:?}");
        }
    }

    #[test]
    fn a_missing_root_certificate_file_is_named_in_the_error() {
        let mut settings = Settings::default();
        settings.outbound_ca_file = Some("/nowhere/ca.pem".into());
        let error = format!("{:#}", policy(&settings, false).unwrap_err());
        assert!(
            error.starts_with("invalid setting `outbound_ca_file`: cannot read the file /nowhere/ca.pem"),
            "{error}"
        );
    }

    #[test]
    fn root_certificates_are_read_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "roots").unwrap();
        let mut settings = Settings::default();
        settings.outbound_ca_file = Some(path);
        assert_eq!(policy(&settings, false).unwrap().extra_roots_pem.as_deref(), Some(&b"roots"[..]));
    }
}
