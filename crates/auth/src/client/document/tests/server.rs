//! A client's web server on loopback, with TLS.

use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use waypost_core::Timestamp;
use waypost_core::clock::ManualClock;
use waypost_outbound::{Outbound, Policy};

use super::super::ClientDocuments;

type Respond = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

struct State {
    respond: Mutex<Respond>,
    requested_paths: Mutex<Vec<String>>,
    root: Vec<u8>,
    port: u16,
}

/// A server with a configurable response for each path.
#[derive(Clone)]
pub struct Server(Arc<State>);

impl Server {
    pub async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.der().clone()], private).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (respond, requested_paths): (Respond, _) = (Box::new(|_| None), Mutex::default());
        let root = certificate.pem().into_bytes();
        let server = Self(Arc::new(State { respond: Mutex::new(respond), requested_paths, root, port }));
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(acceptor.clone(), stream));
            }
        });
        server
    }

    /// Sets the function that returns the response for a path. If it returns `None`, the server does not respond.
    pub fn respond_with(&self, respond: impl Fn(&str) -> Option<String> + Send + Sync + 'static) {
        *self.0.respond.lock().unwrap() = Box::new(respond);
    }

    /// Responds to every path with these headers and a valid document for its URL.
    pub fn serve_documents(&self, headers: &'static str) {
        let server = self.clone();
        self.respond_with(move |path| Some(response("200 OK", headers, &server.document(path).to_string())));
    }

    async fn serve(self, acceptor: TlsAcceptor, stream: TcpStream) {
        let Ok(mut stream) = acceptor.accept(stream).await else { return };
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => bytes.push(byte),
                Err(_) => return,
            }
        }
        let request = String::from_utf8(bytes).unwrap();
        let path = request.split(' ').nth(1).unwrap().to_owned();
        let reply = (self.0.respond.lock().unwrap())(&path);
        self.0.requested_paths.lock().unwrap().push(path);
        match reply {
            // A client may disconnect early, which is not an error.
            Some(reply) => drop(stream.write_all(reply.as_bytes()).await),
            None => drop(stream.read_u8().await),
        }
        let _ = stream.shutdown().await;
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.0.port)
    }

    /// Returns the requested paths, in order.
    pub fn requested_paths(&self) -> Vec<String> {
        self.0.requested_paths.lock().unwrap().clone()
    }

    pub fn document(&self, path: &str) -> Value {
        json!({ "client_id": self.url(path), "client_name": "Client", "redirect_uris": ["http://127.0.0.1/cb"] })
    }

    /// Returns a document cache that trusts this server, and its clock.
    pub fn documents(&self) -> (ClientDocuments, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(Timestamp(1_795_000_000_000)));
        (ClientDocuments::new(self.outbound(), clock.clone()), clock)
    }

    /// Returns an HTTP client that trusts this server.
    pub fn outbound(&self) -> Outbound {
        let allow = vec!["127.0.0.0/8=client-documents".parse().unwrap()];
        Outbound::new(Policy { allow, extra_roots_pem: Some(self.0.root.clone()) }).unwrap()
    }
}

pub const JSON: &str = "Content-Type: application/json\r\n";

pub fn response(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}")
}
