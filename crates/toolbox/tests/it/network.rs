//! Connections over TCP, with and without TLS.

use std::io;
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use url::Url;
use waypost_link_io::Socket;
use waypost_toolbox::identity::{Identity, SigningKey};
use waypost_toolbox::link::connect::{Connect, NetworkConnector};
use waypost_toolbox::tasks;
use waypost_toolbox_proto::handshake::{Challenge, Hello, Versions};

use crate::control_plane::ControlPlane;
use crate::machine::Machine;

/// A TLS server for `localhost`.
struct TlsServer {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    /// The certificate authority in PEM.
    ca: Vec<u8>,
    url: String,
}

impl TlsServer {
    async fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap());
        let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        Self { listener, acceptor, ca: issuer.pem().into_bytes(), url }
    }

    async fn accept(&self) -> io::Result<TlsStream<TcpStream>> {
        let (stream, _) = self.listener.accept().await?;
        self.acceptor.accept(stream).await
    }
}

async fn read(connector: &NetworkConnector, url: &str) -> io::Result<String> {
    let mut stream = connector.connect(&Url::parse(url).unwrap()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.map(|_| text)
}

#[tokio::test]
async fn tls_requires_a_trusted_certificate_for_the_host() {
    let server = TlsServer::new().await;
    let (url, ca) = (server.url.clone(), server.ca.clone());
    tasks::spawn("server", async move {
        loop {
            let Ok(mut stream) = server.accept().await else { continue };
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    let trusting = NetworkConnector::new(Some(ca));
    assert_eq!(read(&trusting, &url).await.unwrap(), "hello");
    assert!(read(&trusting, &url.replace("localhost", "127.0.0.1")).await.is_err(), "another name");
    assert!(read(&NetworkConnector::new(None), &url).await.is_err(), "unknown authority");
    let error = read(&NetworkConnector::new(Some(b"-----BEGIN CERTIFICATE-----\nx".to_vec())), &url).await.unwrap_err();
    assert!(error.to_string().contains("PEM"), "{error}");
}

#[tokio::test]
async fn plain_http_is_not_encrypted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tasks::spawn("server", async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"plain").await.unwrap();
    });
    assert_eq!(read(&NetworkConnector::new(None), &url).await.unwrap(), "plain");
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_link_is_opened_with_tls_and_an_upgrade_to_a_web_socket() {
    let server = TlsServer::new().await;
    let machine = Machine::new(&ControlPlane::new());
    let url = Url::parse(&server.url).unwrap();
    let key = SigningKey::generate().unwrap();
    Identity::new("tbx_1".into(), "rack".into(), url, key).save(machine.folder.path()).unwrap();
    let machine = machine.restart().await;
    machine.link.start(machine.runtime(Arc::new(NetworkConnector::new(Some(server.ca.clone())))));
    let stream = server.accept().await.unwrap();
    let mut path = String::new();
    let callback = |request: &Request, response: Response| {
        path = request.uri().to_string();
        Ok(response)
    };
    let mut socket = Socket::new(accept_hdr_async(stream, callback).await.unwrap());
    assert_eq!(path, "/toolbox/link");
    let nonce = "A".repeat(43);
    socket.send(&Challenge { nonce, protocol: Versions::OWN }).await.unwrap();
    let hello: Hello = socket.receive().await.unwrap();
    assert_eq!((hello.toolbox_id.as_str(), hello.origin), ("tbx_1", server.url));
    machine.link.stop().await;
}

#[tokio::test]
async fn a_challenge_that_could_change_the_signed_text_is_not_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let machine = Machine::new(&ControlPlane::new());
    let key = SigningKey::generate().unwrap();
    Identity::new("tbx_1".into(), "rack".into(), url, key).save(machine.folder.path()).unwrap();
    let machine = machine.restart().await;
    machine.link.start(machine.runtime(Arc::new(NetworkConnector::new(None))));
    let (stream, _) = listener.accept().await.unwrap();
    let mut socket = Socket::new(tokio_tungstenite::accept_async(stream).await.unwrap());
    let nonce = format!("{}\ntbx_1\nhttps://other.example", "A".repeat(43));
    socket.send(&Challenge { nonce, protocol: Versions::OWN }).await.unwrap();
    assert!(socket.receive::<Hello>().await.is_err());
    machine.link.stop().await;
}
