//! Tests of the limits of a log, and of its recovery after a crash.

use std::cell::Cell;
use std::fs;

use futures::StreamExt;
use tempfile::TempDir;

use super::*;

const DAY: i64 = 24 * 60 * 60 * 1000;

thread_local! {
    /// The current time of the test, which runs on one thread.
    static NOW: Cell<i64> = const { Cell::new(100 * DAY) };
}

struct Fixture {
    folder: TempDir,
    options: LogOptions,
}

impl Fixture {
    fn new(options: LogOptions) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), options }
    }

    fn open(&self) -> Arc<InstanceLog> {
        InstanceLog::open(self.folder.path(), self.options, || NOW.get()).unwrap()
    }

    fn size(&self) -> u64 {
        self.files().iter().map(|path| fs::metadata(path).unwrap().len()).sum()
    }

    fn files(&self) -> Vec<std::path::PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

fn advance(milliseconds: i64) {
    NOW.set(NOW.get() + milliseconds);
}

fn unlimited() -> LogOptions {
    LogOptions { lines_per_second: 1_000_000, bytes_per_second: 100_000_000, ..LogOptions::default() }
}

fn texts(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| &line.text[..]).collect()
}

#[tokio::test]
async fn lines_survive_a_restart_and_a_torn_write() {
    let fixture = Fixture::new(unlimited());
    let log = fixture.open();
    let mut writer = log.writer(LogStream::Stderr, &["hunter2".to_owned()]);
    writer.push(b"one hun");
    writer.push(b"ter2\ntwo\x1b[31m red\npart");
    log.note("started");
    drop(writer);
    drop(log);
    let file = fixture.files().pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes.extend_from_slice(br#"{"at":1,"stream":"stderr","te"#);
    fs::write(&file, bytes).unwrap();
    let log = fixture.open();
    log.note("again");
    let lines = log.tail(10).await.unwrap();
    assert_eq!(texts(&lines), ["one [secret]", "two red", "started", "part", "again"]);
    assert_eq!((lines[0].stream, lines[2].stream, lines[0].at), (LogStream::Stderr, LogStream::Toolbox, 100 * DAY));
    assert_eq!(texts(&log.tail(2).await.unwrap()), ["part", "again"]);
    assert_eq!(log.tail(0).await.unwrap(), []);

    // A line that cannot be parsed, such as a block of zeros after a power failure, is skipped.
    let mut bytes = fs::read(&file).unwrap();
    bytes.extend_from_slice(&[0; 100]);
    bytes.extend_from_slice(b"\n{\"at\":1}\n");
    fs::write(&file, bytes).unwrap();
    assert_eq!(texts(&fixture.open().tail(2).await.unwrap()), ["part", "again"]);
}

#[tokio::test]
async fn the_size_is_bounded_and_the_newest_lines_are_kept() {
    let fixture = Fixture::new(LogOptions { max_bytes: 64 * 1024, ..unlimited() });
    let mut written = 0;
    for _ in 0..3 {
        let log = fixture.open();
        let mut writer = log.writer(LogStream::Stdout, &[]);
        for _ in 0..2_000 {
            written += 1;
            writer.line(&format!("line {written}"));
            if written % 500 == 0 {
                assert!(fixture.size() <= 64 * 1024, "{}", fixture.size());
            }
        }
    }
    let lines = fixture.open().tail(usize::MAX).await.unwrap();
    assert_eq!(lines.last().unwrap().text, "line 6000");
    assert!(lines.len() > 500, "{}", lines.len());
    let numbers: Vec<u32> = lines.iter().map(|line| line.text[5..].parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "there are no gaps");

    // One chunk that is larger than the whole log.
    let log = fixture.open();
    log.writer(LogStream::Stdout, &[]).push("\u{0}\n".repeat(100_000).as_bytes());
    assert!(fixture.size() <= 64 * 1024, "{}", fixture.size());
}

#[tokio::test(start_paused = true)]
async fn old_lines_are_removed() {
    let fixture = Fixture::new(unlimited());
    let log = fixture.open();
    for day in 0..10 {
        log.note(&format!("day {day}"));
        advance(DAY);
    }
    log.note("day 10");
    let lines = log.tail(100).await.unwrap();
    assert_eq!(texts(&lines).first(), Some(&"day 3"), "lines are 7 days old at most");
    tokio::time::advance(EXPIRE_INTERVAL).await;
    log.note("now");
    assert!(fixture.files().len() <= 9, "{:?}", fixture.files());
    drop(log);
    advance(30 * DAY);
    let log = fixture.open();
    assert_eq!(fixture.files().len(), 0, "everything is too old");
    log.note("new");
    assert_eq!(texts(&log.tail(10).await.unwrap()), ["new"]);
    // A clock that is set back does not remove anything.
    advance(-2 * DAY);
    log.note("back");
    drop(log);
    assert_eq!(texts(&fixture.open().tail(10).await.unwrap()), ["new", "back"]);
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_limited_and_reported() {
    let fixture = Fixture::new(LogOptions { lines_per_second: 10, ..unlimited() });
    let log = fixture.open();
    let mut writer = log.writer(LogStream::Stdout, &[]);
    for _ in 0..1_000 {
        writer.line("flood");
    }
    assert_eq!(log.tail(2_000).await.unwrap().len(), 100);
    log.note("the daemon can always write");
    tokio::time::advance(Duration::from_secs(1)).await;
    writer.line("after");
    let lines = log.tail(3).await.unwrap();
    let missing = "900 lines are missing here because the server writes too fast";
    assert_eq!(texts(&lines), [missing, "the daemon can always write", "after"]);
}

#[tokio::test]
async fn followers_receive_every_line_once() {
    let fixture = Fixture::new(unlimited());
    let log = fixture.open();
    log.note("before");
    let (tail, lines) = log.follow(10).await.unwrap();
    log.note("after");
    let mut lines = std::pin::pin!(lines);
    assert_eq!(texts(&tail), ["before"]);
    assert_eq!(lines.next().await.unwrap().text, "after");
    for number in 0..FOLLOW_BUFFER + 50 {
        log.note(&number.to_string());
    }
    let first = lines.next().await.unwrap();
    assert_eq!(first.text, "50 lines are missing here because the reader is too slow");
    assert_eq!(lines.next().await.unwrap().text, "50");
    drop(log);
    assert_eq!(lines.count().await, FOLLOW_BUFFER - 1);
}

#[tokio::test]
async fn lines_are_lost_only_while_the_disk_cannot_be_written() {
    let fixture = Fixture::new(unlimited());
    let log = fixture.open();
    log.note("one");
    drop(log);
    // A folder in the place of the next segment makes every write fail.
    let log = InstanceLog::open(&fixture.folder.path().join("log"), fixture.options, || 0).unwrap();
    let blocked = fixture.folder.path().join("log/0000000000000001.jsonl");
    fs::create_dir(&blocked).unwrap();
    for _ in 0..3 {
        log.note("lost");
    }
    fs::remove_dir(&blocked).unwrap();
    log.note("found");
    let lines = log.tail(10).await.unwrap();
    assert_eq!(texts(&lines), ["3 lines are missing here because the disk could not be written", "found"]);
}
