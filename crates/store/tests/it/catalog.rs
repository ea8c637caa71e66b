//! The catalogue of tool servers.

use serde_json::json;
use waypost_core::catalog::{CatalogEntry, CatalogEntryState, CatalogVersion};
use waypost_core::id::{CatalogEntryId, CatalogVersionId, OrganizationId};
use waypost_store::catalog_entry::{self, CatalogPage};
use waypost_store::{Error, Tx, catalog_version, instance_source, sealed};

use crate::fixture::{Fixture, NOW, execute};
use crate::open;

struct TwoWorlds {
    tx: Tx,
    one: Fixture,
    two: Fixture,
}

async fn two_worlds(url: &str) -> TwoWorlds {
    let db = open(url).await;
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed_with_activity(&db).await;
    two.seed_with_activity(&db).await;
    TwoWorlds { tx: db.begin().await.unwrap(), one, two }
}

fn id(text: &str) -> CatalogEntryId {
    CatalogEntryId::from_store(text.to_owned())
}

fn entry(organization: &OrganizationId, slug: &str) -> CatalogEntry {
    CatalogEntry {
        id: id(&format!("cat_{slug}")),
        organization_id: organization.clone(),
        slug: slug.to_owned(),
        name: "Größe".to_owned(),
        description: "Line one\nline two".to_owned(),
        categories: vec!["web".to_owned(), "search".to_owned()],
        license: None,
        documentation_url: Some("https://docs.example".to_owned()),
        state: CatalogEntryState::Published,
        versions: Vec::new(),
        deployments: 0,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn version(entry: &CatalogEntry, version: &str, after: i64) -> CatalogVersion {
    let definition = json!({
        "source": { "image": "registry.example/x@sha256:1" },
        "image_tag": "1",
        "transport": "streamable_http",
        "args": ["--key", "${config.key}"],
        "port": 8080,
        "path": "/mcp",
        "config_schema": { "type": "object", "z": 1, "a": 2 },
        "secrets": [{ "name": "KEY", "description": "", "required": true, "as": "env" }],
        "egress": ["api.example:443"],
        "volumes": [{ "name": "data", "path": "/data" }],
        "lazy": true,
        "idle_seconds": 60,
    });
    CatalogVersion {
        id: CatalogVersionId::from_store(format!("ctv_{}-{version}", entry.slug)),
        organization_id: entry.organization_id.clone(),
        catalog_entry_id: entry.id.clone(),
        version: version.to_owned(),
        definition: serde_json::from_value(definition).unwrap(),
        sealed_url: None,
        created_at: NOW.plus(after),
    }
}

/// The URL of a version with a remote server is stored in its own column, which is resealed with a new key.
async fn remote_versions_keep_their_sealed_url(TwoWorlds { mut tx, one, .. }: TwoWorlds) {
    let org = &one.organization;
    let entry = add(&mut tx, entry(org, "far"), &["1"]).await;
    let definition = json!({
        "source": { "remote": { "origin": "https://far.example", "transport": "sse", "headers": { "X-A": "b" } } },
        "transport": "sse",
        "secrets": [{ "name": "Authorization", "description": "", "required": true, "as": "header" }],
    });
    let far = CatalogVersion {
        definition: serde_json::from_value(definition).unwrap(),
        sealed_url: Some("v1.old.x".to_owned()),
        ..version(&entry, "2", 1)
    };
    catalog_version::insert(&mut tx, &far).await.unwrap();
    assert_eq!(catalog_version::find(&mut tx, org, &far.id).await.unwrap().as_ref(), Some(&far));
    let source = instance_source::find(&mut tx, org, &far.id).await.unwrap().unwrap();
    assert_eq!((&source.version, source.entry_slug.as_str()), (&far, "far"));
    let column = sealed::COLUMNS.iter().find(|column| column.label == "catalog_versions").unwrap();
    let outdated = sealed::list_outdated(&mut tx, column, "", "v1.new.", 9).await.unwrap();
    assert_eq!(outdated, [(far.id.to_string(), "v1.old.x".to_owned())]);
    assert!(sealed::replace(&mut tx, column, far.id.as_str(), "v1.old.x", "v1.new.y").await.unwrap());
    let resealed = catalog_version::find(&mut tx, org, &far.id).await.unwrap().unwrap();
    assert_eq!(resealed.sealed_url.as_deref(), Some("v1.new.y"));
}

async fn add(tx: &mut Tx, mut entry: CatalogEntry, versions: &[&str]) -> CatalogEntry {
    catalog_entry::insert(tx, &entry).await.unwrap();
    for (at, name) in (0..).zip(versions) {
        let version = version(&entry, name, at);
        catalog_version::insert(tx, &version).await.unwrap();
        entry.versions.insert(0, version);
    }
    entry
}

async fn entries_are_stored_with_their_versions(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let org = &one.organization;
    let stored = add(&mut tx, entry(org, "new"), &["1.0", "0.9", "2.0"]).await;
    assert_eq!(stored.versions[0].version, "2.0", "newest first");
    assert_eq!(catalog_entry::find(&mut tx, org, &stored.id).await.unwrap().as_ref(), Some(&stored));
    assert_eq!(catalog_entry::find_by_slug(&mut tx, org, "new").await.unwrap().as_ref(), Some(&stored));
    assert_eq!(catalog_entry::find(&mut tx, &two.organization, &stored.id).await.unwrap(), None);
    assert_eq!(catalog_entry::find_by_slug(&mut tx, &two.organization, "new").await.unwrap(), None);
    let newest = &stored.versions[0];
    assert_eq!(catalog_version::find(&mut tx, org, &newest.id).await.unwrap().as_ref(), Some(newest));
    assert_eq!(catalog_version::find(&mut tx, &two.organization, &newest.id).await.unwrap(), None);
    let changed = CatalogEntry {
        name: "Other".to_owned(),
        categories: Vec::new(),
        license: Some("MIT".to_owned()),
        documentation_url: None,
        state: CatalogEntryState::Archived,
        updated_at: NOW.plus(9),
        ..stored.clone()
    };
    let foreign = CatalogEntry { organization_id: two.organization.clone(), ..changed.clone() };
    assert!(!catalog_entry::update(&mut tx, &foreign).await.unwrap());
    assert!(catalog_entry::update(&mut tx, &changed).await.unwrap());
    assert_eq!(catalog_entry::find(&mut tx, org, &stored.id).await.unwrap().as_ref(), Some(&changed));
    assert!(!catalog_entry::delete(&mut tx, &two.organization, &stored.id).await.unwrap());
    assert!(catalog_entry::delete(&mut tx, org, &stored.id).await.unwrap());
    assert_eq!(catalog_version::list(&mut tx, org, &stored.id).await.unwrap(), []);
}

async fn pages_are_limited_in_number_and_size(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let org = &one.organization;
    for (slug, versions) in [("a", &["1", "2"][..]), ("b", &[]), ("c", &["1"]), ("z", &["1"])] {
        add(&mut tx, entry(org, slug), versions).await;
    }
    assert_eq!(catalog_entry::count(&mut tx, org).await.unwrap(), 5);
    assert_eq!(catalog_entry::count(&mut tx, &two.organization).await.unwrap(), 1);
    let definition = serde_json::to_string(&version(&entry(org, "a"), "1", 0).definition).unwrap();
    let size = i64::try_from(definition.chars().count()).unwrap();
    for (after, limit, max_chars, expected, more) in [
        (None, 2, i64::MAX, &["a", "b"][..], true),
        (None, 5, i64::MAX, &["a", "b", "c", "search", "z"], false),
        (Some("b"), 5, i64::MAX, &["c", "search", "z"], false),
        (Some("z"), 5, i64::MAX, &[], false),
        (None, 5, 0, &["a"], true),
        (None, 5, 2 * size + 1, &["a", "b"], true),
        (None, 5, 3 * size + 1, &["a", "b", "c"], true),
    ] {
        let page = CatalogPage { after, limit, max_chars };
        let (entries, has_more) = catalog_entry::list(&mut tx, org, page).await.unwrap();
        let slugs: Vec<_> = entries.iter().map(|entry| entry.slug.as_str()).collect();
        assert_eq!((&slugs[..], has_more), (expected, more), "{page:?}");
        for entry in &entries {
            assert_eq!(Some(entry), catalog_entry::find(&mut tx, org, &entry.id).await.unwrap().as_ref());
        }
    }
}

/// The fixture's instance runs a version of the fixture's entry.
async fn a_used_entry_cannot_be_deleted(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let org = &one.organization;
    let search = catalog_entry::find(&mut tx, org, &id("cat_1")).await.unwrap().unwrap();
    assert_eq!((search.slug.as_str(), search.deployments), ("search", 1));
    assert_eq!(catalog_entry::list_instance_slugs(&mut tx, org, &search.id).await.unwrap(), ["search"]);
    assert_eq!(catalog_entry::list_instance_slugs(&mut tx, &two.organization, &search.id).await.unwrap(), [""; 0]);
    // An earlier deployment of another entry.
    let earlier = add(&mut tx, entry(org, "earlier"), &["1"]).await;
    assert_eq!(catalog_entry::list_instance_slugs(&mut tx, org, &earlier.id).await.unwrap(), [""; 0]);
    let sql = format!(
        "INSERT INTO deployments (id, organization_id, instance_id, generation, catalog_version_id, config, secrets,
             learn_egress, state, step, started_at)
         VALUES ('dep_x', '{org}', 'ins_1', 9, '{}', '{{}}', '[]', FALSE, 'failed', 'pulling', 1)",
        earlier.versions[0].id
    );
    execute(&mut tx, sql).await;
    assert_eq!(catalog_entry::list_instance_slugs(&mut tx, org, &earlier.id).await.unwrap(), ["search"]);
    assert!(catalog_entry::delete(&mut tx, org, &search.id).await.unwrap_err().is_foreign_key_violation());
}

async fn names_are_unique(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let stored = add(&mut tx, entry(&one.organization, "new"), &["1"]).await;
    add(&mut tx, CatalogEntry { id: id("cat_other"), ..entry(&two.organization, "new") }, &[]).await;
    let again = CatalogVersion { id: CatalogVersionId::from_store("ctv_x".into()), ..version(&stored, "1", 5) };
    let error = catalog_version::insert(&mut tx, &again).await.unwrap_err();
    assert!(error.is_unique_violation(), "{error}");
}

async fn slugs_are_unique_in_an_organisation(TwoWorlds { mut tx, one, .. }: TwoWorlds) {
    let error = catalog_entry::insert(&mut tx, &entry(&one.organization, "search")).await.unwrap_err();
    assert!(error.is_unique_violation(), "{error}");
}

async fn entries_with_credentials_of_a_registry_are_found(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let entries = async |tx: &mut Tx, fixture: &Fixture, name: &str| {
        catalog_version::list_entries_with_registry_secret(tx, &fixture.organization, name).await.unwrap()
    };
    assert_eq!(entries(&mut tx, &one, "REGISTRY").await, ["search"]);
    assert_eq!(entries(&mut tx, &one, "registry").await, [""; 0]);
    add(&mut tx, entry(&two.organization, "open"), &["1"]).await;
    assert_eq!(entries(&mut tx, &two, "REGISTRY").await, ["search"]);
}

async fn an_invalid_definition_is_reported(TwoWorlds { mut tx, one, .. }: TwoWorlds) {
    execute(&mut tx, "UPDATE catalog_versions SET definition = '{\"privileged\":true}' WHERE id = 'ctv_1'".to_owned())
        .await;
    let error = catalog_entry::find(&mut tx, &one.organization, &id("cat_1")).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { table: "catalog_versions", .. }), "{error}");
}

waypost_testkit::both!(two_worlds =>
    entries_are_stored_with_their_versions,
    remote_versions_keep_their_sealed_url,
    pages_are_limited_in_number_and_size,
    a_used_entry_cannot_be_deleted,
    names_are_unique,
    slugs_are_unique_in_an_organisation,
    entries_with_credentials_of_a_registry_are_found,
    an_invalid_definition_is_reported,
);
