//! Measures Waypost beside two references on the same machine: a *floor* (the same HTTP and MCP stack with one
//! constant tool and no store) and a *peer* (the official TypeScript SDK with `pg`). See `benches/README.md`.

mod analytics;
mod client;
mod cluster;
mod content;
mod contestants;
mod floor;
mod growth;
mod leg;
mod listing;
mod load;
mod mcp;
mod peer;
mod play;
mod process;
mod report;
mod run;
mod seed;
mod single;
mod soak;
mod summary;
mod table;
mod tokens;
mod waypost;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures Waypost beside a floor and a peer.
#[derive(Parser)]
#[command(name = "waypost-bench", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure everything and print a table; the exit code is not zero only when something failed.
    Run(Box<run::RunArgs>),
    /// Let legitimate users work beside hostile connections of every kind; the exit code is not zero when a target is missed.
    Soak(soak::SoakArgs),
    /// The hostile clients (started by `soak`).
    #[command(hide = true)]
    Hostile(soak::hostile::HostileArgs),
    /// The floor as a server of its own (started by `run`).
    #[command(hide = true)]
    Floor(floor::FloorArgs),
    /// The load generator: reads one plan from standard input (started by `run`).
    #[command(hide = true)]
    Load,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run::main(*args),
        Command::Soak(args) => soak::main(args),
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
