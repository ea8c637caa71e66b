//! Without sign-in: each client plays the demo walkthrough in every era and revision that it supports.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;
use waypost_testkit::TempDir;

use crate::{clients_folder, interpreter_for};

/// A demo server on a free port, killed on drop.
struct DemoServer {
    child: Child,
    url: String,
    // Kept open for later output.
    _output: BufReader<ChildStdout>,
    folder: TempDir,
}

impl DemoServer {
    fn start() -> Self {
        let folder = waypost_testkit::folder();
        let log = std::fs::File::create(folder.path().join("log")).expect("the file is written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
        // The test must not inherit settings from the environment.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WAYPOST_")) {
            command.env_remove(name);
        }
        let mut child = command
            .args(["serve", "--demo", "--data-dir"])
            .arg(folder.path().join("data"))
            .env("WAYPOST_LISTEN", "127.0.0.1:0")
            .env("WAYPOST_DIAGNOSTICS_LISTEN", "off")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let mut output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let address = loop {
            let mut line = String::new();
            let read = output.read_line(&mut line).expect("the output is UTF-8");
            if let Some(address) = line.trim().strip_prefix("listening on ") {
                break address.to_owned();
            }
            if read == 0 {
                let _ = child.wait();
                panic!("the server ended before it listened:\n{}", read_log(&folder));
            }
        };
        Self { child, url: format!("{address}/s/demo/mcp"), _output: output, folder }
    }
}

impl Drop for DemoServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_log(folder: &TempDir) -> String {
    std::fs::read_to_string(folder.path().join("log")).unwrap_or_default()
}

/// Runs the client's script and checks the last line that it prints, which is JSON.
fn play_walkthrough(script: &str, era: &str, version: &str) {
    let server = DemoServer::start();
    let output = Command::new(interpreter_for(script))
        .arg(clients_folder().join(script))
        .args([&server.url, era])
        .current_dir(server.folder.path())
        // Loopback requests must not use a proxy.
        .env("NO_PROXY", "127.0.0.1")
        .env("no_proxy", "127.0.0.1")
        .stdin(Stdio::null())
        .output()
        .expect("the client starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let details =
        format!("{script} {era}: {}\n{stdout}\n{stderr}\nThe server:\n{}", output.status, read_log(&server.folder));
    assert!(output.status.success(), "{details}");
    println!("{stdout}");
    let report: Value = stdout.lines().last().and_then(|line| serde_json::from_str(line).ok()).expect(&details);
    assert_eq!(report["completed"], true, "{details}");
    assert_eq!(report["resumed"], true, "{details}");
    assert_eq!(report["protocol_version"], version, "{details}");
    assert!(report["steps"].as_u64().is_some_and(|steps| steps > 1), "{details}");
}

/// Defines one test per era: `test name => era argument, version that must be negotiated`.
macro_rules! eras {
    ($module:ident, $script:literal, $($test:ident => $era:literal, $version:literal;)+) => {
        mod $module {
            $(
                #[test]
                #[cfg_attr(not(have_clients), ignore = "needs the MCP clients of e2e/clients")]
                fn $test() {
                    super::play_walkthrough($script, $era, $version);
                }
            )+
        }
    };
}

eras! { python, "python_client.py",
    legacy => "legacy", "2025-11-25";
    auto => "auto", "2026-07-28";
    modern => "modern", "2026-07-28";
    revision_2024_11_05 => "2024-11-05", "2024-11-05";
    revision_2025_03_26 => "2025-03-26", "2025-03-26";
    revision_2025_06_18 => "2025-06-18", "2025-06-18";
    revision_2025_11_25 => "2025-11-25", "2025-11-25";
}

eras! { typescript_v2, "ts_v2.mjs",
    legacy => "legacy", "2025-11-25";
    auto => "auto", "2026-07-28";
    modern => "modern", "2026-07-28";
    revision_2024_11_05 => "2024-11-05", "2024-11-05";
    revision_2025_03_26 => "2025-03-26", "2025-03-26";
    revision_2025_06_18 => "2025-06-18", "2025-06-18";
    revision_2025_11_25 => "2025-11-25", "2025-11-25";
}

eras! { typescript_v1, "ts_v1.mjs",
    legacy => "legacy", "2025-11-25";
    unknown_revision => "2024-10-07", "2025-11-25";
    revision_2024_11_05 => "2024-11-05", "2024-11-05";
    revision_2025_03_26 => "2025-03-26", "2025-03-26";
    revision_2025_06_18 => "2025-06-18", "2025-06-18";
    revision_2025_11_25 => "2025-11-25", "2025-11-25";
}

eras! { inspector, "inspector.mjs",
    legacy => "legacy", "2025-11-25";
    auto => "auto", "2026-07-28";
    modern => "modern", "2026-07-28";
}
