//! The statements of the catalogue and of the secrets of tool servers.

use waypost_core::catalog::{CatalogEntry, CatalogVersion};
use waypost_core::id::{CatalogEntryId, CatalogVersionId, ToolSecretId};
use waypost_core::tool_secret::ToolSecret;
use waypost_store::catalog_entry::CatalogPage;
use waypost_store::{Tx, catalog_entry, catalog_version, organization, replaced_secret, tool_secret};

use crate::fixture::{Fixture, NOW};

pub(super) async fn use_catalog(tx: &mut Tx, one: &Fixture) {
    let org = &one.organization;
    assert!(organization::lock(tx, org).await.unwrap());
    let entry = catalog_entry::find_by_slug(tx, org, "search").await.unwrap().unwrap();
    catalog_entry::find(tx, org, &entry.id).await.unwrap().unwrap();
    catalog_entry::count(tx, org).await.unwrap();
    catalog_entry::update(tx, &entry).await.unwrap();
    catalog_entry::list_instance_slugs(tx, org, &entry.id).await.unwrap();
    catalog_entry::list(tx, org, CatalogPage { after: Some("a"), limit: 9, max_chars: 9 }).await.unwrap();
    catalog_version::list_entries_with_registry_secret(tx, org, "REGISTRY").await.unwrap();
    let new = CatalogEntry { id: CatalogEntryId::from_store("cat_new".into()), slug: "new".into(), ..entry };
    catalog_entry::insert(tx, &new).await.unwrap();
    let id = CatalogVersionId::from_store("ctv_new".into());
    let version = CatalogVersion { id, catalog_entry_id: new.id.clone(), ..new.versions[0].clone() };
    catalog_version::insert(tx, &version).await.unwrap();
    catalog_version::find(tx, org, &version.id).await.unwrap().unwrap();
    catalog_entry::delete(tx, org, &new.id).await.unwrap();
}

pub(super) async fn use_secrets(tx: &mut Tx, one: &Fixture) {
    let org = &one.organization;
    let secret = tool_secret::find_by_name(tx, org, "TOKEN").await.unwrap().unwrap();
    tool_secret::find(tx, org, &secret.id).await.unwrap().unwrap();
    tool_secret::list(tx, org, Some("A"), 9).await.unwrap();
    tool_secret::count(tx, org).await.unwrap();
    tool_secret::rotate(tx, org, &secret.id, "sealed", NOW).await.unwrap();
    tool_secret::find_value(tx, org, "TOKEN").await.unwrap().unwrap();
    replaced_secret::insert(tx, org, &secret.id, (2, "sealed"), NOW).await.unwrap();
    replaced_secret::list(tx, org, &[&secret.id]).await.unwrap();
    replaced_secret::list_organizations(tx).await.unwrap();
    replaced_secret::delete_unused(tx, org, NOW).await.unwrap();
    let new = ToolSecret { id: ToolSecretId::from_store("sec_new".into()), name: "NEW".into(), ..secret };
    tool_secret::insert(tx, &new, "sealed").await.unwrap();
    tool_secret::delete(tx, org, &new.id).await.unwrap();
}
