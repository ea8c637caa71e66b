//! `waypost toolbox`: machines that run tool servers.

pub mod machine;

/// Subcommands of `waypost toolbox`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    #[command(flatten)]
    Machine(machine::Command),
}

impl Command {
    /// Whether the command is the daemon, which runs until it is stopped.
    pub(super) fn is_daemon(&self) -> bool {
        matches!(self, Self::Machine(machine::Command::Run(_)))
    }
}
