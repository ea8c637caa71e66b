//! Tests that cached servers are evicted only by changes of their own organisation, in every process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use waypost_core::Code;
use waypost_core::caller::Ctx;
use waypost_core::clock::ManualClock;
use waypost_core::id::{OrganizationId, ServerId};
use waypost_jobs::Jobs;
use waypost_ops::offers::{OfferCache, Offers};
use waypost_ops::servers::{self, ServerSettings};
use waypost_ops::{Ops, organizations};
use waypost_store::{Db, migrate};

struct Tenant {
    organization: OrganizationId,
    server: ServerId,
}

struct Fixture {
    ops: Ops,
    cx: Ctx,
    clock: Arc<ManualClock>,
    jobs: Jobs,
    a: Tenant,
    b: Tenant,
}

async fn open(url: &str) -> Fixture {
    let db = Db::open(url).await.unwrap();
    migrate::migrate(&db).await.unwrap();
    let clock = Arc::new(ManualClock::new(waypost_core::Timestamp(1_795_000_000_000)));
    let (ops, cx) = (Ops::new(db), Ctx { clock: clock.clone(), ..Ctx::operator() });
    let mut tenants = Vec::new();
    for slug in ["a", "b"] {
        let organization = organizations::create(&cx, &ops, &format!("org-{slug}"), None).await.unwrap().id;
        let slug = format!("server-{slug}");
        let server = servers::create(&cx, &ops, &organization, &slug, &ServerSettings::default()).await.unwrap().id;
        tenants.push(Tenant { organization, server });
    }
    let (b, a) = (tenants.pop().unwrap(), tenants.pop().unwrap());
    Fixture { ops, cx, clock, jobs: Jobs::default(), a, b }
}

impl Fixture {
    /// Starts the cache of another process. Polls once, because the cache is not used before the first poll.
    async fn start_cache(&self) -> OfferCache {
        let cache = OfferCache::start(self.ops.store().clone(), self.clock.clone(), &self.jobs);
        cache.poll().await.unwrap();
        cache
    }

    async fn change(&self, tenant: &Tenant, settings: ServerSettings) {
        servers::update(&self.cx, &self.ops, &tenant.organization, &tenant.server, &settings).await.unwrap();
    }

    async fn rename(&self, tenant: &Tenant, name: &str) {
        self.change(tenant, ServerSettings { name: Some(name.to_owned()), ..ServerSettings::default() }).await;
    }
}

/// Polls, and returns the servers of both tenants.
async fn poll(cache: &OfferCache) -> [Arc<Offers>; 2] {
    cache.poll().await.unwrap();
    [cache.get("server-a").await.unwrap(), cache.get("server-b").await.unwrap()]
}

async fn a_change_evicts_only_its_organisation_in_every_process(fixture: Fixture) {
    let caches = [fixture.start_cache().await, fixture.start_cache().await];
    for cache in &caches {
        let [a, b] = poll(cache).await;
        let signals = [cache.changes(&fixture.a.organization), cache.changes(&fixture.b.organization)];
        fixture.rename(&fixture.a, "Renamed").await;
        let [new_a, new_b] = poll(cache).await;
        assert!(!Arc::ptr_eq(&a, &new_a));
        assert_eq!(new_a.server.name, "Renamed");
        assert!(Arc::ptr_eq(&b, &new_b), "the other organisation's server is still cached");
        assert_eq!(signals.map(|signal| signal.has_changed().unwrap()), [true, false]);
        assert!(cache.has_loaded("server-a") && cache.has_loaded("server-b"));
        let [same_a, same_b] = poll(cache).await;
        assert!(Arc::ptr_eq(&new_a, &same_a) && Arc::ptr_eq(&new_b, &same_b), "nothing has changed");
        fixture.rename(&fixture.a, "Back").await;
    }
}

async fn a_change_of_unknown_organisations_evicts_everything(fixture: Fixture) {
    let cache = fixture.start_cache().await;
    let [a, b] = poll(&cache).await;
    let signals = [cache.changes(&fixture.a.organization), cache.changes(&fixture.b.organization)];
    let mut tx = fixture.ops.store().begin().await.unwrap();
    tx.bump_config_version_for_all().await.unwrap();
    tx.commit().await.unwrap();
    let [new_a, new_b] = poll(&cache).await;
    assert!(!Arc::ptr_eq(&a, &new_a) && !Arc::ptr_eq(&b, &new_b));
    assert_eq!(signals.map(|signal| signal.has_changed().unwrap()), [true, true]);
}

async fn a_transaction_that_is_rolled_back_evicts_nothing(fixture: Fixture) {
    let cache = fixture.start_cache().await;
    let [a, b] = poll(&cache).await;
    let mut tx = fixture.ops.store().begin().await.unwrap();
    tx.bump_config_version(&fixture.a.organization).await.unwrap();
    drop(tx);
    let [same_a, same_b] = poll(&cache).await;
    assert!(Arc::ptr_eq(&a, &same_a) && Arc::ptr_eq(&b, &same_b));
}

async fn a_deleted_organisation_is_evicted(fixture: Fixture) {
    let cache = fixture.start_cache().await;
    let [_, b] = poll(&cache).await;
    let mut signal = cache.changes(&fixture.a.organization);
    organizations::delete(&fixture.cx, &fixture.ops, &fixture.a.organization).await.unwrap();
    cache.poll().await.unwrap();
    assert!(signal.has_changed().unwrap());
    assert_eq!(cache.get("server-a").await.unwrap_err().code, Code::NotFound);
    assert!(!cache.has_loaded("server-a"));
    assert!(Arc::ptr_eq(&b, &cache.get("server-b").await.unwrap()));
    signal.mark_unchanged();
    // Another organisation may take the slug.
    let slug = ServerSettings { slug: Some("server-a".to_owned()), ..ServerSettings::default() };
    fixture.change(&fixture.b, slug).await;
    cache.poll().await.unwrap();
    assert_eq!(cache.get("server-a").await.unwrap().server.id, fixture.b.server);
    assert!(!signal.has_changed().unwrap());
}

async fn a_slug_that_moves_to_another_server_is_served_by_its_new_server(fixture: Fixture) {
    let Fixture { ops, cx, a, b, .. } = &fixture;
    let cache = fixture.start_cache().await;
    poll(&cache).await;
    let slug = |slug: &str| ServerSettings { slug: Some(slug.to_owned()), ..ServerSettings::default() };
    fixture.change(a, slug("moved-a")).await;
    cache.poll().await.unwrap();
    assert_eq!(cache.get("server-a").await.unwrap().server.slug, "moved-a", "the former slug still works");
    servers::release_slug(cx, ops, &a.organization, &a.server, "server-a").await.unwrap();
    cache.poll().await.unwrap();
    assert_eq!(cache.get("server-a").await.unwrap_err().code, Code::NotFound);
    fixture.change(b, slug("server-a")).await;
    cache.poll().await.unwrap();
    for (slug, server) in [("server-a", &b.server), ("server-b", &b.server), ("moved-a", &a.server)] {
        assert_eq!(cache.get(slug).await.unwrap().server.id, *server, "{slug}");
    }
    // Both changes happen between two polls.
    servers::release_slug(cx, ops, &b.organization, &b.server, "server-b").await.unwrap();
    fixture.change(a, slug("server-b")).await;
    cache.poll().await.unwrap();
    assert_eq!(cache.get("server-b").await.unwrap().server.id, a.server);
}

async fn servers_are_read_from_the_database_after_a_second_without_a_poll(fixture: Fixture) {
    let cache = fixture.start_cache().await;
    poll(&cache).await;
    fixture.jobs.stop().await;
    fixture.rename(&fixture.a, "Renamed").await;
    fixture.clock.advance(1_001);
    assert_eq!(cache.get("server-a").await.unwrap().server.name, "Renamed");
}

/// Concurrent changes of two organisations, polled by two processes: after a poll, everything that was committed before
/// the poll began is visible.
async fn concurrent_changes_are_never_missed(fixture: Fixture) {
    const CHANGES: u32 = 60;
    let fixture = Arc::new(fixture);
    let committed = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let mut tasks = Vec::new();
    for at in 0..2 {
        let (fixture, committed) = (Arc::clone(&fixture), Arc::clone(&committed));
        tasks.push(tokio::spawn(async move {
            for number in 1..=CHANGES {
                fixture.rename([&fixture.a, &fixture.b][at], &format!("{number}")).await;
                committed[at].store(number, Ordering::SeqCst);
            }
        }));
    }
    for _ in 0..2 {
        let (cache, committed) = (fixture.start_cache().await, Arc::clone(&committed));
        tasks.push(tokio::spawn(async move {
            while committed.iter().any(|number| number.load(Ordering::SeqCst) < CHANGES) {
                assert_up_to_date(&cache, &committed).await;
            }
            assert_up_to_date(&cache, &committed).await;
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

async fn assert_up_to_date(cache: &OfferCache, committed: &[AtomicU32; 2]) {
    let expected = [0, 1].map(|index: usize| committed[index].load(Ordering::SeqCst));
    let found = poll(cache).await.map(|offers| offers.server.name.parse::<u32>().unwrap_or(0));
    assert!(found[0] >= expected[0] && found[1] >= expected[1], "{found:?} is older than {expected:?}");
}

waypost_testkit::both!(open => a_transaction_that_is_rolled_back_evicts_nothing, concurrent_changes_are_never_missed);
waypost_testkit::both!(extended open =>
    a_change_evicts_only_its_organisation_in_every_process,
    a_change_of_unknown_organisations_evicts_everything,
    a_deleted_organisation_is_evicted,
    a_slug_that_moves_to_another_server_is_served_by_its_new_server,
    servers_are_read_from_the_database_after_a_second_without_a_poll,
);
