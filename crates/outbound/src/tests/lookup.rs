//! Host names and the addresses they resolve to.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::server::{Server, response};
use super::*;
use crate::Failure;

#[tokio::test]
async fn a_name_that_resolves_to_loopback_is_refused() {
    let server = Server::start("127.0.0.1", |_| response("200 OK", "", "inside")).await;
    for networks in [&[][..], &["10.0.0.0/8"]] {
        let target = url(&format!("https://localhost:{}/", server.port()));
        let error = route_allowing(networks).get(&target, LIMITS).await.unwrap_err();
        assert!(matches!(&error, Error::AddressNotAllowed { host } if host == "localhost"), "{error:?}");
        assert_hides(error, "127.0.0.1");
    }
    // If any networks are allowed, the host of an http URL is resolved as well.
    let plain = url(&format!("http://localhost:{}/", server.port()));
    let error = route_allowing(&["10.0.0.0/8"]).get(&plain, LIMITS).await.unwrap_err();
    assert!(matches!(error, Error::AddressNotAllowed { .. }), "{error:?}");
    assert_eq!(server.received(), Vec::<String>::new());
}

#[tokio::test]
async fn one_forbidden_address_rejects_the_host() {
    let server = Server::start("127.0.0.1", |_| response("200 OK", "", "inside")).await;
    for answers in [["127.0.0.1", "10.1.2.3"], ["10.1.2.3", "127.0.0.1"], ["127.0.0.1", "fd00::1"]] {
        let lookup = ScriptedLookup::new(&[&answers]);
        let outbound = route_with_lookup(policy_allowing(&["127.0.0.1/32"]), Arc::new(lookup));
        let target = url(&format!("http://mixed.example:{}/", server.port()));
        let error = assert_hides(outbound.get(&target, LIMITS).await.unwrap_err(), "10.1.2.3");
        assert!(matches!(&error, Error::AddressNotAllowed { host } if host == "mixed.example"), "{error:?}");
    }
    assert_eq!(server.received(), Vec::<String>::new());
}

/// DNS rebinding: a name that resolves to an allowed address during the check and to a forbidden one afterwards. Each
/// connection uses a single lookup and connects to the address from that lookup.
#[tokio::test]
async fn the_connection_uses_the_address_that_was_checked() {
    let [good, bad] = Server::start_two(["127.0.0.2", "127.0.0.1"], ["checked", "inside"]).await;
    let lookup = ScriptedLookup::new(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let lookups = lookup.lookups.clone();
    let outbound = route_with_lookup(policy_allowing(&["127.0.0.2/32"]), Arc::new(lookup));
    let target = url(&format!("http://rebinding.example:{}/", good.port()));

    let response = outbound.get(&target, LIMITS).await.unwrap();
    assert_eq!((&response.body[..], lookups.load(Ordering::SeqCst)), (&b"checked"[..], 1));
    let error = outbound.get(&target, LIMITS).await.unwrap_err();
    assert!(matches!(error, Error::AddressNotAllowed { .. }), "{error:?}");
    assert_eq!((good.received().len(), bad.received().len(), lookups.load(Ordering::SeqCst)), (1, 0, 2));
}

#[tokio::test]
async fn plain_http_is_permitted_to_allowed_networks_only() {
    let lookup = Arc::new(ScriptedLookup::new(&[&["93.184.215.14"]]));
    for networks in [&[][..], &["127.0.0.0/8"]] {
        let outbound = route_with_lookup(policy_allowing(networks), lookup.clone());
        for target in ["http://public.example/", "http://93.184.215.14/"] {
            let error = outbound.get(&url(target), LIMITS).await.unwrap_err();
            assert!(matches!(error, Error::HttpNotAllowed { .. }), "{target}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_name_without_addresses_is_unreachable() {
    let outbound = route_with_lookup(policy_allowing(&[]), Arc::new(ScriptedLookup::new(&[&[]])));
    let error = outbound.get(&url("https://nowhere.example/"), LIMITS).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { failure: Failure::NameResolution, .. }), "{error:?}");
    assert_eq!(error.to_string(), "`nowhere.example` cannot be reached: the host name does not resolve to an address.");
}
