//! A Docker Engine of a single test, which may kill, stop and fill it.

use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use waypost_testkit::TempDir;

use crate::engine::Engine;

/// A running engine with its own data, beside the shared one. All objects that it has created are removed on drop.
pub struct OwnEngine {
    folder: TempDir,
    engine: Engine,
}

impl OwnEngine {
    /// Starts an engine.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts an engine whose data is on a disk of this size, such as `64m`.
    pub fn with_disk(size: &str) -> Self {
        Self::start_with(&["--disk", size])
    }

    fn start_with(arguments: &[&str]) -> Self {
        // Not in TMPDIR: the path of a socket has at most 108 characters.
        let folder = tempfile::Builder::new().prefix("waypost-docker-").tempdir_in("/tmp");
        let folder = folder.expect("a temporary folder can be created");
        let engine = Engine::at(&folder.path().join("docker.sock"));
        let own = Self { folder, engine };
        own.run("start", &[&["--no-firewall"], arguments].concat()).unwrap_or_else(|error| panic!("{error}"));
        own
    }

    /// Returns the engine's API.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Returns the folder with the engine's data, sockets and logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills the engine with SIGKILL. Its containerd and its containers continue to run.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        // A process that has ended closes its socket.
        while self.engine.is_running() {
            std::thread::yield_now();
        }
    }

    /// Sends a signal to the engine, such as `STOP`, after which it does not respond, or `CONT`.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid().expect("the engine was started"), signal).expect("the engine runs");
    }

    /// Starts the engine again after [`Self::kill`], with the same data.
    pub fn start_again(&self) {
        self.run("start", &[]).unwrap_or_else(|error| panic!("{error}"));
    }

    fn pid(&self) -> Option<Pid> {
        let pid = std::fs::read_to_string(self.folder().join("dockerd.pid")).ok()?;
        Pid::from_raw(pid.trim().parse().ok()?)
    }

    fn run(&self, action: &str, arguments: &[&str]) -> Result<(), String> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/docker");
        let output = Command::new(program).arg(action).arg(self.folder()).args(arguments).output();
        let output = output.map_err(|error| format!(".ci/docker: {error}"))?;
        let error = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!(".ci/docker {action}: {error}")) }
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        // The test may have stopped or killed the engine.
        let _ = self.pid().map(|pid| kill_process(pid, Signal::CONT));
        if let Err(error) = self.run("stop", &[]) {
            eprintln!("{error}");
        }
    }
}
