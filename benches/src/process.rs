//! Child processes that print `listening on http://…`, and their resource usage from `/proc`.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The time between attempts to connect to a server that is starting.
const CONNECT_INTERVAL: Duration = Duration::from_millis(50);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// A server process. Killed when dropped.
pub struct Server {
    child: Child,
    name: String,
    /// Listen address.
    pub addr: SocketAddr,
    /// Time from the start of the process to the line `listening on`.
    pub startup: Duration,
}

impl Server {
    /// Starts `command` and waits for the line with its address. Standard error is written to a file in `logs`.
    pub async fn start(name: &str, mut command: Command, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(open_log(&log)?).kill_on_drop(true);
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let listening = async {
            while let Some(line) = lines.next_line().await? {
                if let Some((_, rest)) = line.split_once("listening on http://") {
                    let addr: String = rest.chars().take_while(|c| !c.is_whitespace() && *c != '/').collect();
                    return Ok(addr.replace("localhost", "127.0.0.1").parse::<SocketAddr>()?);
                }
            }
            bail!("{name} exited without listening:\n{}", tail(&log))
        };
        let addr = tokio::time::timeout(START_TIMEOUT, listening)
            .await
            .with_context(|| format!("{name} did not start listening in time:\n{}", tail(&log)))??;
        let startup = started.elapsed();
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { child, name: name.to_owned(), addr, startup })
    }

    /// Starts `command` and waits until this loopback port accepts connections. Output is written to a file in `logs`.
    pub async fn start_at(name: &str, mut command: Command, port: u16, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        command.stdin(Stdio::null()).stdout(open_log(&log)?).stderr(open_log(&log)?).kill_on_drop(true);
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        while TcpStream::connect(addr).await.is_err() {
            if child.try_wait()?.is_some() || started.elapsed() > START_TIMEOUT {
                bail!("{name} does not listen on {addr}:\n{}", tail(&log));
            }
            tokio::time::sleep(CONNECT_INTERVAL).await;
        }
        Ok(Self { child, name: name.to_owned(), addr, startup: started.elapsed() })
    }

    /// Returns the process ID.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Terminates the process and waits until it exits.
    pub async fn stop(mut self) -> Result<()> {
        terminate(&mut self.child, "TERM").await.with_context(|| format!("stopping {}", self.name))
    }

    /// Kills the process with SIGKILL and waits until it exits.
    pub async fn kill(mut self) -> Result<()> {
        terminate(&mut self.child, "KILL").await.with_context(|| format!("killing {}", self.name))
    }
}

/// Sends a signal to a child process and waits until it exits.
pub async fn terminate(child: &mut Child, signal: &str) -> Result<()> {
    let Some(pid) = child.id() else { return Ok(()) };
    Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status().await?;
    tokio::time::timeout(STOP_TIMEOUT, child.wait()).await.context("the process did not exit in time")??;
    Ok(())
}

/// Runs a command and returns its output. On failure, the error contains the output.
pub async fn run(mut command: Command) -> Result<String> {
    // Omits the environment from error messages, because it contains a secret key.
    let std = command.as_std();
    let shown: Vec<_> =
        std::iter::once(std.get_program()).chain(std.get_args()).map(|word| word.to_string_lossy()).collect();
    let shown = shown.join(" ");
    let output = command.stdin(Stdio::null()).output().await.with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        bail!("{shown} failed ({}):\n{}", output.status, String::from_utf8_lossy(&text));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Opens a log file for appending.
pub fn open_log(path: &Path) -> Result<File> {
    Ok(File::options().create(true).append(true).open(path)?)
}

/// Returns the last lines of a log file.
pub fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Finds a program in `PATH`.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Returns a currently free port.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Returns `bytes` random bytes as hexadecimal digits.
pub fn random_hex(bytes: usize) -> Result<String> {
    let mut buffer = vec![0; bytes];
    File::open("/dev/urandom")?.read_exact(&mut buffer)?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Returns the CPU seconds of a process and all its descendants, including terminated children that were waited for.
pub fn cpu_seconds(root: u32) -> Result<f64> {
    let mut ticks = 0;
    let mut parents = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some(stat) = stat(pid) {
            parents.insert(pid, stat);
        }
    }
    if !parents.contains_key(&root) {
        bail!("process {root} has exited");
    }
    for (pid, (_, own)) in &parents {
        if is_descendant(*pid, root, &parents) {
            ticks += own;
        }
    }
    Ok(ticks as f64 / ticks_per_second())
}

/// Returns the number of open file descriptors of a process and the number of its descendants.
pub fn open_files_and_descendants(root: u32) -> Result<(usize, usize)> {
    let files = std::fs::read_dir(format!("/proc/{root}/fd")).context("the process has exited")?.count();
    let mut parents = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some(stat) = stat(pid) {
            parents.insert(pid, stat);
        }
    }
    let descendants = parents.keys().filter(|pid| **pid != root && is_descendant(**pid, root, &parents)).count();
    Ok((files, descendants))
}

/// Returns the resident memory of a process and all its descendants in bytes.
pub fn resident_bytes(root: u32) -> Result<u64> {
    let mut parents = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some(stat) = stat(pid) {
            parents.insert(pid, stat);
        }
    }
    let mut total = 0;
    for pid in parents.keys().filter(|pid| is_descendant(**pid, root, &parents)) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
        total += kib.unwrap_or(0) * 1024;
    }
    Ok(total)
}

type Stat = (u32, u64);

fn is_descendant(pid: u32, root: u32, parents: &HashMap<u32, Stat>) -> bool {
    let mut at = pid;
    for _ in 0..16 {
        if at == root {
            return true;
        }
        match parents.get(&at) {
            Some((parent, _)) => at = *parent,
            None => return false,
        }
    }
    false
}

/// Returns the parent and the used ticks of a process, including those of children that were waited for.
fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain any character; the fields after the last `)` start with number 3.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some((fields.get(1)?.parse().ok()?, ticks))
}

fn ticks_per_second() -> f64 {
    static TICKS: std::sync::OnceLock<f64> = std::sync::OnceLock::new();
    *TICKS.get_or_init(|| {
        let output = std::process::Command::new("getconf").arg("CLK_TCK").output().ok();
        output.and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse().ok()).unwrap_or(100.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_time_and_memory() {
        let pid = std::process::id();
        assert!(cpu_seconds(pid).unwrap() >= 0.0);
        assert!(resident_bytes(pid).unwrap() > 100_000);
        assert!(cpu_seconds(u32::MAX).is_err());
    }
}
