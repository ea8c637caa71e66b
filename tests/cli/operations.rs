//! Migrations, check-ups, backups, and what can be wrong with a machine.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use waypost_store::{Db, on};

use crate::Place;

/// The number of the newest migration, read from the names of the files.
fn newest_schema() -> u32 {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/store/migrations/sqlite");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| name.split('_').next().unwrap().parse().unwrap()).max().unwrap()
}

#[test]
fn migrate_says_what_it_did() {
    let place = Place::new();
    let newest = newest_schema();
    let answer = place.fails(1, &["org", "list", "--no-migrate"]);
    let expected =
        format!("error: the database has schema version 0, this program needs {newest}: run `waypost migrate`");
    assert_eq!(answer.trim_end(), expected);
    let answer = place.fine(&["migrate"]);
    assert_eq!(answer.trim_end(), format!("The database was brought from schema 0 to {newest}."));
    let answer = place.fine(&["migrate"]);
    assert_eq!(answer.trim_end(), format!("The database is up to date (schema {newest})."));
    insta::assert_snapshot!(place.fine(&["org", "list", "--no-migrate"]), @"Nothing there yet.");
}

#[cfg(unix)]
#[test]
fn what_it_makes_is_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.fine(&["migrate"]);
    for (name, mode) in [("waypost-data", 0o700), ("waypost-data/waypost.db", 0o600)] {
        let found = std::fs::metadata(place.path(name)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{name}");
    }
}

#[test]
fn many_first_commands_at_once_all_work() {
    let place = Place::new();
    let start = |_| place.command(&["org", "list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children: Vec<_> = (0..6).map(start).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Makes the database look as if a later program had migrated it.
async fn migrate_too_far(place: &Place) {
    let db = Db::open(&format!("sqlite://{}", place.path("waypost-data/waypost.db").display())).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    const SQL: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                       SELECT 999, description, success, checksum, execution_time FROM _sqlx_migrations LIMIT 1";
    on!(&mut tx, c => sqlx::query(SQL).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
    db.close().await;
}

#[tokio::test]
async fn a_newer_database_is_left_alone() {
    let place = Place::new();
    place.fine(&["migrate"]);
    migrate_too_far(&place).await;
    let newest = newest_schema();
    let expected = format!(
        "error: the database has schema version 999, this program knows versions up to {newest}: use a newer waypost"
    );
    assert_eq!(place.fails(1, &["org", "list"]).trim_end(), expected);
}

#[tokio::test]
async fn a_command_waits_for_a_migration_that_runs() {
    let place = Place::new();
    place.fine(&["migrate"]);
    let lock = std::fs::File::open(place.path("waypost-data/waypost.db.migrate.lock")).unwrap();
    lock.lock().unwrap();
    let child = place.command(&["org", "list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // However fast the command is, it must see what was done under the lock.
    migrate_too_far(&place).await;
    lock.unlock().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("use a newer waypost"));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let place = Place::new();
    place.file("taken", "a file");
    insta::assert_snapshot!(place.fails(1, &["org", "list", "--data-dir", "taken/below"]), @"error: cannot make the folder taken/below: make it yourself and give it to the user that runs waypost, or choose another with --data-dir (Not a directory)");
    insta::assert_snapshot!(place.fails(1, &["org", "list", "--data-dir", "/proc/waypost"]), @"error: cannot make the folder /proc/waypost: make it yourself and give it to the user that runs waypost, or choose another with --data-dir (No such file or directory)");
    place.file(
        "waypost-data/waypost.db",
        "this is not a database, and longer than a header of one hundred bytes. ".repeat(9).as_str(),
    );
    insta::assert_snapshot!(place.fails(1, &["org", "list"]), @"
    error: the file of sqlite://./waypost-data/waypost.db is no SQLite database, or is damaged: restore a backup into a new file
    (-v tells the cause)
    ");
}

#[test]
fn a_missing_postgresql_is_named_without_its_password() {
    let place = Place::new();
    let answer = place.run(&["org", "list", "-v", "--database", "postgres://ann:geheim@127.0.0.1:1/waypost"]);
    assert_eq!(answer.code, 1);
    assert!(!answer.err.contains("geheim"), "{}", answer.err);
    assert!(
        answer.err.contains("error: the database postgres://ann@127.0.0.1:1/waypost cannot be reached"),
        "{}",
        answer.err
    );
    assert!(answer.err.contains("refused"), "{}", answer.err);
}

#[test]
fn a_backup_is_restored_elsewhere() {
    let place = Place::new();
    place.fine(&["org", "create", "acme"]);
    insta::assert_snapshot!(place.fine(&["backup", "a.backup"]), @"
    Backed up 2 rows to a.backup.
    The secret key is not in it: keep a copy of that, too.
    ");
    insta::assert_snapshot!(place.fails(1, &["backup", "a.backup"]), @"error: a.backup is there already: choose another name, or say --force to replace it");
    place.fine(&["backup", "a.backup", "--force"]);
    insta::assert_snapshot!(place.fails(1, &["restore", "a.backup"]), @"error: the database has content already (in audit_events): restore into a new one, and name it with --database or --data-dir");
    insta::assert_snapshot!(place.fine(&["restore", "a.backup", "--data-dir", "second"]), @"
    Restored 2 rows of TIME.
    Put the secret key that belongs to them in place before `waypost serve`.
    ");
    let of = |folder| place.json(&["org", "show", "acme", "--data-dir", folder]);
    assert_eq!(of("waypost-data"), of("second"));
    let text = std::fs::read_to_string(place.path("a.backup")).unwrap();
    place.file("a.backup", &text.replace("acme", "evil"));
    insta::assert_snapshot!(place.fails(1, &["restore", "a.backup", "--data-dir", "third"]), @"error: the backup cannot be used: its checksum differs: it was changed after it was made");
    insta::assert_snapshot!(place.fails(1, &["backup", "nowhere/a.backup"]), @"error: cannot write to the folder nowhere (No such file or directory)");
}

#[test]
fn the_doctor_looks_and_changes_nothing() {
    let place = Place::new();
    // Port 0 is always free.
    let file = place.file("waypost.toml", "listen = '127.0.0.1:0'\ndiagnostics_listen = 'off'\n");
    let found = place.json(&["doctor", "--config", &file]);
    assert_eq!(found["status"], "ok", "{found:#}");
    assert!(!place.path("waypost-data").exists());
    place.fine(&["migrate"]);
    let found = place.json(&["doctor", "--config", &file]);
    let names: Vec<_> = found["items"].as_array().unwrap().iter().map(|item| item["check"].as_str().unwrap()).collect();
    let expected = "configuration, data folder, secret key, disk space, database, schema, sealed secrets, durability, integrity, clock, listen";
    assert_eq!(names.join(", "), expected);
    assert_eq!(found["status"], "ok", "{found:#}");
    place.file("waypost-data/secret.key", "no key");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // Whoever asks is turned away at once.
    let port = listener.local_addr().unwrap().port();
    let answering = std::thread::spawn(move || drop(listener.accept()));
    place.file("waypost.toml", &format!("listen = '127.0.0.1:{port}'\ndiagnostics_listen = 'off'\n"));
    let answer = place.run(&["doctor", "--config", &file, "--json"]);
    answering.join().unwrap();
    assert_eq!(answer.code, 1, "{}", answer.out);
    let found: Value = serde_json::from_str(&answer.out).unwrap();
    let failed: Vec<_> = found["items"].as_array().unwrap().iter().filter(|item| item["status"] == "fail").collect();
    assert_eq!(failed.len(), 2, "{failed:#?}");
    insta::assert_snapshot!(failed[0]["found"].as_str().unwrap(), @"./waypost-data/secret.key holds no key");
}

#[test]
fn the_doctor_asks_for_a_way_to_send_mail() {
    let place = Place::new();
    let file =
        place.file("waypost.toml", "listen = '127.0.0.1:0'\ndiagnostics_listen = 'off'\nclient_documents = 'off'\n");
    place.fine(&["org", "create", "acme"]);
    place.fine(&["server", "create", "acme-docs", "--org", "acme", "--auth-type", "platform_oauth"]);
    let check = |file: &str, name: &str| {
        let found = place.json(&["doctor", "--config", file]);
        let items = found["items"].as_array().unwrap().clone();
        items.into_iter().find(|item| item["check"] == name).unwrap()
    };
    let documents = check(&file, "client documents");
    assert_eq!(documents["found"], "switched off by `client_documents`: clients register");
    let mail = check(&file, "mail");
    assert_eq!((&mail["status"], &mail["found"]), (&"warn".into(), &"acme-docs signs its users in by mail".into()));
    let file = place.file(
        "waypost.toml",
        "listen = '127.0.0.1:0'\ndiagnostics_listen = 'off'\nclient_documents = 'off'\nsmtp_url = 'console:'\n",
    );
    assert_eq!(check(&file, "mail")["status"], "ok");
}

#[tokio::test]
async fn the_demo_prints_its_page_first() {
    let place = Place::new();
    let serve = ["serve", "--demo", "--listen", "127.0.0.1:0", "--diagnostics-listen", "off"];
    let mut serve = Serve(place.command(&serve).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut lines = BufReader::new(serve.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let (first, second) = (lines.next().unwrap(), lines.next().unwrap());
    let page = first.strip_prefix("open in a browser: ").expect(&first);
    let port = second.strip_prefix("listening on http://127.0.0.1:").expect(&second);
    assert_eq!(page, format!("http://localhost:{port}/s/demo"));
    let url = page.replace("localhost", "127.0.0.1");
    let answer = reqwest::get(&url).await.unwrap();
    assert_eq!(answer.status(), 200);
    let page = answer.text().await.unwrap();
    assert!(page.contains("<h1>Waypost demo</h1>") && page.contains("works only on this machine"), "{page}");
}

/// A running `serve`, ended with the test.
struct Serve(Child);

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn one_serve_at_a_time_and_commands_beside_it() {
    let place = Place::new();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--diagnostics-listen", "off"];
    let mut first = Serve(place.command(&serve).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(first.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").expect(&line).to_owned();
    let refused = place.run(&serve);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("./waypost-data/waypost.db.serve.lock"), "{}", refused.err);
    place.fine(&["org", "create", "acme"]);
    place.fine(&["backup", "a.backup"]);
    let file = place.file("waypost.toml", &format!("listen = '{address}'\ndiagnostics_listen = 'off'\n"));
    let found = place.fine(&["doctor", "--config", &file]);
    assert!(found.contains(&format!("{address} is held by a running waypost")), "{found}");
}

#[test]
#[cfg_attr(not(have_postgres), ignore = "needs PostgreSQL")]
fn postgresql_does_all_of_it() {
    let place = Place::new();
    let url = waypost_testkit::empty_postgres_url();
    place.fine(&["org", "create", "acme", "--database", &url]);
    place.fine(&["backup", "a.backup", "--database", &url]);
    place.fine(&["restore", "a.backup"]);
    assert_eq!(place.json(&["org", "show", "acme"]), place.json(&["org", "show", "acme", "--database", &url]));
    let answer = place.run(&["doctor", "--json", "--database", &url]);
    assert_eq!(answer.code, 1, "a secret key is required");
    assert!(answer.out.contains("WAYPOST_SECRET_KEY") && answer.out.contains("PostgreSQL 1"), "{}", answer.out);
}

/// Makes the file of the database one as older versions made it: free pages stay in it.
async fn make_old(place: &Place) {
    let url = format!("sqlite://{}", place.path("waypost-data/waypost.db").display());
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
    let place = Place::new();
    let file = place.file("waypost.toml", "listen = '127.0.0.1:0'\ndiagnostics_listen = 'off'\n");
    place.fine(&["org", "create", "acme"]);
    make_old(&place).await;
    let space = || {
        let found = place.json(&["doctor", "--config", &file]);
        found["items"].as_array().unwrap().iter().find(|item| item["check"] == "space").cloned()
    };
    let bytes = || std::fs::metadata(place.path("waypost-data/waypost.db")).unwrap().len();
    let (found, before) = (space().unwrap(), bytes());
    assert_eq!(found["status"], "warn", "{found:#}");
    assert!(found["advice"].as_str().unwrap().contains("waypost migrate --compact"), "{found:#}");
    place.fine(&["migrate"]);
    assert!(space().is_some(), "only if it is asked for");
    let args = ["serve", "--listen", "127.0.0.1:0", "--diagnostics-listen", "off"];
    let mut serve = Serve(place.command(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    BufReader::new(serve.0.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let refused = place.fails(1, &["migrate", "--compact"]);
    assert!(refused.contains("waypost.db.serve.lock"), "{refused}");
    drop(serve);
    let said = place.fine(&["migrate", "--compact"]);
    assert!(said.ends_with("The file was rewritten without free space.\n"), "{said}");
    assert_eq!(space(), None);
    assert!(before - bytes() > 3_000_000, "{before} {}", bytes());
    assert_eq!(place.json(&["org", "show", "acme"])["slug"], "acme");
}
