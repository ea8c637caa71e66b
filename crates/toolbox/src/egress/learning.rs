//! Learning mode: records the rejected destinations of a container, so that an allowlist can be proposed.
//!
//! A client that uses the proxy sends the host and the port. A client that resolves a name gets the address [`SINK`] if
//! the engine forwards DNS queries to the daemon. Connections to common ports of this address are accepted, recorded
//! and closed. Since all names share the address, a connection is recorded for the name that was resolved last, which
//! is correct unless a client resolves several names before it connects.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use waypost_toolbox_proto::Destination;

use super::relay;

/// The address of all rejected names.
pub(super) const SINK: Ipv4Addr = Ipv4Addr::new(127, 65, 0, 1);
/// The ports on which connections to [`SINK`] are recorded: SSH, web, mail, and common databases and queues.
pub(super) const PORTS: [u16; 14] = [22, 80, 443, 465, 587, 1433, 3306, 5432, 5672, 6379, 8080, 8443, 9200, 27017];
/// The maximum number of destinations that are recorded for a container.
const MAX_RECORDED: usize = 100;

/// The rejected destinations of a container.
#[derive(Clone, Default)]
pub(super) struct Rejections(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// All destinations that were recorded.
    seen: BTreeSet<String>,
    /// The recorded destinations that have not been taken yet.
    new: Vec<String>,
    /// The name that was resolved last.
    last_name: Option<String>,
}

impl Rejections {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a destination if it has not been recorded yet.
    pub(super) fn record(&self, destination: &Destination) {
        let mut state = self.state();
        let text = destination.to_string();
        if state.seen.len() < MAX_RECORDED && state.seen.insert(text.clone()) {
            state.new.push(text);
        }
    }

    /// Remembers that a name was resolved. Returns `false` if the name is malformed.
    pub(super) fn record_name(&self, name: &str) -> bool {
        // The port is a placeholder: this only checks the name.
        let is_valid = format!("{name}:1").parse::<Destination>().is_ok();
        if is_valid {
            self.state().last_name = Some(name.to_owned());
        }
        is_valid
    }

    /// Returns the destinations that were recorded since the last call.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.state().new)
    }

    /// Accepts connections to a port of [`SINK`], records them and closes them.
    pub(super) fn start(&self, listener: TcpListener, port: u16, stop: &CancellationToken) {
        let (rejections, stop) = (self.clone(), stop.clone());
        crate::tasks::spawn("egress-learning", async move {
            while relay::accept(&listener, &stop).await.is_some() {
                let host = rejections.state().last_name.clone();
                if let Some(host) = host {
                    rejections.record(&Destination { host, port });
                }
            }
        });
    }
}
