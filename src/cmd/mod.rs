//! The command line: one file per command.

mod agent;
mod agent_secret;
mod approval;
mod assignment;
mod audit;
mod backup;
mod call;
mod catalog;
mod doctor;
mod expiry;
mod gateway;
mod grant;
mod instance;
mod join;
mod key;
mod migrate;
mod oauth_config;
mod org;
mod output;
mod remote;
mod secret;
mod secret_key;
mod serve;
mod server;
mod session;
mod token_file;
mod tool_set;
mod toolbox;
mod user;
mod walk;
mod walkthrough;

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use waypost_core::seal::SecretText;

use crate::config::{self, Settings, Sources};
use crate::outbound;
use crate::storage::{self, MigrationPolicy, StoreHandle};
use crate::telemetry::{self, LogProfile};
use session::Session;
use toolbox::machine::{self, Machine};

/// Host MCP servers that guide users step by step through walkthroughs.
#[derive(Debug, Parser)]
#[command(name = "waypost", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// The ID and the name of the option for the configuration file.
const CONFIG: &str = "config";

const AFTER_HELP: &str = "\
Settings are read from flags, then environment variables (WAYPOST_…), then the --config file; see docs/config.md.
Exit codes: 0 success, 1 failure, 2 incorrect usage.";

/// Global options.
#[derive(Debug, clap::Args)]
struct Global {
    /// TOML configuration file.
    #[arg(long, value_name = "FILE", global = true, help_heading = "Global options")]
    config: Option<PathBuf>,
    /// Database URL: sqlite://PATH or postgres://…
    #[arg(long, value_name = "URL", global = true, help_heading = "Global options")]
    database: Option<String>,
    /// Data directory, which contains the default database.
    #[arg(long, value_name = "DIR", global = true, help_heading = "Global options")]
    data_dir: Option<String>,
    /// Use the REST API of the running installation at this URL instead of a database [env: WAYPOST_URL].
    #[arg(long = "url", value_name = "URL", global = true, help_heading = "Global options")]
    remote: Option<String>,
    /// API key for --url; `-` reads it from standard input. Prefer WAYPOST_API_KEY: other users of the machine can see flags.
    #[arg(long, value_name = "KEY", global = true, help_heading = "Global options", value_parser = secret_text)]
    api_key: Option<SecretText>,
    /// Print data as JSON: an object, or {"items": […]}.
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
    /// Fail if the database has pending migrations, instead of applying them.
    #[arg(long, global = true, help_heading = "Global options")]
    no_migrate: bool,
    /// Show the causes of errors, and log at level `debug`.
    #[arg(short, long, global = true, help_heading = "Global options")]
    verbose: bool,
}

fn secret_text(text: &str) -> Result<SecretText, std::convert::Infallible> {
    Ok(SecretText::new(text))
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything: MCP servers, console, API, metrics and health.
    Serve(serve::Args),
    /// Play a walkthrough from any MCP server in the terminal.
    Walk(walk::Args),
    /// Import, export, lint, publish and manage walkthroughs.
    #[command(subcommand)]
    Walkthrough(walkthrough::Command),
    /// Manage organisations.
    #[command(subcommand)]
    Org(org::Command),
    /// Manage the users of an organisation.
    #[command(subcommand)]
    User(user::Command),
    /// Manage hosted MCP servers.
    #[command(subcommand)]
    Server(server::Command),
    /// Manage identity providers with which end users sign in.
    #[command(subcommand)]
    OauthConfig(oauth_config::Command),
    /// Manage API keys.
    #[command(subcommand)]
    Key(key::Command),
    /// Show the audit log of an organisation.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Manage joins of anonymous progress with signed-in end users.
    #[command(subcommand)]
    Join(join::Command),
    /// Assign walkthroughs to servers.
    #[command(subcommand)]
    Assignment(assignment::Command),
    /// Manage the catalogue of tool servers.
    #[command(subcommand)]
    Catalog(catalog::Command),
    /// Manage the secrets of tool servers.
    #[command(subcommand)]
    Secret(secret::Command),
    /// Manage toolboxes, the machines that run tool servers, and run the daemon of such a machine.
    #[command(subcommand)]
    Toolbox(toolbox::Command),
    /// Deploy, use and manage tool servers.
    #[command(subcommand)]
    Instance(instance::Command),
    /// Approve what tool servers define, before agents can use it.
    #[command(subcommand)]
    Approval(approval::Command),
    /// Manage agents, the AI clients of an organisation, and their tokens.
    #[command(subcommand)]
    Agent(agent::Command),
    /// Manage what agents may use of instances.
    #[command(subcommand)]
    Grant(grant::Command),
    /// Manage tool sets, each with its own gateway URL.
    #[command(subcommand)]
    ToolSet(tool_set::Command),
    /// Show the gateway's call log.
    #[command(subcommand)]
    Call(call::Command),
    /// Use the gateway on the machine of an agent.
    #[command(subcommand)]
    Gateway(gateway::Command),
    /// Apply pending database migrations.
    Migrate(migrate::Args),
    /// Check the installation and suggest fixes.
    Doctor,
    /// Manage the secret key of this installation.
    #[command(subcommand)]
    SecretKey(secret_key::Command),
    /// Back up the database to a file, while it is in use.
    Backup(backup::BackupArgs),
    /// Restore a backup into a new database.
    Restore(backup::RestoreArgs),
}

/// Incorrect usage that the argument parser does not detect. The exit code is 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The context of a command.
#[derive(Debug)]
pub struct App {
    /// The settings.
    pub settings: Settings,
    /// Whether data is printed as JSON.
    pub json: bool,
    /// The handling of pending migrations.
    pub migration_policy: MigrationPolicy,
}

impl App {
    /// Opens the store and applies pending migrations.
    ///
    /// # Errors
    /// See [`storage::open`].
    pub async fn open(&self) -> anyhow::Result<StoreHandle> {
        storage::open(&self.settings, self.migration_policy).await
    }
}

/// Parses the command line, runs the command and reports errors.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Also covers help and version. clap selects the output stream and the exit code.
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

/// Returns the definition of the command line. Like the other global options, `--config` is an option of every command.
/// Some commands have an option of this name for another file: there, the global option must be passed before the noun.
fn command_line() -> clap::Command {
    let command = Cli::command().mut_arg(CONFIG, |config| config.global(false));
    let config = command.get_arguments().find(|argument| argument.get_id() == CONFIG).cloned();
    match config {
        Some(config) => command.mut_subcommands(|subcommand| with_config(subcommand, &config)),
        None => command,
    }
}

fn with_config(command: clap::Command, config: &clap::Arg) -> clap::Command {
    let has_own = command.get_arguments().any(|argument| argument.get_long() == Some(CONFIG));
    let command = if has_own { command } else { command.arg(config.clone()) };
    command.mut_subcommands(|subcommand| with_config(subcommand, config))
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = command_line();
    let matches = command.try_get_matches_from_mut(arguments)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let mut current = &matches;
    while let Some((_, next)) = current.subcommand() {
        if let Ok(Some(file)) = next.try_get_one::<PathBuf>(CONFIG) {
            cli.global.config = Some(file.clone());
        }
        current = next;
    }
    Ok(cli)
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // These commands connect to an installation without its REST API.
    let is_on_machine = matches!(cli.command, Command::Gateway(_) | Command::Toolbox(toolbox::Command::Machine(_)));
    let endpoint = if is_on_machine { None } else { remote::find(&cli.global, &cli.command)? };
    let (url, data_dir) = (cli.global.remote, cli.global.data_dir.clone());
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
        (Command::Toolbox(command), false) if command.is_daemon() => LogProfile::Serve,
        (_, false) => LogProfile::Command,
    };
    telemetry::start_log(&settings, program)?;
    let migration_policy = if cli.global.no_migrate { MigrationPolicy::Refuse } else { MigrationPolicy::Apply };
    let app = App { settings, json: cli.global.json, migration_policy };
    if let Some(endpoint) = endpoint {
        return remote::run(&app, endpoint, cli.command).await;
    }
    match cli.command {
        Command::Serve(args) => serve::run(app, args).await?,
        Command::Walk(args) => return Ok(walk::run(args).await),
        Command::Walkthrough(command) => walkthrough::run(&app, command).await?,
        Command::Org(command) => Session::run(&app, async |session| org::run(session, command).await).await?,
        Command::User(command) => Session::run(&app, async |session| user::run(&app, session, command).await).await?,
        Command::Server(command) => Session::run(&app, async |session| server::run(session, command).await).await?,
        Command::OauthConfig(command) => {
            return Session::run(&app, async |session| oauth_config::run(&app, session, command).await).await;
        }
        Command::SecretKey(command) => return secret_key::run(&app, command).await,
        Command::Key(command) => Session::run(&app, async |session| key::run(session, command).await).await?,
        Command::Audit(command) => Session::run(&app, async |session| audit::run(session, command).await).await?,
        Command::Join(command) => Session::run(&app, async |session| join::run(&app, session, command).await).await?,
        Command::Assignment(command) => {
            Session::run(&app, async |session| assignment::run(session, command).await).await?;
        }
        Command::Catalog(command) => {
            Session::run(&app, async |session| catalog::run(&app, session, command).await).await?;
        }
        Command::Secret(command) => {
            Session::run(&app, async |session| secret::run(&app, session, command).await).await?
        }
        Command::Toolbox(toolbox::Command::Machine(command)) => {
            let ca_pem = outbound::policy(&app.settings, false)?.extra_roots_pem;
            machine::run(Machine { url, data_dir, json: app.json, ca_pem }, command).await?;
        }
        Command::Toolbox(toolbox::Command::Operator(command)) => {
            Session::run(&app, async |session| toolbox::run(session, command).await).await?;
        }
        Command::Instance(command) if command.needs_link() => {
            let organization = command.organization().map(str::to_owned);
            let remote = remote::RemoteSession::connect_as_operator(&app, organization.as_deref()).await?;
            remote::instance::run(&remote, command).await?;
        }
        Command::Approval(command) => {
            let remote = remote::RemoteSession::connect_as_operator(&app, command.organization()).await?;
            remote::approval::run(&remote, command).await?;
        }
        Command::Instance(command) => {
            Session::run(&app, async |session| instance::run(&app, session, command).await).await?;
        }
        Command::Agent(command) => Session::run(&app, async |session| agent::run(&app, session, command).await).await?,
        Command::Grant(command) => Session::run(&app, async |session| grant::run(session, command).await).await?,
        Command::ToolSet(command) => Session::run(&app, async |session| tool_set::run(session, command).await).await?,
        Command::Call(command) => Session::run(&app, async |session| call::run(&app, session, command).await).await?,
        Command::Gateway(command) => {
            let ca_pem = outbound::policy(&app.settings, false)?.extra_roots_pem;
            gateway::run(command, url, ca_pem.as_deref()).await?;
        }
        Command::Migrate(args) => migrate::run(&app, args).await?,
        Command::Doctor => return doctor::run(&app).await,
        Command::Backup(args) => backup::backup(&app, args).await?,
        Command::Restore(args) => backup::restore(&app, args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the error on one line, followed by its causes if `verbose` is set.
fn report(error: &anyhow::Error, verbose: bool) -> ExitCode {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    if io.is_some_and(|io| io.kind() == ErrorKind::BrokenPipe) {
        // The reader closed the pipe.
        return ExitCode::FAILURE;
    }
    let mut causes: Vec<_> = error.chain().skip(1).map(|cause| one_line(&cause.to_string())).collect();
    let mut message = one_line(&error.to_string());
    // The message of the operating system is short and useful. Messages of the database are shown only with -v.
    if io.is_some() && causes.len() == 1 {
        let cause = causes.remove(0);
        if !message.contains(&cause) {
            message = format!("{message} ({})", cause.split(" (os error").next().unwrap_or_default());
        }
    }
    eprintln!("error: {message}");
    if verbose {
        causes.iter().for_each(|cause| eprintln!("  caused by: {cause}"));
    } else if !causes.is_empty() {
        eprintln!("(use -v to show the cause)");
    }
    let usage =
        error.is::<UsageError>() || error.downcast_ref::<config::Error>().is_some_and(config::Error::is_usage_error);
    ExitCode::from(if usage { 2 } else { 1 })
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command_line().debug_assert();
    }

    #[test]
    fn the_configuration_file_can_be_given_anywhere() {
        let config = |arguments: &[&str]| {
            let arguments = ["waypost"].iter().chain(arguments).map(OsString::from);
            parse(arguments).unwrap().global.config.map(|path| path.to_str().unwrap().to_owned())
        };
        let settings = Some("w.toml".to_owned());
        assert_eq!(config(&["doctor"]), None);
        assert_eq!(config(&["--config", "w.toml", "doctor"]), settings);
        assert_eq!(config(&["doctor", "--config", "w.toml"]), settings);
        assert_eq!(config(&["org", "--config", "w.toml", "list"]), settings);
        assert_eq!(config(&["org", "list", "--config=w.toml"]), settings);
        let create = ["instance", "create", "a", "--entry", "b", "--config", "c.json"];
        assert_eq!(config(&create), None, "the configuration of an instance is another file");
        assert_eq!(config(&[&["--config", "w.toml"], &create[..]].concat()), settings);
        assert_eq!(config(&["instance", "update", "a", "--config", "c.json"]), None);
    }
}
