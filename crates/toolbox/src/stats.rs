//! The history of the resource usage of an instance, in a ring file of fixed size.
//!
//! The file has a slot of [`RECORD`] bytes for each sample; sample number `n` is in slot `n % CAPACITY`. Each record
//! contains its number and a checksum, so the order can be restored after a restart, and incomplete records are
//! skipped.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use waypost_toolbox_proto::http::StatsSample;

/// The interval between samples in seconds.
pub const SAMPLE_SECONDS: u64 = 30;
/// The maximum number of samples, which covers 7 days.
pub const CAPACITY: u64 = 7 * 24 * 60 * 60 / SAMPLE_SECONDS;
/// The age in milliseconds after which samples are no longer returned.
const MAX_AGE_MS: i64 = 7 * 24 * 60 * 60 * 1000;
/// The maximum number of samples that [`StatsLog::read`] returns if they are combined.
pub const MAX_POINTS: usize = 1_000;
/// The size of a record: eight numbers of eight bytes.
const RECORD: usize = 64;

/// The history of one instance.
#[derive(Debug)]
pub struct StatsLog {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: Arc<File>,
    /// The number of the next sample.
    next: u64,
}

impl StatsLog {
    /// Opens the history in the file at `path`, which is created if it is missing.
    ///
    /// # Errors
    /// Returns any error of the file system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let next = read_all(&file)?.last().map_or(0, |(number, _)| number + 1);
        Ok(Self { path: path.to_owned(), state: Mutex::new(State { file: Arc::new(file), next }) })
    }

    /// Appends a sample, which replaces the oldest one if the file is full.
    ///
    /// # Errors
    /// Returns any error of the file system. The history remains consistent.
    pub fn append(&self, sample: &StatsSample) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = state.next % CAPACITY;
        state.file.write_all_at(&encode(state.next, sample), slot * RECORD as u64)?;
        state.next += 1;
        Ok(())
    }

    /// Returns the samples of the last 7 days before `now`, oldest first. If `is_combined` is set, at most
    /// [`MAX_POINTS`] samples are returned: neighbouring ones are combined into the mean of the CPU time, the maximum
    /// of memory and processes, and the last value of all other members.
    ///
    /// # Errors
    /// Returns any error of the file system.
    pub async fn read(&self, now: i64, is_combined: bool) -> io::Result<Vec<StatsSample>> {
        let file = self.state.lock().unwrap_or_else(PoisonError::into_inner).file.clone();
        let read = move || {
            let samples = read_all(&file)?.into_iter().map(|(_, sample)| sample);
            let samples: Vec<_> = samples.filter(|sample| sample.at >= now.saturating_sub(MAX_AGE_MS)).collect();
            Ok(if is_combined { combine(&samples) } else { samples })
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Returns all valid records in the order of their numbers.
fn read_all(file: &File) -> io::Result<Vec<(u64, StatsSample)>> {
    let mut bytes = Vec::new();
    let mut reader = FileReader { file, position: 0 };
    (&mut reader).take(CAPACITY * RECORD as u64).read_to_end(&mut bytes)?;
    let (records, _) = bytes.as_chunks::<RECORD>();
    let mut samples: Vec<_> = (0..).zip(records).filter_map(|(slot, record)| decode(slot, record)).collect();
    samples.sort_unstable_by_key(|(number, _)| *number);
    Ok(samples)
}

/// Reads from a separate position, because the file is shared.
struct FileReader<'a> {
    file: &'a File,
    position: u64,
}

impl Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

fn encode(number: u64, sample: &StatsSample) -> [u8; RECORD] {
    let StatsSample { at, cpu_percent, memory_bytes, network_received_bytes, network_sent_bytes, pids } = *sample;
    let values = [
        number,
        at.cast_unsigned(),
        cpu_percent.to_bits(),
        memory_bytes,
        network_received_bytes,
        network_sent_bytes,
        pids,
    ];
    let mut record = [0; RECORD];
    for (field, value) in record.as_chunks_mut::<8>().0.iter_mut().zip(values.into_iter().chain([checksum(&values)])) {
        *field = value.to_le_bytes();
    }
    record
}

/// Decodes a record. Returns `None` if it is incomplete or does not belong in its slot.
fn decode(slot: u64, record: &[u8; RECORD]) -> Option<(u64, StatsSample)> {
    let mut values = [0; RECORD / 8];
    for (value, field) in values.iter_mut().zip(record.as_chunks::<8>().0) {
        *value = u64::from_le_bytes(*field);
    }
    let [values @ .., sum] = values;
    let [number, at, cpu, memory_bytes, network_received_bytes, network_sent_bytes, pids] = values;
    let sample = StatsSample {
        at: at.cast_signed(),
        cpu_percent: f64::from_bits(cpu),
        memory_bytes,
        network_received_bytes,
        network_sent_bytes,
        pids,
    };
    (sum == checksum(&values) && number % CAPACITY == slot).then_some((number, sample))
}

/// Returns the FNV-1a hash of the values, which is sufficient to detect incomplete writes.
fn checksum(values: &[u64; 7]) -> u64 {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[expect(clippy::cast_precision_loss, reason = "the number of samples is small")]
fn combine(samples: &[StatsSample]) -> Vec<StatsSample> {
    let size = samples.len().div_ceil(MAX_POINTS).max(1);
    let combined = samples.chunks(size).filter_map(|group| {
        let last = *group.last()?;
        Some(StatsSample {
            cpu_percent: group.iter().map(|sample| sample.cpu_percent).sum::<f64>() / group.len() as f64,
            memory_bytes: group.iter().map(|sample| sample.memory_bytes).max()?,
            pids: group.iter().map(|sample| sample.pids).max()?,
            ..last
        })
    });
    combined.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn sample(number: u64) -> StatsSample {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let cpu_percent = number as f64 / 4.0;
        StatsSample {
            at: i64::try_from(number).unwrap() * 30_000,
            cpu_percent,
            memory_bytes: number,
            network_received_bytes: number * 2,
            network_sent_bytes: number * 3,
            pids: number % 7,
        }
    }

    #[tokio::test]
    async fn samples_survive_a_restart_and_the_oldest_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stats");
        let log = StatsLog::open(&path).unwrap();
        assert_eq!(log.read(0, false).await.unwrap(), []);
        for number in 0..CAPACITY + 10 {
            log.append(&sample(number)).unwrap();
            if number == CAPACITY / 2 {
                assert_eq!(log.read(0, false).await.unwrap().len(), usize::try_from(number).unwrap() + 1);
            }
        }
        drop(log);
        let log = StatsLog::open(&path).unwrap();
        log.append(&sample(CAPACITY + 10)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), CAPACITY * 64);
        let samples = log.read(sample(CAPACITY + 10).at, false).await.unwrap();
        assert_eq!(samples, (11..=CAPACITY + 10).map(sample).collect::<Vec<_>>());

        let combined = log.read(sample(CAPACITY + 10).at, true).await.unwrap();
        assert!(combined.len() <= MAX_POINTS && combined.len() > MAX_POINTS / 2, "{}", combined.len());
        assert_eq!(combined.last().unwrap().at, samples.last().unwrap().at);
        let later = log.read(sample(CAPACITY + 10).at + MAX_AGE_MS, false).await.unwrap();
        assert_eq!(later, [sample(CAPACITY + 10)]);
    }

    #[tokio::test]
    async fn incomplete_records_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stats");
        let log = StatsLog::open(&path).unwrap();
        (0..5).for_each(|number| log.append(&sample(number)).unwrap());
        let mut bytes = fs::read(&path).unwrap();
        bytes[64 * 2 + 20] ^= 1;
        bytes.truncate(64 * 4 + 30);
        fs::write(&path, bytes).unwrap();
        let log = StatsLog::open(&path).unwrap();
        assert_eq!(log.read(0, true).await.unwrap(), [0, 1, 3].map(sample));
        log.append(&sample(4)).unwrap();
        assert_eq!(log.read(0, true).await.unwrap(), [0, 1, 3, 4].map(sample));
    }

    #[test]
    fn combined_samples_keep_peaks() {
        let samples: Vec<_> = (0..2_500).map(sample).collect();
        let combined = combine(&samples);
        assert_eq!(combined.len(), 834);
        let expected = StatsSample { cpu_percent: 0.25, pids: 2, ..sample(2) };
        assert_eq!(combined[0], expected);
        assert_eq!(combined[1].pids, 5);
    }
}
