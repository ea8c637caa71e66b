//! Every call has exactly one outcome in any interleaving of calls, answers, cancellations and restarts.

use std::collections::HashSet;

use futures::future::join_all;
use proptest::prelude::*;

use super::*;

/// The server's reaction to a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reaction {
    Answer,
    AnswerTwice,
    AnswerAnotherFirst,
    WrongId,
    Ignore,
    Noise,
    Progress,
    Exit,
}

fn reaction() -> impl Strategy<Value = Reaction> {
    prop_oneof![
        6 => Just(Reaction::Answer),
        1 => Just(Reaction::AnswerTwice),
        2 => Just(Reaction::AnswerAnotherFirst),
        1 => Just(Reaction::WrongId),
        1 => Just(Reaction::Ignore),
        1 => Just(Reaction::Noise),
        1 => Just(Reaction::Progress),
        1 => Just(Reaction::Exit),
    ]
}

/// The behaviour of a caller.
#[derive(Debug, Clone, Copy)]
struct Caller {
    /// The delay before the call in milliseconds.
    delay: u64,
    /// The time after which the caller drops the call.
    patience: u64,
    timeout: u64,
}

fn caller() -> impl Strategy<Value = Caller> {
    (0..50_u64, 1..200_u64, 1..200_u64).prop_map(|(delay, patience, timeout)| Caller { delay, patience, timeout })
}

/// Runs a server that reacts to the calls one after another, and records the request IDs.
async fn run_server(mut server: Server, reactions: Vec<Reaction>, ids: Arc<Mutex<Vec<u64>>>) {
    let mut reactions = reactions.into_iter();
    let mut postponed: Vec<Value> = Vec::new();
    while let Some(line) = server.read_line().await {
        let request: Value = serde_json::from_str(&line).unwrap();
        let Some(id) = request["id"].as_u64() else { continue };
        ids.lock().unwrap().push(id);
        if request["method"] != "tools/call" {
            server.write(&legacy(&request).unwrap());
            continue;
        }
        // The answer contains the text of the call, so that an answer to another call is detected.
        let answer = result(&request, request["params"]["arguments"]["text"].clone());
        match reactions.next().unwrap_or(Reaction::Answer) {
            Reaction::Answer => server.write(&answer),
            Reaction::AnswerTwice => (0..2).for_each(|_| server.write(&answer)),
            Reaction::AnswerAnotherFirst => {
                postponed.push(answer);
                continue;
            }
            Reaction::WrongId => server.write(&json!({ "jsonrpc": "2.0", "id": id + 1_000, "result": "wrong" })),
            Reaction::Ignore => {}
            Reaction::Noise => {
                server.write_raw(b"noise {\n[1,\n");
                server.write(&answer);
            }
            Reaction::Progress => {
                let params = json!({ "progressToken": id, "progress": 1 });
                server.write(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params }));
                server.write(&answer);
            }
            Reaction::Exit => return,
        }
        postponed.drain(..).for_each(|answer| server.write(&answer));
    }
}

async fn run_caller(session: Arc<Session>, number: usize, caller: Caller) {
    tokio::time::sleep(Duration::from_millis(caller.delay)).await;
    let text = format!("call {number}");
    // All callers use the same ID.
    let collected = collect(&session, call("id", &text), Duration::from_millis(caller.timeout));
    let Ok((messages, failure)) = tokio::time::timeout(Duration::from_millis(caller.patience), collected).await else {
        return;
    };
    match failure {
        None => assert_eq!(messages, [json!({ "jsonrpc": "2.0", "id": "id", "result": text })]),
        Some(failure) => {
            assert_eq!(messages, Vec::<Value>::new());
            assert!(matches!(failure.status, 502 | 504), "{failure}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_call_has_one_outcome_and_no_id_is_used_twice(
        runs in prop::collection::vec(
            (prop::collection::vec(reaction(), 0..12), prop::collection::vec(caller(), 1..12)), 1..4,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new();
            let ids: Arc<Mutex<Vec<u64>>> = Arc::default();
            // Each run restarts the daemon with the same container.
            for (reactions, callers) in runs {
                let (attached, fake) = server();
                let running = crate::tasks::spawn("server", run_server(fake, reactions, ids.clone()));
                let session = fixture.connect(attached).await.unwrap();
                let callers = (0..).zip(callers).map(|(number, caller)| run_caller(session.clone(), number, caller));
                tokio::time::timeout(Duration::from_secs(10), join_all(callers)).await.expect("every call ends");
                drop(session);
                assert!(running.await.unwrap().is_some(), "the server does not panic");
            }
            let ids = ids.lock().unwrap();
            let unique: HashSet<_> = ids.iter().collect();
            assert_eq!(unique.len(), ids.len(), "{ids:?}");
        });
    }
}
