//! Opens the store and the secret keys for `serve` and all other commands.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use waypost_core::Random;
use waypost_core::secret::{self, SecretKeys};
use waypost_store::{Db, migrate};

use crate::config::{DatabaseUrl, SecretKey, Settings};
use crate::lock::{self, FileLock, LockAttempt};

/// The handling of pending migrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationPolicy {
    /// Apply pending migrations.
    Apply,
    /// Fail if there are pending migrations.
    Refuse,
}

/// An open database with a current schema.
#[derive(Debug)]
pub struct StoreHandle {
    /// The database.
    pub db: Db,
    /// Schema version before the migration.
    pub before: i64,
    /// Current schema version.
    pub now: i64,
}

/// Returns the file of a SQLite database; `None` for PostgreSQL.
///
/// # Errors
/// If the URL cannot be parsed.
pub fn sqlite_file(url: &DatabaseUrl) -> anyhow::Result<Option<PathBuf>> {
    Db::sqlite_file(url.expose()).map_err(|error| anyhow!(error).context("invalid setting `database_url`"))
}

/// Opens the database. Creates its folder if necessary and handles pending migrations according to `policy`.
///
/// # Errors
/// If the folder or the database is not usable. The message says what to do.
pub async fn open(settings: &Settings, policy: MigrationPolicy) -> anyhow::Result<StoreHandle> {
    let (db, _lock) = connect_locked(settings).await?;
    apply_migrations(db, policy).await
}

/// Opens the database without migrations. On SQLite, the returned lock prevents other processes from migrating.
///
/// # Errors
/// See [`open`].
pub async fn connect_locked(settings: &Settings) -> anyhow::Result<(Db, Option<FileLock>)> {
    let Some(file) = sqlite_file(&settings.database_url)? else {
        return Ok((connect(&settings.database_url).await?, None));
    };
    create_folder(&settings.data_dir)?;
    create_folder(folder_of(&file))?;
    // Also held while the file is opened, because two processes must not create it at the same time.
    let lock = migration_lock(&file).await?;
    create_private_file(&file);
    Ok((connect(&settings.database_url).await?, Some(lock)))
}

/// Connects to the database without migrations or locks.
///
/// # Errors
/// If the database cannot be reached. The message says what to do.
pub async fn connect(url: &DatabaseUrl) -> anyhow::Result<Db> {
    Db::open(url.expose()).await.map_err(|error| {
        let advice = open_advice(url, &error);
        anyhow!(error).context(advice)
    })
}

/// Acquires the migration lock of the SQLite database `file`. Waits in another thread while another process holds it.
///
/// # Errors
/// If the lock file is not usable.
pub async fn migration_lock(file: &Path) -> anyhow::Result<FileLock> {
    let path = lock::migration_file(file);
    tokio::task::spawn_blocking(move || lock::acquire(&path)).await?
}

async fn apply_migrations(db: Db, policy: MigrationPolicy) -> anyhow::Result<StoreHandle> {
    if policy == MigrationPolicy::Refuse {
        migrate::check(&db).await.map_err(migration_error)?;
        let now = migrate::known_version(db.dialect());
        return Ok(StoreHandle { db, before: now, now });
    }
    let (before, now) = migrate::migrate(&db).await.map_err(migration_error)?;
    if before < now {
        tracing::info!(before, now, "migrated the database");
    }
    Ok(StoreHandle { db, before, now })
}

fn migration_error(error: waypost_store::Error) -> anyhow::Error {
    match error {
        error @ (waypost_store::Error::NewerSchema { .. } | waypost_store::Error::OlderSchema { .. }) => anyhow!(error),
        error => anyhow!(error).context("the migrations failed; the database was not changed"),
    }
}

/// Acquires the lock of `serve` on a SQLite database. PostgreSQL needs no lock.
///
/// # Errors
/// If another `serve` holds it.
pub fn serve_lock(settings: &Settings) -> anyhow::Result<Option<FileLock>> {
    let Some(file) = sqlite_file(&settings.database_url)? else { return Ok(None) };
    create_folder(folder_of(&file))?;
    let path = lock::serve_file(&file);
    match lock::try_acquire(&path)? {
        LockAttempt::Acquired(lock) => Ok(Some(lock)),
        LockAttempt::HeldElsewhere => bail!(
            "another `waypost serve` is using this database (it holds {}): stop it first, or use another database; to run several replicas, use PostgreSQL",
            path.display()
        ),
    }
}

/// Checks that the database is writable, without changing it. Opening a read-only SQLite file or a PostgreSQL standby
/// reports no error.
///
/// # Errors
/// If the database is not writable. The message says what to do.
pub async fn check_writable(settings: &Settings, db: &Db) -> anyhow::Result<()> {
    let attempt = async { db.begin().await?.bump_config_version_for_all().await };
    attempt.await.map_err(|error: waypost_store::Error| {
        let advice = open_advice(&settings.database_url, &error);
        anyhow!(error).context(advice)
    })
}

/// Returns the key for signing and encryption: the setting, or on SQLite the key file, which is created if it is missing.
///
/// # Errors
/// If the setting is missing on PostgreSQL, or the file is not usable.
pub fn secret_key(settings: &Settings, random: &dyn Random) -> anyhow::Result<SecretKey> {
    if let Some(key) = &settings.secret_key {
        return Ok(key.clone());
    }
    if !settings.database_url.is_sqlite() {
        bail!(
            "the setting `secret_key` (WAYPOST_SECRET_KEY) is required on PostgreSQL: 64 hexadecimal digits, the same on every replica; `openssl rand -hex 32` generates one"
        );
    }
    let path = secret_file(settings);
    match read_key(&path)? {
        Some(key) => Ok(key),
        None => create_key_file(&path, random),
    }
}

/// Returns the current key (see [`secret_key`]) and the previous one, if there is one.
///
/// # Errors
/// See [`secret_key`].
pub fn keys(settings: &Settings, random: &dyn Random) -> anyhow::Result<SecretKeys> {
    let current = to_core_key(&secret_key(settings, random)?);
    Ok(SecretKeys { current, previous: previous_key(settings)?.as_ref().map(to_core_key) })
}

/// Like [`keys`], but returns `None` instead of creating a key.
///
/// # Errors
/// See [`secret_key`].
pub fn existing_keys(settings: &Settings) -> anyhow::Result<Option<SecretKeys>> {
    let current = match &settings.secret_key {
        Some(key) => Some(key.clone()),
        None => read_key(&secret_file(settings))?,
    };
    let previous = previous_key(settings)?;
    Ok(current.map(|key| SecretKeys { current: to_core_key(&key), previous: previous.as_ref().map(to_core_key) }))
}

/// Returns the previous key; `None` if there is none.
///
/// # Errors
/// If its file is not usable.
pub fn previous_key(settings: &Settings) -> anyhow::Result<Option<SecretKey>> {
    match (&settings.secret_key_previous, &settings.secret_key) {
        (Some(key), _) => Ok(Some(key.clone())),
        // The previous key file is only used together with the current key file.
        (None, None) if settings.database_url.is_sqlite() => read_key(&previous_secret_file(settings)),
        (None, _) => Ok(None),
    }
}

fn to_core_key(key: &SecretKey) -> secret::SecretKey {
    secret::SecretKey::new(*key.expose())
}

fn read_key(path: &Path) -> anyhow::Result<Option<SecretKey>> {
    match std::fs::read_to_string(path) {
        Ok(text) => text.parse().map(Some).map_err(|reason| {
            anyhow!("invalid secret key in {}: {reason}. Restore the previous key; a new key invalidates everything that was signed with it", path.display())
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read the secret key {}", path.display())),
    }
}

/// Returns the path of the key file.
#[must_use]
pub fn secret_file(settings: &Settings) -> PathBuf {
    settings.data_dir.join("secret.key")
}

/// Returns the path of the previous key file.
#[must_use]
pub fn previous_secret_file(settings: &Settings) -> PathBuf {
    settings.data_dir.join("secret.key.previous")
}

/// Generates a key.
#[must_use]
pub fn generate_key(random: &dyn Random) -> SecretKey {
    let mut bytes = [0; 32];
    random.fill(&mut bytes);
    SecretKey::new(bytes)
}

/// Atomically and durably replaces the content of a key file.
///
/// # Errors
/// If the file cannot be written.
pub fn replace_key_file(path: &Path, key: &SecretKey) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".secret").tempfile_in(folder_of(path))?;
        writeln!(file, "{}", key.expose_hex())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        // Makes the rename durable. Not every file system supports syncing a folder.
        let _ = std::fs::File::open(folder_of(path)).and_then(|folder| folder.sync_all());
        Ok(())
    };
    write().with_context(|| format!("cannot write the secret key {}", path.display()))
}

fn create_key_file(path: &Path, random: &dyn Random) -> anyhow::Result<SecretKey> {
    create_folder(folder_of(path))?;
    let key = generate_key(random);
    // Renamed only when it is complete, so that another process never reads a partial key. If two processes create the
    // file, the second one uses the key of the first.
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
            text.parse().map_err(|reason| anyhow!("invalid secret key in {}: {reason}", path.display()))
        }
        Err(error) => Err(error.error).with_context(|| format!("cannot write the secret key {}", path.display())),
    }
}

/// Returns the folder that contains a file.
#[must_use]
pub fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates a folder that is accessible only to its owner. An existing folder is not changed.
fn create_folder(folder: &Path) -> anyhow::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).with_context(|| {
        format!(
            "cannot create the folder {}: create it for the user that runs waypost, or choose another with --data-dir",
            folder.display()
        )
    })
}

/// Creates an empty file that is accessible only to its owner. SQLite uses it as a new database, and its log gets the same
/// permissions. A failure is ignored, because opening the database then fails with a better message.
fn create_private_file(file: &Path) {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let _ = options.open(file);
}

/// Returns the error message for a database that cannot be opened, including advice.
fn open_advice(url: &DatabaseUrl, error: &waypost_store::Error) -> String {
    let code = error.code().unwrap_or_default();
    match code.as_str() {
        _ if matches!(error, waypost_store::Error::InvalidUrl) => {
            "the setting `database_url` must begin with sqlite:// or postgres://".to_owned()
        }
        _ if url.is_sqlite() => sqlite_advice(url, &code),
        // SQLSTATE, PostgreSQL manual, appendix A: invalid_password, invalid_authorization_specification.
        "28P01" | "28000" => {
            format!("PostgreSQL rejected the user name or password for {url}: check the setting `database_url`")
        }
        "3D000" => format!(
            "the PostgreSQL database {url} does not exist: create it (`createdb`), or check the setting `database_url`"
        ),
        "25006" => format!("the PostgreSQL database {url} is read-only: use the primary, not a standby"),
        "53300" => {
            format!("PostgreSQL has no free connection for {url}: increase max_connections, or stop other clients")
        }
        _ => {
            format!(
                "the database {url} cannot be reached: check the setting `database_url` and that PostgreSQL is running"
            )
        }
    }
}

/// Returns the message for SQLite's primary result code (<https://www.sqlite.org/rescode.html>).
fn sqlite_advice(url: &DatabaseUrl, code: &str) -> String {
    match code.parse::<u32>().unwrap_or(0) & 0xff {
        8 | 14 => {
            let writable =
                "make its folder and files writable for the user that runs waypost, or choose another with --data-dir";
            match sqlite_file(url).ok().flatten().map(|file| OpenOptions::new().append(true).open(file)) {
                Some(Err(error)) => format!("the database {url} cannot be opened for writing ({error}): {writable}"),
                _ => format!("the database {url} cannot be opened for writing: {writable}"),
            }
        }
        11 | 26 => format!("{url} is not a SQLite database, or is damaged: restore a backup into a new file"),
        13 => format!("the disk of {url} is full: free up space"),
        5 => format!("the database {url} is locked by another program: stop it and try again"),
        _ => format!("the database {url} cannot be opened"),
    }
}
