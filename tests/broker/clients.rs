//! librdkafka against the binary: what is produced is consumed, in order, with every codec.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::sync::{Arc, Mutex};

use crate::support::Broker;

/// What the broker said of each record: its value, and where it is, or why not.
pub type Reports = Arc<Mutex<Vec<(String, Result<(i32, i64), String>)>>>;

#[derive(Clone, Default)]
pub struct Reporter(pub Reports);

impl ClientContext for Reporter {}

impl ProducerContext for Reporter {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        let (message, place) = match result {
            Ok(message) => (message, Ok((message.partition(), message.offset()))),
            Err((error, message)) => (message, Err(error.to_string())),
        };
        let value = message.payload_view::<str>().unwrap().unwrap().to_string();
        self.0.lock().unwrap().push((value, place));
    }
}

pub fn producer(address: &str, settings: &[(&str, &str)]) -> ThreadedProducer<Reporter> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("broker.address.family", "v4");
    config.set("message.timeout.ms", "60000").set("linger.ms", "2");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config.create_with_context(Reporter::default()).unwrap()
}

pub fn consumer(address: &str, group: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("broker.address.family", "v4")
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap()
}

/// Every record of a topic from the beginning, by partition, without a group.
pub fn read_all(address: &str, topic: &str) -> BTreeMap<i32, Vec<(i64, String, String)>> {
    let consumer = consumer(address, "not-a-group");
    let limit = Duration::from_secs(20);
    let metadata = consumer.fetch_metadata(Some(topic), limit).unwrap();
    let mut wanted = TopicPartitionList::new();
    let mut ends = BTreeMap::new();
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), limit).unwrap();
        wanted.add_partition_offset(topic, partition.id(), Offset::Offset(low)).unwrap();
        ends.insert(partition.id(), high - low);
    }
    consumer.assign(&wanted).unwrap();
    let mut read: BTreeMap<i32, Vec<_>> = ends.keys().map(|id| (*id, Vec::new())).collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    while read.iter().any(|(id, records)| (records.len() as i64) < ends[id]) {
        assert!(Instant::now() < deadline, "read {read:?} of {ends:?}");
        if let Some(message) = consumer.poll(Duration::from_millis(200)) {
            let message = message.unwrap();
            let text = |bytes: Option<&[u8]>| {
                String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap()
            };
            let record = (message.offset(), text(message.key()), text(message.payload()));
            read.get_mut(&message.partition()).unwrap().push(record);
        }
    }
    read
}

#[test]
fn what_is_produced_is_consumed_with_every_codec() {
    let broker = Broker::start();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("codec-{codec}");
        let producer = producer(&broker.address(), &[("compression.codec", codec)]);
        let count = 500;
        for i in 0..count {
            let (key, value) = (format!("k{}", i % 7), format!("{i}"));
            let header = Header { key: "n", value: Some(&value) };
            let record = BaseRecord::to(&topic).key(&key).payload(&value);
            let record = record.headers(OwnedHeaders::new().insert(header));
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();
        let reports = producer.context().0.lock().unwrap().clone();
        assert_eq!(reports.len(), count);
        for (value, place) in &reports {
            assert_eq!(*place, Ok((0, value.parse().unwrap())), "{codec}");
        }
        let read = &read_all(&broker.address(), &topic)[&0];
        let expected: Vec<_> =
            (0..count).map(|i| (i as i64, format!("k{}", i % 7), i.to_string())).collect();
        assert_eq!(*read, expected, "{codec}");
    }
}

#[test]
fn a_group_reads_everything_once_and_goes_on_where_it_stopped() {
    let broker = Broker::start_with(&["--num-partitions", "4"]);
    let producer = producer(&broker.address(), &[]);
    let send = |from: usize, to: usize| {
        for i in from..to {
            let (key, value) = (format!("k{i}"), i.to_string());
            let record = BaseRecord::to("grouped").key(&key).payload(&value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();
    };
    let take = |count: usize| {
        let consumer = consumer(&broker.address(), "readers");
        consumer.subscribe(&["grouped"]).unwrap();
        let mut values = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(30);
        while values.len() < count {
            assert!(Instant::now() < deadline, "{} of {count} values", values.len());
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                let message = message.unwrap();
                assert!(message.headers().is_none_or(|headers| headers.count() == 0));
                let value = message.payload_view::<str>().unwrap().unwrap();
                values.push(value.parse::<usize>().unwrap());
            }
        }
        consumer.commit_consumer_state(CommitMode::Sync).unwrap();
        values.sort_unstable();
        values
    };
    send(0, 600);
    assert_eq!(take(600), (0..600).collect::<Vec<_>>());
    send(600, 900);
    assert_eq!(take(300), (600..900).collect::<Vec<_>>());
}

#[test]
fn a_consumer_that_waits_is_answered_when_a_record_arrives() {
    let broker = Broker::start();
    let producer = producer(&broker.address(), &[("linger.ms", "0")]);
    let send = |value: &str| {
        let record = BaseRecord::<(), str>::to("waited").payload(value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    };
    send("first");
    producer.flush(Duration::from_secs(10)).unwrap();
    let consumer = consumer(&broker.address(), "waiting");
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_offset("waited", 0, Offset::Beginning).unwrap();
    consumer.assign(&wanted).unwrap();
    let next = || consumer.poll(Duration::from_secs(10)).unwrap().unwrap().offset();
    assert_eq!(next(), 0);
    // The next fetch waits at the broker now; its time limit (librdkafka's 500 ms) is far above
    // what an answer on arrival takes.
    std::thread::sleep(Duration::from_millis(50));
    let mut fastest = Duration::MAX;
    for offset in 1..20 {
        let sent = Instant::now();
        send("next");
        assert_eq!(next(), offset);
        fastest = fastest.min(sent.elapsed());
    }
    assert!(fastest < Duration::from_millis(100), "the fastest of 19 took {fastest:?}");
}
