//! Benchmarks Waypost against two references on the same machine: a *floor* (the same HTTP and MCP stack with one
//! constant tool and no store) and a *peer* (the official TypeScript SDK with `pg`). See `benches/README.md`.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

mod activity;
mod analytics;
mod client;
mod cluster;
mod content;
mod contestants;
mod editing;
mod floor;
mod gateway;
mod growth;
mod harness;
mod installation;
mod leg;
mod listing;
mod load;
mod mcp;
mod peer;
mod plan;
mod play;
mod process;
mod report;
mod run;
mod seed;
mod settings;
mod sign_in;
mod single;
mod soak;
mod summary;
mod table;
mod tokens;
mod toolbox;
mod waypost;

// Shared with the tests of toolboxes: the engine, images and the registry.
#[path = "../../tests/toolbox/attach.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod attach;
#[path = "../../tests/toolbox/engine.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod engine;
#[path = "../../tests/toolbox/image.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod image;
#[path = "../../tests/toolbox/leak.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod leak;
#[path = "../../tests/toolbox/registry.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod registry;
mod server_program;
#[path = "../../tests/toolbox/tar.rs"]
mod tar;

/// The parts of the tests that these modules need.
mod support {
    /// The time within which another program must answer.
    pub const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);
}

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Benchmark Waypost against a floor and a peer.
#[derive(Parser)]
#[command(name = "waypost-bench", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run all benchmarks and print a table. The exit code is non-zero only if something failed.
    Run(Box<run::RunArgs>),
    /// Run legitimate users alongside hostile connections of every kind. The exit code is non-zero if a target is missed.
    Soak(soak::SoakArgs),
    /// Measure toolboxes with a real Docker Engine: that of DOCKER_HOST. The exit code is non-zero only if something failed.
    Toolbox(toolbox::ToolboxArgs),
    /// Measure the gateway against direct calls and a bare relay. The exit code is non-zero only if a call fails or returns a
    /// wrong result.
    Gateway(gateway::GatewayArgs),
    /// Run the hostile clients (started by `soak`).
    #[command(hide = true)]
    Hostile(soak::hostile::HostileArgs),
    /// Run the floor server (started by `run`).
    #[command(hide = true)]
    Floor(floor::FloorArgs),
    /// Run the MCP server behind the gateways (started by `gateway`).
    #[command(hide = true)]
    GatewayUpstream(gateway::upstream::UpstreamArgs),
    /// Run the bare relay (started by `gateway`).
    #[command(hide = true)]
    GatewayRelay(gateway::relay::RelayArgs),
    /// Run the load generator of `gateway`, which reads a plan from standard input (started by `gateway`).
    #[command(hide = true)]
    GatewayLoad,
    /// Run the load generator, which reads a plan from standard input (started by `run`).
    #[command(hide = true)]
    Load,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run::main(*args),
        Command::Soak(args) => soak::main(args),
        Command::Toolbox(args) => toolbox::main(args),
        Command::Gateway(args) => gateway::main(args),
        Command::GatewayUpstream(args) => gateway::upstream::main(args),
        Command::GatewayRelay(args) => gateway::relay::main(args),
        Command::GatewayLoad => gateway::load::main(),
        Command::Hostile(args) => soak::hostile::main(args),
        Command::Floor(args) => floor::main(args),
        Command::Load => load::main(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("waypost-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
