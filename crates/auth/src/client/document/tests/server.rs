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

use super::super::Documents;

type Respond = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

struct Shared {
    respond: Mutex<Respond>,
    seen: Mutex<Vec<String>>,
    root: Vec<u8>,
    port: u16,
}

/// Answers each path as it is told to at the moment.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

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
        let (respond, seen): (Respond, _) = (Box::new(|_| None), Mutex::default());
        let root = certificate.pem().into_bytes();
        let server = Self(Arc::new(Shared { respond: Mutex::new(respond), seen, root, port }));
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().talk(acceptor.clone(), stream));
            }
        });
        server
    }

    /// Answers from now on with what `respond` makes of the path; with none it stays silent.
    pub fn answers(&self, respond: impl Fn(&str) -> Option<String> + Send + Sync + 'static) {
        *self.0.respond.lock().unwrap() = Box::new(respond);
    }

    /// Answers from now on with the document of whichever URL is asked for, and these headers.
    pub fn serves_documents(&self, headers: &'static str) {
        let server = self.clone();
        self.answers(move |path| Some(answer("200 OK", headers, &server.document(path).to_string())));
    }

    async fn talk(self, acceptor: TlsAcceptor, stream: TcpStream) {
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
        self.0.seen.lock().unwrap().push(path);
        match reply {
            // A client that has heard enough hangs up: that is no failure of the server.
            Some(reply) => drop(stream.write_all(reply.as_bytes()).await),
            None => drop(stream.read_u8().await),
        }
        let _ = stream.shutdown().await;
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.0.port)
    }

    /// The paths that were asked for.
    pub fn seen(&self) -> Vec<String> {
        self.0.seen.lock().unwrap().clone()
    }

    pub fn document(&self, path: &str) -> Value {
        json!({ "client_id": self.url(path), "client_name": "Client", "redirect_uris": ["http://127.0.0.1/cb"] })
    }

    /// Documents that trust this server, and the clock by which they are kept.
    pub fn documents(&self) -> (Documents, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(Timestamp(1_795_000_000_000)));
        (Documents::new(self.outbound(), clock.clone()), clock)
    }

    /// A way out that trusts this server.
    pub fn outbound(&self) -> Outbound {
        let allow = vec!["127.0.0.0/8=client-documents".parse().unwrap()];
        Outbound::new(Policy { allow, extra_roots_pem: Some(self.0.root.clone()) }).unwrap()
    }
}

pub const JSON: &str = "Content-Type: application/json\r\n";

pub fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}")
}
