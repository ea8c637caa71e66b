//! The rows of the catalogue, secrets, toolboxes and instances.

use std::collections::BTreeMap;

use waypost_core::id::{CatalogEntryId, CatalogVersionId, DeploymentId, InstanceId, ToolSecretId, ToolboxId};
use waypost_core::seal::SecretText;
use waypost_ops::instances::connect::AuthorizationResponse;
use waypost_ops::instances::{CatalogServer, InitialAccess, InstancePatch, NewInstance, NewServer};
use waypost_ops::toolboxes::ToolboxPatch;
use waypost_ops::{
    catalog, deployments, instances, remote_checks, remote_tokens, tool_secrets, toolbox_counts, toolboxes,
};

use super::super::Access;
use super::{Call, Row, row};
use crate::catalog::entry_file;

pub(super) async fn catalog_and_secrets(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let org = &t.organization.id;
    let (entry, secret) = (&CatalogEntryId::from_store("cat_0".into()), &ToolSecretId::from_store("sec_0".into()));
    let version = &CatalogVersionId::from_store("ctv_0".into());
    let (file, value) = (&entry_file("search", "1", ""), &SecretText::new("value"));
    rows! {
        Admin catalog::import(cx, ops, org, file);
        Admin catalog::import_text(cx, ops, org, "entry.json", "{}");
        Member catalog::list(cx, ops, org, 1, None);
        Member catalog::get(cx, ops, org, entry);
        Member catalog::get_by_version(cx, ops, org, version);
        Member catalog::resolve(cx, ops, org, "search");
        Admin catalog::delete(cx, ops, org, entry);
        Admin tool_secrets::create(cx, ops, org, "TOKEN", value);
        Admin tool_secrets::list(cx, ops, org, 1, None);
        Admin tool_secrets::get(cx, ops, org, secret);
        Admin tool_secrets::resolve(cx, ops, org, "TOKEN");
        Admin tool_secrets::rotate(cx, ops, org, secret, value);
        Admin tool_secrets::delete(cx, ops, org, secret);
    }
}

pub(super) async fn tool_servers(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, new, .. } = call;
    let org = &t.organization.id;
    let (toolbox, instance) = (&ToolboxId::from_store("tbx_0".into()), &InstanceId::from_store("ins_0".into()));
    let deployment = &DeploymentId::from_store("dep_0".into());
    let new_instance = NewInstance {
        slug: "a".to_owned(),
        name: None,
        server: NewServer::Catalog(CatalogServer {
            catalog_version_id: CatalogVersionId::from_store("ctv_0".into()),
            toolbox_id: None,
            config: serde_json::Map::new(),
            personal_secrets: Default::default(),
            learn_egress: false,
        }),
        secrets: BTreeMap::new(),
        access: InitialAccess::default(),
    };
    rows! {
        Admin toolboxes::create(cx, ops, org, new);
        Member toolboxes::list(cx, ops, org, None, 1);
        Member toolboxes::get(cx, ops, org, toolbox);
        Member toolboxes::resolve(cx, ops, org, new);
        Admin toolboxes::update(cx, ops, org, toolbox, &ToolboxPatch::default());
        Admin toolboxes::revoke(cx, ops, org, toolbox);
        Admin toolboxes::rotate_key(cx, ops, org, toolbox);
        Admin toolboxes::renew_token(cx, ops, org, toolbox);
        Admin toolboxes::delete(cx, ops, org, toolbox);
        Operator toolboxes::report_unresponsive(cx, ops);
        Operator toolboxes::delete_expired_tokens(cx, ops);
        Operator toolbox_counts::count(cx, ops);
        Operator toolbox_counts::observe(cx, ops);
        Admin instances::create(cx, ops, org, &new_instance);
        Member instances::list(cx, ops, org, None, 1);
        Member instances::list_by_toolbox(cx, ops, org, toolbox);
        Member instances::get(cx, ops, org, instance);
        Member instances::resolve(cx, ops, org, "a");
        Member instances::list_events(cx, ops, org, instance, None, 1);
        Admin instances::update(cx, ops, org, instance, &InstancePatch::default());
        Member instances::connect::find(cx, ops, org, instance);
        Admin instances::connect::begin(cx, ops, org, instance, (None, "https://way.example"));
        Member instances::connect::find_own(cx, ops, org, "a");
        Member instances::connect::begin_own(cx, ops, org, ("a", "https://way.example"));
        Member instances::connect::disconnect_own(cx, ops, org, "a");
        Admin instances::connect::list(cx, ops, org, instance, (None, 1));
        Admin instances::connect::disconnect(cx, ops, org, instance, None);
        User instances::connect::find_organization(cx, ops, "state");
        Member instances::connect::finish(cx, ops, org, &AuthorizationResponse::default());
        Admin instances::start(cx, ops, org, instance);
        Admin instances::stop(cx, ops, org, instance);
        Admin instances::restart(cx, ops, org, instance);
        Admin instances::delete(cx, ops, org, instance);
        Member instances::call::list_tools(cx, ops, org, instance);
        Admin instances::call::call_tool(cx, ops, org, instance, ("a", &serde_json::Map::new()));
        Admin instances::logs::list(cx, ops, org, instance, 1);
        Admin instances::logs::follow(cx, ops, org, instance, 1);
        Admin instances::logs::check(cx, ops, org, instance);
        Member instances::stats::list(cx, ops, org, instance);
        Operator instances::advance_rotations(cx, ops);
        Operator remote_checks::check_due(cx, ops);
        Operator remote_tokens::refresh_due(cx, ops);
        Member deployments::list(cx, ops, org, instance, None, 1);
        Member deployments::get(cx, ops, org, instance, deployment);
        Operator deployments::end_offline(cx, ops);
    }
}
