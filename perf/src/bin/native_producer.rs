//! `native-producer`: librdkafka's producer, as fast as it goes (row P4).
//!
//! Sends records of one size with acks=-1, waits for every delivery report, and prints the rate as
//! JSON. A record that was not delivered ends it with an error.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{value_parser, Arg, Command};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer,
};
use rdkafka::ClientContext;

const FLUSH_LIMIT: Duration = Duration::from_secs(120);

#[derive(Clone, Default)]
struct Reports {
    failed: Arc<AtomicU64>,
}

impl ClientContext for Reports {}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn main() -> ExitCode {
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).default_value(default).value_parser(value_parser!(u64)).help(help)
    };
    let matches = Command::new("native-producer")
        .about("librdkafka's producer at its peak, with acks=-1.")
        .arg(Arg::new("broker").long("broker").required(true).help("host:port"))
        .arg(Arg::new("topic").long("topic").required(true).help("A topic that exists"))
        .arg(number("records", "1000000", "How many records"))
        .arg(number("record-size", "1024", "Bytes of a record's value"))
        .get_matches();
    let text = |name: &str| matches.get_one::<String>(name).expect("it is required");
    let count = |name: &str| *matches.get_one::<u64>(name).expect("it has a default");
    match produce(text("broker"), text("topic"), count("records"), count("record-size") as usize) {
        Ok(seconds) => {
            let bytes = (count("records") * count("record-size")) as f64;
            let mb_per_s = bytes / (1u64 << 20) as f64 / seconds;
            println!("{}", serde_json::json!({ "seconds": seconds, "mb_per_s": mb_per_s }));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The seconds from the first send to the last delivery report.
fn produce(broker: &str, topic: &str, records: u64, record_bytes: usize) -> Result<f64, String> {
    let reports = Reports::default();
    let producer: ThreadedProducer<Reports> = ClientConfig::new()
        .set("bootstrap.servers", broker)
        .set("acks", "-1")
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.kbytes", "262144")
        .set("queue.buffering.max.messages", "250000")
        .create_with_context(reports.clone())
        .map_err(|error| error.to_string())?;
    let value = vec![b'x'; record_bytes];
    let begin = Instant::now();
    for _ in 0..records {
        let mut record = BaseRecord::<(), [u8]>::to(topic).payload(&value);
        while let Err((error, returned)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.to_string());
            }
            std::thread::sleep(Duration::from_micros(200));
            record = returned;
        }
    }
    producer.flush(FLUSH_LIMIT).map_err(|error| error.to_string())?;
    let seconds = begin.elapsed().as_secs_f64();
    match reports.failed.load(Ordering::Relaxed) {
        0 => Ok(seconds),
        failed => Err(format!("{failed} of {records} records were not delivered")),
    }
}
