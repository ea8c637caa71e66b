//! The rows of the operations of end users on walkthroughs.

use waypost_core::authorization::ProgressClaim;
use waypost_core::id::{OauthGrantId, StepId};
use waypost_core::progress::operations::SelectOptions;
use waypost_core::scope::Scopes;
use waypost_ops::identity::{Credentials, Subject};
use waypost_ops::progress::PlayRequest;
use waypost_ops::ticket_creation::NewTicket;
use waypost_ops::{joins, progress, search, ticket_creation, ticket_replies};

use super::super::Access;
use super::{Call, Row, row};
use crate::hosted;

pub(super) async fn play(call: Call<'_>) -> Vec<Row> {
    let Call { cx, hosting, tenant: t, .. } = call;
    let (server, text) = (&t.server, t.walkthrough.as_str());
    let offers = &hosting.offer_cache().refresh(&server.slug).await.unwrap();
    let context = hosted::call();
    let play = &PlayRequest { offers, credentials: Credentials::Nothing, email: None, call: &context };
    let grant_id = OauthGrantId::from_store("ogr_0".into());
    let subject = &Subject { end_user_id: t.end_user.clone(), grant_id, scopes: Scopes::default() };
    let claim = &ProgressClaim { tracking_id: "ann".into(), issued_at: None };
    let step = StepId::from_store("ws_0".into());
    let ticket = NewTicket { title: "T".into(), problem: "P".into(), context: None };
    rows! {
        Play progress::select(cx, hosting, play, text, SelectOptions::default());
        Play progress::advance(cx, hosting, play, Some(text), None);
        Play progress::advance(cx, hosting, play, None, None);
        Play progress::complete_step(cx, hosting, play, text, step);
        Play progress::reset(cx, hosting, play, text);
        Play progress::move_to_latest(cx, hosting, play, text);
        Play progress::get_status(cx, hosting, play, text);
        Play progress::list(cx, hosting, play);
        Play progress::get_latest_version(cx, hosting, offers, text);
        Play search::rank_offers(cx, hosting, offers, "docker");
        Play joins::join(cx, hosting, server, subject, &Credentials::Nothing);
        Play joins::verify_claim(cx, hosting, server, "ann");
        Play joins::is_claimable(cx, hosting, server, claim);
        Play joins::claim_progress(cx, hosting, server, &t.end_user, claim);
        Play ticket_creation::create(cx, hosting, play, ticket);
        Play ticket_replies::list_replies(cx, hosting, play, text);
    }
}
