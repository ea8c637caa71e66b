//! Measures the cost of sign-in: the same content on a server without authentication and on a server whose users sign
//! in.

use anyhow::Result;

use crate::contestants::Kind;
use crate::harness::{Bench, print_progress, seed_copy};
use crate::leg::Load;
use crate::mcp::Era;
use crate::plan::Limit;
use crate::seed::SeedData;
use crate::tokens::Tokens;
use crate::waypost::Installation;

/// Names of the two copies of an installation: without and with sign-in.
pub const NAMES: [&str; 2] = ["open", "signed_in"];

/// Measures advances without and with tokens, alternately. Each copy of the installation has a separate server.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    for (kind, copies) in bench.pairs.clone() {
        print_progress(&format!("signing in users of {}", kind.name()));
        let first = bench.contestants.len();
        serve(bench, kind, &copies).await?;
        let limit = Limit::Seconds(bench.settings.seconds);
        for index in [first, first + 1] {
            bench.run_leg(index, Load::next(Era::Modern, 64, limit), "warm-up", 0).await?;
        }
        for round in 1..=bench.settings.rounds {
            // The order alternates between rounds, because the load on the machine can change during a round.
            let last = usize::try_from(round % 2)?;
            for offset in [1 - last, last] {
                bench.run_leg(first + offset, Load::next(Era::Modern, 64, limit), "token", round).await?;
            }
        }
        for contestant in bench.contestants.split_off(first) {
            contestant.server.stop().await?;
        }
    }
    Ok(())
}

/// Starts a server for each copy. Both have the same users with tokens, so that only the server's `auth_type` differs.
async fn serve(bench: &mut Bench, kind: Kind, [open, signed_in]: &[Installation; 2]) -> Result<()> {
    let tokens = Tokens::new(&bench.driver.run, bench.settings.token_users * (bench.settings.rounds + 1));
    // Must come first, because changing the authentication type revokes existing OAuth grants.
    signed_in.require_sign_in().await?;
    for installation in [open, signed_in] {
        seed_copy(bench, installation, SeedData::SignedInUsers(&tokens)).await?;
    }
    for installation in [open, signed_in] {
        bench.serve(kind, installation).await?;
    }
    if let Some(contestant) = bench.contestants.last_mut() {
        contestant.sign_in(tokens);
    }
    Ok(())
}
