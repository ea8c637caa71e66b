//! Names, and what they resolve to.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::server::{Server, answer};
use super::*;
use crate::Failure;

#[tokio::test]
async fn a_name_that_resolves_to_loopback_is_refused() {
    let server = Server::start("127.0.0.1", |_| answer("200 OK", "", "inside")).await;
    for networks in [&[][..], &["10.0.0.0/8"]] {
        let target = url(&format!("https://localhost:{}/", server.port()));
        let error = outbound(networks).get(&target, LIMITS).await.unwrap_err();
        assert!(matches!(&error, Error::Refused { host } if host == "localhost"), "{error:?}");
        why(error, "127.0.0.1");
    }
    // With networks allowed a plain URL is resolved, too.
    let plain = url(&format!("http://localhost:{}/", server.port()));
    let error = outbound(&["10.0.0.0/8"]).get(&plain, LIMITS).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert_eq!(server.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn one_bad_address_spoils_the_others() {
    let server = Server::start("127.0.0.1", |_| answer("200 OK", "", "inside")).await;
    for answers in [["127.0.0.1", "10.1.2.3"], ["10.1.2.3", "127.0.0.1"], ["127.0.0.1", "fd00::1"]] {
        let told = Told::new(&[&answers]);
        let outbound = resolving(allowing(&["127.0.0.1/32"]), Arc::new(told));
        let target = url(&format!("http://mixed.example:{}/", server.port()));
        let error = why(outbound.get(&target, LIMITS).await.unwrap_err(), "10.1.2.3");
        assert!(matches!(&error, Error::Refused { host } if host == "mixed.example"), "{error:?}");
    }
    assert_eq!(server.seen(), Vec::<String>::new());
}

/// DNS rebinding: a name that is good when it is judged and bad when it is used. There is only one look-up for a
/// connection, and the connection goes to what that one said.
#[tokio::test]
async fn the_connection_goes_to_the_address_that_was_judged() {
    let good = Server::start("127.0.0.2", |_| answer("200 OK", "", "judged")).await;
    let bad = Server::beside("127.0.0.1", good.port(), |_| answer("200 OK", "", "inside")).await;
    let told = Told::new(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let asked = told.asked.clone();
    let outbound = resolving(allowing(&["127.0.0.2/32"]), Arc::new(told));
    let target = url(&format!("http://rebinding.example:{}/", good.port()));

    let answer = outbound.get(&target, LIMITS).await.unwrap();
    assert_eq!((&answer.body[..], asked.load(Ordering::SeqCst)), (&b"judged"[..], 1));
    let error = outbound.get(&target, LIMITS).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert_eq!((good.seen().len(), bad.seen().len(), asked.load(Ordering::SeqCst)), (1, 0, 2));
}

#[tokio::test]
async fn plain_http_is_for_allowed_networks_only() {
    let told = Arc::new(Told::new(&[&["93.184.215.14"]]));
    for networks in [&[][..], &["127.0.0.0/8"]] {
        let outbound = resolving(allowing(networks), told.clone());
        for target in ["http://public.example/", "http://93.184.215.14/"] {
            let error = outbound.get(&url(target), LIMITS).await.unwrap_err();
            assert!(matches!(error, Error::Plain { .. }), "{target}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_name_without_addresses_is_unreachable() {
    let outbound = resolving(allowing(&[]), Arc::new(Told::new(&[&[]])));
    let error = outbound.get(&url("https://nowhere.example/"), LIMITS).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { failure: Failure::Name, .. }), "{error:?}");
    assert_eq!(error.to_string(), "`nowhere.example` cannot be reached: the name has no address.");
}
