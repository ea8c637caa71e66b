//! When documents are advertised, and what it takes to change that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use waypost_core::Timestamp;
use waypost_core::clock::ManualClock;
use waypost_outbound::{Outbound, Policy};

use super::super::availability::{Answer, Availability, Check, Hosts, Mode};
use super::super::{DocumentError, Documents};
use super::server::{JSON, Server};
use super::{get, route};

const MINUTE: i64 = 60 * 1_000;
/// An address of a document on a host that has no address, as an attacker would name it.
const NOWHERE: &str = "https://nobody.invalid/client.json";

/// The well-known hosts, as a test wants them.
#[derive(Default)]
struct World {
    answers: AtomicBool,
    asked: AtomicUsize,
}

impl World {
    fn new(answers: bool) -> Arc<Self> {
        Arc::new(Self { answers: answers.into(), asked: AtomicUsize::new(0) })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits for the checks that run in the background.
    async fn until_asked(&self, times: usize) {
        let asked = async {
            while self.asked() < times {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), asked).await.expect("a check");
    }
}

impl Check for World {
    fn any_answers(&self) -> Answer<'_> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { self.answers.load(Ordering::SeqCst) })
    }
}

fn documents(mode: Mode, private: bool, check: Arc<dyn Check>) -> (Documents, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp(1_795_000_000_000)));
    let outbound = Outbound::new(Policy::default()).unwrap();
    let availability = Availability::new(mode, private, check, clock.clone());
    (Documents::new(outbound, clock.clone()).with_availability(availability), clock)
}

/// Waits until a background check has changed what is advertised.
async fn until_advertised(documents: &Documents, expected: bool) {
    let changed = async {
        while documents.is_advertised().await != expected {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), changed).await.expect("it changes");
}

#[tokio::test]
async fn on_and_off_ask_nobody() {
    for (mode, expected) in [(Mode::On, true), (Mode::Off, false)] {
        let world = World::new(!expected);
        let (documents, _) = documents(mode, false, world.clone());
        assert_eq!(documents.is_advertised().await, expected);
        get(&documents, NOWHERE).await.unwrap_err();
        assert_eq!((documents.is_advertised().await, world.asked()), (expected, 0));
    }
}

#[tokio::test]
async fn off_refuses_documents_without_fetching_them() {
    let server = Server::start().await;
    server.serves_documents(JSON);
    let (documents, clock) = server.documents();
    get(&documents, &server.url("/a")).await.unwrap();
    let off = Availability::new(Mode::Off, true, World::new(true), clock);
    let documents = documents.with_availability(off);
    let error = get(&documents, &server.url("/b")).await.unwrap_err();
    assert!(matches!(error, DocumentError::Off), "{error}");
    assert_eq!(
        error.to_string(),
        "This server does not accept client metadata documents. The application has to register here instead; start the sign-in again."
    );
    assert!(matches!(get(&documents, &server.url("/a")).await, Err(DocumentError::Off)), "also one that was kept");
    assert_eq!(server.seen(), ["/a"]);
}

#[tokio::test]
async fn without_the_internet_documents_are_not_advertised_from_the_beginning() {
    let world = World::new(false);
    let (documents, clock) = documents(Mode::Auto, false, world.clone());
    assert!(!documents.is_advertised().await);
    assert!(!documents.is_advertised().await);
    clock.advance(10 * MINUTE - 1);
    assert!(!documents.is_advertised().await);
    assert_eq!(world.asked(), 1, "one check for ten minutes");
    world.answers.store(true, Ordering::SeqCst);
    clock.advance(1);
    assert!(documents.is_advertised().await, "the internet is back");
    assert_eq!(world.asked(), 2);
}

#[tokio::test]
async fn a_host_that_an_attacker_names_switches_nothing_off() {
    let world = World::new(true);
    for private in [false, true] {
        let (documents, clock) = documents(Mode::Auto, private, world.clone());
        assert!(documents.is_advertised().await);
        clock.advance(2 * MINUTE);
        let before = world.asked();
        for _ in 0..5 {
            let error = get(&documents, NOWHERE).await.unwrap_err();
            assert!(matches!(error, DocumentError::Fetch(_)), "{error}");
        }
        world.until_asked(before + 1).await;
        assert!(documents.is_advertised().await, "the well-known hosts answer");
        for _ in 0..5 {
            get(&documents, NOWHERE).await.unwrap_err();
        }
        assert_eq!(world.asked(), before + 1, "one check a minute, however many fetches fail");
    }
}

#[tokio::test]
async fn a_way_out_that_is_lost_is_noticed_at_the_next_document() {
    let world = World::new(true);
    let (documents, clock) = documents(Mode::Auto, false, world.clone());
    assert!(documents.is_advertised().await);
    world.answers.store(false, Ordering::SeqCst);
    clock.advance(2 * MINUTE);
    assert!(documents.is_advertised().await, "nobody has noticed");
    get(&documents, NOWHERE).await.unwrap_err();
    until_advertised(&documents, false).await;
}

#[tokio::test]
async fn answers_of_a_reachable_host_are_no_reason_for_a_check() {
    let server = Server::start().await;
    let world = World::new(false);
    let (documents, clock) = server.documents();
    let availability = Availability::new(Mode::Auto, true, world.clone(), clock);
    let documents = documents.with_availability(availability);
    server.answers(|_| Some(super::server::answer("404 Not Found", JSON, "{}")));
    assert!(matches!(get(&documents, &server.url("/a")).await, Err(DocumentError::Status(404))));
    assert!(matches!(get(&documents, "https://127.0.0.1/").await, Err(DocumentError::Url { .. })));
    assert!(documents.is_advertised().await);
    assert_eq!(world.asked(), 0);
}

/// Where documents may be in private networks, the check does not know everything.
#[tokio::test]
async fn private_networks_are_advertised_until_a_fetch_fails() {
    let server = Server::start().await;
    server.serves_documents(JSON);
    let world = World::new(false);
    let (documents, clock) = server.documents();
    let availability = Availability::new(Mode::Auto, true, world.clone(), clock.clone());
    let documents = documents.with_availability(availability);
    assert!(documents.is_advertised().await, "without a check");
    get(&documents, &server.url("/a")).await.unwrap();
    get(&documents, NOWHERE).await.unwrap_err();
    assert!(documents.is_advertised().await);
    assert_eq!(world.asked(), 0, "a document was fetched a moment ago");
    clock.advance(60 * MINUTE);
    get(&documents, NOWHERE).await.unwrap_err();
    until_advertised(&documents, false).await;
    get(&documents, &server.url("/b")).await.unwrap();
    assert!(documents.is_advertised().await, "a document that can be fetched shows it at once");
    clock.advance(60 * MINUTE);
    get(&documents, NOWHERE).await.unwrap_err();
    until_advertised(&documents, false).await;
    clock.advance(10 * MINUTE);
    assert!(documents.is_advertised().await, "until the next fetch fails");
}

/// A check that takes its time.
struct Slow(Semaphore, AtomicUsize);

impl Check for Slow {
    fn any_answers(&self) -> Answer<'_> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { self.0.acquire().await.is_err() })
    }
}

#[tokio::test]
async fn everybody_waits_for_one_check() {
    let slow = Arc::new(Slow(Semaphore::new(0), AtomicUsize::new(0)));
    let (documents, _) = documents(Mode::Auto, false, slow.clone());
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
async fn the_check_asks_hosts_as_documents_are_fetched() {
    let server = Server::start().await;
    server.answers(|_| Some(super::server::answer("403 Forbidden", JSON, "")));
    let nowhere = || "https://nobody.invalid/".to_owned();
    let urls = || vec![nowhere(), server.url("/")];
    assert!(Hosts::of(route(&server.outbound()), urls()).any_answers().await, "one that answers is enough");
    assert!(!Hosts::of(route(&server.outbound()), vec![nowhere(), nowhere()]).any_answers().await);
    // A name that resolves to this machine or a certificate that is not trusted: documents would not be fetched either.
    let strict = Outbound::new(Policy::default()).unwrap();
    assert!(!Hosts::of(route(&strict), urls()).any_answers().await);
    let allow = vec!["127.0.0.0/8=client-documents".parse().unwrap()];
    let distrusting = Outbound::new(Policy { allow, extra_roots_pem: None }).unwrap();
    assert!(!Hosts::of(route(&distrusting), urls()).any_answers().await);
}
