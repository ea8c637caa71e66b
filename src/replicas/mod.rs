//! Replicas: the processes of an installation on PostgreSQL, which reach toolboxes through the replica that holds the
//! link.
//!
//! A link ends at one replica, which is recorded with a lease ([`waypost_ops::link_leases`]). The other replicas
//! forward their requests to its internal listener ([`forward`], [`relay`]). Commands of the operator that need a link
//! use the same listener. Both ends authenticate with certificates that are derived from the secret key
//! ([`certificates`]).

pub mod certificates;
mod forward;
pub mod relay;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use url::Url;
use waypost_core::secret::SecretKeys;
use waypost_core::{SystemClock, SystemRandom};
use waypost_http_kit::web::Web;
use waypost_link::Forward;
use waypost_ops::link_leases::LinkLeases;
use waypost_store::Db;

use crate::config::Settings;
use crate::connections::{ConnectionLimits, Connections, Shutdown};
use crate::operator_socket;
use certificates::Certificates;
use forward::Forwarder;

/// The role of this process as one of several replicas.
pub struct Replica {
    /// The address of the internal listener.
    pub listen: SocketAddr,
    acceptor: TlsAcceptor,
    forward: Arc<Forwarder>,
    /// The leases of the links to this process.
    pub leases: LinkLeases,
}

impl Replica {
    /// Creates the replica of an installation on PostgreSQL. Returns `None` on SQLite, if toolboxes are off, or without
    /// `internal_listen` and `internal_url`.
    ///
    /// # Errors
    /// If only one of the two settings is set, or the certificates cannot be created.
    pub fn from_settings(settings: &Settings, db: &Db, keys: &SecretKeys) -> anyhow::Result<Option<Self>> {
        let Some((listen, url)) = addresses(settings)? else { return Ok(None) };
        let certificates = Certificates::new(keys, host(url)?)?;
        let leases = LinkLeases::new(db.clone(), Arc::new(SystemClock), &SystemRandom, origin(url).to_owned());
        let forward = Arc::new(Forwarder::new(leases.clone(), client(certificates.client()?)?));
        Ok(Some(Self { listen, acceptor: TlsAcceptor::from(certificates.server()?), forward, leases }))
    }

    /// Returns the forwarder for requests to other replicas.
    #[must_use]
    pub fn forward(&self) -> Arc<dyn Forward> {
        self.forward.clone()
    }

    /// Returns the listener for requests from other replicas and from commands.
    #[must_use]
    pub fn listener(&self, listener: TcpListener) -> InternalListener {
        InternalListener { listener, acceptor: self.acceptor.clone() }
    }
}

/// The listener for other replicas and for commands of the operator.
pub struct InternalListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl InternalListener {
    /// Serves requests until `stop`.
    pub async fn serve(self, limits: ConnectionLimits, stop: Shutdown, web: Web) {
        let router = relay::routes(web.ops().links().clone()).merge(operator_socket::router(&web));
        drop(web);
        Connections::with_tls(limits, stop, self.acceptor).serve(self.listener, router).await;
    }
}

/// Returns the settings `internal_listen` and `internal_url`; `None` if this process is not a replica.
fn addresses(settings: &Settings) -> anyhow::Result<Option<(SocketAddr, &Url)>> {
    if settings.database_url.is_sqlite() || !settings.toolboxes {
        return Ok(None);
    }
    match (settings.internal_listen, &settings.internal_url) {
        (Some(listen), Some(url)) => Ok(Some((listen, url))),
        (None, None) => {
            tracing::info!("toolboxes are off, because they require the settings `internal_listen` and `internal_url`");
            Ok(None)
        }
        _ => anyhow::bail!("the settings `internal_listen` and `internal_url` must be set together"),
    }
}

/// Returns the TLS configuration for commands, and the URL of the internal listener that they use.
///
/// # Errors
/// If the setting `internal_url` is missing, or the certificates cannot be created.
pub fn operator_tls(settings: &Settings, keys: &SecretKeys) -> anyhow::Result<(rustls::ClientConfig, Url)> {
    let url = settings.internal_url.clone().context(
        "on PostgreSQL, this command reaches `waypost serve` at the setting `internal_url`, which is missing: set it, or use --url",
    )?;
    Ok((Certificates::new(keys, host(&url)?)?.client()?, url))
}

/// Returns a client with limits for connections between replicas.
#[expect(clippy::disallowed_methods, reason = "the URLs are those of other replicas, from the operator's settings")]
fn client(tls: rustls::ClientConfig) -> anyhow::Result<reqwest::Client> {
    let client = waypost_outbound::unguarded_client()
        .tls_backend_preconfigured(tls)
        // Each request has its own connection, so that a reader that stops reading does not block other requests.
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(forward::CONNECT_TIMEOUT)
        .pool_idle_timeout(forward::IDLE_TIMEOUT)
        // Detects that the other machine has failed while it processes a request.
        .tcp_keepalive(forward::KEEP_ALIVE)
        .tcp_keepalive_interval(forward::KEEP_ALIVE)
        .tcp_keepalive_retries(3)
        .build();
    client.context("cannot create the HTTP client for other replicas")
}

fn host(url: &Url) -> anyhow::Result<&str> {
    url.host_str().context("the setting `internal_url` must have a host")
}

fn origin(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_on_postgresql_with_both_settings_is_a_replica() {
        let mut settings = Settings::default();
        settings.internal_listen = Some(([10, 0, 0, 1], 8443).into());
        assert_eq!(addresses(&settings).unwrap(), None, "on SQLite, there is one process");
        settings.database_url = "postgres://waypost@db/waypost".parse().unwrap();
        assert!(addresses(&settings).unwrap_err().to_string().contains("together"));
        settings.internal_url = Some("https://10.0.0.1:8443".parse().unwrap());
        assert_eq!(addresses(&settings).unwrap().unwrap().0.port(), 8443);
        settings.toolboxes = false;
        assert_eq!(addresses(&settings).unwrap(), None);
        (settings.toolboxes, settings.internal_listen, settings.internal_url) = (true, None, None);
        assert_eq!(addresses(&settings).unwrap(), None);
    }
}
