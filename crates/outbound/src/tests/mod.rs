#![expect(clippy::disallowed_methods, reason = "the tests start servers and clients")]

mod environment;
mod lookup;
mod redirects;
mod requests;
mod server;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::{Error, Limits, Outbound, Policy, Purpose, Route};

/// Sufficient for every request that gets a response.
const LIMITS: Limits = Limits { max_bytes: 1024, timeout: Duration::from_secs(10), redirects: 0 };

fn policy_allowing(networks: &[&str]) -> Policy {
    let allow = networks.iter().map(|network| format!("{network}=webhooks").parse().unwrap()).collect();
    Policy { allow, extra_roots_pem: None }
}

fn route_allowing(networks: &[&str]) -> Route {
    route_with_policy(policy_allowing(networks))
}

fn route_with_policy(policy: Policy) -> Route {
    webhooks_route(&Outbound::new(policy).unwrap())
}

fn route_with_lookup(policy: Policy, lookup: Arc<dyn crate::resolve::Lookup>) -> Route {
    webhooks_route(&Outbound::with_lookup(policy, lookup).unwrap())
}

fn webhooks_route(outbound: &Outbound) -> Route {
    outbound.route(Purpose::Webhooks, &[]).unwrap()
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

/// A resolver that returns prepared results in order and repeats the last one.
struct ScriptedLookup {
    answers: Vec<Vec<std::net::IpAddr>>,
    lookups: Arc<std::sync::atomic::AtomicUsize>,
}

impl ScriptedLookup {
    fn new(answers: &[&[&str]]) -> Self {
        let answers = answers.iter().map(|list| list.iter().map(|text| text.parse().unwrap()).collect()).collect();
        Self { answers, lookups: Arc::default() }
    }
}

impl crate::resolve::Lookup for ScriptedLookup {
    fn lookup(
        &self,
        _host: String,
    ) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<Vec<std::net::IpAddr>>> + Send>> {
        let index = self.lookups.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let answer = self.answers[index.min(self.answers.len() - 1)].clone();
        Box::pin(async move { Ok(answer) })
    }
}

/// Asserts that the message does not contain the resolved address `hidden`, and returns the error.
fn assert_hides(error: Error, hidden: &str) -> Error {
    assert!(!error.to_string().contains(hidden), "{error}");
    error
}
