//! The private networks that requests may reach, by purpose and organisation.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// The networks that requests may reach in addition to the public internet, and the certificates they trust.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Allowed networks that are not public, such as loopback in the demo and in tests, or an intranet. Plain `http://`
    /// is permitted only to private addresses in these networks.
    pub allow: Vec<Allowance>,
    /// PEM root certificates that are trusted in addition to the system's.
    pub extra_roots_pem: Option<Vec<u8>>,
}

impl Policy {
    /// Returns the networks that requests with `purpose` may reach, sorted and without duplicates. `organization`
    /// contains the ID and the slug of the organisation; it is empty for requests of the installation itself.
    #[must_use]
    pub fn networks(&self, purpose: Purpose, organization: &[&str]) -> Vec<IpNet> {
        let applies = |allowance: &&Allowance| {
            allowance.purpose == purpose
                && allowance.organization.as_deref().is_none_or(|name| organization.contains(&name))
        };
        let mut networks: Vec<_> = self.allow.iter().filter(applies).map(|allowance| allowance.network).collect();
        networks.sort_unstable();
        networks.dedup();
        networks
    }
}

/// The purpose of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Requests to identity providers: discovery, keys, token endpoints.
    SignIn,
    /// Requests for metadata documents of OAuth clients.
    ClientDocuments,
    /// Webhook deliveries.
    Webhooks,
    /// Requests to remote tool servers and to image registries.
    Tools,
}

impl Purpose {
    /// All purposes.
    pub const ALL: [Self; 4] = [Self::SignIn, Self::ClientDocuments, Self::Webhooks, Self::Tools];

    /// Returns the name used in the setting `outbound_allow`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SignIn => "sign-in",
            Self::ClientDocuments => "client-documents",
            Self::Webhooks => "webhooks",
            Self::Tools => "tools",
        }
    }
}

/// One entry of the setting `outbound_allow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// The network that may be reached.
    pub network: IpNet,
    /// The purpose of the requests that may reach it.
    pub purpose: Purpose,
    /// The slug or ID of the only organisation whose requests may reach it; `None` for every organisation.
    pub organization: Option<String>,
}

impl Allowance {
    /// Returns entries that allow requests of every purpose and organisation to reach `network`.
    #[must_use]
    pub fn for_all_purposes(network: IpNet) -> [Self; 4] {
        Purpose::ALL.map(|purpose| Self { network, purpose, organization: None })
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.network, self.purpose.as_str())?;
        self.organization.iter().try_for_each(|name| write!(f, "@{name}"))
    }
}

impl FromStr for Allowance {
    type Err = String;

    /// Parses `NETWORK=PURPOSE` or `NETWORK=PURPOSE@ORG`, where NETWORK is an address or a network in CIDR notation.
    fn from_str(text: &str) -> Result<Self, String> {
        let purposes = Purpose::ALL.map(Purpose::as_str).join(", ");
        let (network, target) = match text.split_once('=') {
            Some((network, target)) => (network.trim(), Some(target.trim())),
            None => (text.trim(), None),
        };
        let address = network.parse::<IpAddr>().map(IpNet::from);
        let network = address.or_else(|_| network.parse::<IpNet>().map(|network| network.trunc())).map_err(|_| {
            format!("expected NETWORK=PURPOSE or NETWORK=PURPOSE@ORG, such as 10.0.0.0/8=sign-in, not `{text}`")
        })?;
        let Some(target) = target else {
            return Err(format!(
                "`{text}` has no purpose: write {network}=PURPOSE or {network}=PURPOSE@ORG, where PURPOSE is one of {purposes}"
            ));
        };
        let (purpose, organization) = match target.split_once('@') {
            Some((purpose, organization)) => (purpose.trim(), Some(organization.trim().to_owned())),
            None => (target, None),
        };
        let known = Purpose::ALL.into_iter().find(|known| known.as_str() == purpose);
        let purpose =
            known.ok_or_else(|| format!("`{purpose}` in `{text}` is not a purpose: expected one of {purposes}"))?;
        if organization.as_deref() == Some("") {
            return Err(format!("`{text}` has no organisation after `@`: add its slug or ID, or remove `@`"));
        }
        Ok(Self { network, purpose, organization })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Allowance {
        text.parse().unwrap()
    }

    #[test]
    fn entries_have_a_purpose_and_optionally_an_organisation() {
        for (text, canonical) in [
            ("10.1.2.3/16=sign-in", "10.1.0.0/16=sign-in"),
            ("::1 = webhooks @ acme", "::1/128=webhooks@acme"),
            ("127.0.0.1=client-documents", "127.0.0.1/32=client-documents"),
            ("fd00::/8=tools@org_0123456789ab", "fd00::/8=tools@org_0123456789ab"),
        ] {
            assert_eq!(parse(text).to_string(), canonical);
        }
    }

    #[test]
    fn errors_explain_how_to_write_the_entry() {
        for (text, part) in [
            ("10.0.0.0/8", "write 10.0.0.0/8=PURPOSE or 10.0.0.0/8=PURPOSE@ORG"),
            ("10.0.0.0/8", "sign-in, client-documents, webhooks, tools"),
            ("10.0.0.0/8=", "`` in `10.0.0.0/8=` is not a purpose"),
            ("10.0.0.0/8=sign_in", "`sign_in` in `10.0.0.0/8=sign_in` is not a purpose"),
            ("10.0.0.0/8=Webhooks@acme", "is not a purpose"),
            ("10.0.0.0/8=webhooks@", "has no organisation"),
            ("intranet=webhooks", ", such as 10.0.0.0/8=sign-in, not `intranet=webhooks`"),
            ("=webhooks", "not `=webhooks`"),
        ] {
            let error = text.parse::<Allowance>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn an_entry_applies_to_its_purpose_and_organisation_only() {
        let entries =
            ["10.0.0.0/8=sign-in", "10.1.0.0/16=webhooks@acme", "10.2.0.0/16=webhooks", "10.2.0.0/16=webhooks@acme"];
        let policy = Policy { allow: entries.map(parse).to_vec(), extra_roots_pem: None };
        let networks = |purpose, organization: &[&str]| {
            policy.networks(purpose, organization).iter().map(IpNet::to_string).collect::<Vec<_>>()
        };
        assert_eq!(networks(Purpose::SignIn, &["org_1", "other"]), ["10.0.0.0/8"]);
        assert_eq!(networks(Purpose::Webhooks, &["org_1", "acme"]), ["10.1.0.0/16", "10.2.0.0/16"]);
        assert_eq!(networks(Purpose::Webhooks, &["org_2", "other"]), ["10.2.0.0/16"]);
        assert_eq!(networks(Purpose::Webhooks, &[]), ["10.2.0.0/16"]);
        assert_eq!(networks(Purpose::Tools, &["org_1", "acme"]), Vec::<String>::new());
    }
}
