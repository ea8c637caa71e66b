//! The off switch of the gateway of an organisation.

use std::time::Duration;

use serde_json::{Value, json};
use waypost_core::Code;
use waypost_core::id::{AgentId, OrganizationId};
use waypost_ops::organizations::{self, OrganizationPatch};
use waypost_ops::tool_access::ToolAccessCache;
use waypost_ops::{Ops, agents};
use waypost_store::audit;

use crate::fixture::{Fixture, set_up};

waypost_testkit::both!(extended set_up => the_gateway_of_an_organisation_is_switched_off_in_every_process);

/// Returns whether an agent may use the gateway.
async fn may_use(cache: &ToolAccessCache, organization: &OrganizationId, agent: &AgentId) -> bool {
    let Err(error) = cache.find(organization, agent).await else { return true };
    assert_eq!((error.code, error.reason()), (Code::Forbidden, Some("gateway_off")), "{error}");
    assert!(error.message.contains("switched off for this organisation"), "{error}");
    false
}

async fn the_gateway_of_an_organisation_is_switched_off_in_every_process(fixture: Fixture) {
    let Fixture { cx, ops } = &fixture;
    let create = async |slug: &str| {
        let id = organizations::create(cx, ops, slug, None).await.unwrap().id;
        let agent = agents::create(cx, ops, &id, "ci").await.unwrap().agent.id;
        (id, agent)
    };
    let ((acme, agent), (other, foreign)) = (create("acme").await, create("other").await);
    // The caches of two processes, which ask the database whether something has changed each time.
    let caches = [ops.clone(), Ops::new(ops.store().clone())].map(|ops| ToolAccessCache::new(ops, Duration::ZERO));
    for is_on in [true, false, true] {
        let patch = OrganizationPatch { gateway_enabled: Some(is_on), ..OrganizationPatch::default() };
        let updated = organizations::update(cx, ops, &acme, &patch).await.unwrap();
        assert_eq!((updated.gateway_enabled, updated.toolboxes_enabled), (is_on, true));
        for cache in &caches {
            assert_eq!(may_use(cache, &acme, &agent).await, is_on);
            assert!(may_use(cache, &other, &foreign).await, "another organisation");
        }
    }
    let events = audit::list(&mut ops.store().read().await.unwrap(), &acme, None, 200).await.unwrap();
    let mut switched: Vec<_> = events
        .iter()
        .filter(|event| event.act == "organization.update")
        .map(|event| event.detail["gateway_enabled"].clone())
        .collect();
    switched.sort_by_key(Value::as_bool);
    assert_eq!(switched, [json!(false), json!(true)], "the first change was none");
}
