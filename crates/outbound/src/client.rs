//! The HTTP clients, one pair per list of allowed networks.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use reqwest::{Certificate, Client, ClientBuilder};

use crate::error::Error;
use crate::policy::{Policy, Purpose};
use crate::resolve::{Guard, Lookup, Scheme, System};
use crate::route::Route;

/// How long one connection may take to be made, within the time of the call.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection is kept that nobody uses: long enough for discovery, keys and token in a row.
const IDLE: Duration = Duration::from_secs(15);
/// Who asks, for the logs of those who are asked.
const USER_AGENT: &str = concat!("Waypost/", env!("CARGO_PKG_VERSION"));

/// The one way to addresses that others named. Cheap to clone; clones share their routes.
#[derive(Clone)]
pub struct Outbound(Arc<Inner>);

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").field("allow", &self.0.policy.allow).finish_non_exhaustive()
    }
}

impl Outbound {
    /// A way out under `policy`.
    ///
    /// # Errors
    /// [`Error::Setup`] if the further root certificates cannot be read.
    pub fn new(policy: Policy) -> Result<Self, Error> {
        Self::with_lookup(policy, Arc::new(System))
    }

    /// A way out that resolves names by `lookup`.
    pub(crate) fn with_lookup(policy: Policy, lookup: Arc<dyn Lookup>) -> Result<Self, Error> {
        let roots = match &policy.extra_roots_pem {
            Some(pem) => roots(pem)?,
            None => Vec::new(),
        };
        let inner = Inner { policy, roots, lookup, routes: Mutex::default() };
        // Certificates that cannot be used are an error now, and not at the first request.
        inner.route_to(Vec::new())?;
        Ok(Self(Arc::new(inner)))
    }

    /// The route of requests for `purpose`. `organization` holds the ID and the slug of the organisation whose user named
    /// the address; it is empty for addresses that the operator named.
    ///
    /// # Errors
    /// [`Error::Setup`] if the HTTP client cannot be created.
    pub fn route(&self, purpose: Purpose, organization: &[&str]) -> Result<Route, Error> {
        self.0.route_to(self.0.policy.networks(purpose, organization))
    }

    /// Whether any entry allows networks for `purpose`.
    #[must_use]
    pub fn allows_any(&self, purpose: Purpose) -> bool {
        self.0.policy.allow.iter().any(|allowance| allowance.purpose == purpose)
    }

    /// Whether an entry for `purpose` is limited to an organisation. If not, [`Self::route`] needs no organisation.
    #[must_use]
    pub fn is_limited_to_organizations(&self, purpose: Purpose) -> bool {
        self.0.policy.allow.iter().any(|allowance| allowance.purpose == purpose && allowance.organization.is_some())
    }
}

struct Inner {
    policy: Policy,
    roots: Vec<Certificate>,
    lookup: Arc<dyn Lookup>,
    /// One per list of allowed networks: at most as many as there are subsets in use of the entries of the setting.
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
            let guard = Guard { scheme, allow: allow.clone(), lookup: self.lookup.clone() };
            common().https_only(scheme == Scheme::Https).dns_resolver(guard)
        };
        let setup = |error: reqwest::Error| Error::Setup { why: innermost(&error) };
        let https = match builder(Scheme::Https).tls_certs_merge(self.roots.clone()).build() {
            // A machine without root certificates serves everything that needs no other server.
            Err(error) if self.roots.is_empty() => {
                tracing::warn!(
                    why = innermost(&error),
                    "no root certificates: https requests to other servers will fail; `outbound_ca_file` can name some"
                );
                builder(Scheme::Https).tls_certs_only([]).build().map_err(setup)?
            }
            built => built.map_err(setup)?,
        };
        let http = builder(Scheme::Http).tls_certs_only([]).build().map_err(setup)?;
        let route = Route { https, http, allow };
        routes.insert(networks, route.clone());
        Ok(route)
    }
}

fn common() -> ClientBuilder {
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
}

fn roots(pem: &[u8]) -> Result<Vec<Certificate>, Error> {
    let why = "the further root certificates are no PEM with at least one certificate";
    match Certificate::from_pem_bundle(pem) {
        Ok(roots) if !roots.is_empty() => Ok(roots),
        _ => Err(Error::Setup { why: why.to_owned() }),
    }
}

/// The words of the last cause: those before it only say that there was one.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
