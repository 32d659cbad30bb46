//! Little memory and much to do: many producers, readers, and clients that ask and never read. The
//! broker slows them down; it neither grows nor dies, and keeps what it acknowledged.
//!
//! `tests/limits.sh` runs this with the broker in a control group (`CHRONIK_TEST_CGROUP`), where the
//! kernel kills what takes more; an ordinary run looks at the peak that the kernel has counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{ApiKey, FetchRequest, ProduceResponse};
use kafka_protocol::protocol::Decodable;

use crate::clients::read_all;
use crate::hostile::{batch, create, name, produce_request, Scene};
use crate::support::memory::Memory;
use crate::support::wire::{encode, Wire};

const ARGUMENTS: [&str; 6] =
    ["--request-memory-bytes", "16MiB", "--cache-memory-bytes", "16MiB", "--shards", "2"];
const TOPICS: usize = 4;
const PRODUCERS: usize = 16;
const BATCHES: usize = 12;
const BATCH_BYTES: usize = 900 << 10;
/// Requests of a producer that are under way at once.
const IN_FLIGHT: usize = 4;
const READERS: usize = 16;
/// Who asks for all there is, again and again, and never reads a byte.
const DEAF: usize = 16;
/// What the load may add: request and cache memory, and what a shard needs for its turn.
const GROWTH_BYTES: u64 = 128 << 20;

fn topic(nth: usize) -> String {
    format!("load-{}", nth % TOPICS)
}

fn fetch_request(topic: &str, offset: i64) -> FetchRequest {
    let partition =
        FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(i32::MAX);
    let topic = FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition]);
    FetchRequest::default().with_max_wait_ms(100).with_min_bytes(1).with_topics(vec![topic])
}

/// Sends so many batches, some at once, again where the broker says that it has no room; gives how
/// many were acknowledged.
fn produce_all(port: u16, topic: &str) -> usize {
    let mut wire = Wire::connect(port);
    let request = produce_request(topic, Some(batch(&[&vec![b'x'; BATCH_BYTES]])), -1);
    let frame = encode(ApiKey::Produce, 9, 1, &request);
    let (mut sent, mut waiting, mut acknowledged) = (0, VecDeque::new(), 0);
    while acknowledged < BATCHES {
        while waiting.len() < IN_FLIGHT && sent < BATCHES {
            wire.send_frame(&frame);
            waiting.push_back(());
            sent += 1;
        }
        let mut answer = wire.receive_slowly().expect("an answer, late as it may be");
        waiting.pop_front();
        // Correlation id and tagged fields.
        answer.advance(5);
        let response = ProduceResponse::decode(&mut answer, 9).unwrap();
        match response.responses[0].partition_responses[0].error_code {
            0 => acknowledged += 1,
            // NOT_ENOUGH_REPLICAS: nothing of it was appended.
            19 => sent -= 1,
            other => panic!("error {other}"),
        }
    }
    acknowledged
}

/// Reads from the beginning until told to stop, and begins again at the end.
fn read_on(port: u16, topic: &str, stop: &AtomicBool, bytes: &AtomicUsize) {
    let mut wire = Wire::connect(port);
    while !stop.load(Ordering::Relaxed) {
        let request = encode(ApiKey::Fetch, 4, 1, &fetch_request(topic, 0));
        wire.send_frame(&request);
        let answer: Bytes = wire.receive_slowly().expect("an answer, late as it may be");
        bytes.fetch_add(answer.len(), Ordering::Relaxed);
    }
}

#[test]
fn many_clients_in_little_memory_are_slowed_down() {
    let mut scene = Scene::with(&ARGUMENTS);
    let port = scene.broker.port();
    for nth in 0..TOPICS {
        create(&mut scene.stranger(), &topic(nth), &[]);
    }
    let before = Memory::of(scene.broker.process());
    let (stop, read) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut deaf = Vec::new();
    thread::scope(|scope| {
        let (stop, read) = (&stop, &read);
        let producers: Vec<_> =
            (0..PRODUCERS).map(|nth| scope.spawn(move || produce_all(port, &topic(nth)))).collect();
        for nth in 0..READERS {
            scope.spawn(move || read_on(port, &topic(nth), stop, read));
        }
        for nth in 0..DEAF {
            let request = encode(ApiKey::Fetch, 4, 1, &fetch_request(&topic(nth), 0));
            let mut wire = Wire::connect(port);
            (0..20).for_each(|_| wire.send_frame(&request));
            deaf.push(wire);
        }
        let ends: Vec<_> = producers.into_iter().map(|producer| producer.join()).collect();
        stop.store(true, Ordering::Relaxed);
        for end in ends {
            assert_eq!(end.expect("a producer goes on"), BATCHES);
        }
    });
    scene.undisturbed();
    // Twenty requests of each are still unanswered.
    drop(deaf);
    for nth in 0..TOPICS {
        let records = read_all(&scene.broker.address(), &topic(nth))[&0].len();
        assert_eq!(records, PRODUCERS / TOPICS * BATCHES, "{}", topic(nth));
    }
    let memory = Memory::of(scene.broker.process());
    let grown = memory.peak_resident_bytes.saturating_sub(before.resident_bytes);
    let read = read.load(Ordering::Relaxed);
    println!(
        "{} MiB written and {} MiB read by {} clients beside {DEAF} that never read: {} MiB more \
         memory at the peak, {} MiB in all",
        (PRODUCERS * BATCHES * BATCH_BYTES) >> 20,
        read >> 20,
        PRODUCERS + READERS,
        grown >> 20,
        memory.peak_resident_bytes >> 20,
    );
    assert!(grown < GROWTH_BYTES, "{} MiB more", grown >> 20);
}
