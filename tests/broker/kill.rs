//! SIGKILL: what was acknowledged is there, once, in order.
//!
//! `CHRONIK_KILL_ROUNDS` sets how often the broker is killed under load (CI: 20).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rdkafka::producer::{BaseRecord, Producer};

use crate::clients::{producer, read_all};
use crate::support::Broker;

/// Keys of the load; each carries the numbers 0, 1, 2, … as values `key:number`.
const KEYS: usize = 16;

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
fn an_idempotent_producer_loses_and_doubles_nothing_through_kills() {
    let rounds = std::env::var("CHRONIK_KILL_ROUNDS").ok().and_then(|text| text.parse().ok());
    let rounds: usize = rounds.unwrap_or(4);
    let mut broker = Broker::start_with(&["--num-partitions", "4"]);
    let settings = [
        ("enable.idempotence", "true"),
        ("message.timeout.ms", "120000"),
        ("reconnect.backoff.max.ms", "100"),
        ("retry.backoff.ms", "20"),
        ("retry.backoff.max.ms", "100"),
        ("queue.buffering.max.messages", "20000"),
    ];
    let producer = Arc::new(producer(&broker.address(), &settings));
    let stop = Arc::new(AtomicBool::new(false));
    let sender = {
        let (producer, stop) = (producer.clone(), stop.clone());
        thread::spawn(move || {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                let (key, number) = (sent % KEYS, sent / KEYS);
                let (key, value) = (format!("key{key}"), format!("key{key}:{number}"));
                match producer.send(BaseRecord::to("killed").key(&key).payload(&value)) {
                    Ok(()) => sent += 1,
                    // The queue is full while the broker is away.
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
                if sent.is_multiple_of(64) {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            sent
        })
    };
    for round in 0..rounds {
        thread::sleep(Duration::from_millis(200 + 37 * (round as u64 % 7)));
        broker.assert_alive();
        broker.kill();
        broker.restart();
    }
    thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    let sent = sender.join().unwrap();
    producer.flush(Duration::from_secs(90)).unwrap();
    let reports = producer.context().0.lock().unwrap().clone();
    let read = read_all(&broker.address(), "killed");
    let anomalies = check(sent, &reports, &read);
    assert!(anomalies.is_empty(), "{} anomalies, the first: {:?}", anomalies.len(), anomalies[0]);
    assert!(sent > rounds * 100, "only {sent} records were sent in {rounds} rounds");
}

type Report = (String, Result<(i32, i64), String>);

/// Lost, doubled, invented, out of order, or not where the acknowledgement said.
fn check(
    sent: usize,
    reports: &[Report],
    read: &BTreeMap<i32, Vec<(i64, String, String)>>,
) -> Vec<String> {
    let mut anomalies = Vec::new();
    let mut seen = BTreeSet::new();
    let mut next: BTreeMap<String, usize> = BTreeMap::new();
    let mut places = BTreeMap::new();
    for (partition, records) in read {
        for (expected, (offset, key, value)) in (0..).zip(records) {
            if *offset != expected {
                anomalies.push(format!("partition {partition}: {offset} instead of {expected}"));
            }
            places.insert((*partition, *offset), value);
            if !seen.insert(value) {
                anomalies.push(format!("doubled: {value} at {partition}/{offset}"));
                continue;
            }
            let number: usize = value.rsplit(':').next().unwrap().parse().unwrap();
            let last = next.entry(key.clone()).or_default();
            if number < *last {
                anomalies.push(format!("out of order: {value} after {last}"));
            }
            *last = number;
        }
    }
    if seen.len() > sent {
        anomalies.push(format!("{} values read of {sent} sent", seen.len()));
    }
    for (value, place) in reports {
        match place {
            Err(error) => anomalies.push(format!("refused: {value}: {error}")),
            Ok(place) if places.get(place) != Some(&value) => {
                let found = places.get(place);
                anomalies.push(format!("lost: {value} acknowledged at {place:?}, found {found:?}"));
            }
            Ok(_) => {}
        }
    }
    if reports.len() != sent {
        anomalies.push(format!("{} reports for {sent} records", reports.len()));
    }
    anomalies
}

/// The checker must see what it is there to see.
#[test]
fn the_checker_finds_each_anomaly() {
    let record = |offset: i64, number: i64| (offset, "a".to_string(), format!("a:{number}"));
    let report = |number: i64, place| -> Report { (format!("a:{number}"), place) };
    let read = |records: &[(i64, i64)]| {
        BTreeMap::from([(0, records.iter().map(|(o, n)| record(*o, *n)).collect::<Vec<_>>())])
    };
    let acknowledged = [report(0, Ok((0, 0))), report(1, Ok((0, 1)))];
    let found = |records: &[(i64, i64)]| check(2, &acknowledged, &read(records)).join("; ");
    assert_eq!(found(&[(0, 0), (1, 1)]), "");
    assert!(found(&[(0, 0)]).contains("lost: a:1"));
    assert!(found(&[(0, 0), (1, 1), (2, 1)]).contains("doubled: a:1"));
    assert!(found(&[(0, 1), (1, 0)]).contains("out of order: a:0"));
    assert!(found(&[(0, 0), (2, 1)]).contains("2 instead of 1"));
    let refused = [report(0, Ok((0, 0))), report(1, Err("timed out".into()))];
    assert!(check(2, &refused, &read(&[(0, 0)])).join(";").contains("refused: a:1"));
}
