//! Real disks that fill up and fail: small file systems that `tests/disks.sh` makes (as root) and
//! names in the environment. Only with the feature `real-disks`, since they need those.
//!
//! `CHRONIK_TEST_DISK` is where the file system is mounted. Where it can fail, its device is the
//! zram device `CHRONIK_TEST_ZRAM`: with a limit of memory it fails every write with EIO, and still
//! reads.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{
    ApiKey, DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    ProduceRequest, ProduceResponse,
};

use crate::clients::read_all;
use crate::hostile::{batch, create, name, produce_request};
use crate::load::Load;
use crate::support::wire::Wire;
use crate::support::Broker;

const KAFKA_STORAGE_ERROR: i16 = 56;
const NOT_ENOUGH_REPLICAS: i16 = 19;
const VALUE_BYTES: usize = 500_000;
/// In which the broker must have found out that there is space again.
const HEAL_LIMIT: Duration = Duration::from_secs(60);
/// Of the log of two shards, in files of 4 MiB.
const LOG_BYTES: u64 = 64 << 20;

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/disks.sh"))
}

fn disk() -> PathBuf {
    setting("CHRONIK_TEST_DISK").into()
}

/// A broker on the small disk, with a log that is filled ahead.
fn start(reserve: &str) -> Broker {
    let broker = Broker::start_in(&disk(), &["--shards", "2", "--disk-reserve-bytes", reserve]);
    eventually("the log is filled ahead", || size(&broker.data_dir().join("wal")) >= LOG_BYTES);
    broker
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + HEAL_LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {HEAL_LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Bytes of the files below a folder; they come and go meanwhile.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// A file of somebody else's, which takes all space that is left.
struct Foreign(PathBuf);

impl Foreign {
    fn fill() -> Foreign {
        let foreign = Foreign(disk().join("foreign"));
        foreign.fill_up();
        foreign
    }

    fn fill_up(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.0).unwrap();
        for piece in [1 << 20, 64 << 10, 4096, 512] {
            let piece = vec![b'f'; piece];
            let error = loop {
                if let Err(error) = file.write_all(&piece).and_then(|()| file.sync_all()) {
                    break error;
                }
            };
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

/// What was acknowledged of one topic, and how to add to it.
struct Topic {
    name: &'static str,
    acknowledged: Vec<i64>,
    first: i64,
}

impl Topic {
    fn create(broker: &Broker, name: &'static str) -> Topic {
        create(&mut Wire::connect(broker.port()), name, &[]);
        Topic { name, acknowledged: Vec::new(), first: 0 }
    }

    /// Sends one record; the error code and message, if it was refused.
    fn produce(&mut self, broker: &Broker) -> Result<(), (i16, String)> {
        let value = value(self.acknowledged.len() as i64);
        let request = produce_request(self.name, Some(batch(&[value.as_bytes()])), -1);
        let request: ProduceRequest = request.with_timeout_ms(4000);
        let answer: ProduceResponse =
            Wire::connect(broker.port()).ask(ApiKey::Produce, 9, &request);
        let told = &answer.responses[0].partition_responses[0];
        if told.error_code != 0 {
            let message = told.error_message.as_ref().map(|text| text.to_string());
            return Err((told.error_code, message.unwrap_or_default()));
        }
        self.acknowledged.push(told.base_offset);
        Ok(())
    }

    /// Sends until the broker takes no more.
    fn produce_until_refused(&mut self, broker: &Broker) -> (i16, String) {
        for _ in 0..2000 {
            if let Err(refused) = self.produce(broker) {
                return refused;
            }
        }
        panic!("the disk does not fill up");
    }

    fn heals(&mut self, broker: &Broker) {
        eventually("produce is accepted again", || self.produce(broker).is_ok());
    }

    fn delete_records(&mut self, broker: &Broker, upto: i64) {
        let partition = DeleteRecordsPartition::default().with_offset(upto);
        let wanted = DeleteRecordsTopic::default().with_name(name(self.name));
        let wanted = wanted.with_partitions(vec![partition]);
        let request =
            DeleteRecordsRequest::default().with_topics(vec![wanted]).with_timeout_ms(10_000);
        let answer: DeleteRecordsResponse =
            Wire::connect(broker.port()).ask(ApiKey::DeleteRecords, 2, &request);
        let told = &answer.topics[0].partitions[0];
        assert_eq!((told.error_code, told.low_watermark), (0, upto));
        self.first = upto;
    }

    fn delete(self, broker: &Broker) {
        let wanted = DeleteTopicState::default().with_name(Some(name(self.name)));
        let request =
            DeleteTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(10_000);
        let answer: DeleteTopicsResponse =
            Wire::connect(broker.port()).ask(ApiKey::DeleteTopics, 6, &request);
        assert_eq!(answer.responses[0].error_code, 0, "{:?}", answer.responses[0]);
    }

    /// Everything that was acknowledged and not deleted is there, once, and nothing else.
    fn check(&self, broker: &Broker) {
        let read = read_all(&broker.address(), self.name);
        let found: Vec<(i64, &str)> =
            read[&0].iter().map(|(offset, _, value)| (*offset, short(value))).collect();
        let values: Vec<String> = self.acknowledged.iter().map(|offset| value(*offset)).collect();
        let expected = self.acknowledged.iter().zip(&values);
        let expected: Vec<(i64, &str)> = expected
            .filter(|(offset, _)| **offset >= self.first)
            .map(|(offset, value)| (*offset, short(value)))
            .collect();
        assert_eq!(found, expected, "topic {}", self.name);
    }
}

/// Unlike any other, and not to be compressed by a device.
fn value(number: i64) -> String {
    let mut random = number as u64 + 1;
    let mut text = format!("{number}:");
    while text.len() < VALUE_BYTES {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push_str(&format!("{random:016x}"));
    }
    text
}

fn short(value: &str) -> &str {
    &value[..value.len().min(40)]
}

#[test]
fn a_disk_at_its_reserve_refuses_records_and_nothing_else() {
    let broker = start("40MiB");
    let mut kept = Topic::create(&broker, "kept");
    let mut gone = Topic::create(&broker, "gone");
    for _ in 0..20 {
        kept.produce(&broker).unwrap();
    }
    let (code, message) = gone.produce_until_refused(&broker);
    assert_eq!(code, KAFKA_STORAGE_ERROR, "{message}");
    assert!(message.contains("disk_reserve_bytes"), "{message}");
    broker.wait_for_line("produce is refused until there is space");
    kept.check(&broker);
    gone.check(&broker);
    kept.delete_records(&broker, 10);
    kept.check(&broker);
    gone.delete(&broker);
    kept.heals(&broker);
    kept.check(&broker);
}

#[test]
fn a_full_disk_is_served_from_started_on_and_healed() {
    let mut broker = start("0");
    let mut kept = Topic::create(&broker, "kept");
    let mut gone = Topic::create(&broker, "gone");
    for _ in 0..20 {
        kept.produce(&broker).unwrap();
        gone.produce(&broker).unwrap();
    }
    let foreign = Foreign::fill();
    for topic in [&mut kept, &mut gone] {
        let (code, message) = topic.produce_until_refused(&broker);
        assert_eq!(code, NOT_ENOUGH_REPLICAS, "{message}");
        assert!(message.contains("no room"), "{message}");
    }
    broker.wait_for_line("no space for segments; the data stays in the WAL");
    kept.check(&broker);
    gone.check(&broker);
    kept.delete_records(&broker, 10);

    // Each start takes one of the files that data leaves, until there is none.
    let mut starts = 0;
    let refused = loop {
        broker.kill();
        foreign.fill_up();
        if let Some(status) = broker.try_restart() {
            break status;
        }
        starts += 1;
        assert!(starts < 10, "the log does not run out of files");
        kept.check(&broker);
        gone.check(&broker);
        let outcome = kept.produce(&broker).map_err(|(code, _)| code);
        assert_eq!(outcome, Err(NOT_ENOUGH_REPLICAS));
        kept.delete_records(&broker, 10 + starts);
    };
    assert!(starts > 0, "not even one start");
    assert_eq!(refused.code(), Some(4), "{refused}");
    broker.wait_for_line("no room for a log file of 4194304 bytes");

    drop(foreign);
    broker.restart();
    kept.heals(&broker);
    kept.check(&broker);
    gone.check(&broker);

    // Once more, and this time it is the broker's own data that makes room.
    let foreign = Foreign::fill();
    kept.produce_until_refused(&broker);
    gone.delete(&broker);
    kept.heals(&broker);
    kept.check(&broker);
    drop(foreign);
    broker.assert_alive();
}

/// The zram device below the disk, which fails and is mended.
struct Zram {
    name: String,
}

impl Zram {
    fn limit_memory(&self, bytes: &str) {
        let limit = format!("/sys/block/{}/mem_limit", self.name);
        File::options().write(true).open(limit).unwrap().write_all(bytes.as_bytes()).unwrap();
    }

    fn fail_writes(&self) {
        self.limit_memory("4096");
    }

    /// The file system has given up with its device, and begins anew on it.
    fn mend(&self) {
        self.limit_memory("0");
        let device = format!("/dev/{}", self.name);
        let done = |command: &mut Command| command.status().unwrap().success();
        eventually("the disk is unmounted", || done(Command::new("umount").arg(disk())));
        assert!(done(Command::new("mount").arg(device).arg(disk())), "the disk is mounted again");
    }
}

#[test]
fn a_disk_that_fails_stops_the_broker_and_loses_nothing() {
    let zram = Zram { name: setting("CHRONIK_TEST_ZRAM") };
    for flush in ["dsync", "fdatasync"] {
        let flags = ["--shards", "2", "--num-partitions", "4", "--disk-reserve-bytes", "0"];
        let flags = [&flags[..], &["--wal-sync", flush]].concat();
        let mut broker = Broker::start_in(&disk(), &flags);
        let load = Load::start(&broker.address(), "failing");
        load.wait_for_group();
        for _ in 0..3 {
            load.wait_for_acknowledged(500);
            zram.fail_writes();
            let status = broker.wait_for_end();
            assert_eq!(status.signal(), Some(rustix::process::Signal::ABORT.as_raw()), "{status}");
            broker.wait_for_line("the write-ahead log has failed and the broker stops");
            broker.wait_for_line("Input/output error (os error 5)");
            zram.mend();
            broker.restart();
        }
        load.wait_for_acknowledged(500);
        load.finish().assert_sound();
    }
}
