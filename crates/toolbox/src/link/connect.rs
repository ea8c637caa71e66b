//! Connections to the control plane.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::requests::BoxFuture;

/// A byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens connections to the control plane. Implemented by [`NetworkConnector`]; tests replace it.
pub trait Connect: Send + Sync + 'static {
    /// Connects to the host of `url`, with TLS if its scheme is `https`.
    fn connect<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, io::Result<Box<dyn Stream>>>;
}

/// Connects over TCP, with TLS for `https`.
pub struct NetworkConnector {
    ca_pem: Option<Vec<u8>>,
}

impl NetworkConnector {
    /// Creates a connector that trusts the certificate authorities of the system, and those in `ca_pem`.
    #[must_use]
    pub fn new(ca_pem: Option<Vec<u8>>) -> Self {
        Self { ca_pem }
    }

    /// Creates the TLS configuration. It is created for each connection, so that certificate authorities that are
    /// installed while the daemon runs are used; connections are rare.
    fn tls(&self) -> io::Result<TlsConnector> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pem = self.ca_pem.as_deref().unwrap_or_default();
        let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let roots = roots.map_err(|_| invalid("the file with certificate authorities is not valid PEM"))?;
        let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(roots, Arc::clone(&provider));
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier.map_err(io::Error::other)?))
            .with_no_client_auth();
        // A WebSocket is opened over HTTP/1.1 (RFC 6455).
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

impl Connect for NetworkConnector {
    fn connect<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let host = url.host_str().ok_or_else(|| invalid("the URL has no host"))?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let port = url.port_or_known_default().ok_or_else(|| invalid("the URL has no port"))?;
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            if url.scheme() != "https" {
                return Ok(Box::new(stream) as Box<dyn Stream>);
            }
            let name = ServerName::try_from(host.to_owned()).map_err(|_| invalid("the host name is not valid"))?;
            Ok(Box::new(self.tls()?.connect(name, stream).await?) as Box<dyn Stream>)
        })
    }
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
