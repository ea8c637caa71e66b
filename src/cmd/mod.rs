//! The command line: one file per command.

mod assignment;
mod audit;
mod backup;
mod doctor;
mod join;
mod key;
mod migrate;
mod oauth_config;
mod org;
mod output;
mod remote;
mod secret;
mod serve;
mod server;
mod session;
mod user;
mod walk;
mod walkthrough;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use waypost_core::seal::SecretText;

use crate::config::{self, Settings, Sources};
use crate::storage::{self, MigrationPolicy, StoreHandle};
use crate::telemetry::{self, LogProfile};
use session::Session;

/// The platform for MCP: guided walkthroughs hosted as MCP servers, progress that is never lost.
#[derive(Debug, Parser)]
#[command(name = "waypost", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Settings come from flags, then the environment (WAYPOST_…), then the file of --config; docs/config.md lists them.
Exit codes: 0 success, 1 failure, 2 wrong usage.";

/// Flags that every command has.
#[derive(Debug, clap::Args)]
struct Global {
    /// TOML file with settings.
    #[arg(long, value_name = "FILE", global = true, help_heading = "Everywhere")]
    config: Option<PathBuf>,
    /// Database, sqlite://PATH or postgres://…
    #[arg(long, value_name = "URL", global = true, help_heading = "Everywhere")]
    database: Option<String>,
    /// Folder for files, the default database among them.
    #[arg(long, value_name = "DIR", global = true, help_heading = "Everywhere")]
    data_dir: Option<String>,
    /// Works on a running installation through its REST API, at this address [env: WAYPOST_URL].
    #[arg(long = "url", value_name = "URL", global = true, help_heading = "Everywhere")]
    remote: Option<String>,
    /// API key for --url; `-` reads it from standard input. Better set it as WAYPOST_API_KEY: others on the machine can see
    /// flags.
    #[arg(long, value_name = "KEY", global = true, help_heading = "Everywhere", value_parser = secret_text)]
    api_key: Option<SecretText>,
    /// Prints data as JSON: an object, or {"items": […]}.
    #[arg(long, global = true, help_heading = "Everywhere")]
    json: bool,
    /// Refuses to work with a database that is not up to date, instead of migrating it.
    #[arg(long, global = true, help_heading = "Everywhere")]
    no_migrate: bool,
    /// Tells more: the causes of an error, and the log down to `debug`.
    #[arg(short, long, global = true, help_heading = "Everywhere")]
    verbose: bool,
}

fn secret_text(text: &str) -> Result<SecretText, std::convert::Infallible> {
    Ok(SecretText::new(text))
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs everything: the hosted MCP servers, metrics and health.
    Serve(serve::Args),
    /// Plays a walkthrough in the terminal, from any MCP server.
    Walk(walk::Args),
    /// Walkthroughs: import, export, lint, publish.
    #[command(subcommand)]
    Walkthrough(walkthrough::Command),
    /// Organisations.
    #[command(subcommand)]
    Org(org::Command),
    /// The people who operate an organisation.
    #[command(subcommand)]
    User(user::Command),
    /// Hosted MCP servers.
    #[command(subcommand)]
    Server(server::Command),
    /// Identity providers that sign end users in.
    #[command(subcommand)]
    OauthConfig(oauth_config::Command),
    /// API keys.
    #[command(subcommand)]
    Key(key::Command),
    /// Who did what in an organisation.
    #[command(subcommand)]
    Audit(audit::Command),
    /// What end users did before they had signed in, and whose it became.
    #[command(subcommand)]
    Join(join::Command),
    /// Walkthroughs on servers.
    #[command(subcommand)]
    Assignment(assignment::Command),
    /// Brings the database up to date.
    Migrate(migrate::Args),
    /// Looks at everything that an installation needs, and says what to do.
    Doctor,
    /// The secret key of this installation.
    #[command(subcommand)]
    Secret(secret::Command),
    /// Writes everything in the database to a file, while it is in use.
    Backup(backup::BackupArgs),
    /// Reads a backup into a new database.
    Restore(backup::RestoreArgs),
}

/// Wrong usage that the argument parser cannot see: exits with 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// What every command gets.
#[derive(Debug)]
pub struct App {
    /// The configuration.
    pub settings: Settings,
    /// Whether data is printed as JSON.
    pub json: bool,
    /// What to do with pending migrations.
    pub migration_policy: MigrationPolicy,
}

impl App {
    /// Opens the store, up to date.
    ///
    /// # Errors
    /// As [`storage::open`].
    pub async fn open(&self) -> anyhow::Result<StoreHandle> {
        storage::open(&self.settings, self.migration_policy).await
    }
}

/// The program: reads the command line, does the command, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors; clap knows which goes where, and that misuse is 2.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let verbose = cli.global.verbose;
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(cli)));
    match outcome {
        Ok(code) => code,
        Err(error) => report(&error, verbose),
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let address = remote::find(&cli.global, &cli.command)?;
    let mut flags = Vec::new();
    flags.extend(cli.global.database.map(|url| ("database_url", url)));
    flags.extend(cli.global.data_dir.map(|folder| ("data_dir", folder)));
    if let Command::Serve(args) = &cli.command {
        args.settings(&mut flags);
    }
    let sources = Sources { file: cli.global.config, environment: std::env::vars_os().collect(), flags };
    let settings = Settings::load(&sources)?;
    let program = match (&cli.command, cli.global.verbose) {
        (_, true) => LogProfile::Verbose,
        (Command::Serve(_), false) => LogProfile::Serve,
        (_, false) => LogProfile::Command,
    };
    telemetry::start_log(&settings, program)?;
    let migration_policy = if cli.global.no_migrate { MigrationPolicy::Refuse } else { MigrationPolicy::Apply };
    let app = App { settings, json: cli.global.json, migration_policy };
    if let Some(address) = address {
        return remote::run(&app, address, cli.command).await;
    }
    match cli.command {
        Command::Serve(args) => serve::run(app, args).await?,
        Command::Walk(args) => return Ok(walk::run(args).await),
        Command::Walkthrough(command) => walkthrough::run(&app, command).await?,
        Command::Org(command) => Session::run(&app, async |session| org::run(session, command).await).await?,
        Command::User(command) => Session::run(&app, async |session| user::run(session, command).await).await?,
        Command::Server(command) => Session::run(&app, async |session| server::run(session, command).await).await?,
        Command::OauthConfig(command) => {
            return Session::run(&app, async |session| oauth_config::run(&app, session, command).await).await;
        }
        Command::Secret(command) => return secret::run(&app, command).await,
        Command::Key(command) => Session::run(&app, async |session| key::run(session, command).await).await?,
        Command::Audit(command) => Session::run(&app, async |session| audit::run(session, command).await).await?,
        Command::Join(command) => Session::run(&app, async |session| join::run(&app, session, command).await).await?,
        Command::Assignment(command) => {
            Session::run(&app, async |session| assignment::run(session, command).await).await?;
        }
        Command::Migrate(args) => migrate::run(&app, args).await?,
        Command::Doctor => return doctor::run(&app).await,
        Command::Backup(args) => backup::backup(&app, args).await?,
        Command::Restore(args) => backup::restore(&app, args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what went wrong in one line, with the causes behind it when they are asked for.
fn report(error: &anyhow::Error, verbose: bool) -> ExitCode {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    if io.is_some_and(|io| io.kind() == ErrorKind::BrokenPipe) {
        // Whoever closed the pipe has seen enough.
        return ExitCode::FAILURE;
    }
    let mut causes: Vec<_> = error.chain().skip(1).map(|cause| one_line(&cause.to_string())).collect();
    let mut message = one_line(&error.to_string());
    // What the operating system says is short and tells most; the database's words are for whoever asks.
    if io.is_some() && causes.len() == 1 {
        let cause = causes.remove(0);
        if !message.contains(&cause) {
            message = format!("{message} ({})", cause.split(" (os error").next().unwrap_or_default());
        }
    }
    eprintln!("error: {message}");
    if verbose {
        causes.iter().for_each(|cause| eprintln!("  because: {cause}"));
    } else if !causes.is_empty() {
        eprintln!("(-v tells the cause)");
    }
    let usage = error.is::<UsageError>() || error.downcast_ref::<config::Error>().is_some_and(config::Error::is_usage);
    ExitCode::from(if usage { 2 } else { 1 })
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
