//! Leases of links: which replica reaches a toolbox, until when.

use std::time::Duration;

use waypost_core::id::ToolboxId;
use waypost_core::random::SystemRandom;
use waypost_link::Directory;
use waypost_ops::link_leases::{LIFETIME, LinkLeases, RENEWAL_INTERVAL};
use waypost_ops::toolbox_directory::ToolboxDirectory;

use crate::fixture::{Fixture, set_up};

/// A replica, with its leases and the directory of its links.
struct Replica {
    leases: LinkLeases,
    directory: ToolboxDirectory,
}

impl Replica {
    fn new(fixture: &Fixture, internal_url: &str) -> Self {
        let (db, clock) = (fixture.ops.store().clone(), fixture.clock.clone());
        let leases = LinkLeases::new(db, clock, &SystemRandom, internal_url.to_owned());
        let directory = fixture.directory.clone().with_leases(Some(leases.clone()));
        Self { leases, directory }
    }

    async fn finds(&self, toolbox: &ToolboxId) -> Option<String> {
        self.leases.find_other(toolbox).await.unwrap()
    }
}

fn advance(fixture: &Fixture, time: Duration) {
    fixture.clock.advance(i64::try_from(time.as_millis()).unwrap());
}

async fn a_replica_that_dies_loses_its_links(fixture: Fixture) {
    let toolbox = fixture.daemon(&fixture.org, "rack").await.id;
    let (one, two) = (Replica::new(&fixture, "https://one"), Replica::new(&fixture, "https://two"));
    assert_eq!(two.finds(&toolbox).await, None);
    one.directory.claim(&toolbox).await.unwrap();
    assert_eq!((two.finds(&toolbox).await.as_deref(), one.finds(&toolbox).await), (Some("https://one"), None));
    // It is renewed in time, even if one renewal fails.
    advance(&fixture, RENEWAL_INTERVAL * 2);
    one.leases.renew(std::slice::from_ref(&toolbox)).await.unwrap();
    advance(&fixture, LIFETIME - Duration::from_millis(1));
    assert!(two.finds(&toolbox).await.is_some());
    advance(&fixture, Duration::from_millis(1));
    assert_eq!(two.finds(&toolbox).await, None, "the replica has not renewed its lease for 30 seconds");
    assert!(LIFETIME <= Duration::from_secs(30));
}

async fn a_replica_releases_only_its_own_lease(fixture: Fixture) {
    let toolbox = fixture.daemon(&fixture.org, "rack").await.id;
    let (one, two) = (Replica::new(&fixture, "https://one"), Replica::new(&fixture, "https://two"));
    one.directory.claim(&toolbox).await.unwrap();
    two.directory.claim(&toolbox).await.unwrap();
    one.directory.release(&toolbox).await.unwrap();
    one.leases.renew(std::slice::from_ref(&toolbox)).await.unwrap();
    assert_eq!(one.finds(&toolbox).await.as_deref(), Some("https://two"), "the newest link wins");
    two.directory.release(&toolbox).await.unwrap();
    assert_eq!(one.finds(&toolbox).await, None);
    // A single process has no leases.
    fixture.directory.claim(&toolbox).await.unwrap();
    assert_eq!(one.finds(&toolbox).await, None);
}

waypost_testkit::both!(extended set_up => a_replica_that_dies_loses_its_links, a_replica_releases_only_its_own_lease);
