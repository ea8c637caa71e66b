//! The rows of hosted servers and assignments.

use waypost_core::id::AssignmentId;
use waypost_ops::assignments::AssignmentPatch;
use waypost_ops::servers::{ServerSearch, ServerSettings};
use waypost_ops::{assignments, servers};

use super::super::Access;
use super::{Call, Row, row};

pub(super) async fn servers(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, new, .. } = call;
    let (org, server, walkthrough) = (&t.organization.id, &t.server.id, &t.walkthrough);
    let patch = AssignmentPatch { display_order: Some(9), enabled: Some(false) };
    let assignment = &AssignmentId::from_store("msw_0".into());
    let search = &ServerSearch { limit: 1, ..ServerSearch::default() };
    let rename = ServerSettings { slug: Some(format!("{new}-moved")), ..ServerSettings::default() };
    rows! {
        Member assignments::assign(cx, ops, org, server, walkthrough, patch);
        Member assignments::get(cx, ops, org, assignment);
        Member assignments::update(cx, ops, org, assignment, patch);
        Member assignments::reorder(cx, ops, org, server, &[]);
        Member assignments::list(cx, ops, org, server);
        Member assignments::list_for_walkthrough(cx, ops, org, walkthrough);
        Member assignments::list_candidates(cx, ops, org, server, "", 1);
        Member assignments::unassign(cx, ops, org, server, walkthrough);
        Member assignments::delete(cx, ops, org, assignment);
        Admin servers::create(cx, ops, org, &format!("{new}-server"), &ServerSettings::default());
        Member servers::list(cx, ops, org);
        Member servers::search(cx, ops, org, search);
        Member servers::list_usage(cx, ops, org, &[server]);
        Member servers::count_contents(cx, ops, org, server);
        Member servers::count_signed_in(cx, ops, org, server);
        Admin servers::suggest_slug(cx, ops, org, new);
        Admin servers::find_slug_problem(cx, ops, org, new, None);
        Member servers::resolve(cx, ops, &t.server.slug);
        Member servers::get(cx, ops, org, server);
        Admin servers::update(cx, ops, org, server, &rename);
        Member servers::list_former_slugs(cx, ops, org, server);
        Admin servers::release_slug(cx, ops, org, server, &t.server.slug);
    }
}
