//! Leases of the links to toolboxes.

use waypost_core::Timestamp;
use waypost_core::id::ToolboxId;
use waypost_store::toolbox_link::{self as store, Holder};
use waypost_store::{Db, Tx};

use crate::fixture::{Fixture, NOW};
use crate::open;

struct World {
    tx: Tx,
    toolbox: ToolboxId,
}

impl World {
    async fn new(db: Db) -> Self {
        Fixture::new(1).seed_with_activity(&db).await;
        Self { tx: db.begin().await.unwrap(), toolbox: ToolboxId::from_store("tbx_1".into()) }
    }

    async fn claim(&mut self, replica: &str, until: Timestamp) {
        let internal_url = format!("https://{replica}:8443");
        let holder = Holder { replica, internal_url: &internal_url };
        store::claim(&mut self.tx, &self.toolbox, holder, until).await.unwrap();
    }

    /// Returns the URL that `replica` forwards to.
    async fn url(&mut self, replica: &str, now: Timestamp) -> Option<String> {
        store::find_other(&mut self.tx, &self.toolbox, replica, now).await.unwrap()
    }

    async fn is_lost(&mut self, replica: &str) -> bool {
        let toolboxes = [&self.toolbox];
        !store::list_claimed_by_others(&mut self.tx, replica, &toolboxes).await.unwrap().is_empty()
    }
}

/// The last replica that claimed the link holds it until the lease ends.
async fn the_last_claim_holds_the_link(db: Db) {
    let mut world = World::new(db).await;
    world.claim("a", NOW.plus(30)).await;
    assert_eq!(world.url("b", NOW).await.as_deref(), Some("https://a:8443"));
    assert_eq!(world.url("a", NOW).await, None, "a replica does not forward to itself");
    assert_eq!(world.url("b", NOW.plus(30)).await, None, "the lease has ended");
    assert!(!world.is_lost("a").await);
    world.claim("b", NOW.plus(20)).await;
    assert_eq!(world.url("a", NOW).await.as_deref(), Some("https://b:8443"));
    assert!(world.is_lost("a").await && !world.is_lost("b").await);
}

/// Only the replica that holds a lease can renew or release it.
async fn leases_belong_to_their_replica(db: Db) {
    let mut world = World::new(db).await;
    world.claim("a", NOW.plus(30)).await;
    store::renew(&mut world.tx, "b", &[&world.toolbox], NOW.plus(90)).await.unwrap();
    assert_eq!(world.url("c", NOW.plus(30)).await, None);
    store::renew(&mut world.tx, "a", &[&world.toolbox], NOW.plus(60)).await.unwrap();
    assert!(world.url("c", NOW.plus(59)).await.is_some());
    store::release(&mut world.tx, &world.toolbox, "b").await.unwrap();
    assert!(world.url("c", NOW).await.is_some());
    store::release(&mut world.tx, &world.toolbox, "a").await.unwrap();
    assert_eq!(world.url("c", NOW).await, None);
    assert!(!world.is_lost("a").await, "a lease that has ended is not one of another replica");
}

/// A claim for a toolbox that has just been deleted is not an error.
async fn a_deleted_toolbox_cannot_be_claimed(db: Db) {
    let mut world = World { toolbox: ToolboxId::from_store("tbx_deleted".into()), ..World::new(db).await };
    world.claim("a", NOW.plus(30)).await;
    assert_eq!(world.url("b", NOW).await, None);
}

waypost_testkit::both!(open => the_last_claim_holds_the_link, leases_belong_to_their_replica, a_deleted_toolbox_cannot_be_claimed);
