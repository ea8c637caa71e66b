//! The part of a catalogue entry's version that specifies how to run its server.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::names;

names! {
    /// The MCP transport of a server.
    Transport {
        /// Messages on standard input and output.
        Stdio = "stdio",
        /// Streamable HTTP.
        StreamableHttp = "streamable_http",
        /// The HTTP+SSE transport of revision 2024-11-05.
        Sse = "sse",
    }
}

names! {
    /// The resources of a container.
    ResourceClass {
        /// 512 MiB of memory and half a CPU.
        Light = "light",
        /// 1 GiB of memory and one CPU.
        Medium = "medium",
        /// 2 GiB of memory and two CPUs.
        Heavy = "heavy",
    }
}

/// The factor by which the CPU limits of all containers of a toolbox may exceed its CPUs. Tool servers are idle most of the
/// time, and the engine enforces the limit of each container, so busy ones share the CPUs. Memory is never overcommitted.
pub const CPU_OVERCOMMIT: u64 = 4;

impl ResourceClass {
    /// Returns the memory limit in bytes. Containers have no swap in addition.
    #[must_use]
    pub fn memory_bytes(self) -> u64 {
        const MIB: u64 = 1024 * 1024;
        match self {
            Self::Light => 512 * MIB,
            Self::Medium => 1024 * MIB,
            Self::Heavy => 2048 * MIB,
        }
    }

    /// Returns the CPU limit in thousandths of a CPU.
    #[must_use]
    pub fn millicpus(self) -> u64 {
        match self {
            Self::Light => 500,
            Self::Medium => 1_000,
            Self::Heavy => 2_000,
        }
    }
}

names! {
    /// The callers that share a container of an instance.
    Sharing {
        /// One container for all callers.
        Shared = "shared",
        /// One container for each agent.
        PerAgent = "per_agent",
        /// One container for each session.
        PerSession = "per_session",
    }
}

names! {
    /// How a server receives a secret.
    SecretDelivery {
        /// As the file `/run/secrets/NAME`.
        File = "file",
        /// As the environment variable `NAME`.
        Env = "env",
        /// As the header `NAME` of every request. Only for remote servers, which have no container.
        Header = "header",
    }
}

/// A secret that a server needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SecretSpec {
    /// The name of the file, of the environment variable or of the header.
    pub name: String,
    /// What the secret is for.
    #[serde(default)]
    pub description: String,
    /// Whether the server does not work without it.
    #[serde(default = "yes")]
    pub required: bool,
    /// How the server receives it.
    #[serde(rename = "as", default = "file")]
    pub delivery: SecretDelivery,
}

fn yes() -> bool {
    true
}

fn file() -> SecretDelivery {
    SecretDelivery::File
}

/// A volume of the engine, which keeps a server's files when its container is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// The name, unique within the entry.
    pub name: String,
    /// The absolute path in the container.
    pub path: String,
}

/// A destination that a server may connect to: `host:port`. The host is a domain name or an IP address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// The domain name in lower case, or the IP address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Destination {
    type Err = String;

    /// Parses `host:port` or `[address]:port`. Wildcards are not supported.
    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("`{text}` is not `host:port`, such as `api.example.com:443`");
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(invalid)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let address = rest.strip_suffix(']').ok_or_else(invalid)?;
                address.parse::<std::net::Ipv6Addr>().map_err(|_| invalid())?.to_string()
            }
            None => host.trim_end_matches('.').to_ascii_lowercase(),
        };
        let is_name = host.len() <= 253
            && host.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            });
        // An IPv6 address without brackets is ambiguous: its last group could be the port.
        let is_bracketed = text.starts_with('[');
        if is_name || is_bracketed { Ok(Self { host, port }) } else { Err(invalid()) }
    }
}

impl Serialize for Destination {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_hosts_with_ports() {
        for (text, canonical) in [
            ("API.example.com:443", "api.example.com:443"),
            ("db.example.:5432", "db.example:5432"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("[2001:DB8::1]:443", "[2001:db8::1]:443"),
        ] {
            assert_eq!(text.parse::<Destination>().unwrap().to_string(), canonical);
        }
        for text in [
            "example.com",
            "example.com:0",
            "example.com:65536",
            "*.example.com:443",
            ":443",
            "a..b:1",
            "2001:db8::1:443",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
    }
}
