//! SIGKILL and SIGSTOP: what was acknowledged is there, once, in order, and groups go on.
//!
//! `CHRONIK_KILL_ROUNDS` sets how often the broker is killed under load (CI: 20). Every fourth
//! round kills it once more on its way back.

use std::thread;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::producer::{BaseRecord, Producer};
use rustix::process::Signal;

use crate::clients::{consumer, producer, read_all};
use crate::load::Load;
use crate::support::Broker;

#[test]
fn everything_acknowledged_is_there_after_a_kill() {
    let mut broker = Broker::start_with(&["--num-partitions", "3"]);
    let producer = producer(&broker.address(), &[("acks", "all")]);
    for i in 0..3000 {
        let (key, value) = (format!("k{}", i % 11), i.to_string());
        let record = BaseRecord::to("kept").key(&key).payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    broker.kill();
    broker.restart();
    let read = read_all(&broker.address(), "kept");
    let mut values: Vec<usize> =
        read.values().flatten().map(|(_, _, value)| value.parse().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, (0..3000).collect::<Vec<_>>());
    for (value, place) in producer.context().0.lock().unwrap().iter() {
        let (partition, offset) = place.clone().unwrap();
        let found = &read[&partition][offset as usize];
        assert_eq!((found.0, &found.2), (offset, value));
    }
}

#[test]
fn idempotent_producers_and_a_group_go_through_kills() {
    let rounds = std::env::var("CHRONIK_KILL_ROUNDS").ok().and_then(|text| text.parse().ok());
    let rounds: u64 = rounds.unwrap_or(4);
    let mut broker = Broker::start_with(&["--num-partitions", "4", "--shards", "2"]);
    let load = Load::start(&broker.address(), "killed");
    load.wait_for_group();
    let (mut early, mut late) = (0, 0);
    for round in 0..rounds {
        load.wait_for_acknowledged(100);
        thread::sleep(Duration::from_millis(37 * (round % 7)));
        broker.assert_alive();
        broker.kill();
        if round % 4 == 0 {
            // From before it has opened its folder until soon after it serves.
            match broker.kill_on_its_way(Duration::from_millis(7 * (round / 4 % 25))) {
                true => late += 1,
                false => early += 1,
            }
        }
        broker.restart();
    }
    load.wait_for_acknowledged(100);
    eprintln!("{rounds} kills; again before it served: {early}, soon after: {late}");
    assert_eq!(early + late, rounds.div_ceil(4));
    load.finish().assert_sound();
}

#[test]
fn a_stopped_process_that_goes_on_has_lost_and_doubled_nothing() {
    let broker = Broker::start_with(&["--num-partitions", "4", "--shards", "2"]);
    let load = Load::start(&broker.address(), "paused");
    load.wait_for_group();
    // Two are shorter than the members' sessions, one is longer.
    for pause_ms in [700, 4000, 12_000] {
        load.wait_for_acknowledged(500);
        let assignments = load.assignments();
        broker.signal(Signal::STOP);
        let ends = load.acknowledged_ends();
        thread::sleep(Duration::from_millis(pause_ms));
        broker.signal(Signal::CONT);
        // The first answer to a new client knows all that was acknowledged before.
        let asks = consumer(&broker.address(), "asks");
        for (partition, end) in ends {
            let limit = Duration::from_secs(20);
            let (_, high) = asks.fetch_watermarks("paused", partition, limit).unwrap();
            assert!(high >= end, "{partition} ends at {high}, {end} was acknowledged");
        }
        load.wait_for_acknowledged(500);
        if pause_ms < 10_000 {
            assert_eq!(load.assignments(), assignments, "a pause of {pause_ms} ms moved the group");
        }
    }
    load.finish().assert_sound();
}
