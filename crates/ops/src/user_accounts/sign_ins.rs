//! Audit events of sign-ins: every success, and a bounded number of failures.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use waypost_core::Result;
use waypost_core::caller::Ctx;
use waypost_core::organization::User;
use waypost_store::{Tx, audit, system};

use super::record_for_user;
use crate::audit::{Entry, event};
use crate::user_sessions::Browser;

/// The number of failed sign-ins to an account within an hour that are recorded individually. Of the subsequent ones,
/// the 100th, the 1,000th and so on are recorded with the count: audit events are deleted only by retention, and no one
/// must be able to fill the log without signing in.
const RECORDED: i64 = 10;

/// The browser that someone signs in with, and the method.
#[derive(Clone, Copy)]
pub(super) struct SignInOrigin<'a> {
    pub(super) browser: Browser<'a>,
    /// The method.
    pub(super) by: &'static str,
}

/// Returns the detail of an event: the method and the origin of the sign-in.
fn detail(cx: &Ctx, origin: SignInOrigin<'_>) -> Value {
    json!({
        "by": origin.by,
        "address": origin.browser.address,
        "user_agent": origin.browser.clean_user_agent(),
        "request_id": cx.request_id,
    })
}

/// Records a sign-in in every organisation that the account can access.
pub(super) async fn record_success(cx: &Ctx, tx: &mut Tx, user: &User, origin: SignInOrigin<'_>) -> Result<()> {
    record_for_user(cx, tx, user, "user.sign_in", detail(cx, origin)).await
}

/// Counts a failed sign-in to the accounts of an email address, and records it unless there were many within the hour.
/// Costs three statements regardless of the number of accounts.
pub(super) async fn record_failure(cx: &Ctx, tx: &mut Tx, email_key: &str, origin: SignInOrigin<'_>) -> Result<()> {
    let counts: BTreeMap<_, _> = system::record_failed_sign_in(tx, email_key, cx.now()).await?.into_iter().collect();
    let mut events = Vec::new();
    for (user, organization) in system::list_organizations_by_email(tx, email_key).await? {
        let Some(count) = counts.get(&user).copied().filter(|count| is_recorded(*count)) else { continue };
        let mut detail = detail(cx, origin);
        detail["failures_within_an_hour"] = count.into();
        let entry = Entry { action: "user.sign_in_failed", target: user.as_str(), detail };
        events.push(event(cx, &organization, entry));
    }
    Ok(audit::insert_all(tx, &events).await?)
}

fn is_recorded(count: i64) -> bool {
    let is_power_of_ten = |mut count: i64| {
        while count > 1 && count % 10 == 0 {
            count /= 10;
        }
        count == 1
    };
    count <= RECORDED || is_power_of_ten(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_number_of_failures_is_recorded() {
        let recorded: Vec<i64> = (1..=100_000).filter(|count| is_recorded(*count)).collect();
        assert_eq!(recorded, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 100, 1_000, 10_000, 100_000]);
    }
}
