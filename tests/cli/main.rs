//! Tests of the command line: the output and exit codes of the built program.

#![expect(clippy::disallowed_methods, reason = "the tests start servers and clients")]

mod admin;
mod agents;
mod authoring;
mod calls;
mod operations;
mod operator_socket;
mod outbound;
mod providers;
mod remote;
mod samples;
mod secrecy;
mod tool_servers;
mod toolboxes;
mod usage;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use waypost_testkit::TempDir;

/// A temporary folder with an installation.
struct Workspace {
    folder: TempDir,
}

/// The exit code and output of a command.
struct CommandResult {
    code: i32,
    out: String,
    err: String,
}

impl Workspace {
    /// Creates a folder whose data directory has a database without content. Applying every migration in each test would
    /// take longer than most tests.
    fn new() -> Self {
        let workspace = Self::empty();
        let (data, template) = (workspace.path("waypost-data"), waypost_testkit::folder());
        let _url = waypost_testkit::sqlite_url(&template);
        DirBuilder::new().mode(0o700).create(&data).unwrap();
        std::fs::copy(template.path().join("waypost.db"), data.join("waypost.db")).unwrap();
        workspace
    }

    /// Creates an empty folder.
    fn empty() -> Self {
        Self { folder: waypost_testkit::folder() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Returns a command with an empty environment.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
        command.env_clear().current_dir(self.folder.path()).stdin(Stdio::null()).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> CommandResult {
        self.to_result(self.command(arguments).output().unwrap())
    }

    fn to_result(&self, output: Output) -> CommandResult {
        let text = |bytes: Vec<u8>| redact(&String::from_utf8(bytes).unwrap(), self.folder.path());
        CommandResult { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Runs a command that must succeed. Returns its standard output.
    #[track_caller]
    fn run_ok(&self, arguments: &[&str]) -> String {
        let result = self.run(arguments);
        assert_eq!((result.code, result.err.as_str()), (0, ""), "{arguments:?}: {}", result.out);
        result.out
    }

    /// Runs a command with `--json` that must succeed. Returns its JSON with real IDs.
    #[track_caller]
    fn run_json(&self, arguments: &[&str]) -> Value {
        let output = self.command(&[arguments, &["--json"]].concat()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs a command that must exit with `code`. Returns its standard error.
    #[track_caller]
    fn run_err(&self, code: i32, arguments: &[&str]) -> String {
        let result = self.run(arguments);
        assert_eq!(result.code, code, "{arguments:?}: {}{}", result.out, result.err);
        result.err
    }
}

/// Replaces IDs, times, secrets and the folder with placeholders.
fn redact(text: &str, folder: &Path) -> String {
    let text = text.replace(folder.to_str().unwrap(), "DIR");
    let mut clean = String::with_capacity(text.len());
    let mut word = String::new();
    for letter in text.chars().chain(['\n']) {
        if letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | ':' | '.') {
            word.push(letter);
            continue;
        }
        clean.push_str(&redact_word(&word));
        word.clear();
        clean.push(letter);
    }
    clean.pop();
    clean
}

fn redact_word(word: &str) -> String {
    const PREFIXES: [&str; 21] = [
        "org_", "usr_", "srv_", "wt_", "ws_", "wv_", "msw_", "key_", "wpk_", "cat_", "ctv_", "sec_", "tbx_", "wpt_",
        "ins_", "dep_", "agt_", "agk_", "wpa_", "grt_", "set_",
    ];
    let is_time = word.len() >= 20 && word.starts_with("20") && word.trim_end_matches('.').ends_with('Z');
    let end = if word.ends_with('.') { "." } else { "" };
    let prefix = PREFIXES.iter().find(|prefix| word.starts_with(**prefix) && word.len() >= prefix.len() + 16);
    match prefix {
        Some(prefix) => format!("{prefix}…"),
        None if is_time => format!("TIME{end}"),
        // 32 random bytes in base 64.
        None if word.len() == 43 => format!("TOKEN{end}"),
        None => word.to_owned(),
    }
}
