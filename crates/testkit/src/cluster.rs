//! A PostgreSQL cluster for the test process, which is removed when the process ends.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::folders;
use crate::probe;
use crate::template::{block_on, migrate};

/// A shell script that creates and starts a cluster, prints the path of its folder, and waits for the end of its
/// standard input, which the kernel closes when the test process ends for any reason. Uses a linguistic collation if
/// available, so that queries that rely on SQLite's byte order fail. Everything runs as the launcher's user, so that a
/// single `rm` is sufficient.
const WATCHDOG: &str = r#"
set -eu
bin=$1
dir=$(mktemp -d "$2/waypost-pg.XXXXXX" 2>/dev/null || mktemp -d /tmp/waypost-pg.XXXXXX)
stop() {
    "$bin/pg_ctl" -D "$dir/data" -m fast -w -t 5 stop || "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop || true
    rm -rf "$dir"
}
trap 'stop >/dev/null 2>&1' EXIT
trap 'exit 1' HUP INT TERM
# The test process may have ended before it receives the path.
trap '' PIPE
cd "$dir"
init() { "$bin/initdb" -D "$dir/data" -U waypost --auth=trust --encoding=UTF8 --no-sync "$@" >"$dir/log" 2>&1; }
init --locale=C --locale-provider=icu --icu-locale=en-US || { rm -rf "$dir/data"; init --locale=C; } ||
    { cat "$dir/log" >&2; exit 1; }
cat >>"$dir/data/postgresql.conf" <<SETTINGS
listen_addresses = ''
unix_socket_directories = '$dir'
max_connections = 200
fsync = off
full_page_writes = off
autovacuum = off
jit = off
shared_buffers = 64MB
SETTINGS
"$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 60 start >/dev/null 2>&1 </dev/null ||
    { cat "$dir/log" >&2; exit 1; }
echo "$dir" 2>/dev/null
cat >/dev/null
"#;

struct Cluster {
    /// Path of the folder that contains the socket.
    socket: String,
    /// The watchdog, which waits for the end of its standard input: a pipe that stays open while this process runs.
    _watchdog: Child,
}

/// The database that [`migrated_database`] copies.
const TEMPLATE: &str = "waypost_template";

/// Creates an empty database and returns its URL.
pub(crate) fn empty_database() -> String {
    create_database("template1")
}

/// Creates a database with every migration applied and returns its URL.
pub(crate) fn migrated_database() -> String {
    static MIGRATED: OnceLock<()> = OnceLock::new();
    MIGRATED.get_or_init(|| {
        let cluster = cluster();
        execute(&cluster.url("postgres"), &format!("CREATE DATABASE {TEMPLATE}"));
        migrate(&cluster.url(TEMPLATE));
    });
    create_database(TEMPLATE)
}

fn create_database(template: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let cluster = cluster();
    // Copying the files is faster here than copying the pages through the write-ahead log, the default since
    // PostgreSQL 15.
    execute(&cluster.url("postgres"), &format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"));
    cluster.url(&name)
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(start)
}

impl Cluster {
    fn url(&self, database: &str) -> String {
        format!("postgres://waypost@{}/{database}", self.socket.replace('/', "%2F"))
    }
}

#[expect(clippy::expect_used, clippy::panic, reason = "tests require a database")]
fn start() -> Cluster {
    let postgres = probe::find_postgres().expect("PostgreSQL was detected by the build script");
    let mut words = postgres.launcher;
    words.extend(["sh", "-c", WATCHDOG, "waypost-postgres"].map(str::to_owned));
    let mut watchdog = Command::new(&words[0])
        .args(&words[1..])
        .arg(&postgres.bin)
        .arg(folders::parent())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // The watchdog must react to the end of the test process, not to Ctrl-C.
        .process_group(0)
        .current_dir(Path::new("/"))
        .spawn()
        .expect("a shell can be started");
    let mut socket = String::new();
    let output = watchdog.stdout.take().expect("its output is a pipe");
    BufReader::new(output).read_line(&mut socket).expect("its output can be read");
    let socket = socket.trim().to_owned();
    if socket.is_empty() {
        panic!("PostgreSQL did not start: {:?}", watchdog.wait());
    }
    Cluster { socket, _watchdog: watchdog }
}

#[expect(clippy::expect_used, reason = "tests require a database")]
fn execute(url: &str, sql: &str) {
    use sqlx::Connection;
    block_on(async {
        let mut conn = sqlx::PgConnection::connect(url).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut conn).await?;
        conn.close().await
    })
    .expect("PostgreSQL executes the statement");
}
