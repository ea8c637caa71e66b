//! The checks of `waypost doctor`.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use waypost_auth::client::document::availability::{ClientDocumentsMode, HOSTS, HostCheck, ReachabilityCheck as _};
use waypost_core::caller::Ctx;
use waypost_core::secret::SecretKey;
use waypost_core::server::AuthType;
use waypost_core::{Clock, SystemClock, Timestamp};
use waypost_ops::{Ops, organizations, secret_key, servers};
use waypost_outbound::{Outbound, Purpose, unguarded_client};
use waypost_store::health::{self, Health};
use waypost_store::{Db, migrate};

use super::Check;
use crate::config::Settings;
use crate::storage;

/// Free space in bytes below which the check fails.
const MIN_FREE_SPACE: u64 = 100 * 1024 * 1024;
/// Free space in bytes below which the check warns.
const LOW_FREE_SPACE: u64 = 1024 * 1024 * 1024;
/// The earliest plausible time (2026-01-01). A clock that shows an earlier time was never set.
const EARLIEST_TIME: Timestamp = Timestamp(1_767_225_600_000);
/// Maximum acceptable difference between clocks in milliseconds.
const MAX_CLOCK_SKEW: i64 = 2_000;

pub(super) fn configuration(settings: &Settings) -> Check {
    let name = "configuration";
    let set: Vec<_> = crate::config::table::SETTINGS
        .iter()
        .filter(|setting| settings.origin(setting.name).is_some())
        .map(|setting| setting.name)
        .collect();
    let found =
        if set.is_empty() { "all settings have their defaults".to_owned() } else { format!("set: {}", set.join(", ")) };
    let is_exposed = !settings.listen.ip().is_loopback();
    match (&settings.public_url, is_exposed) {
        (None, true) => Check::warn(
            name,
            format!("{found}; listens on {}, but the public URL is http://localhost", settings.listen),
            "set `public_url` to the URL that clients use",
        ),
        (Some(url), true) if url.scheme() == "http" && settings.trusted_proxies.is_empty() => {
            Check::warn(name, format!("{found}; {url} is not encrypted"), "put a TLS proxy in front and use https")
        }
        _ => Check::ok(name, found),
    }
}

pub(super) fn files(settings: &Settings) -> Vec<Check> {
    let folder = &settings.data_dir;
    let mut checks = Vec::new();
    if !settings.database_url.is_sqlite() && !folder.exists() {
        return vec![secret_key(settings)];
    }
    checks.push(data_folder(folder));
    checks.push(secret_key(settings));
    checks.push(disk_space(&nearest_existing(folder)));
    checks
}

/// Returns the folder itself, or its nearest existing ancestor.
fn nearest_existing(folder: &Path) -> PathBuf {
    let existing = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    existing.to_owned()
}

fn data_folder(folder: &Path) -> Check {
    let (name, shown) = ("data folder", folder.display());
    if folder.exists() && !folder.is_dir() {
        return Check::fail(name, format!("{shown} is not a folder"), "choose another with --data-dir");
    }
    let existing = nearest_existing(folder);
    // Permission bits do not cover read-only mounts and similar restrictions, so write a file.
    if let Err(error) = tempfile::tempfile_in(&existing) {
        let advice = "make it writable for the user that runs waypost, or choose another with --data-dir";
        return Check::fail(name, format!("{} is not writable ({error})", existing.display()), advice);
    }
    if !folder.exists() {
        return Check::ok(name, format!("{shown} does not exist yet; it is created on the first start"));
    }
    if mode(folder).is_some_and(|mode| mode & 0o007 != 0) {
        let advice = format!("chmod 700 {shown}");
        return Check::warn(name, format!("{shown} is accessible to every user of this machine"), advice);
    }
    Check::ok(name, format!("{shown} is writable"))
}

fn secret_key(settings: &Settings) -> Check {
    let name = "secret key";
    if let Some(origin) = settings.origin("secret_key") {
        return Check::ok(name, format!("set {origin}"));
    }
    if !settings.database_url.is_sqlite() {
        let advice = "set WAYPOST_SECRET_KEY to the same value on every replica; `openssl rand -hex 32` generates one";
        return Check::fail(name, "not set, but required on PostgreSQL", advice);
    }
    let path = storage::secret_file(settings);
    let shown = path.display();
    match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Check::ok(name, format!("{shown} does not exist yet; it is created on the first start"))
        }
        Err(error) => Check::fail(
            name,
            format!("{shown} cannot be read ({error})"),
            "make it readable for the user that runs waypost",
        ),
        Ok(text) if text.parse::<crate::config::SecretKey>().is_err() => {
            Check::fail(name, format!("{shown} does not contain a key"), "restore the previous key")
        }
        Ok(_) if mode(&path).is_some_and(|mode| mode & 0o077 != 0) => {
            Check::fail(name, format!("{shown} is readable by other users"), format!("chmod 600 {shown}"))
        }
        Ok(_) => Check::ok(name, format!("{shown}, readable only by its owner")),
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
fn disk_space(folder: &Path) -> Check {
    let (name, shown) = ("disk space", folder.display());
    let free = match rustix::fs::statvfs(folder) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => {
            return Check::warn(name, format!("cannot be determined for {shown} ({error})"), "check it manually");
        }
    };
    let found = format!("{} MiB free in {shown}", free / (1024 * 1024));
    match free {
        0..MIN_FREE_SPACE => Check::fail(name, found, "free up space: a full disk blocks all writes"),
        MIN_FREE_SPACE..LOW_FREE_SPACE => Check::warn(name, found, "free up space soon"),
        _ => Check::ok(name, found),
    }
}

#[cfg(not(unix))]
fn disk_space(_: &Path) -> Check {
    Check::warn("disk space", "cannot be determined on this system", "check it manually")
}

pub(super) async fn database(settings: &Settings) -> Vec<Check> {
    let (name, url) = ("database", &settings.database_url);
    // Opening would create the file, but `doctor` must not change anything.
    match storage::sqlite_file(url) {
        Ok(Some(file)) if !file.exists() => {
            let found = format!("{url} does not exist yet; it is created on the first start");
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
    let mut checks = vec![Check::ok(name, format!("{url} is reachable")), schema(&db).await];
    checks.extend(sealed_secrets(settings, &db).await);
    checks.extend(mail(settings, &db).await);
    checks.extend(client_documents(settings, &db).await);
    let before = SystemClock.now();
    match health::examine(&db).await {
        Ok(health) => {
            checks.extend(database_health(&health));
            let after = SystemClock.now();
            checks.push(clock(Some(ClockComparison { before, database: health.now, after })));
        }
        Err(error) => {
            checks.push(Check::fail("integrity", error.to_string(), "restore a backup into a new database"));
            checks.push(clock(None));
        }
    }
    db.close().await;
    checks
}

/// Checks whether mail is configured. `None` if no server needs mail, or the servers cannot be read.
async fn mail(settings: &Settings, db: &Db) -> Option<Check> {
    let slugs = server_slugs(db, |auth_type| auth_type == AuthType::PlatformOauth).await?;
    let (name, first) = ("mail", slugs.first()?);
    let found = match slugs.len() {
        1 => format!("server {first} signs users in by email"),
        count => format!("server {first} and {} more sign users in by email", count - 1),
    };
    Some(match &settings.smtp_url {
        Some(_) => Check::ok(name, format!("{found}, and `smtp_url` is set")),
        None => Check::warn(name, found, "set `smtp_url`; without it, only `serve --demo` can send codes"),
    })
}

/// Checks whether client metadata documents can be fetched. `None` if no server has users who sign in, or the check
/// cannot be run.
async fn client_documents(settings: &Settings, db: &Db) -> Option<Check> {
    let name = "client documents";
    if server_slugs(db, AuthType::has_sign_in).await?.is_empty() {
        return None;
    }
    match settings.client_documents {
        ClientDocumentsMode::Off => {
            return Some(Check::ok(name, "disabled by `client_documents`; clients register instead"));
        }
        ClientDocumentsMode::On => return Some(Check::ok(name, "advertised without a check")),
        ClientDocumentsMode::Auto => {}
    }
    let outbound = Outbound::new(crate::outbound::policy(settings, false).ok()?).ok()?;
    if HostCheck::new(outbound.route(Purpose::ClientDocuments, &[]).ok()?).is_any_reachable().await {
        return Some(Check::ok(name, "can be fetched and are advertised"));
    }
    let advice =
        "allow this machine to reach one of them, or set `client_documents` to `off`; until then clients register";
    Some(Check::warn(name, format!("cannot be fetched: none of {} is reachable", HOSTS.join(", ")), advice))
}

/// Returns the slugs of the servers whose `auth_type` matches; `None` if they cannot be read.
async fn server_slugs(db: &Db, matches: impl Fn(AuthType) -> bool) -> Option<Vec<String>> {
    let (cx, ops) = (Ctx::operator(), Ops::new(db.clone()));
    let mut slugs = Vec::new();
    for organization in organizations::list(&cx, &ops).await.ok()? {
        let servers = servers::list(&cx, &ops, &organization.id).await.ok()?;
        slugs.extend(servers.into_iter().filter(|server| matches(server.auth_type)).map(|server| server.slug));
    }
    Some(slugs)
}

/// Checks whether all sealed secrets can be decrypted. `None` if the schema is outdated or the key is unusable.
async fn sealed_secrets(settings: &Settings, db: &Db) -> Option<Check> {
    let name = "sealed secrets";
    // An older schema has no sealed secrets, and an unusable key is reported by another check.
    if migrate::current_version(db).await.ok()? != migrate::known_version(db.dialect()) {
        return None;
    }
    let keys = storage::existing_keys(settings).ok()?;
    // Without a key, a placeholder is used that decrypts nothing.
    let keys = keys.unwrap_or_else(|| SecretKey::new([0; 32]).into());
    Some(match secret_key::count_unreadable(&Ops::new(db.clone()), &keys.keyring()).await {
        Ok(0) => Check::ok(name, "all can be decrypted"),
        Ok(count) => Check::fail(
            name,
            format!("{count} are encrypted with a key that is neither the current nor the previous one"),
            "set that key as `secret_key_previous`, or enter the secrets again (`waypost oauth-config update`, `waypost secret rotate`)",
        ),
        Err(error) => Check::fail(name, error.to_string(), "check `database_url`"),
    })
}

async fn schema(db: &Db) -> Check {
    let (name, known) = ("schema", migrate::known_version(db.dialect()));
    match migrate::current_version(db).await {
        Ok(found) if found == known => Check::ok(name, format!("version {found}")),
        Ok(found) if found < known => {
            Check::warn(name, format!("version {found}, this program requires {known}"), "run `waypost migrate`")
        }
        Ok(found) => Check::fail(
            name,
            format!("version {found}, this program supports up to {known}"),
            "use a newer version of Waypost",
        ),
        Err(error) => Check::fail(name, error.to_string(), "check `database_url`"),
    }
}

fn database_health(health: &Health) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(mode) = &health.journal_mode {
        let name = "durability";
        checks.push(match mode.as_str() {
            "wal" => Check::ok(name, format!("{}, write-ahead log, synced on every commit", health.version)),
            other => Check::fail(
                name,
                format!("journal mode {other}"),
                "keep the database on a local disk, which the write-ahead log requires",
            ),
        });
        if health.can_release == Some(false) {
            checks.push(Check::warn(
                "space",
                "the file was created by an older version and does not shrink when rows are deleted",
                "stop `waypost serve` and run `waypost migrate --compact` once",
            ));
        }
        checks.push(match (health.damage.first(), health.orphans) {
            (Some(damage), _) => Check::fail("integrity", damage.clone(), "restore a backup into a new database"),
            (None, Some(orphans)) if orphans > 0 => Check::fail(
                "integrity",
                format!("{orphans} rows refer to missing rows"),
                "restore a backup into a new database",
            ),
            _ => Check::ok("integrity", "the file is intact and all references are valid"),
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
                Check::fail("durability", found, "set synchronous_commit = on, otherwise confirmed steps can be lost")
            }
            (Some("on"), _) => Check::ok("durability", found),
            _ => Check::fail("durability", found, "set fsync = on, otherwise a power failure can destroy the database"),
        });
    }
    checks
}

/// The database's time, and the readings of the local clock before and after it.
struct ClockComparison {
    before: Timestamp,
    database: Timestamp,
    after: Timestamp,
}

/// Checks this machine's clock, and compares it with the database's clock if `seen` is `Some`.
fn clock(seen: Option<ClockComparison>) -> Check {
    let (name, now) = ("clock", SystemClock.now());
    if now < EARLIEST_TIME {
        return Check::fail(
            name,
            format!("the clock of this machine shows {now}"),
            "set the clock and synchronise it with NTP",
        );
    }
    match seen {
        Some(ClockComparison { before, database, after })
            if database.plus(MAX_CLOCK_SKEW) < before || database > after.plus(MAX_CLOCK_SKEW) =>
        {
            let found = format!("the database's clock differs from this machine's by {} ms", database.since(after));
            Check::warn(name, found, "synchronise both with NTP")
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
                return Check::ok(name, format!("{address} is in use by a running waypost"));
            }
            let advice = format!("stop the other program, or choose another address with `{name}`");
            Check::fail(
                name,
                format!("{address} is in use by another program"),
                advice.replace("diagnostics", "diagnostics_listen"),
            )
        }
        Err(error) => {
            Check::fail(name, format!("{address} cannot be used ({error})"), "choose an address of this machine")
        }
    }
}

/// Whether the program that listens on `address` is Waypost.
async fn is_waypost(address: SocketAddr) -> bool {
    // A program that listens on all addresses also listens on loopback.
    let host = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    #[expect(clippy::disallowed_methods, reason = "connects to an address that the operator configured")]
    let client = unguarded_client().no_proxy().timeout(Duration::from_secs(2)).build();
    let Ok(client) = client else { return false };
    let response = client.get(format!("http://{}/healthz", SocketAddr::new(host, address.port()))).send().await;
    response.is_ok_and(|response| response.status().is_success())
}
