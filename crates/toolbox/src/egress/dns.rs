//! The DNS server of a container, which knows only the allowed names.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Header, HeaderCounts, Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::A;
use hickory_server::proto::rr::{RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::{Shared, learning};

/// The time in seconds for which a client may cache an address. The addresses never change while the container runs.
const TTL: u32 = 60;
/// The time after which an idle TCP connection is closed.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of responses that wait for a TCP client.
const TCP_RESPONSES: usize = 16;

/// Serves DNS on both sockets until `stop` is cancelled.
pub(super) fn start(udp: UdpSocket, tcp: TcpListener, shared: &Arc<Shared>, stop: &CancellationToken) {
    let mut server = Server::new(Names { shared: Arc::clone(shared) });
    server.register_socket(udp);
    server.register_listener(tcp, TCP_TIMEOUT, TCP_RESPONSES);
    let stop = stop.clone();
    crate::tasks::spawn("egress-dns", async move {
        tokio::select! {
            () = stop.cancelled() => {}
            result = server.block_until_done() => {
                if let Err(error) = result {
                    tracing::warn!(%error, "the DNS server of a container stopped");
                }
            }
        }
    });
}

struct Names {
    shared: Arc<Shared>,
}

/// The answer to a question.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The name has this address.
    Address(Ipv4Addr),
    /// The name exists, but has no record of this type.
    NoRecord,
    /// The name does not exist.
    NoName,
}

impl Names {
    /// Answers a question for `name`, which must be in lower case and without the final dot.
    fn answer(&self, name: &str, kind: RecordType) -> Answer {
        let known = self.shared.addresses.get(name).copied();
        let address = known.or_else(|| {
            // In learning mode, a name that is not allowed gets an address on which connections are recorded and closed.
            let rejections = self.shared.rejections.as_ref()?;
            rejections.record_name(name).then_some(learning::SINK)
        });
        match (address, kind) {
            (Some(address), RecordType::A) => Answer::Address(address),
            (Some(_), _) => Answer::NoRecord,
            (None, _) => Answer::NoName,
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Names {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        let mut records = Vec::new();
        match request.request_info() {
            Ok(info) => {
                let name = info.query.name().to_string();
                match self.answer(name.trim_end_matches('.'), info.query.query_type()) {
                    Answer::Address(address) => {
                        records.push(Record::from_rdata(info.query.name().into(), TTL, RData::A(A(address))));
                    }
                    Answer::NoRecord => {}
                    Answer::NoName => metadata.response_code = ResponseCode::NXDomain,
                }
            }
            Err(_) => metadata.response_code = ResponseCode::FormErr,
        }
        let message = MessageResponseBuilder::from_message_request(request).build(metadata, &records, [], [], []);
        match response.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "failed to send a DNS response");
                ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
            }
        }
    }
}
