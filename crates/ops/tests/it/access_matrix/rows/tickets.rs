//! The rows of tickets.

use waypost_core::id::{TicketCommentId, TicketId};
use waypost_ops::ticket_comments::NewComment;
use waypost_ops::tickets::{TicketFilter, TicketListQuery, TicketPatch};
use waypost_ops::{ticket_comments, tickets};

use super::super::Access;
use super::{Call, Row, row};

pub(super) async fn support(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let org = &t.organization.id;
    let (ticket, comment) = (&TicketId::from_store("tkt_0".into()), &TicketCommentId::from_store("tkc_0".into()));
    let (patch, ids) = (&TicketPatch::default(), [ticket.to_string()]);
    let new = NewComment { body: "B".into(), internal: true, resolve: false };
    rows! {
        Member tickets::list(cx, ops, org, TicketListQuery::default());
        Member tickets::count_by_status(cx, ops, org, &TicketFilter::default());
        Member tickets::list_for_end_user(cx, ops, org, &t.end_user);
        Member tickets::get(cx, ops, org, ticket);
        Member tickets::list_assignees(cx, ops, org);
        Member tickets::update(cx, ops, org, ticket, None, patch);
        Member tickets::update_many(cx, ops, org, &ids, patch);
        Member ticket_comments::list(cx, ops, org, ticket);
        Member ticket_comments::create(cx, ops, org, ticket, &new);
        Member ticket_comments::update(cx, ops, org, ticket, comment, "B");
        Member ticket_comments::delete(cx, ops, org, ticket, comment);
    }
}
