//! The HTTP clients: one pair per list of allowed networks.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use reqwest::{Certificate, Client, ClientBuilder};
use url::{Host, Url};

use crate::error::{Error, innermost};
use crate::policy::{Policy, Purpose};
use crate::resolve::{GuardedResolver, Lookup, Scheme, SystemLookup};
use crate::route::{Guard, Route};

/// Timeout for establishing a connection, within the timeout of the request.
const CONNECT: Duration = Duration::from_secs(5);
/// Time for which an idle connection is kept: long enough for consecutive discovery, key and token requests.
const IDLE: Duration = Duration::from_secs(15);
/// Identifies Waypost in the logs of the servers it calls.
const USER_AGENT: &str = concat!("Waypost/", env!("CARGO_PKG_VERSION"));

/// Creates routes for requests to URLs supplied by tenants or clients. Cheap to clone; clones share their routes.
#[derive(Clone)]
pub struct Outbound(Arc<Inner>);

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").field("allow", &self.0.policy.allow).finish_non_exhaustive()
    }
}

impl Outbound {
    /// Creates an `Outbound` that enforces `policy`.
    ///
    /// # Errors
    /// [`Error::Setup`] if the additional root certificates cannot be parsed or the HTTP client cannot be created.
    pub fn new(policy: Policy) -> Result<Self, Error> {
        Self::with_lookup(policy, Arc::new(SystemLookup))
    }

    /// Like [`Outbound::new`], but resolves names with `lookup`.
    pub(crate) fn with_lookup(policy: Policy, lookup: Arc<dyn Lookup>) -> Result<Self, Error> {
        let roots = match &policy.extra_roots_pem {
            Some(pem) => roots(pem)?,
            None => Vec::new(),
        };
        let inner = Inner { policy, roots, lookup, routes: Mutex::default() };
        if !inner.roots.is_empty() {
            // Report unusable certificates now, not on the first request.
            inner.route_to(Vec::new())?;
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Returns the route for requests with `purpose`. `organization` contains the ID and the slug of the organisation
    /// whose user supplied the URL; it is empty for URLs supplied by the operator.
    ///
    /// # Errors
    /// [`Error::Setup`] if the HTTP client cannot be created.
    pub fn route(&self, purpose: Purpose, organization: &[&str]) -> Result<Route, Error> {
        self.0.route_to(self.0.policy.networks(purpose, organization))
    }

    /// Whether any entry of `outbound_allow` is for `purpose`.
    #[must_use]
    pub fn allows_any(&self, purpose: Purpose) -> bool {
        self.0.policy.allow.iter().any(|allowance| allowance.purpose == purpose)
    }

    /// Whether any entry of `outbound_allow` for `purpose` is limited to an organisation. If not, [`Self::route`] needs
    /// no organisation.
    #[must_use]
    pub fn is_limited_to_organizations(&self, purpose: Purpose) -> bool {
        self.0.policy.allow.iter().any(|allowance| allowance.purpose == purpose && allowance.organization.is_some())
    }
}

struct Inner {
    policy: Policy,
    roots: Vec<Certificate>,
    lookup: Arc<dyn Lookup>,
    /// One route per list of allowed networks, so at most as many as there are combinations of entries in use.
    routes: Mutex<HashMap<Vec<IpNet>, Route>>,
}

impl Inner {
    fn route_to(&self, networks: Vec<IpNet>) -> Result<Route, Error> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = routes.get(&networks) {
            return Ok(route.clone());
        }
        let allow: Arc<[IpNet]> = networks.clone().into();
        let builder = |scheme| {
            let guard = GuardedResolver { scheme, allow: allow.clone(), lookup: self.lookup.clone() };
            common().no_proxy().https_only(scheme == Scheme::Https).dns_resolver(guard)
        };
        let https = match builder(Scheme::Https).tls_certs_merge(self.roots.clone()).build() {
            // A machine without root certificates still serves everything that needs no outgoing requests.
            Err(error) if self.roots.is_empty() => {
                tracing::warn!(
                    error = innermost(&error),
                    "no root certificates found, outgoing https requests will fail; set `outbound_ca_file` to provide some"
                );
                builder(Scheme::Https).tls_certs_only([]).build().map_err(setup)?
            }
            built => built.map_err(setup)?,
        };
        let http = builder(Scheme::Http).tls_certs_only([]).build().map_err(setup)?;
        let route = Route { https, http, guard: Guard::Networks(allow) };
        routes.insert(networks, route.clone());
        Ok(route)
    }
}

impl Route {
    /// Returns a route that does not check addresses and also permits `http://` and credentials in URLs, for a
    /// command-line program whose own user chose `url`. Must never be used for URLs supplied by others. Uses the
    /// system's proxy, except for loopback addresses.
    ///
    /// # Errors
    /// [`Error::Setup`] if the HTTP client cannot be created.
    pub fn unguarded(url: &Url) -> Result<Self, Error> {
        let builder = if is_loopback(url) { common().no_proxy() } else { common() };
        let client = builder.build().map_err(setup)?;
        Ok(Self { https: client.clone(), http: client, guard: Guard::Off })
    }

    /// Returns a route like [`Self::unguarded`] that also accepts certificates issued by the certificate authorities in
    /// `pem`.
    ///
    /// # Errors
    /// [`Error::Setup`] if `pem` contains no valid certificate, or the HTTP client cannot be created.
    pub fn unguarded_with_roots(url: &Url, pem: &[u8]) -> Result<Self, Error> {
        let builder = if is_loopback(url) { common().no_proxy() } else { common() };
        let client = builder.tls_certs_merge(roots(pem)?).build().map_err(setup)?;
        Ok(Self { https: client.clone(), http: client, guard: Guard::Off })
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn setup(error: reqwest::Error) -> Error {
    Error::Setup { reason: innermost(&error) }
}

/// Returns a builder of clients **without** protection against requests to private networks. Must only be used for URLs
/// that the operator or the user of the command line chose. Selects ring as the TLS provider of the process, unless one
/// is already selected.
#[expect(clippy::disallowed_methods, reason = "sets the TLS provider, without which no client can be built")]
pub fn unguarded_client() -> ClientBuilder {
    // An error means that a provider is already selected.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
}

#[expect(
    clippy::disallowed_methods,
    reason = "requests go through a `Route`, which guards those to URLs supplied by others"
)]
fn common() -> ClientBuilder {
    unguarded_client()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
}

fn roots(pem: &[u8]) -> Result<Vec<Certificate>, Error> {
    let reason = "the additional root certificates must be PEM with at least one certificate";
    match Certificate::from_pem_bundle(pem) {
        Ok(roots) if !roots.is_empty() => Ok(roots),
        _ => Err(Error::Setup { reason: reason.to_owned() }),
    }
}
