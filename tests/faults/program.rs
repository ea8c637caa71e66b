//! The built program as a child process.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::client::Client;
use crate::installation::{Installation, TIMEOUT};

/// The secret key, which all replicas share.
pub const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A running `waypost serve`, killed when it is dropped.
pub struct ServeProcess {
    child: Child,
    origin: String,
    log: PathBuf,
}

/// Returns the command `waypost ARGUMENTS…` for the installation, without inherited settings.
pub fn waypost_command(installation: &Installation, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
    configure(&mut command, installation, arguments);
    command
}

/// Adds the program's settings and arguments to a command.
pub fn configure(command: &mut Command, installation: &Installation, arguments: &[&str]) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WAYPOST_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).arg("--data-dir").arg(installation.data_dir()).args(["--database", &installation.url]);
    command.env("WAYPOST_SECRET_KEY", SECRET);
    for limit in ["RATE_LIMIT_PER_CALLER", "RATE_LIMIT_PER_SERVER", "NEW_USERS_PER_ADDRESS"] {
        command.env(format!("WAYPOST_{limit}"), "0");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
}

/// The arguments of `serve` on a free port.
pub const SERVE: &[&str] = &["serve", "--listen", "127.0.0.1:0", "--diagnostics-listen", "off"];

impl ServeProcess {
    /// Starts `serve` on an installation.
    pub async fn start(installation: &Installation) -> Self {
        Self::run(waypost_command(installation, SERVE), &installation.data_dir()).await
    }

    /// Runs a command that executes `serve` and waits until it listens. The log is written to a file in `folder`.
    pub async fn run(mut command: Command, folder: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let log = folder.join(format!("serve-{}.log", NEXT.fetch_add(1, Ordering::Relaxed)));
        let mut child = command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listening = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(origin) = line.strip_prefix("listening on ") {
                    return Some(origin.to_owned());
                }
            }
            None
        };
        let listening = timeout(TIMEOUT, listening).await.expect("the server listens in time");
        let Some(origin) = listening else {
            panic!("the server does not listen: {}", std::fs::read_to_string(&log).unwrap())
        };
        Self { child, origin, log }
    }

    /// Returns a client of the server `demo`.
    pub fn client(&self) -> Client {
        Client::new(&self.origin)
    }

    /// Returns the origin, such as `http://127.0.0.1:40001`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the process ID.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap()
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Kills the process with SIGKILL.
    pub async fn kill(mut self) {
        self.child.start_kill().unwrap();
        let status = timeout(TIMEOUT, self.child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), None, "the process is terminated by the signal");
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
    }

    /// Waits until the process exits.
    pub async fn exit(&mut self) -> ExitStatus {
        timeout(TIMEOUT, self.child.wait()).await.expect("the process ends in time").unwrap()
    }

    /// Returns the child of this process, if this process is a tracer.
    pub fn traced(&self) -> Pid {
        let tracer = self.pid().as_raw_nonzero();
        let children = std::fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children")).unwrap();
        let [child] = children.split_whitespace().collect::<Vec<_>>()[..] else { panic!("one child, not {children}") };
        Pid::from_raw(child.parse().unwrap()).unwrap()
    }

    /// Sends SIGTERM and checks that the process exits with 0.
    pub async fn stop(mut self) {
        self.terminate();
        let status = self.exit().await;
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }
}

/// Prints the end of the log if the test fails.
impl Drop for ServeProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let end = log.lines().rev().take(20).collect::<Vec<_>>();
            eprintln!("{}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

/// The result of a command.
#[derive(Debug)]
pub struct CommandResult {
    /// The exit code, or `None` if the process was killed.
    pub code: Option<i32>,
    /// The standard output.
    pub output: String,
    /// The standard error.
    pub error: String,
}

/// Runs a command until it exits.
pub async fn run_command(mut command: Command) -> CommandResult {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (mut output, mut error) = (String::new(), String::new());
    let all = async {
        tokio::try_join!(stdout.read_to_string(&mut output), stderr.read_to_string(&mut error)).unwrap();
        child.wait().await.unwrap()
    };
    let status = timeout(TIMEOUT, all).await.expect("the process ends in time");
    CommandResult { code: status.code(), output, error }
}
