//! Start-up errors: each message says what to do, and nothing is changed.

use std::os::unix::fs::PermissionsExt;

use waypost_store::{Db, on};

use crate::installation::Installation;
use crate::load::{Load, LoadUser};
use crate::program::{CommandResult, SERVE, ServeProcess, configure, run_command, waypost_command};

fn assert_start_fails(result: &CommandResult, words: &[&str]) {
    assert_eq!(result.code, Some(1), "{result:?}");
    assert!(!result.output.contains("listening"), "{result:?}");
    let message = result.error.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {}", result.error);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_serve_runs_per_sqlite_file() {
    let installation = Installation::sqlite().await;
    let first = ServeProcess::start(&installation).await;
    assert_start_fails(
        &run_command(waypost_command(&installation, SERVE)).await,
        &["another `waypost serve`", "stop it first", "PostgreSQL"],
    );

    // Commands can run alongside it under load.
    let users = (0..8).map(|n| LoadUser::new(&installation, n)).collect();
    let load = Load::start(users, &first.client(), |failure| assert!(failure.is_gone(), "{failure:?}"));
    load.wait_for(30).await;
    let backup = installation.data_dir().join("backup");
    let backup = backup.to_str().unwrap();
    for arguments in [&["backup", backup][..], &["org", "list"], &["migrate"], &["doctor"]] {
        let result = run_command(waypost_command(&installation, arguments)).await;
        // `doctor` may report problems with the machine, but it must run.
        assert!(
            result.code == Some(0) || arguments == ["doctor"] && !result.output.is_empty(),
            "{arguments:?}: {result:?}"
        );
    }

    // The lock is released when the process ends, even if it is killed.
    first.kill().await;
    load.finish().await;
    ServeProcess::start(&installation).await.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_is_rejected_on_sqlite() {
    assert_newer_schema_is_rejected(Installation::sqlite().await).await;
}

waypost_testkit::needs_postgres! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_newer_schema_is_rejected_on_postgres() {
        assert_newer_schema_is_rejected(Installation::postgres().await).await;
    }
}

async fn assert_newer_schema_is_rejected(installation: Installation) {
    let db = Db::open(&installation.url).await.unwrap();
    let sql = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
               SELECT 9000, 'of the future', success, checksum, 0 FROM _sqlx_migrations LIMIT 1";
    let mut tx = db.begin().await.unwrap();
    on!(&mut *tx, c => sqlx::query(sql).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
    db.close().await;
    for arguments in [SERVE, &["migrate"]] {
        assert_start_fails(
            &run_command(waypost_command(&installation, arguments)).await,
            &["schema version 9000", "use a newer version of Waypost"],
        );
    }
}

waypost_testkit::needs_postgres! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn postgres_requires_a_secret_key() {
        let installation = Installation::postgres().await;
        let mut command = waypost_command(&installation, SERVE);
        command.env_remove("WAYPOST_SECRET_KEY");
        assert_start_fails(
            &run_command(command).await,
            &["`secret_key`", "WAYPOST_SECRET_KEY", "64 hexadecimal digits", "openssl rand -hex 32"],
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_reported() {
    let installation = Installation::sqlite().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let result =
        run_command(waypost_command(&installation, &["serve", "--listen", &taken, "--diagnostics-listen", "off"]))
            .await;
    assert_start_fails(&result, &[&taken, "`listen`"]);
    let result = run_command(waypost_command(
        &installation,
        &["serve", "--listen", "127.0.0.1:0", "--diagnostics-listen", &taken],
    ))
    .await;
    assert_start_fails(&result, &[&taken, "`diagnostics_listen`"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_database_is_reported() {
    let mut installation = Installation::sqlite().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    installation.url = format!("postgres://waypost:hidden@{free}/waypost");
    let result = run_command(waypost_command(&installation, SERVE)).await;
    assert_start_fails(&result, &["cannot be reached", "`database_url`"]);
    assert!(!result.error.contains("hidden"), "{result:?}");
}

/// Runs a command as a user with read-only access. Root must switch to another user first.
async fn run_as_reader(installation: &Installation, arguments: &[&str]) -> CommandResult {
    if !rustix::process::geteuid().is_root() {
        return run_command(waypost_command(installation, arguments)).await;
    }
    let mut command = tokio::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", env!("CARGO_BIN_EXE_waypost")]);
    configure(&mut command, installation, arguments);
    run_command(command).await
}

fn set_modes(installation: &Installation, folder: u32, file: u32) {
    let set = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for entry in std::fs::read_dir(installation.data_dir()).unwrap() {
        set(&entry.unwrap().path(), file);
    }
    set(&installation.data_dir(), folder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_folder_or_file_is_reported() {
    let installation = Installation::sqlite().await;
    set_modes(&installation, 0o555, 0o444);
    assert_start_fails(&run_as_reader(&installation, SERVE).await, &["cannot write", "--data-dir"]);
    // The folder is writable, but the database is not.
    set_modes(&installation, 0o777, 0o444);
    assert_start_fails(&run_as_reader(&installation, SERVE).await, &["waypost.db", "for writing", "--data-dir"]);
    set_modes(&installation, 0o777, 0o666);
    ServeProcess::start(&installation).await.stop().await;
}
