//! The resolver that the HTTP client is given: it hands out only addresses that were judged.
//!
//! The client connects to what its resolver returns and asks nobody else, so the judged address is the one that is
//! connected to.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::address;
use crate::error::Refusal;

/// The addresses of a name. A seam for tests: [`System`] in the product.
pub(crate) trait Lookup: Send + Sync + 'static {
    /// All addresses of `host`, in the order in which they are to be tried.
    fn lookup(&self, host: String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;
}

/// The machine's resolver.
pub(crate) struct System;

impl Lookup for System {
    fn lookup(&self, host: String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|found| found.ip()).collect()) })
    }
}

/// The kind of request that addresses are judged for. The resolver does not see the URL, so there is one for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// To public and to allowed addresses.
    Https,
    /// To allowed addresses that are not public.
    Http,
}

/// Judges all addresses of a host. One bad address spoils them all: a mixture is an attack or a mistake.
///
/// # Errors
/// What is wrong with the addresses.
pub(crate) fn judge(scheme: Scheme, addresses: &[IpAddr], allow: &[IpNet]) -> Result<(), Refusal> {
    if addresses.is_empty() {
        return Err(Refusal::NoAddress);
    }
    for &found in addresses {
        match (address::is_public(found), scheme) {
            // Also if a wide entry of `outbound_allow` contains it: what crosses the internet is encrypted.
            (true, Scheme::Http) => return Err(Refusal::Plain),
            (true, Scheme::Https) => {}
            (false, _) if !address::is_allowed(found, allow) => return Err(Refusal::NotPublic),
            (false, _) => {}
        }
    }
    Ok(())
}

/// A [`Lookup`] with a judge behind it.
pub(crate) struct Guard {
    pub(crate) scheme: Scheme,
    pub(crate) allow: Arc<[IpNet]>,
    pub(crate) lookup: Arc<dyn Lookup>,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (scheme, allow) = (self.scheme, self.allow.clone());
        let found = self.lookup.lookup(name.as_str().to_owned());
        Box::pin(async move {
            let addresses = found.await.map_err(|_| Refusal::NoAddress)?;
            judge(scheme, &addresses, &allow).inspect_err(|refusal| {
                tracing::warn!(host = name.as_str(), %refusal, "a request to another server was refused");
            })?;
            // Port 0 stands for the port of the URL.
            Ok(Box::new(addresses.into_iter().map(|found| SocketAddr::new(found, 0))) as Addrs)
        })
    }
}
