//! The resolver of the HTTP client, which returns only addresses that passed the check.
//!
//! The client connects only to addresses returned by this resolver, so the address that was checked is the address
//! that is used.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::address;
use crate::error::AddressError;

/// Name resolution. Replaceable in tests; in production it is [`SystemLookup`].
pub(crate) trait Lookup: Send + Sync + 'static {
    /// Returns all addresses of `host` in the order in which they should be tried.
    fn lookup(&self, host: String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;
}

/// The resolver of the operating system.
pub(crate) struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, host: String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|found| found.ip()).collect()) })
    }
}

/// The scheme for which addresses are checked. The resolver does not see the URL, so there is one resolver per scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Permitted for public addresses and for allowed addresses.
    Https,
    /// Permitted only for allowed addresses that are not public.
    Http,
}

/// Checks all addresses of a host. A single forbidden address rejects the host: a mixture of permitted and forbidden
/// addresses is an attack or a mistake.
///
/// # Errors
/// Returns the first problem found.
pub(crate) fn check_addresses(scheme: Scheme, addresses: &[IpAddr], allow: &[IpNet]) -> Result<(), AddressError> {
    if addresses.is_empty() {
        return Err(AddressError::NoAddress);
    }
    for &found in addresses {
        match (address::is_public(found), scheme) {
            // Even if a broad entry in `outbound_allow` contains it: traffic across the internet must be encrypted.
            (true, Scheme::Http) => return Err(AddressError::HttpNotAllowed),
            (true, Scheme::Https) => {}
            (false, _) if !address::is_allowed(found, allow) => return Err(AddressError::NotPublic),
            (false, _) => {}
        }
    }
    Ok(())
}

/// A resolver that checks the addresses returned by a [`Lookup`].
pub(crate) struct GuardedResolver {
    pub(crate) scheme: Scheme,
    pub(crate) allow: Arc<[IpNet]>,
    pub(crate) lookup: Arc<dyn Lookup>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (scheme, allow) = (self.scheme, self.allow.clone());
        let addresses = self.lookup.lookup(name.as_str().to_owned());
        Box::pin(async move {
            let addresses = addresses.await.map_err(|_| AddressError::NoAddress)?;
            check_addresses(scheme, &addresses, &allow).inspect_err(|error| {
                tracing::warn!(host = name.as_str(), %error, "blocked an outgoing request");
            })?;
            // Port 0 means the port of the URL.
            Ok(Box::new(addresses.into_iter().map(|found| SocketAddr::new(found, 0))) as Addrs)
        })
    }
}
