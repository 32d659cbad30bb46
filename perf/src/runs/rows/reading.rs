//! P12, P13 and P14: readers at the tail, readers of what has long left memory, and readers that
//! have fallen behind.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use super::{figure, Figure};
use crate::connection::Connection;
use crate::error::PerfError;
use crate::load::topics::{self, End};
use crate::runs::lab::{number, Turn};
use crate::runs::record::Figures;
use crate::runs::subject::Running;

pub const FAN_OUT_FIGURES: &[Figure] = &[
    figure("1_gb_per_cpu_s", "1 reader, GB/CPU-s", 1),
    figure("4_gb_per_cpu_s", "4 readers, GB/CPU-s", 1),
    figure("4_mb_s", "4 readers, MB/s", 0),
    figure("full_gb_per_cpu_s", "at full speed, GB/CPU-s", 1),
    figure("full_mb_s", "MB/s", 0),
];

/// Less than the tail caches of all shards hold.
const IN_MEMORY_RECORDS: u64 = 96 << 10;

pub const COLD_FIGURES: &[Figure] = &[
    figure("disk_mb_s", "files alone, MB/s", 0),
    figure("read_mb_s", "through the broker, MB/s", 0),
    figure("quiet_p99_us", "producer p99 us", 0),
    figure("beside_p99_us", "beside the reader", 0),
];

pub const BACKLOG_FIGURES: &[Figure] = &[
    figure("backlog_mb", "backlog MB", 0),
    figure("drained_mb_s", "drained, MB/s", 0),
    figure("slowest_second_mb", "slowest second, MB", 0),
    figure("produced_mb_s", "produced meanwhile, MB/s", 0),
    figure("times", "drained / produced", 1),
];

const BACKLOG_PARTITIONS: usize = 6;

const MB: f64 = (1u64 << 20) as f64;
const GB: f64 = (1u64 << 30) as f64;

fn wanted(report: &serde_json::Value, path: &str) -> Result<f64, PerfError> {
    number(report, path).ok_or(PerfError::Malformed("loadgen"))
}

/// What readers add to the broker's CPU time at the same rate of produce.
pub fn fan_out(turn: &mut Turn<'_>) -> Result<Figures, PerfError> {
    let broker = Running::settled(turn.subject, turn.tools, &[])?;
    let (pid, duration) = (broker.pid().to_string(), turn.scaled_seconds(6.0));
    let common = "--rate 40000 --linger-ms 5 --batch-size 65536 --warm-up 2 --duration";
    let mut load = |more: &[&str]| {
        let flags: Vec<&str> = common
            .split(' ')
            .chain([&*duration, "--broker-pid", &pid])
            .chain(more.iter().copied())
            .collect();
        turn.loadgen(&broker.address(), &flags)
    };
    let alone_cpu_s = wanted(&load(&[])?, "/broker/cpu_s")?;
    let mut figures = Figures::from([("alone_cpu_s".to_owned(), alone_cpu_s)]);
    for groups in ["1", "4"] {
        let report = load(&["--consumers", "1", "--groups", groups])?;
        let mb_s = wanted(&report, "/consumed/mb_per_s")?;
        let read_gb = mb_s * wanted(&report, "/consumed/seconds")? * MB / GB;
        let added_cpu_s = wanted(&report, "/broker/cpu_s")? - alone_cpu_s;
        figures.insert(format!("{groups}_mb_s"), mb_s);
        figures.insert(format!("{groups}_added_cpu_s"), added_cpu_s);
        ratio(&mut figures, &format!("{groups}_gb_per_cpu_s"), read_gb, added_cpu_s);
    }
    full_speed(turn, &broker, &mut figures)?;
    Ok(figures)
}

/// Sixteen readers, who are never at the end: answers as large as a client takes by default, of
/// what has just been written.
fn full_speed(
    turn: &mut Turn<'_>,
    broker: &Running,
    figures: &mut Figures,
) -> Result<(), PerfError> {
    let records = turn.scaled(IN_MEMORY_RECORDS).to_string();
    let common = "--topic recent --partitions 6 --warm-up 0 --duration 600";
    let fill = common.split(' ').chain(["--linger-ms", "5", "--batch-size", "65536"]);
    let fill: Vec<&str> = fill.chain(["--records", &records]).collect();
    turn.loadgen(&broker.address(), &fill)?;
    let pid = broker.pid().to_string();
    let read = "--producers 0 --consumers 1 --groups 16 --from beginning --broker-pid";
    let read: Vec<&str> = common.split(' ').chain(read.split(' ')).chain([&*pid]).collect();
    let report = turn.loadgen(&broker.address(), &read)?;
    let mb_s = wanted(&report, "/consumed/mb_per_s")?;
    let read_gb = mb_s * wanted(&report, "/consumed/seconds")? * MB / GB;
    figures.insert("full_mb_s".to_owned(), mb_s);
    ratio(figures, "full_gb_per_cpu_s", read_gb, wanted(&report, "/broker/cpu_s")?);
    Ok(())
}

/// Below the resolution of the CPU clock there is no ratio.
fn ratio(figures: &mut Figures, name: &str, gb: f64, cpu_s: f64) {
    if cpu_s > 0.05 {
        figures.insert(name.to_owned(), gb / cpu_s);
    }
}

pub fn cold(turn: &mut Turn<'_>) -> Result<Figures, PerfError> {
    let broker = Running::settled(turn.subject, turn.tools, &[])?;
    let records = turn.scaled(8 << 20).to_string();
    let fill = "--topic cold --producers 2 --batch-size 1000000 --warm-up 0 --duration 600";
    let fill: Vec<&str> = fill.split(' ').chain(["--records", &records]).collect();
    turn.loadgen(&broker.address(), &fill)?;
    let read = "--topic cold --producers 0 --consumers 1 --from beginning --warm-up 0 \
                --partition-max-bytes 8388608 --duration 600";
    let read: Vec<&str> = read.split_whitespace().collect();
    drop_caches()?;
    let disk_mb_s = sequential_mb_s(broker.folder())?;
    drop_caches()?;
    let report = turn.loadgen(&broker.address(), &read)?;
    let mut figures = Figures::from([
        ("disk_mb_s".to_owned(), disk_mb_s),
        ("read_mb_s".to_owned(), wanted(&report, "/consumed/mb_per_s")?),
    ]);
    let duration = turn.scaled_seconds(5.0);
    let produce = ["--topic", "beside", "--rate", "2000", "--duration", &*duration];
    let quiet = turn.loadgen(&broker.address(), &produce)?;
    figures.insert("quiet_p99_us".to_owned(), wanted(&quiet, "/produced/latency/p99_us")?);
    drop_caches()?;
    let beside = beside_a_reader(turn, &broker, &produce, &read)?;
    figures.insert("beside_p99_us".to_owned(), wanted(&beside, "/produced/latency/p99_us")?);
    Ok(figures)
}

/// A reader comes back to a backlog of five minutes and reads it while the load goes on.
pub fn backlog(turn: &mut Turn<'_>) -> Result<Figures, PerfError> {
    let broker = Running::settled(turn.subject, turn.tools, &[])?;
    let address = broker.address();
    let partitions = BACKLOG_PARTITIONS.to_string();
    let produce = "--topic backlog --rate 40000 --linger-ms 5 --batch-size 65536 --warm-up 0";
    let produce: Vec<&str> = produce.split(' ').chain(["--partitions", &partitions]).collect();
    let away = turn.scaled_seconds(300.0);
    let filling: Vec<&str> = produce.iter().copied().chain(["--duration", &away]).collect();
    let filled = turn.loadgen(&address, &filling)?;
    let read = "--topic backlog --producers 0 --consumers 1 --from beginning --warm-up 0 \
                --duration 600 --partitions";
    let read: Vec<&str> = read.split_whitespace().chain([&*partitions]).collect();
    let going_on: Vec<&str> = produce.iter().copied().chain(["--duration", "600"]).collect();
    let mut producers = Beside::start(turn, &broker, &going_on)?;
    let before = records_in(&address, "backlog")?;
    let begin = Instant::now();
    let report = turn.loadgen(&address, &read)?;
    let seconds = begin.elapsed().as_secs_f64();
    let produced = records_in(&address, "backlog")? - before;
    producers.check()?;
    let produced_mb_s = produced as f64 * 1_024.0 / MB / seconds;
    let drained_mb_s = wanted(&report, "/consumed/mb_per_s")?;
    let mut figures = Figures::from([
        ("backlog_mb".to_owned(), wanted(&filled, "/produced/records_total")? * 1_024.0 / MB),
        ("drained_mb_s".to_owned(), drained_mb_s),
        ("produced_mb_s".to_owned(), produced_mb_s),
        ("times".to_owned(), drained_mb_s / produced_mb_s),
    ]);
    // A backlog that is gone within two seconds has no second to tell.
    if let Some(slowest) = number(&report, "/slowest_second_mb") {
        figures.insert("slowest_second_mb".to_owned(), slowest);
    }
    Ok(figures)
}

/// The records of a topic of [`BACKLOG_PARTITIONS`].
fn records_in(broker: &str, topic: &str) -> Result<i64, PerfError> {
    let mut connection = Connection::open(broker)?;
    let ends = topics::offsets(&mut connection, topic, BACKLOG_PARTITIONS, End::Latest)?;
    Ok(ends.iter().sum())
}

/// A second load generator that runs until this is dropped.
struct Beside(std::process::Child);

impl Beside {
    fn start(turn: &mut Turn<'_>, broker: &Running, flags: &[&str]) -> Result<Beside, PerfError> {
        turn.note("loadgen (beside the next)", flags);
        std::process::Command::new(&turn.tools.loadgen)
            .args(["--json", "--broker", &broker.address()])
            .args(flags)
            .stdout(std::process::Stdio::null())
            .spawn()
            .map(Beside)
            .map_err(PerfError::io("starting a load generator"))
    }

    /// An error if it has ended by itself.
    fn check(&mut self) -> Result<(), PerfError> {
        match self.0.try_wait().map_err(PerfError::io("a load generator"))? {
            Some(status) => Err(PerfError::Unfit(format!("the load beside ended with {status}"))),
            None => Ok(()),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The produce load's report, while a second load generator reads everything.
fn beside_a_reader(
    turn: &mut Turn<'_>,
    broker: &Running,
    produce: &[&str],
    read: &[&str],
) -> Result<serde_json::Value, PerfError> {
    // It may come to the end by itself.
    let _reader = Beside::start(turn, broker, read)?;
    turn.loadgen(&broker.address(), produce)
}

/// Makes the next reads come from the disk.
fn drop_caches() -> Result<(), PerfError> {
    rustix::fs::sync();
    const FILE: &str = "/proc/sys/vm/drop_caches";
    fs::write(FILE, "3").map_err(PerfError::io(format!("{FILE} (this row needs root)")))
}

/// How fast the large files of a folder can be read one after the other, up to 4 GB of them.
fn sequential_mb_s(folder: &Path) -> Result<f64, PerfError> {
    const LARGE_BYTES: u64 = 16 << 20;
    const ENOUGH_BYTES: u64 = 4 << 30;
    let mut files = Vec::new();
    large_files(folder, LARGE_BYTES, &mut files)?;
    let mut buffer = vec![0; 4 << 20];
    let mut total = 0;
    let begin = Instant::now();
    for path in files {
        let fault = |error| PerfError::Io { what: path.display().to_string(), error };
        let mut file = File::open(&path).map_err(fault)?;
        while total < ENOUGH_BYTES {
            match file.read(&mut buffer).map_err(fault)? {
                0 => break,
                read => total += read as u64,
            }
        }
    }
    Ok(total as f64 / MB / begin.elapsed().as_secs_f64())
}

/// Files of segments; not the write-ahead log, whose blocks may never have been written to.
fn large_files(
    folder: &Path,
    bytes: u64,
    found: &mut Vec<std::path::PathBuf>,
) -> Result<(), PerfError> {
    let fault = |error| PerfError::Io { what: folder.display().to_string(), error };
    for entry in fs::read_dir(folder).map_err(fault)? {
        let entry = entry.map_err(fault)?;
        let kind = entry.file_type().map_err(fault)?;
        if kind.is_dir() && entry.file_name() != "wal" {
            large_files(&entry.path(), bytes, found)?;
        } else if kind.is_file() && entry.metadata().map_err(fault)?.len() >= bytes {
            found.push(entry.path());
        }
    }
    Ok(())
}
