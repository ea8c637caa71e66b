//! A server for client ID metadata documents, over HTTPS on loopback with its own certificate authority.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Path as UrlPath, State};
use axum::routing::get;
use axum::serve::Listener;
use axum::{Json, Router};
use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::server::TlsStream;

/// Serves a document for each client name. Stops on drop.
pub struct DocumentServer {
    origin: String,
    /// The certificate of the authority, in PEM format.
    pub authority: String,
    fetch_count: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct ServerState {
    origin: String,
    /// Pairs of client name and redirect URI.
    clients: Arc<Vec<(String, String)>>,
    fetch_count: Arc<AtomicUsize>,
}

impl DocumentServer {
    /// Serves the documents of `clients`, which are pairs of name and redirect URI.
    pub async fn start(clients: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is available");
        let port = listener.local_addr().expect("the listener is bound").port();
        let origin = format!("https://localhost:{port}");
        let (authority, config) = create_certificates();
        let clients = clients.iter().map(|(name, uri)| ((*name).to_owned(), (*uri).to_owned())).collect();
        let fetch_count = Arc::new(AtomicUsize::new(0));
        let state =
            ServerState { origin: origin.clone(), clients: Arc::new(clients), fetch_count: fetch_count.clone() };
        let router = Router::new().route("/{client}/client.json", get(serve_document)).with_state(state);
        let listener = TlsListener { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
        #[expect(clippy::disallowed_methods, reason = "serves or reads until the test ends")]
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("the server runs") });
        Self { origin, authority, fetch_count, task }
    }

    /// Returns the client ID of a client.
    pub fn client_id(&self, client: &str) -> String {
        format!("{}/{client}/client.json", self.origin)
    }

    /// Returns the number of fetched documents.
    pub fn fetch_count(&self) -> usize {
        self.fetch_count.load(Ordering::Relaxed)
    }

    /// Writes the certificate of the authority to a file, for the setting `outbound_ca_file`.
    pub fn write_authority(&self, file: &Path) {
        std::fs::write(file, &self.authority).expect("the file is written");
    }
}

impl Drop for DocumentServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve_document(
    State(state): State<ServerState>,
    UrlPath(client): UrlPath<String>,
) -> Result<Json<Value>, StatusCode> {
    let found = state.clients.iter().find(|(name, _)| *name == client);
    let (name, redirect_uri) = found.ok_or(StatusCode::NOT_FOUND)?;
    state.fetch_count.fetch_add(1, Ordering::Relaxed);
    Ok(Json(json!({
        "client_id": format!("{}/{name}/client.json", state.origin),
        "client_name": format!("Test client {name}"),
        "redirect_uris": [redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    })))
}

/// Creates a certificate authority, and the TLS configuration of a server `localhost` with a certificate from it.
fn create_certificates() -> (String, ServerConfig) {
    let mut params = CertificateParams::new(Vec::new()).expect("no invalid names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("the key is generated");
    let authority = CertifiedIssuer::self_signed(params, key).expect("the certificate is signed");
    let key = KeyPair::generate().expect("the key is generated");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a valid name");
    let certificate = params.signed_by(&key, &authority).expect("the certificate is signed");
    let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a valid key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider supports the versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .expect("a valid certificate");
    (authority.pem(), config)
}

/// Accepts one TLS connection at a time, which is sufficient for a test.
struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // A client that does not trust the certificate ends the handshake.
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
