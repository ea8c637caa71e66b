//! `waypost toolbox join`, `run` and `status`: the commands that run on the machine of a toolbox. They use no database.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use ipnet::{IpNet, Ipv4Net};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use waypost_core::{Clock, SystemClock};
use waypost_toolbox::daemon::{self, DaemonOptions};
use waypost_toolbox::diagnostics::Diagnostics;
use waypost_toolbox::files;
use waypost_toolbox::identity::Identity;
use waypost_toolbox::join::{Join, join};
use waypost_toolbox::link::Status;

use super::diagnostics::DiagnosticsSocket;
use crate::cmd::serve::stop_on_signal;
use crate::cmd::token_file::read_token;
use crate::cmd::{UsageError, output};
use crate::connections::Shutdown;
use crate::lock::{self, LockAttempt};

/// The default of `--data-dir`.
const DATA_DIR: &str = "./waypost-toolbox";
/// The environment variable with the token, if `--token-file` is not used.
const TOKEN: &str = "WAYPOST_TOOLBOX_TOKEN";
/// The file with the state of the link, for `status`.
const STATUS_FILE: &str = "status.json";

/// The subcommands that run on the machine.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Join this machine with the token of a new toolbox.
    ///
    /// `--url` is the URL of the installation, and `--data-dir` the folder for the daemon's key [default:
    /// ./waypost-toolbox].
    Join {
        /// File with the token; `-` reads it from standard input. Without it, WAYPOST_TOOLBOX_TOKEN contains the token.
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
    },
    /// Run the daemon, which keeps the tool servers of this toolbox running in containers.
    ///
    /// `--data-dir` is the folder in which the machine has joined [default: ./waypost-toolbox]. On SIGTERM, the daemon stops,
    /// and containers keep running.
    Run(RunArgs),
    /// Show the toolbox of this machine, and whether its daemon is connected.
    ///
    /// `--data-dir` is the folder in which the machine has joined [default: ./waypost-toolbox].
    Status,
}

/// Arguments of `waypost toolbox run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Socket of the container engine [default: unix:///var/run/docker.sock].
    #[arg(long, value_name = "URL")]
    docker_host: Option<String>,
    /// Folder for secret files: a tmpfs that the container engine sees at the same path.
    #[arg(long, value_name = "DIR", default_value = "/run/waypost-toolbox")]
    secrets_dir: PathBuf,
    /// Private network that tool servers may reach if their entries name it, such as 10.1.0.0/16.
    #[arg(long, value_name = "CIDR", num_args = 1..)]
    egress_allow: Vec<IpNet>,
    /// Network of which each tool server gets a part.
    #[arg(long, value_name = "CIDR", default_value = "10.213.0.0/16")]
    network_pool: Ipv4Net,
    /// Unix socket for diagnostics, which only this user can open. It serves `/metrics` and `/healthz` [default: none].
    #[arg(long, value_name = "PATH")]
    diagnostics_socket: Option<PathBuf>,
}

/// The global options and settings that the commands use.
#[derive(Debug)]
pub struct Machine {
    /// `--url`, or its environment variable.
    pub url: Option<String>,
    /// `--data-dir`.
    pub data_dir: Option<String>,
    /// `--json`.
    pub json: bool,
    /// Additional root certificates in PEM.
    pub ca_pem: Option<Vec<u8>>,
}

/// Runs a command.
///
/// # Errors
/// If the usage is incorrect, or the command cannot be carried out. The message is for the operator of the machine.
pub async fn run(machine: Machine, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Join { token_file } => join_machine(machine, token_file).await,
        Command::Run(args) => run_daemon(machine, args).await,
        Command::Status => show_status(&machine),
    }
}

impl Machine {
    fn data_dir(&self) -> PathBuf {
        PathBuf::from(self.data_dir.as_deref().unwrap_or(DATA_DIR))
    }
}

async fn join_machine(machine: Machine, token_file: Option<PathBuf>) -> anyhow::Result<()> {
    let data_dir = machine.data_dir();
    let Some(url) = machine.url else {
        return Err(UsageError("`waypost toolbox join` needs the URL of the installation: pass --url".into()).into());
    };
    let token = read_token(token_file.as_deref(), TOKEN)?;
    let joined = join(Join { url, token, data_dir: data_dir.clone(), ca_pem: machine.ca_pem }).await?;
    if machine.json {
        return output::json(&json!({ "id": joined.toolbox_id, "name": joined.name, "url": joined.url }));
    }
    let folder = match machine.data_dir {
        Some(_) => format!(" --data-dir {}", data_dir.display()),
        None => String::new(),
    };
    output::text(&format!(
        "Joined as toolbox `{}` ({}). Start the daemon as root: waypost toolbox run{folder}\n",
        output::clean(&joined.name),
        output::clean(&joined.toolbox_id),
    ))
}

async fn run_daemon(machine: Machine, args: RunArgs) -> anyhow::Result<()> {
    let data_dir = machine.data_dir();
    // If the machine has not joined, fails before the lock file is created.
    Identity::load(&data_dir)?;
    let _lock = match lock::try_acquire(&lock_file(&data_dir))? {
        LockAttempt::Acquired(lock) => lock,
        LockAttempt::HeldElsewhere => bail!("another daemon uses {}: stop it first", data_dir.display()),
    };
    let diagnostics = Diagnostics::default();
    let socket = args.diagnostics_socket.as_deref().map(DiagnosticsSocket::bind).transpose()?;
    let options = DaemonOptions {
        data_dir: data_dir.clone(),
        docker_host: args.docker_host,
        secrets_dir: args.secrets_dir,
        egress_allow: args.egress_allow,
        network_pool: args.network_pool,
        ca_pem: machine.ca_pem,
        diagnostics: diagnostics.clone(),
    };
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let phases = Shutdown { graceful: stop.clone(), immediate: CancellationToken::new() };
    let serve = async {
        if let Some(socket) = socket {
            socket.serve(diagnostics, phases.clone()).await;
        }
    };
    let run = async {
        let on_status = move |toolbox_id: &str, status: &Status| report(&data_dir, toolbox_id, status);
        let result = daemon::run(options, on_status, stop).await;
        // The socket must also be closed if the daemon could not start.
        phases.graceful.cancel();
        phases.immediate.cancel();
        result
    };
    let (result, ()) = tokio::join!(run, serve);
    Ok(result?)
}

/// Prints and stores a change of the link's state. The link has already logged it.
fn report(data_dir: &Path, toolbox_id: &str, status: &Status) {
    let (state, message) = match status {
        Status::Connecting => ("connecting", None),
        Status::Online => ("online", None),
        Status::Unauthorized(message) => ("unauthorized", Some(message)),
    };
    if *status == Status::Online {
        // A closed pipe is not an error, because the reader may need only the first lines.
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "online {toolbox_id}").and_then(|()| out.flush());
    }
    let content = json!({ "link": state, "message": message, "since": SystemClock.now().rfc3339() });
    if let Err(error) = files::replace(&data_dir.join(STATUS_FILE), content.to_string().as_bytes()) {
        tracing::warn!(%error, "failed to store the state of the link");
    }
}

fn lock_file(data_dir: &Path) -> PathBuf {
    data_dir.join("daemon.lock")
}

fn show_status(machine: &Machine) -> anyhow::Result<()> {
    let data_dir = machine.data_dir();
    let identity = Identity::load(&data_dir)?;
    let is_running = matches!(lock::try_acquire(&lock_file(&data_dir))?, LockAttempt::HeldElsewhere);
    let stored = std::fs::read(data_dir.join(STATUS_FILE)).ok();
    let stored: Option<Value> = stored.filter(|_| is_running).and_then(|text| serde_json::from_slice(&text).ok());
    let stored = stored.unwrap_or_default();
    let status = json!({
        "id": identity.toolbox_id,
        "name": identity.name,
        "url": identity.url,
        "daemon": if is_running { "running" } else { "stopped" },
        "link": stored["link"],
        "message": stored["message"],
        "since": stored["since"],
    });
    output::object(machine.json, &status)
}
