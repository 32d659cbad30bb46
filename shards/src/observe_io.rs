//! What a scrape sees of the shard's disk and network work.

use crate::broker::Broker;
use crate::listen::Loads;
use crate::metrics::Samples;

pub fn io(broker: &Broker, samples: &mut Samples) {
    let id = broker.shard().id();
    let shard = id.0.to_string();
    let labels: &[(&str, &str)] = &[("shard", &shard)];
    wal(broker, samples, labels);
    network(broker, samples);
    let open = f64::from(Loads::of(broker).of_shard(id));
    samples.gauge("chronik_connections", "Open connections.", labels, open);
}

fn wal(broker: &Broker, samples: &mut Samples, labels: &[(&str, &str)]) {
    let stats = broker.wal().stats();
    let mut counter = |name, help, value| samples.counter(name, help, labels, value);
    counter("chronik_wal_frames_total", "Frames (group commits) written.", stats.frames);
    counter("chronik_wal_records_total", "Records in those frames.", stats.records);
    counter("chronik_wal_bytes_total", "Bytes of those frames on disk.", stats.frame_bytes);
    counter("chronik_wal_body_bytes_total", "Bytes of the records' bodies.", stats.body_bytes);
    counter("chronik_wal_recycled_files_total", "Log files used anew.", stats.recycled_files);
    counter(
        "chronik_wal_relocated_bytes_total",
        "Bytes that were written again so that a file could be recycled.",
        stats.relocated_bytes,
    );
    let seconds = stats.write_nanos as f64 / 1e9;
    samples.add(
        "chronik_wal_write_seconds_total",
        "Time from the submission of a frame to its durability, summed over all frames.",
        crate::metrics::Kind::Counter,
        labels,
        seconds,
    );
    let mut gauge = |name, help, value: f64| samples.gauge(name, help, labels, value);
    let worst = stats.write_nanos_max as f64 / 1e9;
    gauge("chronik_wal_write_seconds_max", "The slowest frame since the start.", worst);
    gauge("chronik_wal_used_bytes", "Log that cannot be recycled yet.", stats.used_bytes as f64);
    gauge("chronik_wal_file_bytes", "All log files.", stats.file_bytes as f64);
}

fn network(broker: &Broker, samples: &mut Samples) {
    let counts = broker.network().stats.snapshot();
    for api in &counts.apis {
        let name = format!("{:?}", api.key);
        let labels: &[(&str, &str)] = &[("api", &name)];
        samples.counter("chronik_requests_total", "Requests, by API.", labels, api.requests);
        let help = "Time from the arrival of a request to its answer.";
        samples.latency("chronik_request_seconds", help, labels, &api.latency_us);
    }
}
