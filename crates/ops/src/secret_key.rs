//! Resealing of all sealed values when the secret key changes.

use waypost_core::Result;
use waypost_core::access::authorize_operator;
use waypost_core::caller::Ctx;
use waypost_core::seal::{Keyring, SealLocation};
use waypost_store::sealed as store;

use crate::Ops;

/// The number of rows that are read in one query.
const BATCH_SIZE: i64 = 500;

/// The result of resealing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResealSummary {
    /// The number of values that were resealed with the current key.
    pub resealed: u64,
    /// The number of values that neither key can decrypt. They are unchanged.
    pub unreadable: u64,
}

/// Decrypts all values that are sealed with the previous key and seals them with the current one, in one transaction.
///
/// # Errors
/// `forbidden` for everyone except the operator; any error of the store, in which case nothing has changed.
pub async fn reseal(cx: &Ctx, ops: &Ops, keyring: &Keyring) -> Result<ResealSummary> {
    authorize_operator(&cx.caller)?;
    let (current, _) = keyring.prefixes();
    let mut done = ResealSummary::default();
    let mut tx = ops.store.begin().await?;
    for column in store::COLUMNS {
        let mut after = String::new();
        loop {
            let rows = store::list_outdated(&mut tx, column, &after, &current, BATCH_SIZE).await?;
            let Some((last, _)) = rows.last() else { break };
            after.clone_from(last);
            for (row, old) in rows {
                let place = SealLocation { table: column.label, column: column.column, row: &row };
                match keyring.open(&place, &old) {
                    Ok(text) => {
                        let new = keyring.seal(&place, &text, &*cx.random);
                        // A row that was written in the meantime is already sealed with the current key.
                        done.resealed += u64::from(store::replace(&mut tx, column, &row, &old, &new).await?);
                    }
                    Err(_) => done.unreadable += 1,
                }
            }
        }
    }
    tx.commit().await?;
    Ok(done)
}

/// Returns the number of values that are sealed with neither the current nor the previous key.
///
/// # Errors
/// Any error of the store.
pub async fn count_unreadable(ops: &Ops, keyring: &Keyring) -> Result<u64> {
    let (current, previous) = keyring.prefixes();
    let mut conn = ops.store.read().await?;
    let mut count = 0;
    for column in store::COLUMNS {
        count += store::count_unreadable(&mut conn, column, &current, &previous).await?;
    }
    Ok(u64::try_from(count).unwrap_or_default())
}
