//! What keeps the program from starting: each says what to do, and leaves everything as it was.

use std::os::unix::fs::PermissionsExt;

use waypost_store::{Db, on};

use crate::install::Install;
use crate::load::{Load, User};
use crate::program::{Ended, Program, SERVE, on, run, waypost};

fn refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(!ended.output.contains("listening"), "{ended:?}");
    let message = ended.error.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {}", ended.error);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_serve_per_sqlite_file() {
    let install = Install::sqlite().await;
    let first = Program::start(&install).await;
    refused(&run(waypost(&install, SERVE)).await, &["another `waypost serve`", "stop it first", "PostgreSQL"]);

    // Commands run beside it, under load.
    let users = (0..8).map(|n| User::new(&install, n)).collect();
    let load = Load::start(users, &first.client(), |failure| assert!(failure.is_gone(), "{failure:?}"));
    load.reach(30).await;
    let backup = install.data_dir().join("backup");
    let backup = backup.to_str().unwrap();
    for words in [&["backup", backup][..], &["org", "list"], &["migrate"], &["doctor"]] {
        let ended = run(waypost(&install, words)).await;
        // `doctor` may have advice about the machine; what counts is that it can look.
        assert!(ended.code == Some(0) || words == ["doctor"] && !ended.output.is_empty(), "{words:?}: {ended:?}");
    }

    // The lock goes with the process, however that ends.
    first.kill().await;
    load.finish().await;
    Program::start(&install).await.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_sqlite() {
    newer_schema(Install::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_postgres), ignore = "needs PostgreSQL")]
async fn a_newer_schema_postgres() {
    newer_schema(Install::postgres().await).await;
}

async fn newer_schema(install: Install) {
    let db = Db::open(&install.url).await.unwrap();
    let sql = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
               SELECT 9000, 'of the future', success, checksum, 0 FROM _sqlx_migrations LIMIT 1";
    let mut tx = db.begin().await.unwrap();
    on!(&mut *tx, c => sqlx::query(sql).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
    db.close().await;
    for words in [SERVE, &["migrate"]] {
        refused(&run(waypost(&install, words)).await, &["schema version 9000", "use a newer waypost"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_postgres), ignore = "needs PostgreSQL")]
async fn no_secret_key_on_postgres() {
    let install = Install::postgres().await;
    let mut command = waypost(&install, SERVE);
    command.env_remove("WAYPOST_SECRET_KEY");
    refused(
        &run(command).await,
        &["`secret_key`", "WAYPOST_SECRET_KEY", "64 hexadecimal digits", "openssl rand -hex 32"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use() {
    let install = Install::sqlite().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let ended = run(waypost(&install, &["serve", "--listen", &taken, "--diagnostics-listen", "off"])).await;
    refused(&ended, &[&taken, "`listen`"]);
    let ended = run(waypost(&install, &["serve", "--listen", "127.0.0.1:0", "--diagnostics-listen", &taken])).await;
    refused(&ended, &[&taken, "`diagnostics_listen`"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_listens_at_the_database() {
    let mut install = Install::sqlite().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    install.url = format!("postgres://waypost:hidden@{free}/waypost");
    let ended = run(waypost(&install, SERVE)).await;
    refused(&ended, &["cannot be reached", "`database_url`"]);
    assert!(!ended.error.contains("hidden"), "{ended:?}");
}

/// As somebody who may read the installation and not write it: root has to become nobody first.
async fn as_reader(install: &Install, words: &[&str]) -> Ended {
    if !rustix::process::geteuid().is_root() {
        return run(waypost(install, words)).await;
    }
    let mut command = tokio::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", env!("CARGO_BIN_EXE_waypost")]);
    on(&mut command, install, words);
    run(command).await
}

fn set_modes(install: &Install, folder: u32, file: u32) {
    let set = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for entry in std::fs::read_dir(install.data_dir()).unwrap() {
        set(&entry.unwrap().path(), file);
    }
    set(&install.data_dir(), folder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_folder_or_file() {
    let install = Install::sqlite().await;
    set_modes(&install, 0o555, 0o444);
    refused(&as_reader(&install, SERVE).await, &["cannot write", "--data-dir"]);
    // The folder may be written, the database may not.
    set_modes(&install, 0o777, 0o444);
    refused(&as_reader(&install, SERVE).await, &["waypost.db", "for writing", "--data-dir"]);
    set_modes(&install, 0o777, 0o666);
    Program::start(&install).await.stop().await;
}
