//! Migrations, `doctor`, backups and problems with the environment.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use waypost_store::{Db, on};

use crate::Workspace;

/// Returns the newest schema version, from the names of the migration files.
fn newest_schema() -> u32 {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/store/migrations/sqlite");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| name.split('_').next().unwrap().parse().unwrap()).max().unwrap()
}

#[test]
fn migrate_reports_the_result() {
    let workspace = Workspace::empty();
    let newest = newest_schema();
    let result = workspace.run_err(1, &["org", "list", "--no-migrate"]);
    let expected =
        format!("error: the database has schema version 0, but this program requires {newest}: run `waypost migrate`");
    assert_eq!(result.trim_end(), expected);
    let result = workspace.run_ok(&["migrate"]);
    assert_eq!(result.trim_end(), format!("Migrated the database from schema 0 to {newest}."));
    let result = workspace.run_ok(&["migrate"]);
    assert_eq!(result.trim_end(), format!("The database is up to date (schema {newest})."));
    insta::assert_snapshot!(workspace.run_ok(&["org", "list", "--no-migrate"]), @"No entries.");
}

#[cfg(unix)]
#[test]
fn created_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let workspace = Workspace::empty();
    workspace.run_ok(&["migrate"]);
    for (name, expected) in [("waypost-data", 0o700), ("waypost-data/waypost.db", 0o600)] {
        let mode = std::fs::metadata(workspace.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, expected, "{name}");
    }
}

#[test]
fn concurrent_first_commands_succeed() {
    let workspace = Workspace::new();
    let start = |_| workspace.command(&["org", "list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children: Vec<_> = (0..6).map(start).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Makes the database look as if a newer version had migrated it.
async fn simulate_newer_schema(workspace: &Workspace) {
    let db = Db::open(&format!("sqlite://{}", workspace.path("waypost-data/waypost.db").display())).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    const SQL: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                       SELECT 999, description, success, checksum, execution_time FROM _sqlx_migrations LIMIT 1";
    on!(&mut tx, c => sqlx::query(SQL).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
    db.close().await;
}

#[tokio::test]
async fn a_newer_database_is_rejected() {
    let workspace = Workspace::new();
    workspace.run_ok(&["migrate"]);
    simulate_newer_schema(&workspace).await;
    let newest = newest_schema();
    let expected = format!(
        "error: the database has schema version 999, but this program supports versions up to {newest}: use a newer version of Waypost"
    );
    assert_eq!(workspace.run_err(1, &["org", "list"]).trim_end(), expected);
}

#[tokio::test]
async fn a_command_waits_for_a_running_migration() {
    let workspace = Workspace::new();
    workspace.run_ok(&["migrate"]);
    let lock = std::fs::File::open(workspace.path("waypost-data/waypost.db.migrate.lock")).unwrap();
    lock.lock().unwrap();
    let child = workspace.command(&["org", "list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The command must see the changes made under the lock, however fast it is.
    simulate_newer_schema(&workspace).await;
    lock.unlock().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("use a newer version of Waypost"));
}

#[test]
fn an_unwritable_folder_is_named() {
    let workspace = Workspace::new();
    workspace.write_file("taken", "a file");
    insta::assert_snapshot!(workspace.run_err(1, &["org", "list", "--data-dir", "taken/below"]), @"error: cannot create the folder taken/below: create it for the user that runs waypost, or choose another with --data-dir (Not a directory)");
    insta::assert_snapshot!(workspace.run_err(1, &["org", "list", "--data-dir", "/proc/waypost"]), @"error: cannot create the folder /proc/waypost: create it for the user that runs waypost, or choose another with --data-dir (No such file or directory)");
    workspace.write_file(
        "waypost-data/waypost.db",
        "this is not a database, and longer than a header of one hundred bytes. ".repeat(9).as_str(),
    );
    insta::assert_snapshot!(workspace.run_err(1, &["org", "list"]), @"
    error: sqlite://./waypost-data/waypost.db is not a SQLite database, or is damaged: restore a backup into a new file
    (use -v to show the cause)
    ");
}

#[test]
fn an_unreachable_postgresql_is_named_without_its_password() {
    let workspace = Workspace::new();
    let result = workspace.run(&["org", "list", "-v", "--database", "postgres://ann:hunter2@127.0.0.1:1/waypost"]);
    assert_eq!(result.code, 1);
    assert!(!result.err.contains("hunter2"), "{}", result.err);
    assert!(
        result.err.contains("error: the database postgres://ann@127.0.0.1:1/waypost cannot be reached"),
        "{}",
        result.err
    );
    assert!(result.err.contains("refused"), "{}", result.err);
}

#[test]
fn a_backup_can_be_restored() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    insta::assert_snapshot!(workspace.run_ok(&["backup", "a.backup"]), @"
    Backed up 2 rows to a.backup.
    The secret key is not included: back it up separately.
    ");
    insta::assert_snapshot!(workspace.run_err(1, &["backup", "a.backup"]), @"error: a.backup already exists: choose another name, or pass --force to overwrite it");
    workspace.run_ok(&["backup", "a.backup", "--force"]);
    insta::assert_snapshot!(workspace.run_err(1, &["restore", "a.backup"]), @"error: the database is not empty (table audit_events has rows): restore into a new one with --database or --data-dir");
    insta::assert_snapshot!(workspace.run_ok(&["restore", "a.backup", "--data-dir", "second"]), @"
    Restored 2 rows from TIME.
    Install the matching secret key before you run `waypost serve`.
    ");
    let of = |folder| workspace.run_json(&["org", "show", "acme", "--data-dir", folder]);
    assert_eq!(of("waypost-data"), of("second"));
    let text = std::fs::read_to_string(workspace.path("a.backup")).unwrap();
    workspace.write_file("a.backup", &text.replace("acme", "evil"));
    insta::assert_snapshot!(workspace.run_err(1, &["restore", "a.backup", "--data-dir", "third"]), @"error: the backup cannot be used: its checksum does not match: it was modified after it was written");
    insta::assert_snapshot!(workspace.run_err(1, &["backup", "nowhere/a.backup"]), @"error: cannot write to the folder nowhere (No such file or directory)");
}

#[test]
fn doctor_changes_nothing() {
    let workspace = Workspace::empty();
    // Port 0 is always free.
    let file = workspace.write_file("waypost.toml", "listen = '127.0.0.1:0'\ndiagnostics_listen = 'off'\n");
    let report = workspace.run_json(&["doctor", "--config", &file]);
    assert_eq!(report["status"], "ok", "{report:#}");
    assert!(!workspace.path("waypost-data").exists());
    workspace.run_ok(&["migrate"]);
    let report = workspace.run_json(&["doctor", "--config", &file]);
    let names: Vec<_> =
        report["items"].as_array().unwrap().iter().map(|item| item["check"].as_str().unwrap()).collect();
    let expected = "configuration, data folder, secret key, disk space, database, schema, sealed secrets, durability, integrity, clock, listen";
    assert_eq!(names.join(", "), expected);
    assert_eq!(report["status"], "ok", "{report:#}");
    workspace.write_file("waypost-data/secret.key", "no key");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Closes the connection immediately.
    let answering = std::thread::spawn(move || drop(listener.accept()));
    workspace.write_file("waypost.toml", &format!("listen = '127.0.0.1:{port}'\ndiagnostics_listen = 'off'\n"));
    let result = workspace.run(&["doctor", "--config", &file, "--json"]);
    answering.join().unwrap();
    assert_eq!(result.code, 1, "{}", result.out);
    let report: Value = serde_json::from_str(&result.out).unwrap();
    let failed: Vec<_> = report["items"].as_array().unwrap().iter().filter(|item| item["status"] == "fail").collect();
    assert_eq!(failed.len(), 2, "{failed:#?}");
    insta::assert_snapshot!(failed[0]["found"].as_str().unwrap(), @"./waypost-data/secret.key does not contain a key");
}

#[test]
fn doctor_warns_if_email_is_needed_but_not_configured() {
    let workspace = Workspace::new();
    let file = workspace
        .write_file("waypost.toml", "listen = '127.0.0.1:0'\ndiagnostics_listen = 'off'\nclient_documents = 'off'\n");
    workspace.run_ok(&["org", "create", "acme"]);
    workspace.run_ok(&["server", "create", "acme-docs", "--org", "acme", "--auth-type", "platform_oauth"]);
    let check = |file: &str, name: &str| {
        let report = workspace.run_json(&["doctor", "--config", file]);
        let items = report["items"].as_array().unwrap().clone();
        items.into_iter().find(|item| item["check"] == name).unwrap()
    };
    let documents = check(&file, "client documents");
    assert_eq!(documents["found"], "disabled by `client_documents`; clients register instead");
    let mail = check(&file, "mail");
    assert_eq!((&mail["status"], &mail["found"]), (&"warn".into(), &"server acme-docs signs users in by email".into()));
    let file = workspace.write_file(
        "waypost.toml",
        "listen = '127.0.0.1:0'\ndiagnostics_listen = 'off'\nclient_documents = 'off'\nsmtp_url = 'console:'\n",
    );
    assert_eq!(check(&file, "mail")["status"], "ok");
}

#[tokio::test]
async fn the_demo_prints_its_public_page_url_first() {
    let workspace = Workspace::new();
    let serve = ["serve", "--demo", "--listen", "127.0.0.1:0", "--diagnostics-listen", "off"];
    let mut serve =
        ServeProcess(workspace.command(&serve).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut lines = BufReader::new(serve.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let (first, second) = (lines.next().unwrap(), lines.next().unwrap());
    let page = first.strip_prefix("open in a browser: ").expect(&first);
    let port = second.strip_prefix("listening on http://127.0.0.1:").expect(&second);
    assert_eq!(page, format!("http://localhost:{port}/s/demo"));
    let url = page.replace("localhost", "127.0.0.1");
    let result = waypost_outbound::unguarded_client().build().unwrap().get(&url).send().await.unwrap();
    assert_eq!(result.status(), 200);
    let page = result.text().await.unwrap();
    assert!(page.contains("<h1><bdi>Waypost demo</bdi></h1>") && page.contains("works only on this machine"), "{page}");
}

/// A running `serve`, killed on drop.
struct ServeProcess(Child);

impl Drop for ServeProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn only_one_serve_runs_but_commands_can_run_alongside_it() {
    let workspace = Workspace::new();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--diagnostics-listen", "off"];
    let mut first =
        ServeProcess(workspace.command(&serve).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(first.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").expect(&line).to_owned();
    let refused = workspace.run(&serve);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("./waypost-data/waypost.db.serve.lock"), "{}", refused.err);
    workspace.run_ok(&["org", "create", "acme"]);
    workspace.run_ok(&["backup", "a.backup"]);
    let file = workspace.write_file("waypost.toml", &format!("listen = '{address}'\ndiagnostics_listen = 'off'\n"));
    let report = workspace.run_ok(&["doctor", "--config", &file]);
    assert!(report.contains(&format!("{address} is in use by a running waypost")), "{report}");
}

waypost_testkit::needs_postgres! {
    #[test]
    fn commands_work_on_postgresql() {
        let workspace = Workspace::new();
        let url = waypost_testkit::empty_postgres_url();
        workspace.run_ok(&["org", "create", "acme", "--database", &url]);
        workspace.run_ok(&["backup", "a.backup", "--database", &url]);
        workspace.run_ok(&["restore", "a.backup"]);
        assert_eq!(
            workspace.run_json(&["org", "show", "acme"]),
            workspace.run_json(&["org", "show", "acme", "--database", &url])
        );
        let result = workspace.run(&["doctor", "--json", "--database", &url]);
        assert_eq!(result.code, 1, "a secret key is required");
        assert!(result.out.contains("WAYPOST_SECRET_KEY") && result.out.contains("PostgreSQL 1"), "{}", result.out);
    }
}

/// Makes the database file look like one from an older version, which did not release free pages.
async fn simulate_old_file(workspace: &Workspace) {
    let url = format!("sqlite://{}", workspace.path("waypost-data/waypost.db").display());
    let mut file = url.parse::<SqliteConnectOptions>().unwrap().connect().await.unwrap();
    for sql in [
        "PRAGMA auto_vacuum = NONE",
        "VACUUM",
        "CREATE TABLE big (data BLOB)",
        "INSERT INTO big VALUES (zeroblob(4000000))",
        "DROP TABLE big",
        "PRAGMA wal_checkpoint(TRUNCATE)",
    ] {
        sqlx::query(sql).execute(&mut file).await.unwrap();
    }
    file.close().await.unwrap();
}

#[tokio::test]
async fn a_file_from_an_older_version_is_compacted_once() {
    let workspace = Workspace::new();
    let file = workspace.write_file("waypost.toml", "listen = '127.0.0.1:0'\ndiagnostics_listen = 'off'\n");
    workspace.run_ok(&["org", "create", "acme"]);
    simulate_old_file(&workspace).await;
    let space = || {
        let report = workspace.run_json(&["doctor", "--config", &file]);
        report["items"].as_array().unwrap().iter().find(|item| item["check"] == "space").cloned()
    };
    let bytes = || std::fs::metadata(workspace.path("waypost-data/waypost.db")).unwrap().len();
    let (found, before) = (space().unwrap(), bytes());
    assert_eq!(found["status"], "warn", "{found:#}");
    assert!(found["advice"].as_str().unwrap().contains("waypost migrate --compact"), "{found:#}");
    workspace.run_ok(&["migrate"]);
    assert!(space().is_some(), "the database is compacted only on request");
    let args = ["serve", "--listen", "127.0.0.1:0", "--diagnostics-listen", "off"];
    let mut serve =
        ServeProcess(workspace.command(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    BufReader::new(serve.0.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let refused = workspace.run_err(1, &["migrate", "--compact"]);
    assert!(refused.contains("waypost.db.serve.lock"), "{refused}");
    drop(serve);
    let output = workspace.run_ok(&["migrate", "--compact"]);
    assert!(output.ends_with("Compacted the database file.\n"), "{output}");
    assert_eq!(space(), None);
    assert!(before - bytes() > 3_000_000, "{before} {}", bytes());
    assert_eq!(workspace.run_json(&["org", "show", "acme"])["slug"], "acme");
}
