//! Opening the store: the same way for `serve` and for every command.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use waypost_core::Random;
use waypost_core::secret::{self, SecretKeys};
use waypost_store::{Db, migrate};

use crate::config::{DatabaseUrl, SecretKey, Settings};
use crate::lock::{self, FileLock, LockAttempt};

/// What to do with migrations that are pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationPolicy {
    /// Apply them.
    Apply,
    /// Refuse to start.
    Refuse,
}

/// An open store.
#[derive(Debug)]
pub struct StoreHandle {
    /// The database.
    pub db: Db,
    /// Its schema version before.
    pub before: i64,
    /// Its schema version now.
    pub now: i64,
}

/// The file of a SQLite database; none for PostgreSQL.
///
/// # Errors
/// When the URL cannot be read.
pub fn sqlite_file(url: &DatabaseUrl) -> anyhow::Result<Option<PathBuf>> {
    Db::sqlite_file(url.expose()).map_err(|error| anyhow!(error).context("the setting `database_url` cannot be used"))
}

/// Opens the store, with its folder and up to date.
///
/// # Errors
/// When the folder or the database cannot be used; the message says what to do.
pub async fn open(settings: &Settings, pending: MigrationPolicy) -> anyhow::Result<StoreHandle> {
    let (db, _lock) = connect_locked(settings).await?;
    bring_up_to_date(db, pending).await
}

/// Opens the store with its folder, and leaves the schema alone. On SQLite, nobody else migrates while the lock lives.
///
/// # Errors
/// As [`open`].
pub async fn connect_locked(settings: &Settings) -> anyhow::Result<(Db, Option<FileLock>)> {
    let Some(file) = sqlite_file(&settings.database_url)? else {
        return Ok((connect(&settings.database_url).await?, None));
    };
    make_folder(&settings.data_dir)?;
    make_folder(folder_of(&file))?;
    // Also held while the file is opened: two processes must not both make it.
    let lock = migration_lock(&file).await?;
    make_private(&file);
    Ok((connect(&settings.database_url).await?, Some(lock)))
}

/// Connects and changes nothing but what opening itself does.
///
/// # Errors
/// When the database cannot be reached; the message says what to do.
pub async fn connect(url: &DatabaseUrl) -> anyhow::Result<Db> {
    Db::open(url.expose()).await.map_err(|error| {
        let advice = unreachable(url, &error);
        anyhow!(error).context(advice)
    })
}

/// Waits in another thread until no other process migrates the SQLite database `file`.
///
/// # Errors
/// When the lock's file cannot be used.
pub async fn migration_lock(file: &Path) -> anyhow::Result<FileLock> {
    let path = lock::migration_file(file);
    tokio::task::spawn_blocking(move || lock::acquire(&path)).await?
}

async fn bring_up_to_date(db: Db, pending: MigrationPolicy) -> anyhow::Result<StoreHandle> {
    if pending == MigrationPolicy::Refuse {
        migrate::check(&db).await.map_err(schema)?;
        let now = migrate::known_version(db.dialect());
        return Ok(StoreHandle { db, before: now, now });
    }
    let (before, now) = migrate::migrate(&db).await.map_err(schema)?;
    if before < now {
        tracing::info!(before, now, "the schema was brought up to date");
    }
    Ok(StoreHandle { db, before, now })
}

fn schema(error: waypost_store::Error) -> anyhow::Error {
    match error {
        error @ (waypost_store::Error::NewerSchema { .. } | waypost_store::Error::OlderSchema { .. }) => anyhow!(error),
        error => anyhow!(error).context("the database could not be brought up to date; nothing of it was changed"),
    }
}

/// Takes the lock of `serve` on a SQLite database; PostgreSQL needs none.
///
/// # Errors
/// When another `serve` holds it.
pub fn serve_lock(settings: &Settings) -> anyhow::Result<Option<FileLock>> {
    let Some(file) = sqlite_file(&settings.database_url)? else { return Ok(None) };
    make_folder(folder_of(&file))?;
    let path = lock::serve_file(&file);
    match lock::try_acquire(&path)? {
        LockAttempt::Acquired(lock) => Ok(Some(lock)),
        LockAttempt::HeldElsewhere => bail!(
            "another `waypost serve` already uses this database (it holds {}): stop it first, or name another database; for several at once use PostgreSQL",
            path.display()
        ),
    }
}

/// Sees that the database can be written to, and changes nothing: SQLite opens a file that may only be read without a
/// word, and so does PostgreSQL's standby.
///
/// # Errors
/// When it cannot; the message says what to do.
pub async fn check_writable(settings: &Settings, db: &Db) -> anyhow::Result<()> {
    let attempt = async { db.begin().await?.touch_config().await };
    attempt.await.map_err(|error: waypost_store::Error| {
        let advice = unreachable(&settings.database_url, &error);
        anyhow!(error).context(advice)
    })
}

/// The key that signs and encrypts: the setting, else on SQLite the file in the data folder, made when it is missing.
///
/// # Errors
/// When there is none on PostgreSQL, or the file cannot be used.
pub fn secret_key(settings: &Settings, random: &dyn Random) -> anyhow::Result<SecretKey> {
    if let Some(key) = &settings.secret_key {
        return Ok(key.clone());
    }
    if !settings.database_url.is_sqlite() {
        bail!(
            "the setting `secret_key` (WAYPOST_SECRET_KEY) is required on PostgreSQL: 64 hexadecimal digits, the same on every replica; `openssl rand -hex 32` makes one"
        );
    }
    let path = secret_file(settings);
    match read_key(&path)? {
        Some(key) => Ok(key),
        None => make_secret(&path, random),
    }
}

/// The keys as the acts use them: the one of [`secret_key`], and the one before it, if there is one.
///
/// # Errors
/// As [`secret_key`].
pub fn keys(settings: &Settings, random: &dyn Random) -> anyhow::Result<SecretKeys> {
    let current = for_acts(&secret_key(settings, random)?);
    Ok(SecretKeys { current, previous: previous_key(settings)?.as_ref().map(for_acts) })
}

/// The same when they are there already; nothing is made.
///
/// # Errors
/// As [`secret_key`].
pub fn existing_keys(settings: &Settings) -> anyhow::Result<Option<SecretKeys>> {
    let current = match &settings.secret_key {
        Some(key) => Some(key.clone()),
        None => read_key(&secret_file(settings))?,
    };
    let previous = previous_key(settings)?;
    Ok(current.map(|key| SecretKeys { current: for_acts(&key), previous: previous.as_ref().map(for_acts) }))
}

/// The key before the current one.
///
/// # Errors
/// When its file cannot be used.
pub fn previous_key(settings: &Settings) -> anyhow::Result<Option<SecretKey>> {
    match (&settings.secret_key_previous, &settings.secret_key) {
        (Some(key), _) => Ok(Some(key.clone())),
        // The file belongs to the other file.
        (None, None) if settings.database_url.is_sqlite() => read_key(&previous_secret_file(settings)),
        (None, _) => Ok(None),
    }
}

fn for_acts(key: &SecretKey) -> secret::SecretKey {
    secret::SecretKey::new(*key.expose())
}

fn read_key(path: &Path) -> anyhow::Result<Option<SecretKey>> {
    match std::fs::read_to_string(path) {
        Ok(text) => text.parse().map(Some).map_err(|why| {
            anyhow!("the secret key in {} cannot be used: {why}. Put the old key back; a new one makes what was signed with the old one invalid", path.display())
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read the secret key {}", path.display())),
    }
}

/// Where the key is kept when it is not set.
#[must_use]
pub fn secret_file(settings: &Settings) -> PathBuf {
    settings.data_dir.join("secret.key")
}

/// Where the one before it is kept.
#[must_use]
pub fn previous_secret_file(settings: &Settings) -> PathBuf {
    settings.data_dir.join("secret.key.previous")
}

/// A new key.
#[must_use]
pub fn new_key(random: &dyn Random) -> SecretKey {
    let mut bytes = [0; 32];
    random.fill(&mut bytes);
    SecretKey::new(bytes)
}

/// Puts `key` into its file in the place of the one that is there, whole or not at all, also when the power fails.
///
/// # Errors
/// When it cannot be written.
pub fn replace_secret(path: &Path, key: &SecretKey) -> anyhow::Result<()> {
    let written = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".secret").tempfile_in(folder_of(path))?;
        writeln!(file, "{}", key.expose_hex())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        // The name as well. Not every file system can do this for a folder.
        let _ = std::fs::File::open(folder_of(path)).and_then(|folder| folder.sync_all());
        Ok(())
    };
    written().with_context(|| format!("cannot write the secret key {}", path.display()))
}

fn make_secret(path: &Path, random: &dyn Random) -> anyhow::Result<SecretKey> {
    make_folder(folder_of(path))?;
    let key = new_key(random);
    // Written whole before it has its name, so that another process never reads half of it; whoever comes second
    // takes what is there.
    let mut file = tempfile::Builder::new()
        .prefix(".secret")
        .tempfile_in(folder_of(path))
        .with_context(|| format!("cannot write the secret key {}", path.display()))?;
    writeln!(file, "{}", key.expose_hex())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(key),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
            let text = std::fs::read_to_string(path)?;
            text.parse().map_err(|why| anyhow!("the secret key in {} cannot be used: {why}", path.display()))
        }
        Err(error) => Err(error.error).with_context(|| format!("cannot write the secret key {}", path.display())),
    }
}

/// The folder that a file stands in.
#[must_use]
pub fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a folder that only its owner may look into; leaves one that is there as it is.
fn make_folder(folder: &Path) -> anyhow::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).with_context(|| {
        format!("cannot make the folder {}: make it yourself and give it to the user that runs waypost, or choose another with --data-dir", folder.display())
    })
}

/// Makes an empty file for its owner only, which SQLite takes for a new database; its log gets the same rights. When
/// this fails, so does opening the database, with a better message.
fn make_private(file: &Path) {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let _ = options.open(file);
}

/// What to do when the database does not open.
fn unreachable(url: &DatabaseUrl, error: &waypost_store::Error) -> String {
    let code = error.code().unwrap_or_default();
    match code.as_str() {
        _ if matches!(error, waypost_store::Error::Url) => {
            "the setting `database_url` must begin with sqlite:// or postgres://".to_owned()
        }
        _ if url.is_sqlite() => sqlite_advice(url, &code),
        // SQLSTATE, PostgreSQL manual, appendix A: invalid_password, invalid_authorization_specification.
        "28P01" | "28000" => {
            format!("PostgreSQL refuses the user or the password of {url}: check the setting `database_url`")
        }
        "3D000" => format!(
            "PostgreSQL has no such database as {url}: make it (`createdb`), or check the setting `database_url`"
        ),
        "25006" => format!("PostgreSQL lets nobody write to {url}: name the primary and not a standby"),
        "53300" => format!("PostgreSQL has no free connection for {url}: raise max_connections, or stop other clients"),
        _ => format!(
            "the database {url} cannot be reached: check that PostgreSQL runs there and the setting `database_url`"
        ),
    }
}

/// By SQLite's primary result code (<https://www.sqlite.org/rescode.html>).
fn sqlite_advice(url: &DatabaseUrl, code: &str) -> String {
    match code.parse::<u32>().unwrap_or(0) & 0xff {
        8 | 14 => {
            let writable =
                "give its folder and its files to the user that runs waypost, or choose another with --data-dir";
            match sqlite_file(url).ok().flatten().map(|file| OpenOptions::new().append(true).open(file)) {
                Some(Err(error)) => format!("the database {url} cannot be opened for writing ({error}): {writable}"),
                _ => format!("the database {url} cannot be opened for writing: {writable}"),
            }
        }
        11 | 26 => format!("the file of {url} is no SQLite database, or is damaged: restore a backup into a new file"),
        13 => format!("the disk under {url} is full: make room"),
        5 => format!("the database {url} is locked by another program: stop it and try again"),
        _ => format!("the database {url} cannot be opened"),
    }
}
