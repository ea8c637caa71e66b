//! An installation in a temporary folder, with `waypost serve` as a child process.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use waypost_testkit::TempDir;

use super::TIMEOUT;
use super::mailbox::Mailbox;

/// An installation with its settings and the emails that it has sent.
pub struct Installation {
    folder: TempDir,
    settings: Vec<(&'static str, String)>,
    /// The emails that were sent.
    pub mailbox: Mailbox,
    address: String,
}

/// A running `waypost serve`, killed on drop.
pub struct ServeProcess {
    child: Child,
    /// The origin, such as `http://127.0.0.1:40001`.
    pub origin: String,
}

/// Allows loopback for sign-in providers and client documents.
const ALLOW: &str = "127.0.0.0/8=sign-in,::1=sign-in,127.0.0.0/8=client-documents,::1=client-documents";

impl Installation {
    /// Creates an installation with the organisation `acme`.
    pub async fn new() -> Self {
        let installation = Self::empty();
        installation.run(&["org", "create", "acme", "--name", "Acme Rockets"]).await;
        installation
    }

    /// Creates an empty installation that can reach loopback and prints its emails to standard output.
    pub fn empty() -> Self {
        let settings = vec![
            ("WAYPOST_SMTP_URL", "console:".to_owned()),
            ("WAYPOST_OUTBOUND_ALLOW", ALLOW.to_owned()),
            ("WAYPOST_DIAGNOSTICS_LISTEN", "off".to_owned()),
        ];
        Self {
            folder: waypost_testkit::folder(),
            settings,
            mailbox: Mailbox::default(),
            address: "127.0.0.1:0".to_owned(),
        }
    }

    /// Returns the folder, in which the test can create files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sets an environment variable for all processes started afterwards.
    pub fn set_env(&mut self, variable: &'static str, value: String) {
        self.settings.push((variable, value));
    }

    /// Makes `serve` listen on all addresses of the machine instead of loopback only. The origin is still on loopback.
    pub fn listen_on_all_addresses(&mut self) {
        self.address = "0.0.0.0:0".to_owned();
    }

    /// Creates a server with the first walkthrough of the demo.
    pub async fn create_server(&self, slug: &str, arguments: &[&str]) {
        let create = ["server", "create", slug, "--org", "acme", "--name", "Acme Rockets", "--product", "Rockets"];
        self.run(&[&create, arguments].concat()).await;
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/waypost-in-ten-minutes.json");
        let file = file.to_str().expect("the folder's name is UTF-8");
        self.run(&["walkthrough", "import", file, "--org", "acme", "--server", slug, "--publish"]).await;
    }

    /// Runs a command that must succeed and returns its output.
    pub async fn run(&self, arguments: &[&str]) -> String {
        let output = timeout(TIMEOUT, self.command(arguments).stderr(Stdio::piped()).output()).await;
        let output = output.expect("the process ends in time").expect("the binary starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "waypost {}: {}\n{error}", arguments.join(" "), output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a command that must fail with exit code 1, and returns its output and its errors.
    pub async fn run_failing(&self, arguments: &[&str]) -> String {
        self.fail(arguments, self.command(arguments)).await
    }

    /// Like [`Self::run_failing`], with another value of an environment variable.
    pub async fn run_failing_with(&self, arguments: &[&str], variable: &'static str, value: &str) -> String {
        let mut command = self.command(arguments);
        command.env(variable, value);
        self.fail(arguments, command).await
    }

    async fn fail(&self, arguments: &[&str], mut command: Command) -> String {
        let output = timeout(TIMEOUT, command.stderr(Stdio::piped()).output()).await;
        let output = output.expect("the process ends in time").expect("the binary starts");
        assert_eq!(output.status.code(), Some(1), "waypost {}: {output:?}", arguments.join(" "));
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
    }

    /// Starts `waypost serve`, the first time on a free port and later on the same port.
    pub async fn serve(&mut self) -> ServeProcess {
        self.serve_with(&["serve"]).await
    }

    /// Starts `waypost serve --demo`, which creates the demo organisation and the server `demo`.
    pub async fn serve_demo(&mut self) -> ServeProcess {
        self.serve_with(&["serve", "--demo"]).await
    }

    async fn serve_with(&mut self, arguments: &[&str]) -> ServeProcess {
        let log = std::fs::File::options().create(true).append(true).open(self.log_file());
        let mut command = self.command(arguments);
        command.env("WAYPOST_LISTEN", &self.address).stderr(log.expect("the file is written"));
        let mut child = command.spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let listening = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(origin) = line.strip_prefix("listening on ") {
                    return Some(origin.to_owned());
                }
                self.mailbox.push_line(line);
            }
            None
        };
        let origin = timeout(TIMEOUT, listening).await.expect("the server listens in time");
        let Some(origin) = origin else { panic!("the server does not listen:\n{}", self.log()) };
        self.address = origin.trim_start_matches("http://").to_owned();
        let mailbox = self.mailbox.clone();
        #[expect(clippy::disallowed_methods, reason = "serves or reads until the test ends")]
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                mailbox.push_line(line);
            }
        });
        ServeProcess { child, origin: origin.replace("//0.0.0.0:", "//127.0.0.1:") }
    }

    /// Returns the log of all `serve` processes.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("serve.log")
    }

    /// Returns the command `waypost ARGUMENTS…` for this installation, without inherited settings.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WAYPOST_")) {
            command.env_remove(name);
        }
        command.args(arguments).arg("--data-dir").arg(self.folder.path().join("data"));
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// Prints the end of the log if the test fails.
impl Drop for Installation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.lines().count().saturating_sub(30);
            eprintln!("The server's log:\n{}", log.lines().skip(from).collect::<Vec<_>>().join("\n"));
        }
    }
}

impl ServeProcess {
    /// Kills the process with SIGKILL.
    pub async fn kill(mut self) {
        self.child.start_kill().expect("the process is running");
        let status = timeout(TIMEOUT, self.child.wait())
            .await
            .expect("the process ends in time")
            .expect("the process can be waited for");
        assert_eq!(status.code(), None, "the process is terminated by the signal");
    }
}
