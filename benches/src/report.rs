//! What was found, as data: the machine, every leg, sizes, memory, starts; and all of it as one JSON document.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::leg::{Leg, median};
use crate::listing::Size;
use crate::run::Settings;
use crate::summary;

/// The machine and the programs, as far as they explain numbers.
#[derive(Debug, Clone, Serialize)]
pub struct Environment {
    /// Model of the processor.
    pub processor: String,
    /// Cores that may be used.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// File system under the databases.
    pub file_system: String,
    /// Median time to make 4 KiB durable there.
    pub sync_us: f64,
    /// PostgreSQL's own words.
    pub postgres: Option<String>,
}

/// Sizes of what a client reads.
#[derive(Debug, Clone, Serialize)]
pub struct Sizes {
    /// Who answered.
    pub contestant: &'static str,
    /// Names of the listed tools.
    pub tools: Vec<String>,
    /// Bytes of the result of `tools/list`.
    pub tools_list_bytes: usize,
    /// Members of schemas without a type.
    pub untyped_members: Vec<String>,
    /// Most bytes of a step's text that are not the author's.
    pub fixed_text_bytes: usize,
}

/// Resident memory.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    /// Whose.
    pub contestant: &'static str,
    /// Calls before.
    pub calls: u64,
    /// Resident bytes of all its processes.
    pub resident_bytes: u64,
}

/// Starts on a database that exists.
#[derive(Debug, Clone, Serialize)]
pub struct Start {
    /// Who started.
    pub contestant: &'static str,
    /// Median.
    pub median_seconds: f64,
    /// All of them.
    pub seconds: Vec<f64>,
}

/// The analytics page over many events.
#[derive(Debug, Clone, Serialize)]
pub struct Analytics {
    /// Who served it.
    pub contestant: &'static str,
    /// Events of the organisation.
    pub events: u64,
    /// Median of the times to the whole page.
    pub median_seconds: f64,
    /// All of them.
    pub seconds: Vec<f64>,
    /// Seconds until the log was packed.
    pub packing_seconds: f64,
}

/// `list_walkthroughs` over many large walkthroughs.
#[derive(Debug, Clone, Serialize)]
pub struct Listing {
    /// Who listed.
    pub contestant: &'static str,
    /// How large everything is.
    pub size: Size,
    /// Median of the lists, in milliseconds.
    pub list_ms: f64,
    /// The first list, with nothing in memory.
    pub first_ms: f64,
    /// Median of `tools/list` in between.
    pub reference_ms: f64,
    /// Bytes of a list's answer.
    pub list_bytes: usize,
    /// By how much the resident memory grew over all lists.
    pub grown_bytes: i64,
}

/// Everything that was found.
#[derive(Debug, Clone)]
pub struct Findings {
    /// Where.
    pub environment: Environment,
    /// How much.
    pub settings: Settings,
    /// All legs in order.
    pub legs: Vec<Leg>,
    /// Sizes.
    pub sizes: Vec<Sizes>,
    /// Memory.
    pub memory: Vec<Memory>,
    /// Starts.
    pub starts: Vec<Start>,
    /// The analytics page.
    pub analytics: Vec<Analytics>,
    /// Lists of walkthroughs.
    pub listings: Vec<Listing>,
}

impl Findings {
    /// Nothing found yet.
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
        }
    }
}

/// All findings as one document.
pub fn json(findings: &Findings) -> Value {
    json!({
        "environment": findings.environment,
        "settings": findings.settings,
        "targets": summary::targets(findings),
        "medians": summary::medians(findings),
        "sizes": findings.sizes,
        "memory": findings.memory,
        "starts": findings.starts,
        "analytics": findings.analytics,
        "listings": findings.listings,
        "legs": findings.legs,
    })
}

impl Environment {
    /// Looks at the machine; `dir` is where the databases are.
    pub async fn of(dir: &Path, cluster: Option<&Cluster>) -> Result<Self> {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let file_system = file_system(dir);
        if file_system == "tmpfs" {
            eprintln!("warning: {} is in memory, nothing there is durable; choose another `--work-dir`", dir.display());
        }
        Ok(Self {
            processor: model.map_or_else(|| "unknown".to_owned(), |(_, model)| model.to_owned()),
            cores: std::thread::available_parallelism()?.get(),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            file_system,
            sync_us: sync_micros(dir)?,
            postgres: cluster.map(|cluster| cluster.version.clone()),
        })
    }
}

/// The type of the file system that holds `dir`: that of the longest mount point above it.
fn file_system(dir: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let rows = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let above = rows.filter(|(point, _)| dir.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

/// What one durable write costs: the ground under every number of a durable store.
fn sync_micros(dir: &Path) -> Result<f64> {
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
