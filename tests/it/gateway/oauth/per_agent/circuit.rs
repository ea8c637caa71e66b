//! The circuit breaker of a remote server with a connection for each agent.

use super::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_with_the_account_of_one_agent_do_not_affect_others() {
    let stage = Stage::both_connected().await;
    stage.server.state().failing.push("access-1".to_owned());
    for _ in 0..5 {
        assert_eq!(stage.fail(&stage.one.token).await.0, "server_error");
    }
    stage.server.state().failing.clear();
    assert_eq!(stage.fail(&stage.one.token).await.0, "circuit_open");
    assert_eq!(stage.call(&stage.two.token).await, "access-2");
    let failed = ["access-1"; 5].into_iter();
    assert!(stage.server.state().calls.iter().eq(failed.chain(["access-2"])));
    stage.finish().await;
}
