//! `kill -9` under load: what was acknowledged is there, and what is there was asked for.

use crate::install::Install;
use crate::load::{Load, User, total};
use crate::program::Program;

const USERS: usize = 32;

async fn nothing_acknowledged_is_lost(install: Install) {
    let mut users: Vec<_> = (0..USERS).map(|n| User::new(&install, n)).collect();
    let mut program = Program::start(&install).await;
    // Killed at moments that have nothing to do with each other: early, in full swing, and once more.
    for advances in [40, 411, 733] {
        let load = Load::start(users, &program.client(), |failure| assert!(failure.is_gone(), "{failure:?}"));
        load.reach(advances).await;
        program.kill().await;
        users = load.finish().await;
        assert!(users.iter().any(|user| user.open), "calls were under way");
        program = Program::start(&install).await;
        let client = program.client();
        for user in &mut users {
            user.compare(&client).await;
        }
    }
    program.stop().await;
    install.check(total(&users)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite() {
    nothing_acknowledged_is_lost(Install::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_postgres), ignore = "needs PostgreSQL")]
async fn postgres() {
    nothing_acknowledged_is_lost(Install::postgres().await).await;
}
