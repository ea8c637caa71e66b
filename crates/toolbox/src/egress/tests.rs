//! Tests on the loopback interface of the test machine. The sockets are opened on free ports instead of the fixed ones.

use std::collections::HashMap;
use std::process::Command;
use std::sync::Mutex;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::*;

/// Opens sockets on free ports, and stores the address of each by the requested one.
#[derive(Default)]
struct FreePorts(Mutex<HashMap<(&'static str, SocketAddr), SocketAddr>>);

impl FreePorts {
    fn tcp(&self, address: SocketAddr) -> SocketAddr {
        self.0.lock().unwrap()[&("tcp", address)]
    }

    fn udp(&self, address: SocketAddr) -> SocketAddr {
        self.0.lock().unwrap()[&("udp", address)]
    }
}

impl Sockets for FreePorts {
    fn listen(&self, address: SocketAddr) -> Opening<'_, TcpListener> {
        Box::pin(async move {
            let listener = TcpListener::bind((address.ip(), 0)).await?;
            self.0.lock().unwrap().insert(("tcp", address), listener.local_addr()?);
            Ok(listener)
        })
    }

    fn bind_udp(&self, address: SocketAddr) -> Opening<'_, UdpSocket> {
        Box::pin(async move {
            let socket = UdpSocket::bind((address.ip(), 0)).await?;
            self.0.lock().unwrap().insert(("udp", address), socket.local_addr()?);
            Ok(socket)
        })
    }
}

fn rules(destinations: &[&str], learn: bool) -> EgressRules {
    EgressRules { destinations: destinations.iter().map(|text| text.parse().unwrap()).collect(), learn }
}

/// Sends an A query and returns the response code and the address.
async fn resolve(server: SocketAddr, name: &str) -> (u8, Vec<Ipv4Addr>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    socket.send_to(&query, server).await.unwrap();
    let mut response = [0; 512];
    let (length, _) = socket.recv_from(&mut response).await.unwrap();
    // There is at most one record, which ends with the address.
    let address = (response[7] == 1).then(|| <[u8; 4]>::try_from(&response[length - 4..length]).unwrap().into());
    (response[3] & 0xf, address.into_iter().collect())
}

/// Sends `text` to the proxy and returns the first line of the response.
async fn request(proxy: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut response = [0; 1024];
    let length = stream.read(&mut response).await.unwrap();
    String::from_utf8_lossy(&response[..length]).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn only_allowed_names_exist() {
    let sockets = FreePorts::default();
    let rules = rules(&["api.example.com:443", "db.example:5432", "api.example.com:8443", "192.0.2.1:443"], false);
    let _egress = Egress::start(&sockets, &rules, EgressPolicy::default()).await.unwrap();
    let dns = sockets.udp(DNS);
    assert_eq!(resolve(dns, "api.example.com").await, (0, vec![Ipv4Addr::new(127, 64, 0, 1)]));
    assert_eq!(resolve(dns, "API.example.COM").await, (0, vec![Ipv4Addr::new(127, 64, 0, 1)]));
    assert_eq!(resolve(dns, "db.example").await, (0, vec![Ipv4Addr::new(127, 64, 0, 2)]));
    for name in ["example.com", "evil.example", "x.api.example.com", "metadata.google.internal"] {
        assert_eq!(resolve(dns, name).await, (3, vec![]), "{name}");
    }
}

#[tokio::test]
async fn the_proxy_connects_only_to_allowed_destinations() {
    let sockets = FreePorts::default();
    let rules = rules(&["localhost:443", "127.0.0.1:80"], false);
    let egress = Egress::start(&sockets, &rules, EgressPolicy::default()).await.unwrap();
    let proxy = sockets.tcp(PROXY);
    for (text, expected) in [
        ("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", "HTTP/1.1 403 Forbidden"),
        ("CONNECT localhost:444 HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 403 Forbidden"),
        // Allowed by the entry, but resolves to loopback.
        ("CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 403 Forbidden"),
        ("CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 403 Forbidden"),
        ("GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
        ("CONNECT evil HTTP/1.1\r\nHost: evil\r\n\r\n", "HTTP/1.1 400 Bad Request"),
    ] {
        assert_eq!(request(proxy, text).await, expected, "{text}");
    }
    assert!(egress.take_rejected().is_empty(), "nothing is recorded without learning mode");
}

#[tokio::test]
async fn learning_mode_records_what_is_rejected() {
    let sockets = FreePorts::default();
    let egress = Egress::start(&sockets, &rules(&["db.example:5432"], true), EgressPolicy::default()).await.unwrap();
    let text = "CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n";
    assert_eq!(request(sockets.tcp(PROXY), text).await, "HTTP/1.1 403 Forbidden");
    assert_eq!(resolve(sockets.udp(DNS), "smtp.example.com").await, (0, vec![learning::SINK]));
    let mut stream = TcpStream::connect(sockets.tcp(SocketAddr::from((learning::SINK, 587)))).await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0, "the connection is closed");
    assert_eq!(egress.take_rejected(), ["api.example.com:443", "smtp.example.com:587"]);
    assert!(egress.take_rejected().is_empty());
}

/// Runs the test in a child process, because the limit of file descriptors applies to the whole process.
#[test]
fn learning_mode_continues_after_a_lack_of_file_descriptors() {
    const IN_CHILD: &str = "WAYPOST_TEST_FILE_DESCRIPTORS";
    if std::env::var_os(IN_CHILD).is_some() {
        return record_after_a_lack_of_file_descriptors();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let test = "egress::tests::learning_mode_continues_after_a_lack_of_file_descriptors";
    let output = command.args(["--exact", test]).env(IN_CHILD, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn record_after_a_lack_of_file_descriptors() {
    let sockets = FreePorts::default();
    let egress = Egress::start(&sockets, &rules(&[], true), EgressPolicy::default()).await.unwrap();
    assert_eq!(resolve(sockets.udp(DNS), "smtp.example.com").await, (0, vec![learning::SINK]));
    let sink = sockets.tcp(SocketAddr::from((learning::SINK, 587)));
    let client = TcpSocket::new_v4().unwrap();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limit }).unwrap();
    let mut stream = client.connect(sink).await.unwrap();
    // The clock is paused, so it advances when all tasks are idle. This is repeated so that the listener has tried as
    // well.
    for _ in 0..3 {
        let waiting = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut [0; 1])).await;
        waiting.expect_err("accepting a connection needs a file descriptor");
    }
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0, "the connection is closed");
    assert_eq!(egress.take_rejected(), ["smtp.example.com:587"]);
}

/// A destination on one of the machine's own addresses would be rejected, so only the relay itself is tested here. The
/// tests with containers connect to a real destination.
#[tokio::test]
async fn sockets_are_closed_when_the_egress_is_dropped() {
    let sockets = FreePorts::default();
    let egress = Egress::start(&sockets, &rules(&["db.example:5432"], false), EgressPolicy::default()).await.unwrap();
    let relay = sockets.tcp(SocketAddr::from(([127, 64, 0, 1], 5432)));
    let mut open = TcpStream::connect(sockets.tcp(PROXY)).await.unwrap();
    TcpStream::connect(relay).await.unwrap();
    drop(egress);
    assert_eq!(open.read(&mut [0; 1]).await.unwrap_or(0), 0, "open connections are closed");
    // The listeners are closed by their tasks, which have been woken.
    while TcpStream::connect(relay).await.is_ok() {
        tokio::task::yield_now().await;
    }
}
