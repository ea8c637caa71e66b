mod environment;
mod lookup;
mod redirects;
mod requests;
mod server;

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::{Error, Limits, Outbound, Policy, Purpose, Route};

/// Enough for everything that is answered at all.
const LIMITS: Limits = Limits { max_bytes: 1024, timeout: Duration::from_secs(10), redirects: 0 };

fn allowing(networks: &[&str]) -> Policy {
    let allow = networks.iter().map(|network| format!("{network}=webhooks").parse().unwrap()).collect();
    Policy { allow, extra_roots_pem: None }
}

fn outbound(networks: &[&str]) -> Route {
    route(allowing(networks))
}

fn route(policy: Policy) -> Route {
    webhooks(&Outbound::new(policy).unwrap())
}

fn resolving(policy: Policy, lookup: Arc<dyn crate::resolve::Lookup>) -> Route {
    webhooks(&Outbound::with_lookup(policy, lookup).unwrap())
}

fn webhooks(outbound: &Outbound) -> Route {
    outbound.route(Purpose::Webhooks, &[]).unwrap()
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

/// A resolver that says what it is told, one answer after the other; the last one stays.
struct Told {
    answers: Vec<Vec<std::net::IpAddr>>,
    asked: Arc<std::sync::atomic::AtomicUsize>,
}

impl Told {
    fn new(answers: &[&[&str]]) -> Self {
        let answers = answers.iter().map(|one| one.iter().map(|text| text.parse().unwrap()).collect()).collect();
        Self { answers, asked: Arc::default() }
    }
}

impl crate::resolve::Lookup for Told {
    fn lookup(
        &self,
        _host: String,
    ) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<Vec<std::net::IpAddr>>> + Send>> {
        let turn = self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let answer = self.answers[turn.min(self.answers.len() - 1)].clone();
        Box::pin(async move { Ok(answer) })
    }
}

/// Why the request failed, and that what it says to people has no address in it that they did not type.
fn why(error: Error, hidden: &str) -> Error {
    assert!(!error.to_string().contains(hidden), "{error}");
    error
}
