//! Loopback servers that send exactly the bytes that a test specifies.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// The bytes to send, and whether the connection is then closed or kept open silently.
pub enum Reply {
    Close(String),
    Hold(String),
}

/// Returns a complete response.
pub fn response(status: &str, headers: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Close(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"))
}

type Respond = Arc<dyn Fn(&str) -> Reply + Send + Sync>;

pub struct Server {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts a server that passes every request (head and body as one text) to `respond`.
    pub async fn start(host: &str, respond: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(SocketAddr::new(host.parse::<IpAddr>().unwrap(), 0), None, Arc::new(respond)).await
    }

    /// Starts two servers with the same port on `hosts`, whose responses have the bodies `texts`.
    pub async fn start_two(hosts: [&str; 2], texts: [&'static str; 2]) -> [Self; 2] {
        let [first, second] = hosts.map(|host| host.parse::<IpAddr>().unwrap());
        let listeners = loop {
            let listener = TcpListener::bind(SocketAddr::new(first, 0)).await.unwrap();
            // Another socket on the second host may have the same port.
            match TcpListener::bind(SocketAddr::new(second, listener.local_addr().unwrap().port())).await {
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                other => break [listener, other.unwrap()],
            }
        };
        let mut texts = texts.into_iter();
        listeners.map(|listener| {
            let text = texts.next().unwrap();
            Self::accept(listener, None, Arc::new(move |_: &str| response("200 OK", "", text)))
        })
    }

    /// Starts a TLS server with a self-signed certificate for `names`; also returns that certificate in PEM.
    pub async fn start_tls(names: &[&str], respond: impl Fn(&str) -> Reply + Send + Sync + 'static) -> (Self, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.der().clone()], private).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let address = "127.0.0.1:0".parse().unwrap();
        (Self::listen(address, Some(acceptor), Arc::new(respond)).await, certificate.pem().into_bytes())
    }

    async fn listen(address: SocketAddr, tls: Option<TlsAcceptor>, respond: Respond) -> Self {
        Self::accept(TcpListener::bind(address).await.unwrap(), tls, respond)
    }

    fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, respond: Respond) -> Self {
        let (address, received) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let log = received.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, respond, log) = (tls.clone(), respond.clone(), log.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, respond, log).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, respond, log).await,
                            Err(_) => log.lock().unwrap().push("failed handshake".to_owned()),
                        },
                    }
                });
            }
        });
        Self { address, received }
    }

    /// Returns the requests received so far.
    pub fn received(&self) -> Vec<String> {
        self.received.lock().unwrap().clone()
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn url(&self, path: &str) -> url::Url {
        url::Url::parse(&format!("http://{}{path}", self.address)).unwrap()
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, respond: Respond, log: Arc<Mutex<Vec<String>>>) {
    let Some(request) = read_request(&mut stream).await else { return };
    let reply = respond(&request);
    log.lock().unwrap().push(request);
    let (text, hold) = match reply {
        Reply::Close(text) => (text, false),
        Reply::Hold(text) => (text, true),
    };
    // The client may close the connection early, which is not an error.
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.flush().await;
    if hold {
        let _ = stream.read(&mut [0]).await;
    }
    let _ = stream.shutdown().await;
}

/// Reads one request, including a body of the length that its `Content-Length` header states.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(text);
            }
        }
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk).await {
            Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
            _ => return None,
        }
    }
}
