//! Tests of the conditions under which documents are advertised.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use waypost_core::Timestamp;
use waypost_core::clock::ManualClock;
use waypost_outbound::{Outbound, Policy};

use super::super::availability::{Availability, CheckFuture, ClientDocumentsMode, HostCheck, ReachabilityCheck};
use super::super::{ClientDocuments, DocumentError};
use super::server::{JSON, Server};
use super::{get, route};

const MINUTE: i64 = 60 * 1_000;
/// The URL of a document on a host that does not resolve, as an attacker would specify it.
const NOWHERE: &str = "https://nobody.invalid/client.json";

/// A configurable check.
#[derive(Default)]
struct FakeCheck {
    answers: AtomicBool,
    started: AtomicUsize,
}

impl FakeCheck {
    fn new(answers: bool) -> Arc<Self> {
        Arc::new(Self { answers: answers.into(), started: AtomicUsize::new(0) })
    }

    fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }

    /// Waits until at least `times` checks have started, including those in the background.
    async fn wait_for_checks(&self, times: usize) {
        let started = async {
            while self.started() < times {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), started).await.expect("a check should start");
    }
}

impl ReachabilityCheck for FakeCheck {
    fn is_any_reachable(&self) -> CheckFuture<'_> {
        self.started.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { self.answers.load(Ordering::SeqCst) })
    }
}

fn documents(
    mode: ClientDocumentsMode,
    private: bool,
    check: Arc<dyn ReachabilityCheck>,
) -> (ClientDocuments, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp(1_795_000_000_000)));
    let outbound = Outbound::new(Policy::default()).unwrap();
    let availability = Availability::new(mode, private, check, clock.clone());
    (ClientDocuments::new(outbound, clock.clone()).with_availability(availability), clock)
}

/// Waits until a background check has changed what is advertised.
async fn wait_until_advertised(documents: &ClientDocuments, expected: bool) {
    let changed = async {
        while documents.is_advertised().await != expected {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), changed).await.expect("the advertisement should change");
}

#[tokio::test]
async fn on_and_off_send_no_checks() {
    for (mode, expected) in [(ClientDocumentsMode::On, true), (ClientDocumentsMode::Off, false)] {
        let check = FakeCheck::new(!expected);
        let (documents, _) = documents(mode, false, check.clone());
        assert_eq!(documents.is_advertised().await, expected);
        get(&documents, NOWHERE).await.unwrap_err();
        assert_eq!((documents.is_advertised().await, check.started()), (expected, 0));
    }
}

#[tokio::test]
async fn off_rejects_documents_without_fetching_them() {
    let server = Server::start().await;
    server.serve_documents(JSON);
    let (documents, clock) = server.documents();
    get(&documents, &server.url("/a")).await.unwrap();
    let off = Availability::new(ClientDocumentsMode::Off, true, FakeCheck::new(true), clock);
    let documents = documents.with_availability(off);
    let error = get(&documents, &server.url("/b")).await.unwrap_err();
    assert!(matches!(error, DocumentError::Off), "{error}");
    assert_eq!(
        error.to_string(),
        "This server does not accept client metadata documents. The application must register with this server instead. Start the sign-in again."
    );
    assert!(matches!(get(&documents, &server.url("/a")).await, Err(DocumentError::Off)), "cached, but rejected");
    assert_eq!(server.requested_paths(), ["/a"]);
}

#[tokio::test]
async fn without_internet_access_documents_are_not_advertised_initially() {
    let check = FakeCheck::new(false);
    let (documents, clock) = documents(ClientDocumentsMode::Auto, false, check.clone());
    assert!(!documents.is_advertised().await);
    assert!(!documents.is_advertised().await);
    clock.advance(10 * MINUTE - 1);
    assert!(!documents.is_advertised().await);
    assert_eq!(check.started(), 1, "one check for ten minutes");
    check.answers.store(true, Ordering::SeqCst);
    clock.advance(1);
    assert!(documents.is_advertised().await, "the internet is back");
    assert_eq!(check.started(), 2);
}

#[tokio::test]
async fn an_unreachable_host_of_an_attacker_does_not_stop_advertising() {
    let check = FakeCheck::new(true);
    for private in [false, true] {
        let (documents, clock) = documents(ClientDocumentsMode::Auto, private, check.clone());
        assert!(documents.is_advertised().await);
        clock.advance(2 * MINUTE);
        let before = check.started();
        for _ in 0..5 {
            let error = get(&documents, NOWHERE).await.unwrap_err();
            assert!(matches!(error, DocumentError::Fetch(_)), "{error}");
        }
        check.wait_for_checks(before + 1).await;
        assert!(documents.is_advertised().await, "the well-known hosts respond");
        for _ in 0..5 {
            get(&documents, NOWHERE).await.unwrap_err();
        }
        assert_eq!(check.started(), before + 1, "one check a minute, however many fetches fail");
    }
}

#[tokio::test]
async fn lost_internet_access_is_noticed_at_the_next_document() {
    let check = FakeCheck::new(true);
    let (documents, clock) = documents(ClientDocumentsMode::Auto, false, check.clone());
    assert!(documents.is_advertised().await);
    check.answers.store(false, Ordering::SeqCst);
    clock.advance(2 * MINUTE);
    assert!(documents.is_advertised().await, "not noticed yet");
    get(&documents, NOWHERE).await.unwrap_err();
    wait_until_advertised(&documents, false).await;
}

#[tokio::test]
async fn responses_of_a_reachable_host_do_not_trigger_a_check() {
    let server = Server::start().await;
    let check = FakeCheck::new(false);
    let (documents, clock) = server.documents();
    let availability = Availability::new(ClientDocumentsMode::Auto, true, check.clone(), clock);
    let documents = documents.with_availability(availability);
    server.respond_with(|_| Some(super::server::response("404 Not Found", JSON, "{}")));
    assert!(matches!(get(&documents, &server.url("/a")).await, Err(DocumentError::Status(404))));
    assert!(matches!(get(&documents, "https://127.0.0.1/").await, Err(DocumentError::Url { .. })));
    assert!(documents.is_advertised().await);
    assert_eq!(check.started(), 0);
}

/// The check does not cover private networks.
#[tokio::test]
async fn with_private_networks_documents_are_advertised_until_a_fetch_fails() {
    let server = Server::start().await;
    server.serve_documents(JSON);
    let check = FakeCheck::new(false);
    let (documents, clock) = server.documents();
    let availability = Availability::new(ClientDocumentsMode::Auto, true, check.clone(), clock.clone());
    let documents = documents.with_availability(availability);
    assert!(documents.is_advertised().await, "without a check");
    get(&documents, &server.url("/a")).await.unwrap();
    get(&documents, NOWHERE).await.unwrap_err();
    assert!(documents.is_advertised().await);
    assert_eq!(check.started(), 0, "a document was fetched a moment ago");
    clock.advance(60 * MINUTE);
    get(&documents, NOWHERE).await.unwrap_err();
    wait_until_advertised(&documents, false).await;
    get(&documents, &server.url("/b")).await.unwrap();
    assert!(documents.is_advertised().await, "a fetched document proves it immediately");
    clock.advance(60 * MINUTE);
    get(&documents, NOWHERE).await.unwrap_err();
    wait_until_advertised(&documents, false).await;
    clock.advance(10 * MINUTE);
    assert!(documents.is_advertised().await, "until the next fetch fails");
}

/// A check that blocks until it gets a permit.
struct Slow(Semaphore, AtomicUsize);

impl ReachabilityCheck for Slow {
    fn is_any_reachable(&self) -> CheckFuture<'_> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { self.0.acquire().await.is_err() })
    }
}

#[tokio::test]
async fn concurrent_callers_wait_for_one_check() {
    let slow = Arc::new(Slow(Semaphore::new(0), AtomicUsize::new(0)));
    let (documents, _) = documents(ClientDocumentsMode::Auto, false, slow.clone());
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let documents = documents.clone();
            tokio::spawn(async move { documents.is_advertised().await })
        })
        .collect();
    while slow.1.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    slow.0.add_permits(1);
    for task in waiting {
        assert!(!task.await.unwrap());
    }
    assert_eq!(slow.1.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_check_uses_the_same_rules_as_fetches() {
    let server = Server::start().await;
    server.respond_with(|_| Some(super::server::response("403 Forbidden", JSON, "")));
    // Nothing listens on port 1. Resolving a name that does not exist would take as long as this machine's resolver.
    let nowhere = || "https://127.0.0.1:1/".to_owned();
    let urls = || vec![nowhere(), server.url("/")];
    assert!(HostCheck::of(route(&server.outbound()), urls()).is_any_reachable().await, "one reachable host is enough");
    assert!(!HostCheck::of(route(&server.outbound()), vec![nowhere(), nowhere()]).is_any_reachable().await);
    // A loopback address that is not allowed, or an untrusted certificate: documents would not be fetched either.
    let strict = Outbound::new(Policy::default()).unwrap();
    assert!(!HostCheck::of(route(&strict), urls()).is_any_reachable().await);
    let allow = vec!["127.0.0.0/8=client-documents".parse().unwrap()];
    let distrusting = Outbound::new(Policy { allow, extra_roots_pem: None }).unwrap();
    assert!(!HostCheck::of(route(&distrusting), urls()).is_any_reachable().await);
}
