//! `kill -9` under load: acknowledged steps are stored, and only requested steps are stored.

use crate::installation::Installation;
use crate::load::{Load, LoadUser, total_acknowledged};
use crate::program::ServeProcess;

const USERS: usize = 32;

async fn assert_nothing_acknowledged_is_lost(installation: Installation) {
    let mut users: Vec<_> = (0..USERS).map(|n| LoadUser::new(&installation, n)).collect();
    let mut program = ServeProcess::start(&installation).await;
    // Kills the program at arbitrary moments.
    for advances in [40, 411, 733] {
        let load = Load::start(users, &program.client(), |failure| assert!(failure.is_gone(), "{failure:?}"));
        load.wait_for(advances).await;
        program.kill().await;
        users = load.finish().await;
        assert!(users.iter().any(|user| user.is_pending), "calls were in progress");
        program = ServeProcess::start(&installation).await;
        let client = program.client();
        for user in &mut users {
            user.compare_with_stored(&client).await;
        }
    }
    program.stop().await;
    installation.check(total_acknowledged(&users)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_steps_survive_kill_on_sqlite() {
    assert_nothing_acknowledged_is_lost(Installation::sqlite().await).await;
}

waypost_testkit::needs_postgres! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn acknowledged_steps_survive_kill_on_postgres() {
        assert_nothing_acknowledged_is_lost(Installation::postgres().await).await;
    }
}
