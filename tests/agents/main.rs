//! Real agents and frameworks play the demo walkthrough with a scripted model (`e2e/agents`). Each agent completes the
//! walkthrough. Each is also killed midway and continues at the same step in a new process. The tests measure the
//! model's input and compare it with the table in `docs/clients.md`; with `WAYPOST_TEST_WRITE=1` they write the table
//! instead.

#![expect(clippy::disallowed_methods, reason = "the tests start servers and clients")]
#![expect(clippy::expect_used, reason = "a test cannot continue after a failure")]

mod agent;
mod guidance;
mod model;
mod play;
mod process;
mod server;
mod sign_in;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod support;
mod table;
mod token;

/// Defines the tests of each agent. All agents have the same scenarios.
macro_rules! agents {
    ($($module:ident => $agent:ident;)+) => {
        $(mod $module {
            use crate::agent::$agent as AGENT;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn completes() {
                crate::play::completes(&AGENT).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn continues_with_personal_url() {
                crate::play::continues_with_personal_url(&AGENT).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn continues_with_handle() {
                crate::play::continues_with_handle(&AGENT).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn continues_signed_in() {
                crate::sign_in::continues(&AGENT).await;
            }
        })+

        /// All agents, in the order of the table.
        const ALL: &[&agent::Agent] = &[$(&agent::$agent),+];
    };
}

agents! {
    codex => CODEX;
    gemini_cli => GEMINI_CLI;
    opencode => OPENCODE;
    fastmcp => FASTMCP;
    openai_agents => OPENAI_AGENTS;
    pydantic_ai => PYDANTIC_AI;
    langchain => LANGCHAIN;
    mcp_use => MCP_USE;
    crewai => CREWAI;
    ai_sdk => AI_SDK;
    mastra => MASTRA;
}

/// The table has a row for each agent with its installed version, and no other rows.
#[test]
fn table_lists_all_agents() {
    table::check_rows(ALL);
}
