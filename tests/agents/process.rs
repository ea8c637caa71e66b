//! An agent's process group.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The maximum duration of a run.
const LIMIT: Duration = Duration::from_secs(120);

/// A process in its own process group, which is killed on drop.
pub struct Process {
    child: Child,
    group: Pid,
    output: PathBuf,
}

impl Process {
    /// Starts a command without standard input; its output goes to a file in `home`.
    pub fn start(mut command: Command, home: &Path) -> Self {
        command.stdin(Stdio::null());
        Self::spawn(command, home)
    }

    /// Starts a command with a standard input, for [`Self::answer_prompt`].
    pub fn start_with_input(mut command: Command, home: &Path) -> Self {
        command.stdin(Stdio::piped());
        Self::spawn(command, home)
    }

    fn spawn(mut command: Command, home: &Path) -> Self {
        let output = home.join("output");
        let file = File::options().create(true).append(true).open(&output).expect("the file is written");
        let errors = file.try_clone().expect("the file can be opened");
        command.stdout(file).stderr(errors).process_group(0);
        let words = format!("{:?}", command.as_std());
        let child = command.spawn().unwrap_or_else(|error| panic!("{words}: {error}"));
        let id = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).expect("the process is running");
        Self { child, group: id, output }
    }

    /// Waits until the process prints a question, then answers it.
    pub async fn answer_prompt(&mut self, question: &str, answer: &str) {
        let mut interval = tokio::time::interval(Duration::from_millis(50));
        let asked = timeout(LIMIT, async {
            while !self.output().contains(question) {
                interval.tick().await;
            }
        });
        asked.await.unwrap_or_else(|_| panic!("the agent does not ask {question:?}:\n{}", self.output()));
        let input = self.child.stdin.as_mut().expect("stdin is piped");
        input.write_all(answer.as_bytes()).await.expect("the process reads its input");
    }

    /// Waits until the process exits.
    pub async fn wait(&mut self) -> ExitStatus {
        let status = timeout(LIMIT, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("the agent does not exit in time:\n{}", self.output()));
        status.expect("the process can be waited for")
    }

    /// Kills the process group with SIGKILL, which simulates a crash.
    pub async fn kill(mut self) {
        assert!(
            self.child.try_wait().expect("the process can be waited for").is_none(),
            "the agent has already exited:\n{}",
            self.output()
        );
        kill_process_group(self.group, Signal::KILL).expect("the group exists");
        self.child.wait().await.expect("the process can be waited for");
    }

    /// Returns what the process printed.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process ID cannot be reused before the process has been waited for.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process_group(self.group, Signal::KILL);
        }
    }
}
