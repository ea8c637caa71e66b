//! Sign-ins in the audit log: each success, and a bounded number of failures.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use waypost_core::Result;
use waypost_core::caller::Ctx;
use waypost_core::organization::User;
use waypost_store::{Tx, audit, system};

use super::record_of_user;
use crate::audit::{Entry, event};
use crate::user_sessions::Browser;

/// Failed sign-ins to an account within an hour that have an entry each. Of those after them, the 100th, 1,000th and so on
/// have one, with the count: nobody may delete from the audit log, so nobody may fill it without having signed in.
const RECORDED: i64 = 10;

/// Who signs in from where: the detail of an entry.
fn detail(cx: &Ctx, (browser, by): (Browser<'_>, &'static str)) -> Value {
    json!({
        "by": by,
        "address": browser.address,
        "user_agent": browser.clean_user_agent(),
        "request_id": cx.request_id,
    })
}

/// Records that a user has signed in, in every organisation that the account can access.
pub(super) async fn succeeded(cx: &Ctx, tx: &mut Tx, user: &User, how: (Browser<'_>, &'static str)) -> Result<()> {
    record_of_user(cx, tx, user, ("user.sign_in", detail(cx, how))).await
}

/// Counts that somebody failed to sign in to the accounts of an address, and records it unless there were many within the
/// hour. Costs three statements whatever accounts there are.
pub(super) async fn failed(cx: &Ctx, tx: &mut Tx, email_key: &str, how: (Browser<'_>, &'static str)) -> Result<()> {
    let counts: BTreeMap<_, _> = system::record_failed_sign_in(tx, email_key, cx.now()).await?.into_iter().collect();
    let mut events = Vec::new();
    for (user, organization) in system::list_organizations_by_email(tx, email_key).await? {
        let Some(count) = counts.get(&user).copied().filter(|count| is_recorded(*count)) else { continue };
        let mut detail = detail(cx, how);
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
    fn few_failures_have_an_entry() {
        let recorded: Vec<i64> = (1..=100_000).filter(|count| is_recorded(*count)).collect();
        assert_eq!(recorded, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 100, 1_000, 10_000, 100_000]);
    }
}
