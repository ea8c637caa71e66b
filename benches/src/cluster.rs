//! A separate, durable PostgreSQL cluster for Waypost and the peer.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use sqlx::postgres::{PgConnection, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgPool};
use tokio::process::{Child, Command};

use crate::process;

/// The settings, the same for Waypost and the peer. None of them trades durability for speed.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
fsync = on
synchronous_commit = on
full_page_writes = on
max_connections = 200
shared_buffers = 256MB
max_wal_size = 4GB
checkpoint_timeout = 15min
log_min_messages = warning
";

/// A running cluster. Killed when dropped.
pub struct Cluster {
    child: Child,
    port: u16,
    password: String,
    /// Result of `SELECT version()`.
    pub version: String,
    /// Whether `pg_stat_statements` is available.
    pub has_statements: bool,
}

/// Counters of `pg_stat_statements` for one database.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct StatementCounts {
    /// Statements, except those that begin or end a transaction.
    pub statements: i64,
    /// `COMMIT` statements.
    pub commits: i64,
}

impl StatementCounts {
    /// Returns the increase since `before`.
    pub fn since(self, before: Self) -> Self {
        Self { statements: self.statements - before.statements, commits: self.commits - before.commits }
    }
}

impl Cluster {
    /// Creates a cluster in `dir` and starts it.
    pub async fn start(dir: &Path, logs: &Path) -> Result<Self> {
        let bin = find_binaries()?;
        let home = dir.join("postgres");
        std::fs::create_dir(&home)?;
        let user = unprivileged_user()?;
        if let Some(user) = &user {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
            chown(&home, Some(user.uid), Some(user.gid))?;
        }
        let password = process::random_hex(16)?;
        let password_file = home.join("password");
        std::fs::write(&password_file, &password)?;
        std::fs::set_permissions(&password_file, std::fs::Permissions::from_mode(0o644))?;
        let data = home.join("data");
        let mut initdb = command_as_user(user.as_ref(), &bin.join("initdb"));
        initdb.args(["--username=bench", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"]);
        initdb.arg("--pwfile").arg(&password_file).arg("-D").arg(&data).current_dir(&home);
        process::run(initdb).await?;
        let has_statements = has_pg_stat_statements(&bin).await;
        let port = process::free_port()?;
        let mut settings = format!("{SETTINGS}port = {port}\nunix_socket_directories = ''\n");
        if has_statements {
            settings.push_str("shared_preload_libraries = 'pg_stat_statements'\n");
        }
        std::fs::write(data.join("postgresql.auto.conf"), settings)?;
        let mut postgres = command_as_user(user.as_ref(), &bin.join("postgres"));
        postgres.arg("-D").arg(&data).current_dir(&home).stdin(Stdio::null()).kill_on_drop(true);
        let log = logs.join("postgres.log");
        postgres.stdout(process::open_log(&log)?).stderr(process::open_log(&log)?);
        let child = postgres.spawn().context("cannot start postgres")?;
        let mut cluster = Self { child, port, password, version: String::new(), has_statements };
        cluster.wait_until_ready(&log).await?;
        Ok(cluster)
    }

    async fn wait_until_ready(&mut self, log: &Path) -> Result<()> {
        for _ in 0..300 {
            if let Ok(mut connection) = PgConnection::connect(&self.url("postgres")).await {
                self.version = sqlx::query_scalar("SELECT version()").fetch_one(&mut connection).await?;
                if self.has_statements {
                    sqlx::query("CREATE EXTENSION pg_stat_statements").execute(&mut connection).await?;
                }
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("postgres exited ({status}):\n{}", process::tail(log));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("postgres does not respond:\n{}", process::tail(log))
    }

    /// Returns the process ID of the postmaster.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Returns the URL of a database in the cluster.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://bench:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Opens a small connection pool for a database.
    pub async fn pool(&self, database: &str) -> Result<PgPool> {
        Ok(PgPoolOptions::new().max_connections(2).connect(&self.url(database)).await?)
    }

    /// Creates an empty database, or a copy of another one.
    pub async fn create_database(&self, name: &str, template: Option<&str>) -> Result<()> {
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        let template = template.map(|template| format!(" TEMPLATE {template}")).unwrap_or_default();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}{template}"))).execute(&mut connection).await?;
        Ok(())
    }

    /// Returns the current counters of `pg_stat_statements` for a database, or `None` if the extension is not
    /// available.
    pub async fn statement_counts(&self, database: &str) -> Result<Option<StatementCounts>> {
        if !self.has_statements {
            return Ok(None);
        }
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        let query = "SELECT
                coalesce(sum(s.calls) FILTER (WHERE s.query !~* '^\\s*(begin|commit|rollback|start)'), 0)::bigint,
                coalesce(sum(s.calls) FILTER (WHERE s.query ~* '^\\s*commit'), 0)::bigint
            FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = $1";
        let (statements, commits) = sqlx::query_as(query).bind(database).fetch_one(&mut connection).await?;
        Ok(Some(StatementCounts { statements, commits }))
    }

    /// Stops the cluster with a fast shutdown.
    pub async fn stop(mut self) -> Result<()> {
        process::terminate(&mut self.child, "INT").await.context("cannot stop postgres")
    }
}

struct User {
    name: String,
    uid: u32,
    gid: u32,
}

/// Returns the user that runs PostgreSQL, or `None` to run it as the current user. PostgreSQL refuses to run as root.
fn unprivileged_user() -> Result<Option<User>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1));
    if uid != Some("0") {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd")?;
    let find = |name: &str| {
        let line = passwd.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        let fields: Vec<&str> = line.split(':').collect();
        Some(User { name: name.to_owned(), uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
    };
    Ok(Some(
        find("postgres")
            .or_else(|| find("nobody"))
            .context("PostgreSQL does not run as root. Create the user `postgres`, or run this as another user")?,
    ))
}

fn command_as_user(user: Option<&User>, program: &Path) -> Command {
    let Some(user) = user else { return Command::new(program) };
    if let Some(setpriv) = process::find_in_path("setpriv") {
        let mut command = Command::new(setpriv);
        command.args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid), "--clear-groups".to_owned()]);
        command.arg(program);
        return command;
    }
    let mut command = Command::new("runuser");
    command.args(["-u", &user.name, "--"]).arg(program);
    command
}

/// Returns the folder of the PostgreSQL programs: that of `initdb` in `PATH`, or else the newest installation.
fn find_binaries() -> Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let version = entry.file_name().to_str().and_then(|name| name.parse().ok()).unwrap_or(0);
        versions.push((version, entry.path().join("bin")));
    }
    versions.sort();
    let in_path = process::find_in_path("initdb").and_then(|path| std::fs::canonicalize(path).ok());
    let in_path = in_path.and_then(|path| path.parent().map(Path::to_path_buf));
    let candidates = in_path.into_iter().chain(versions.into_iter().rev().map(|(_, path)| path));
    let is_complete = |dir: &PathBuf| dir.join("initdb").is_file() && dir.join("postgres").is_file();
    candidates.into_iter().find(is_complete).context("no PostgreSQL server programs in PATH or /usr/lib/postgresql")
}

async fn has_pg_stat_statements(bin: &Path) -> bool {
    let config = |option: &str| {
        let mut command = Command::new(bin.join("pg_config"));
        command.arg(option);
        process::run(command)
    };
    let (Ok(libraries), Ok(share)) = (config("--pkglibdir").await, config("--sharedir").await) else { return false };
    Path::new(libraries.trim()).join("pg_stat_statements.so").is_file()
        && Path::new(share.trim()).join("extension/pg_stat_statements.control").is_file()
}
