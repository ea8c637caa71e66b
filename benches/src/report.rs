//! The results as data: environment, legs, sizes, memory, start-up times.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use crate::cluster::Cluster;
use crate::leg::{Leg, median};
use crate::settings::{EditSize, Settings, Size};

/// The environment of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Environment {
    /// Processor model.
    pub processor: String,
    /// Number of available cores.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// File system of the databases.
    pub file_system: String,
    /// Median time of a durable 4 KiB write in microseconds.
    pub sync_us: f64,
    /// PostgreSQL's version string.
    pub postgres: Option<String>,
}

/// Sizes of responses.
#[derive(Debug, Clone, Serialize)]
pub struct Sizes {
    /// Name of the contestant.
    pub contestant: &'static str,
    /// Names of the listed tools.
    pub tools: Vec<String>,
    /// Size of the result of `tools/list` in bytes.
    pub tools_list_bytes: usize,
    /// Schema members without a type.
    pub untyped_members: Vec<String>,
    /// Maximum size of the fixed text around a step in bytes.
    pub fixed_text_bytes: usize,
}

/// Resident memory.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    /// Name of the contestant.
    pub contestant: &'static str,
    /// Number of calls before the measurement.
    pub calls: u64,
    /// Resident memory of all processes in bytes.
    pub resident_bytes: u64,
}

/// Start-up times with an existing database.
#[derive(Debug, Clone, Serialize)]
pub struct Start {
    /// Name of the contestant.
    pub contestant: &'static str,
    /// Median start-up time in seconds.
    pub median_seconds: f64,
    /// All measured start-up times in seconds.
    pub seconds: Vec<f64>,
}

/// Load times of the analytics page with many events.
#[derive(Debug, Clone, Serialize)]
pub struct Analytics {
    /// Name of the contestant.
    pub contestant: &'static str,
    /// Number of events of the organisation.
    pub events: u64,
    /// Median load time in seconds.
    pub median_seconds: f64,
    /// All measured load times in seconds.
    pub seconds: Vec<f64>,
    /// Seconds until the events were packed.
    pub packing_seconds: f64,
}

/// Results of `list_walkthroughs` with many large walkthroughs.
#[derive(Debug, Clone, Serialize)]
pub struct Listing {
    /// Name of the contestant.
    pub contestant: &'static str,
    /// Size of the benchmark.
    pub size: Size,
    /// Median duration of a list in milliseconds.
    pub list_ms: f64,
    /// Duration of the first, uncached list in milliseconds.
    pub first_ms: f64,
    /// Median duration of interleaved `tools/list` calls in milliseconds.
    pub reference_ms: f64,
    /// Size of a list response in bytes.
    pub list_bytes: usize,
    /// Growth of resident memory over all lists in bytes.
    pub grown_bytes: i64,
}

/// Median durations of edits and polls through the REST API in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Editing {
    /// Name of the contestant.
    pub contestant: &'static str,
    /// Size of the benchmark.
    pub size: EditSize,
    /// A change of one field of a step.
    pub patch_ms: f64,
    /// An insertion in the middle.
    pub insert_ms: f64,
    /// A move.
    pub move_ms: f64,
    /// A poll of an unchanged draft.
    pub poll_ms: f64,
}

/// All results of a run.
#[derive(Debug, Clone)]
pub struct Findings {
    /// The environment.
    pub environment: Environment,
    /// The settings.
    pub settings: Settings,
    /// All legs in order.
    pub legs: Vec<Leg>,
    /// Sizes.
    pub sizes: Vec<Sizes>,
    /// Memory.
    pub memory: Vec<Memory>,
    /// Start-up times.
    pub starts: Vec<Start>,
    /// The analytics page.
    pub analytics: Vec<Analytics>,
    /// Lists of walkthroughs.
    pub listings: Vec<Listing>,
    /// Edits.
    pub editing: Vec<Editing>,
}

impl Findings {
    /// Creates empty results.
    pub fn new(environment: Environment, settings: Settings) -> Self {
        Self {
            environment,
            settings,
            legs: Vec::new(),
            sizes: Vec::new(),
            memory: Vec::new(),
            starts: Vec::new(),
            analytics: Vec::new(),
            listings: Vec::new(),
            editing: Vec::new(),
        }
    }
}

impl Environment {
    /// Inspects the machine. `dir` is the folder of the databases.
    pub async fn inspect(dir: &Path, cluster: Option<&Cluster>) -> Result<Self> {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let file_system = file_system(dir);
        if file_system == "tmpfs" {
            eprintln!("warning: {} is in memory and not durable; choose another `--work-dir`", dir.display());
        }
        Ok(Self {
            processor: model.map_or_else(|| "unknown".to_owned(), |(_, model)| model.to_owned()),
            cores: std::thread::available_parallelism()?.get(),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            file_system,
            sync_us: measure_sync_micros(dir)?,
            postgres: cluster.map(|cluster| cluster.version.clone()),
        })
    }
}

/// Returns the file system type of `dir`, according to the longest mount point that contains it.
fn file_system(dir: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let rows = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let containing = rows.filter(|(point, _)| dir.starts_with(point));
    containing.max_by_key(|(point, _)| point.len()).map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

/// Returns the median duration of a durable write in microseconds, the lower bound for any durable store.
fn measure_sync_micros(dir: &Path) -> Result<f64> {
    let path = dir.join("sync-probe");
    let mut file = File::create(&path)?;
    let page = [0x57; 4096];
    let mut micros = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&page)?;
        file.sync_data()?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
    }
    std::fs::remove_file(path)?;
    Ok(median(micros).unwrap_or_default())
}
