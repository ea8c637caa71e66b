//! Tests of the catalogue.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use waypost_core::catalog::{CatalogEntryState, MAX_ENTRIES, MAX_VERSIONS};
use waypost_core::id::OrganizationId;
use waypost_core::organization::Role;
use waypost_core::{Code, Error};
use waypost_ops::catalog::{self, EntryFile, ImportChange};
use waypost_store::audit;

use crate::fixture::{Fixture, set_up};

waypost_testkit::both!(extended set_up =>
    an_import_is_idempotent,
    any_sequence_of_imports_has_the_expected_result,
    a_version_cannot_be_changed,
    an_entry_in_use_cannot_be_deleted,
    entries_belong_to_their_organisation,
    numbers_of_entries_and_versions_are_limited,
    concurrent_imports_create_one_entry,
    lists_are_paginated,
);

/// Returns a file with an image by digest.
pub fn entry_file(slug: &str, version: &str, description: &str) -> EntryFile {
    parse(&entry(slug, version, description))
}

fn entry(slug: &str, version: &str, description: &str) -> Value {
    json!({
        "slug": slug,
        "name": "Search",
        "description": description,
        "version": version,
        "source": { "image": format!("registry.example/{slug}@sha256:{}", "ab".repeat(32)) },
        "transport": "stdio",
    })
}

fn parse(entry: &Value) -> EntryFile {
    EntryFile::parse("entry.json", &entry.to_string()).unwrap()
}

#[track_caller]
fn assert_rejected<T: std::fmt::Debug>(result: Result<T, Error>, code: Code, words: &str) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(words), "{error}");
    error
}

/// Returns the actions and details of the audit log, oldest first.
async fn audit_log(fixture: &Fixture, org: &OrganizationId) -> Vec<(String, Value)> {
    let mut conn = fixture.ops.store().read().await.unwrap();
    let events = audit::list(&mut conn, org, None, 1_000).await.unwrap();
    let events = events.into_iter().filter(|event| event.act.starts_with("catalog."));
    let mut events: Vec<_> = events.map(|event| (event.act, Value::Object(event.detail))).collect();
    events.reverse();
    events
}

async fn an_import_is_idempotent(fixture: Fixture) {
    let acme = fixture.create_tenant("acme").await;
    let (org, ops, cx) =
        (&acme.organization.id, &fixture.ops, &fixture.member_context(&acme.organization.id, Role::Admin));
    let first = catalog::import(cx, ops, org, &entry_file("search", "1.0", "Old")).await.unwrap();
    assert_eq!((first.change, first.entry.state), (ImportChange::Created, CatalogEntryState::Published));
    assert_eq!((first.entry.versions.len(), &first.entry.versions[0].id), (1, &first.version_id));
    let again = catalog::import(cx, ops, org, &entry_file("search", "1.0", "Old")).await.unwrap();
    assert_eq!(
        (again.change, &again.entry, &again.version_id),
        (ImportChange::Unchanged, &first.entry, &first.version_id)
    );
    // The same content in another format, with other defaults written out.
    let yaml = format!(
        "transport: stdio\nslug: search\nname: Search\ndescription: Old\nversion: '1.0'\nsharing: shared\nresources: medium\n\
         config_schema: {{}}\nsource:\n  image: registry.example/search:latest@sha256:{}\n",
        "ab".repeat(32)
    );
    let other = EntryFile::parse("other.yaml", &yaml).unwrap();
    assert_eq!(catalog::import(cx, ops, org, &other).await.unwrap().change, ImportChange::Unchanged);
    let updated = catalog::import(cx, ops, org, &entry_file("search", "1.0", "New")).await.unwrap();
    assert_eq!((updated.change, updated.entry.description.as_str()), (ImportChange::Updated, "New"));
    let added = catalog::import(cx, ops, org, &entry_file("search", "2.0", "New")).await.unwrap();
    assert_eq!((added.change, added.entry.versions.len()), (ImportChange::VersionAdded, 2));
    assert_eq!(
        (&added.entry.id, &catalog::get(cx, ops, org, &first.entry.id).await.unwrap()),
        (&first.entry.id, &added.entry)
    );
    assert_eq!(catalog::resolve(cx, ops, org, "search").await.unwrap(), added.entry);
    assert_eq!(catalog::resolve(cx, ops, org, first.entry.id.as_str()).await.unwrap(), added.entry);
    // An archived entry is published again.
    fixture.execute("UPDATE catalog_entries SET state = 'archived'".to_owned()).await;
    let published = catalog::import(cx, ops, org, &entry_file("search", "2.0", "New")).await.unwrap();
    assert_eq!((published.change, published.entry.state), (ImportChange::Updated, CatalogEntryState::Published));
    let log = audit_log(&fixture, org).await;
    let changes: Vec<_> = log.iter().map(|(act, detail)| (act.as_str(), detail["change"].as_str().unwrap())).collect();
    let import = "catalog.import";
    let mut expected = [(import, "created"), (import, "updated"), (import, "version_added"), (import, "updated")];
    // The clock does not move, so the order within the log is not defined.
    let mut changes = changes;
    changes.sort_unstable();
    expected.sort_unstable();
    assert_eq!(changes, expected);
    assert!(
        log.iter().all(|(_, detail)| detail["image"].as_str().unwrap().starts_with("registry.example/search@sha256:"))
    );
}

/// The content of a version by number: different numbers are different definitions.
fn content(number: u8) -> Value {
    match number {
        0 => json!({}),
        1 => json!({ "args": ["--fast"] }),
        2 => json!({ "egress": ["api.example:443"], "secrets": [{ "name": "TOKEN" }] }),
        _ => {
            json!({ "transport": "sse", "port": 80, "config_schema": { "properties": { "a": { "type": "string" } } } })
        }
    }
}

type Step = (u8, u8, u8, u8);

fn file_of((slug, version, number, description): Step) -> EntryFile {
    let mut entry = entry(&format!("entry-{slug}"), &format!("{version}.0"), &format!("Text {description}"));
    for (name, value) in content(number).as_object().unwrap() {
        entry[name] = value.clone();
    }
    parse(&entry)
}

/// Compares random sequences of imports with a model, and repeats every import.
async fn any_sequence_of_imports_has_the_expected_result(fixture: Fixture) {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let sequence = prop::collection::vec((0_u8..2, 0_u8..3, 0_u8..4, 0_u8..2), 1..16);
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..12 {
        let tenant = fixture.create_tenant(&format!("round-{round}")).await;
        let (org, ops, cx) = (&tenant.organization.id, &fixture.ops, &fixture.cx);
        let steps = sequence.new_tree(&mut runner).unwrap().current();
        let mut versions: BTreeMap<(u8, u8), u8> = BTreeMap::new();
        let mut descriptions: BTreeMap<u8, u8> = BTreeMap::new();
        for step in &steps {
            let (slug, version, number, description) = *step;
            let known = versions.get(&(slug, version)).copied();
            let expected = match (descriptions.get(&slug), known) {
                (None, _) => "created",
                (Some(_), Some(other)) if other != number => "conflict",
                (Some(_), None) => "version_added",
                (Some(old), Some(_)) if *old != description => "updated",
                (Some(_), Some(_)) => "unchanged",
            };
            let before = catalog::list(cx, ops, org, 10, None).await.unwrap().items;
            let result = catalog::import(cx, ops, org, &file_of(*step)).await;
            seen.insert(expected);
            if expected == "conflict" {
                assert_rejected(result, Code::Conflict, "Versions cannot be changed");
                assert_eq!(catalog::list(cx, ops, org, 10, None).await.unwrap().items, before, "{steps:?}");
                continue;
            }
            assert_eq!(result.unwrap().change.as_str(), expected, "{step:?} of {steps:?}");
            versions.insert((slug, version), number);
            descriptions.insert(slug, description);
            let after = catalog::list(cx, ops, org, 10, None).await.unwrap().items;
            let log = audit_log(&fixture, org).await.len();
            let again = catalog::import(cx, ops, org, &file_of(*step)).await.unwrap();
            assert_eq!(again.change, ImportChange::Unchanged, "{step:?} of {steps:?}");
            assert_eq!(catalog::list(cx, ops, org, 10, None).await.unwrap().items, after);
            assert_eq!(audit_log(&fixture, org).await.len(), log);
        }
        let entries = catalog::list(cx, ops, org, 10, None).await.unwrap().items;
        assert_eq!(entries.len(), descriptions.len());
        assert_eq!(entries.iter().map(|entry| entry.versions.len()).sum::<usize>(), versions.len());
        for ((slug, version), number) in versions {
            let entry = entries.iter().find(|entry| entry.slug == format!("entry-{slug}")).unwrap();
            let found = entry.versions.iter().find(|found| found.version == format!("{version}.0")).unwrap();
            assert_eq!(found.definition, file_of((slug, version, number, 0)).definition);
            assert_eq!(entry.description, format!("Text {}", descriptions[&slug]));
        }
    }
    assert_eq!(seen.len(), 5, "the sequences contain every result: {seen:?}");
}

async fn a_version_cannot_be_changed(fixture: Fixture) {
    let acme = fixture.create_tenant("acme").await;
    let (org, ops, cx) = (&acme.organization.id, &fixture.ops, &fixture.cx);
    let first = catalog::import(cx, ops, org, &entry_file("search", "1", "Old")).await.unwrap();
    let mut changed = entry("search", "1", "New");
    changed["resources"] = json!("heavy");
    changed["args"] = json!(["-v"]);
    let error = assert_rejected(
        catalog::import(cx, ops, org, &parse(&changed)).await,
        Code::Conflict,
        "entry.json: version `1` of `search` exists with other content (`resources`, `args`).",
    );
    assert_eq!((&error.details["field"], &error.details["file"]), (&json!("resources"), &json!("entry.json")));
    let mut other = entry("search", "1", "Old");
    other["source"]["image"] = json!(format!("registry.example/search@sha256:{}", "cd".repeat(32)));
    assert_rejected(catalog::import(cx, ops, org, &parse(&other)).await, Code::Conflict, "(`source`)");
    assert_eq!(catalog::get(cx, ops, org, &first.entry.id).await.unwrap(), first.entry, "nothing was changed");
}

async fn an_entry_in_use_cannot_be_deleted(fixture: Fixture) {
    let acme = fixture.create_tenant("acme").await;
    let (org, ops, cx) = (&acme.organization.id, &fixture.ops, &fixture.cx);
    fixture.create_instance(org, "REGISTRY").await;
    let used = catalog::resolve(cx, ops, org, "entry").await.unwrap();
    assert_eq!(used.deployments, 1);
    let error = catalog::delete(cx, ops, org, &used.id).await;
    let error = assert_rejected(error, Code::Conflict, "These instances use this entry: `search`. Delete them first.");
    assert_eq!(error.details["instances"], json!(["search"]));
    fixture.execute("DELETE FROM instances".to_owned()).await;
    catalog::delete(cx, ops, org, &used.id).await.unwrap();
    assert_rejected(catalog::delete(cx, ops, org, &used.id).await, Code::NotFound, "no such catalogue entry");
    let log = audit_log(&fixture, org).await;
    assert_eq!(log, [("catalog.delete".to_owned(), json!({ "slug": "entry", "versions": 1 }))]);
}

async fn entries_belong_to_their_organisation(fixture: Fixture) {
    let (acme, other) = (fixture.create_tenant("acme").await, fixture.create_tenant("other").await);
    let (org, ops) = (&acme.organization.id, &fixture.ops);
    let entry = catalog::import(&fixture.cx, ops, org, &entry_file("search", "1", "")).await.unwrap().entry;
    let outsider = &fixture.member_context(&other.organization.id, Role::Owner);
    for org in [org, &other.organization.id] {
        assert_rejected(catalog::get(outsider, ops, org, &entry.id).await, Code::NotFound, "no such");
        assert_rejected(catalog::resolve(outsider, ops, org, "search").await, Code::NotFound, "no such");
        assert_rejected(catalog::delete(outsider, ops, org, &entry.id).await, Code::NotFound, "no such");
    }
    assert_rejected(
        catalog::import(outsider, ops, org, &entry_file("x", "1", "")).await,
        Code::NotFound,
        "organisation",
    );
    let theirs = catalog::import(outsider, ops, &other.organization.id, &entry_file("search", "1", "")).await.unwrap();
    assert_eq!(theirs.change, ImportChange::Created);
    let member = &fixture.member_context(org, Role::Member);
    assert_eq!(catalog::list(member, ops, org, 10, None).await.unwrap().items, [entry]);
    assert_rejected(catalog::import(member, ops, org, &entry_file("x", "1", "")).await, Code::Forbidden, "`admin`");
}

async fn numbers_of_entries_and_versions_are_limited(fixture: Fixture) {
    let acme = fixture.create_tenant("acme").await;
    let (org, ops, cx) = (&acme.organization.id, &fixture.ops, &fixture.cx);
    let entry = catalog::import(cx, ops, org, &entry_file("search", "1", "")).await.unwrap().entry;
    let definition = serde_json::to_string(&entry.versions[0].definition).unwrap();
    let versions: Vec<_> = (1..MAX_VERSIONS - 1)
        .map(|n| format!("('ctv_{n}', '{org}', '{}', '1.{n}', '{definition}', 1)", entry.id))
        .collect();
    let columns = "id, organization_id, catalog_entry_id, version, definition, created_at";
    fixture.execute(format!("INSERT INTO catalog_versions ({columns}) VALUES {}", versions.join(", "))).await;
    catalog::import(cx, ops, org, &entry_file("search", "2", "")).await.unwrap();
    assert_rejected(
        catalog::import(cx, ops, org, &entry_file("search", "3", "")).await,
        Code::Conflict,
        "200 versions",
    );
    let entries: Vec<_> = (1..MAX_ENTRIES - 1)
        .map(|n| format!("('cat_{n}', '{org}', 'e{n}', 'E', '', '[]', NULL, NULL, 'published', 1, 1)"))
        .collect();
    fixture.execute(format!("INSERT INTO catalog_entries VALUES {}", entries.join(", "))).await;
    let imports = ["one", "two", "three"].map(|slug| (slug, entry_file(slug, "1", "")));
    let results = futures::future::join_all(imports.iter().map(|(_, file)| catalog::import(cx, ops, org, file))).await;
    let created = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(created, 1, "exact under concurrency: {results:?}");
    for result in results.into_iter().filter(Result::is_err) {
        assert_rejected(result, Code::Conflict, "at most 500 catalogue entries");
    }
    // Known entries can still be updated.
    catalog::import(cx, ops, org, &entry_file("e1", "1", "")).await.unwrap();
}

async fn concurrent_imports_create_one_entry(fixture: Fixture) {
    let acme = fixture.create_tenant("acme").await;
    let (org, ops, cx) = (&acme.organization.id, &fixture.ops, &fixture.cx);
    let file = &entry_file("search", "1", "");
    let imports = futures::future::join_all((0..8).map(|_| catalog::import(cx, ops, org, file))).await;
    let mut changes: Vec<_> = imports.into_iter().map(|report| report.unwrap().change.as_str()).collect();
    changes.sort_unstable();
    assert_eq!((changes[0], &changes[1..]), ("created", &["unchanged"; 7][..]));
}

async fn lists_are_paginated(fixture: Fixture) {
    let acme = fixture.create_tenant("acme").await;
    let (org, ops, cx) = (&acme.organization.id, &fixture.ops, &fixture.cx);
    for slug in ["c", "a", "b"] {
        catalog::import(cx, ops, org, &entry_file(slug, "1", "")).await.unwrap();
    }
    let (mut slugs, mut cursor) = (Vec::new(), None);
    loop {
        let page = catalog::list(cx, ops, org, 2, cursor.as_deref()).await.unwrap();
        slugs.extend(page.items.into_iter().map(|entry| entry.slug));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(slugs, ["a", "b", "c"]);
    assert_rejected(catalog::list(cx, ops, org, 201, None).await, Code::InvalidArguments, "`limit`");
    assert_rejected(catalog::list(cx, ops, org, 1, Some("A B")).await, Code::InvalidArguments, "`cursor`");
}
