//! The checks of `waypost doctor`.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use waypost_auth::client::document::availability::{Check as _, HOSTS, Hosts, Mode};
use waypost_core::caller::Ctx;
use waypost_core::secret::SecretKey;
use waypost_core::server::AuthType;
use waypost_core::{Clock, SystemClock, Timestamp};
use waypost_ops::{Ops, organizations, secrets, servers};
use waypost_outbound::{Outbound, Purpose};
use waypost_store::health::{self, Health};
use waypost_store::{Db, migrate};

use super::Check;
use crate::config::Settings;
use crate::storage;

/// Below this, the disk is as good as full.
const LITTLE_SPACE: u64 = 100 * 1024 * 1024;
/// Below this, somebody should look after it.
const SOME_SPACE: u64 = 1024 * 1024 * 1024;
/// Older than the program itself (2026-01-01): such a clock was never set.
const BEFORE_WAYPOST: Timestamp = Timestamp(1_767_225_600_000);
/// Clocks may differ by this much, in milliseconds.
const SKEW: i64 = 2_000;

pub(super) fn configuration(settings: &Settings) -> Check {
    let name = "configuration";
    let set: Vec<_> = crate::config::table::SETTINGS
        .iter()
        .filter(|setting| settings.origin(setting.name).is_some())
        .map(|setting| setting.name)
        .collect();
    let found = if set.is_empty() { "only defaults".to_owned() } else { format!("set: {}", set.join(", ")) };
    let beyond = !settings.listen.ip().is_loopback();
    match (&settings.public_url, beyond) {
        (None, true) => Check::warn(
            name,
            format!("{found}; listens on {}, but clients are told http://localhost", settings.listen),
            "set `public_url` to the origin that clients use",
        ),
        (Some(url), true) if url.scheme() == "http" && settings.trusted_proxies.is_empty() => {
            Check::warn(name, format!("{found}; {url} is not encrypted"), "put a proxy with TLS in front and use https")
        }
        _ => Check::ok(name, found),
    }
}

pub(super) fn files(settings: &Settings) -> Vec<Check> {
    let folder = &settings.data_dir;
    let mut checks = Vec::new();
    if !settings.database_url.is_sqlite() && !folder.exists() {
        return vec![secret(settings)];
    }
    checks.push(data_folder(folder));
    checks.push(secret(settings));
    checks.push(space(&nearest(folder)));
    checks
}

/// The folder itself, or the next one above it that is there.
fn nearest(folder: &Path) -> PathBuf {
    let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    there.to_owned()
}

fn data_folder(folder: &Path) -> Check {
    let (name, shown) = ("data folder", folder.display());
    if folder.exists() && !folder.is_dir() {
        return Check::fail(name, format!("{shown} is no folder"), "choose another with --data-dir");
    }
    let there = nearest(folder);
    // Permission bits do not tell of read-only mounts and other rules: only trying does.
    if let Err(error) = tempfile::tempfile_in(&there) {
        let advice = "give it to the user that runs waypost, or choose another with --data-dir";
        return Check::fail(name, format!("{} cannot be written ({error})", there.display()), advice);
    }
    if !folder.exists() {
        return Check::ok(name, format!("{shown} is not there yet; the first start makes it"));
    }
    if mode(folder).is_some_and(|mode| mode & 0o007 != 0) {
        let advice = format!("chmod 700 {shown}");
        return Check::warn(name, format!("{shown} can be read by every user of this machine"), advice);
    }
    Check::ok(name, format!("{shown} can be written"))
}

fn secret(settings: &Settings) -> Check {
    let name = "secret key";
    if let Some(origin) = settings.origin("secret_key") {
        return Check::ok(name, format!("set {origin}"));
    }
    if !settings.database_url.is_sqlite() {
        let advice = "set WAYPOST_SECRET_KEY, the same on every replica; `openssl rand -hex 32` makes one";
        return Check::fail(name, "not set, and PostgreSQL needs it", advice);
    }
    let path = storage::secret_file(settings);
    let shown = path.display();
    match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Check::ok(name, format!("{shown} is not there yet; the first start makes it"))
        }
        Err(error) => {
            Check::fail(name, format!("{shown} cannot be read ({error})"), "give it to the user that runs waypost")
        }
        Ok(text) if text.parse::<crate::config::SecretKey>().is_err() => {
            Check::fail(name, format!("{shown} holds no key"), "put the old key back")
        }
        Ok(_) if mode(&path).is_some_and(|mode| mode & 0o077 != 0) => {
            Check::fail(name, format!("{shown} can be read by others"), format!("chmod 600 {shown}"))
        }
        Ok(_) => Check::ok(name, format!("{shown}, for its owner only")),
    }
}

#[cfg(unix)]
fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).ok().map(|data| data.permissions().mode())
}

#[cfg(not(unix))]
fn mode(_: &Path) -> Option<u32> {
    None
}

#[cfg(unix)]
fn space(folder: &Path) -> Check {
    let (name, shown) = ("disk space", folder.display());
    let free = match rustix::fs::statvfs(folder) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => return Check::warn(name, format!("cannot be told for {shown} ({error})"), "check it by hand"),
    };
    let found = format!("{} MiB free in {shown}", free / (1024 * 1024));
    match free {
        0..LITTLE_SPACE => Check::fail(name, found, "make room: a full disk stops every write"),
        LITTLE_SPACE..SOME_SPACE => Check::warn(name, found, "make room soon"),
        _ => Check::ok(name, found),
    }
}

#[cfg(not(unix))]
fn space(_: &Path) -> Check {
    Check::warn("disk space", "cannot be told on this system", "check it by hand")
}

pub(super) async fn database(settings: &Settings) -> Vec<Check> {
    let (name, url) = ("database", &settings.database_url);
    // Opening would make the file, and a check-up changes nothing.
    match storage::sqlite_file(url) {
        Ok(Some(file)) if !file.exists() => {
            let found = format!("{url} is not there yet; the first start makes it");
            return vec![Check::ok(name, found), clock(None)];
        }
        Ok(_) => {}
        Err(error) => return vec![Check::fail(name, error.to_string(), "check `database_url`"), clock(None)],
    }
    let db = match storage::connect(url).await {
        Ok(db) => db,
        Err(error) => {
            let cause = error.root_cause().to_string();
            return vec![Check::fail(name, cause, error.to_string()), clock(None)];
        }
    };
    let mut checks = vec![Check::ok(name, format!("{url} answers")), schema(&db).await];
    checks.extend(sealed(settings, &db).await);
    checks.extend(mail(settings, &db).await);
    checks.extend(client_documents(settings, &db).await);
    let before = SystemClock.now();
    match health::examine(&db).await {
        Ok(health) => {
            checks.extend(settings_of_database(&health));
            let after = SystemClock.now();
            checks.push(clock(Some((before, health.now, after))));
        }
        Err(error) => {
            checks.push(Check::fail("integrity", error.to_string(), "restore a backup into a new database"));
            checks.push(clock(None));
        }
    }
    db.close().await;
    checks
}

/// Whether mail can be sent, when a server needs it; nothing when none does.
async fn mail(settings: &Settings, db: &Db) -> Option<Check> {
    let slugs = slugs(db, |auth_type| auth_type == AuthType::PlatformOauth).await?;
    let (name, first) = ("mail", slugs.first()?);
    let found = match slugs.len() {
        1 => format!("{first} signs its users in by mail"),
        count => format!("{first} and {} more sign their users in by mail", count - 1),
    };
    Some(match &settings.smtp_url {
        Some(_) => Check::ok(name, format!("{found}, and `smtp_url` is set")),
        None => Check::warn(name, found, "set `smtp_url`; without it no code can be sent, but by `serve --demo`"),
    })
}

/// Whether clients can name a metadata document, if a server has users who sign in; nothing if none has.
async fn client_documents(settings: &Settings, db: &Db) -> Option<Check> {
    let name = "client documents";
    if slugs(db, AuthType::has_sign_in).await?.is_empty() {
        return None;
    }
    match settings.client_documents {
        Mode::Off => return Some(Check::ok(name, "switched off by `client_documents`: clients register")),
        Mode::On => return Some(Check::ok(name, "advertised without a check")),
        Mode::Auto => {}
    }
    let outbound = Outbound::new(crate::outbound::policy(settings, false).ok()?).ok()?;
    if Hosts::new(outbound.route(Purpose::ClientDocuments, &[]).ok()?).any_answers().await {
        return Some(Check::ok(name, "can be fetched and are advertised"));
    }
    let advice = "let this machine reach one of them, or set `client_documents` to `off`; until then clients register";
    Some(Check::warn(name, format!("cannot be fetched: none of {} answers", HOSTS.join(", ")), advice))
}

/// The slugs of the servers with such an `auth_type`; `None` if they cannot be read.
async fn slugs(db: &Db, is_wanted: impl Fn(AuthType) -> bool) -> Option<Vec<String>> {
    let (cx, ops) = (Ctx::operator(), Ops::new(db.clone()));
    let mut slugs = Vec::new();
    for organization in organizations::list(&cx, &ops).await.ok()? {
        let servers = servers::list(&cx, &ops, &organization.id).await.ok()?;
        slugs.extend(servers.into_iter().filter(|server| is_wanted(server.auth_type)).map(|server| server.slug));
    }
    Some(slugs)
}

/// Whether everything that is sealed can be opened.
async fn sealed(settings: &Settings, db: &Db) -> Option<Check> {
    let name = "sealed secrets";
    // An older schema has none, and a key that cannot be used is a finding of its own.
    if migrate::current_version(db).await.ok()? != migrate::known_version(db.dialect()) {
        return None;
    }
    let keys = storage::existing_keys(settings).ok()?;
    // Where there is no key, none opens anything.
    let keys = keys.unwrap_or_else(|| SecretKey::new([0; 32]).into());
    Some(match secrets::count_unreadable(&Ops::new(db.clone()), &keys.keyring()).await {
        Ok(0) => Check::ok(name, "the secret key opens all of them"),
        Ok(count) => Check::fail(
            name,
            format!("{count} are sealed with a key that is neither the current nor the previous one"),
            "put that key back as `secret_key_previous`, or give the client secrets again (`waypost oauth-config update`)",
        ),
        Err(error) => Check::fail(name, error.to_string(), "check `database_url`"),
    })
}

async fn schema(db: &Db) -> Check {
    let (name, known) = ("schema", migrate::known_version(db.dialect()));
    match migrate::current_version(db).await {
        Ok(found) if found == known => Check::ok(name, format!("version {found}")),
        Ok(found) if found < known => {
            Check::warn(name, format!("version {found}, this program needs {known}"), "run `waypost migrate`")
        }
        Ok(found) => Check::fail(name, format!("version {found}, this program knows {known}"), "use a newer waypost"),
        Err(error) => Check::fail(name, error.to_string(), "check `database_url`"),
    }
}

fn settings_of_database(health: &Health) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(mode) = &health.journal_mode {
        let name = "durability";
        checks.push(match mode.as_str() {
            "wal" => Check::ok(name, format!("{}, write-ahead log, synced at every commit", health.version)),
            other => Check::fail(
                name,
                format!("journal mode {other}"),
                "keep the database on a local disk: the write-ahead log needs one",
            ),
        });
        if health.can_release == Some(false) {
            checks.push(Check::warn(
                "space",
                "the file was made by an older Waypost and does not become shorter when rows are deleted",
                "stop `waypost serve` and run `waypost migrate --compact` once",
            ));
        }
        checks.push(match (health.damage.first(), health.orphans) {
            (Some(damage), _) => Check::fail("integrity", damage.clone(), "restore a backup into a new database"),
            (None, Some(orphans)) if orphans > 0 => Check::fail(
                "integrity",
                format!("{orphans} rows refer to what is not there"),
                "restore a backup into a new database",
            ),
            _ => Check::ok("integrity", "the file is whole, every reference holds"),
        });
    }
    if let Some(number) = health.postgres_version {
        checks.push(match number {
            150_000.. => Check::ok("version", health.version.clone()),
            _ => Check::fail("version", health.version.clone(), "upgrade to PostgreSQL 15 or newer"),
        });
        let (fsync, commit) = (health.fsync.as_deref(), health.synchronous_commit.as_deref());
        let found = format!("fsync {}, synchronous_commit {}", fsync.unwrap_or("?"), commit.unwrap_or("?"));
        checks.push(match (fsync, commit) {
            (Some("on"), Some("off")) => {
                Check::fail("durability", found, "set synchronous_commit = on: acknowledged steps can be lost")
            }
            (Some("on"), _) => Check::ok("durability", found),
            _ => Check::fail("durability", found, "set fsync = on: a power cut can destroy the database"),
        });
    }
    checks
}

/// `seen` is the database's time, between two readings of the own clock.
fn clock(seen: Option<(Timestamp, Timestamp, Timestamp)>) -> Check {
    let (name, now) = ("clock", SystemClock.now());
    if now < BEFORE_WAYPOST {
        return Check::fail(
            name,
            format!("it is {now} by this machine's clock"),
            "set the clock, and keep it with NTP",
        );
    }
    match seen {
        Some((before, theirs, after)) if theirs.plus(SKEW) < before || theirs > after.plus(SKEW) => {
            let found = format!("the database's clock is {} ms from this machine's", theirs.since(after));
            Check::warn(name, found, "keep both with NTP")
        }
        _ => Check::ok(name, now.rfc3339()),
    }
}

pub(super) async fn ports(settings: &Settings) -> Vec<Check> {
    let mut checks = vec![port("listen", settings.listen).await];
    if let Some(address) = settings.diagnostics_listen {
        checks.push(port("diagnostics", address).await);
    }
    checks
}

async fn port(name: &'static str, address: SocketAddr) -> Check {
    match TcpListener::bind(address) {
        Ok(_) => Check::ok(name, format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            if is_waypost(address).await {
                return Check::ok(name, format!("{address} is held by a running waypost"));
            }
            let advice = format!("stop the other program, or choose another address with `{name}`");
            Check::fail(
                name,
                format!("{address} is held by another program"),
                advice.replace("diagnostics", "diagnostics_listen"),
            )
        }
        Err(error) => {
            Check::fail(name, format!("{address} cannot be used ({error})"), "choose an address of this machine")
        }
    }
}

/// Asks whoever listens there.
async fn is_waypost(address: SocketAddr) -> bool {
    // What listens on every address also does so on the loopback.
    let host = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build();
    let Ok(client) = client else { return false };
    let answer = client.get(format!("http://{}/healthz", SocketAddr::new(host, address.port()))).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}
