//! The measurements on an installation with a daemon.

use std::time::Instant;

use anyhow::{Result, ensure};
use futures::future::{join_all, try_join_all};
use serde::Serialize;
use serde_json::json;

use super::{Setup, bare_container};
use crate::engine::Scratch;
use crate::installation::{Control, Daemon, client, poll};
use crate::leak::leftovers;
use crate::{harness::print_progress, process};

/// The times of deployments and of their reference in seconds.
#[derive(Debug, Default, Serialize)]
pub struct Deployments {
    /// Until the response 202.
    pub accepted: Vec<f64>,
    /// Until the instance is healthy.
    pub healthy: Vec<f64>,
    /// Creating and starting a container of the same image.
    pub bare: Vec<f64>,
}

/// Deploys a server several times, alternating with a bare container of the same image, which the engine already has.
pub async fn deployments(setup: &Setup<'_>, site: (&Control, &Daemon), count: usize) -> Result<Deployments> {
    let (control, daemon) = site;
    let warm_up = control.deploy("warm-up", &setup.versions.stdio, &daemon.id).await?;
    control.delete(&warm_up.id).await?;
    let mut times = Deployments::default();
    for number in 0..count {
        let engine = setup.engine.clone();
        let image = setup.versions.image.clone();
        let bare = tokio::task::spawn_blocking(move || {
            let scratch = Scratch::new(&engine);
            let started = Instant::now();
            let container = scratch.container(bare_container(&image));
            engine.start(&container);
            started.elapsed().as_secs_f64()
        });
        times.bare.push(bare.await?);
        let deployed = control.deploy(&format!("timed-{number}"), &setup.versions.stdio, &daemon.id).await?;
        times.accepted.push(deployed.accepted.as_secs_f64());
        times.healthy.push(deployed.healthy.as_secs_f64());
        control.delete(&deployed.id).await?;
    }
    Ok(times)
}

/// Deploys servers in parallel. Returns the number of successes, and the daemon's resident memory in bytes while all of
/// them run.
pub async fn parallel(setup: &Setup<'_>, (control, daemon): (&Control, &Daemon), count: usize) -> Result<(usize, u64)> {
    let names: Vec<String> = (0..count).map(|number| format!("parallel-{number}")).collect();
    let deployed = join_all(names.iter().map(|name| control.deploy(name, &setup.versions.stdio, &daemon.id))).await;
    let succeeded = count_successes(&deployed);
    let client = client()?;
    for deployment in deployed.iter().flatten() {
        ensure!(control.echo(&client, &deployment.id, "hello").await? == 200, "a call failed");
    }
    let resident = process::resident_bytes(daemon.pid())?;
    try_join_all(deployed.iter().flatten().map(|deployment| control.delete(&deployment.id))).await?;
    Ok((succeeded, resident))
}

/// Deploys, calls and deletes servers one after another, alternately over standard input and HTTP. Returns the number
/// of successes.
pub async fn repeated(setup: &Setup<'_>, (control, daemon): (&Control, &Daemon), count: usize) -> Result<usize> {
    let client = client()?;
    let mut succeeded = 0;
    for number in 0..count {
        let version = if number % 2 == 0 { &setup.versions.stdio } else { &setup.versions.http };
        let attempt = async {
            let deployed = control.deploy(&format!("repeated-{number}"), version, &daemon.id).await?;
            let status = control.echo(&client, &deployed.id, "hello").await?;
            control.delete(&deployed.id).await?;
            ensure!(status == 200, "a call of a deployed server returned {status}");
            Ok(deployed)
        };
        succeeded += count_successes(&[attempt.await]);
    }
    Ok(succeeded)
}

/// The result of the measurement with many daemons.
#[derive(Debug, Serialize)]
pub struct Fleet {
    /// The number of daemons.
    pub daemons: usize,
    /// The number of instances.
    pub instances: usize,
    /// The number of deployments that succeeded.
    pub deployed: usize,
    /// The time from the start of the new control plane until every server can be reached again, in seconds.
    pub reconciled_seconds: f64,
    /// The number of containers that did not exist before the restart.
    pub replaced: usize,
}

/// Deploys two instances on each daemon, kills the control plane and starts it again.
pub async fn fleet(setup: &Setup<'_>, control: &mut Control, daemons: &[Daemon]) -> Result<Fleet> {
    let names: Vec<(String, &Daemon)> = (0..2)
        .flat_map(|number| {
            daemons.iter().enumerate().map(move |(index, daemon)| (format!("fleet-{index}-{number}"), daemon))
        })
        .collect();
    let deployments = names.iter().map(|(name, daemon)| control.deploy(name, &setup.versions.stdio, &daemon.id));
    let deployed = join_all(deployments).await;
    let ids: Vec<String> = deployed.iter().flatten().map(|deployment| deployment.id.clone()).collect();
    let containers = || -> Vec<String> {
        let all = daemons.iter().flat_map(|daemon| setup.engine.containers(&daemon.label()));
        all.map(|container| container["Id"].to_string()).collect()
    };
    let before = containers();
    control.kill().await?;
    let started = Instant::now();
    control.start_again().await?;
    let mut missing = ids.clone();
    poll("a link to every daemon", async || {
        let mut later = Vec::new();
        for id in missing.drain(..) {
            if !control.lists_tools(&id).await {
                later.push(id);
            }
        }
        missing = later;
        Ok(missing.is_empty())
    })
    .await?;
    let reconciled_seconds = started.elapsed().as_secs_f64();
    let replaced = containers().iter().filter(|container| !before.contains(container)).count();
    for id in &ids {
        control.delete(id).await?;
    }
    let deployed = count_successes(&deployed);
    Ok(Fleet { daemons: daemons.len(), instances: names.len(), deployed, reconciled_seconds, replaced })
}

/// The resources that can leak.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// Containers, networks, volumes and secret files of the toolbox.
    pub objects: usize,
    /// Open files of the daemon and the control plane.
    pub files: [usize; 2],
    /// Descendants of the daemon and the control plane.
    pub processes: [usize; 2],
}

/// The result of many parallel calls to a server that starts on its first call.
#[derive(Debug, Serialize)]
pub struct Leaks {
    /// Before the calls.
    pub before: Resources,
    /// After the instance was deleted: as soon as nothing exceeds `before`, or after two minutes.
    pub after: Resources,
    /// The number of answered calls.
    pub answered: usize,
    /// The number of calls that the control plane rejected with status 429, because it limits the calls in progress.
    pub rejected: usize,
}

impl Resources {
    fn read(setup: &Setup<'_>, control: &Control, daemon: &Daemon) -> Result<Self> {
        let objects = leftovers(setup.engine, &daemon.label(), daemon.secrets()).len();
        let (daemon_files, daemon_processes) = process::open_files_and_descendants(daemon.pid())?;
        let (control_files, control_processes) = process::open_files_and_descendants(control.pid())?;
        Ok(Self { objects, files: [daemon_files, control_files], processes: [daemon_processes, control_processes] })
    }

    /// Returns by how much the numbers are larger than before, in total.
    pub fn growth(&self, before: &Self) -> usize {
        let pairs = [
            (self.objects, before.objects),
            (self.files[0], before.files[0]),
            (self.files[1], before.files[1]),
            (self.processes[0], before.processes[0]),
            (self.processes[1], before.processes[1]),
        ];
        pairs.iter().map(|(now, before)| now.saturating_sub(*before)).sum()
    }
}

/// Calls a server that starts on its first call with `clients` clients and `calls` parallel calls each. A first round
/// fills the programs' pools, whose resources stay open.
pub async fn leaks(
    setup: &Setup<'_>,
    (control, daemon): (&Control, &Daemon),
    (clients, calls): (usize, usize),
) -> Result<Leaks> {
    burst(setup, (control, daemon), (clients, calls), "lazy-first").await?;
    // Wait until the connections of the first round have ended.
    let mut before = Resources::read(setup, control, daemon)?;
    for _ in 0..20 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let now = Resources::read(setup, control, daemon)?;
        if now == before {
            break;
        }
        before = now;
    }
    let (answered, rejected) = burst(setup, (control, daemon), (clients, calls), "lazy-second").await?;
    let mut after = Resources::read(setup, control, daemon)?;
    let settled = poll("the baseline", async || {
        after = Resources::read(setup, control, daemon)?;
        Ok(after.growth(&before) == 0)
    });
    if let Err(error) = settled.await {
        print_progress(&format!("{error:#}"));
    }
    Ok(Leaks { before, after, answered, rejected })
}

async fn burst(
    setup: &Setup<'_>,
    (control, daemon): (&Control, &Daemon),
    (clients, calls): (usize, usize),
    name: &str,
) -> Result<(usize, usize)> {
    let instance = control.deploy(name, &setup.versions.lazy, &daemon.id).await?;
    let clients = (0..clients).map(|_| client()).collect::<Result<Vec<_>>>()?;
    let words: Vec<String> = (0..calls).map(|number| format!("call {number}")).collect();
    let requests =
        clients.iter().flat_map(|client| words.iter().map(|words| control.echo(client, &instance.id, words)));
    let mut counts = (0, 0);
    for status in try_join_all(requests).await? {
        match status {
            200 => counts.0 += 1,
            429 => counts.1 += 1,
            other => anyhow::bail!("a call returned {other}"),
        }
    }
    ensure!(counts.0 > 0, "no call was answered");
    control.delete(&instance.id).await?;
    Ok(counts)
}

/// Returns the number of successes and prints the errors.
fn count_successes<T>(results: &[Result<T>]) -> usize {
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        print_progress(&format!("{error:#}"));
    }
    results.iter().filter(|result| result.is_ok()).count()
}

/// Returns the fields of the entry of a server that starts on its first call.
pub fn lazy_fields() -> serde_json::Value {
    json!({ "lazy": true, "idle_seconds": 60 })
}
