//! Everything that is sealed, when the secret key changes.

use waypost_core::Result;
use waypost_core::access::authorize_operator;
use waypost_core::caller::Ctx;
use waypost_core::seal::{Keyring, SealLocation};
use waypost_store::sealed as store;

use crate::Ops;

/// Rows that are read at once.
const AT_ONCE: i64 = 500;

/// What a pass over everything that is sealed did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResealSummary {
    /// Texts that are sealed with the current key now and were not before.
    pub resealed: u64,
    /// Texts that neither key opens; they stay as they are.
    pub unreadable: u64,
}

/// Seals everything with the current key that the previous one opens, in one transaction.
///
/// # Errors
/// `forbidden` for everybody but the operator; when the store fails: then nothing has changed.
pub async fn reseal(cx: &Ctx, ops: &Ops, keyring: &Keyring) -> Result<ResealSummary> {
    authorize_operator(&cx.caller)?;
    let (current, _) = keyring.prefixes();
    let mut done = ResealSummary::default();
    let mut tx = ops.db.begin().await?;
    for column in store::COLUMNS {
        let mut after = String::new();
        loop {
            let rows = store::list_outdated(&mut tx, column, (&after, &current), AT_ONCE).await?;
            let Some((last, _)) = rows.last() else { break };
            after.clone_from(last);
            for (row, old) in rows {
                let place = SealLocation { table: column.label, column: column.column, row: &row };
                match keyring.open(&place, &old) {
                    Ok(text) => {
                        let new = keyring.seal(&place, &text, &*cx.random);
                        // A row that was written meanwhile was sealed by whoever wrote it.
                        done.resealed += u64::from(store::replace(&mut tx, column, &row, (&old, &new)).await?);
                    }
                    Err(_) => done.unreadable += 1,
                }
            }
        }
    }
    tx.commit().await?;
    Ok(done)
}

/// How many texts are sealed with a key that is neither the current nor the previous one.
///
/// # Errors
/// When the store fails.
pub async fn count_unreadable(ops: &Ops, keyring: &Keyring) -> Result<u64> {
    let (current, previous) = keyring.prefixes();
    let mut conn = ops.db.read().await?;
    let mut count = 0;
    for column in store::COLUMNS {
        count += store::count_unreadable(&mut conn, column, (&current, &previous)).await?;
    }
    Ok(u64::try_from(count).unwrap_or_default())
}
