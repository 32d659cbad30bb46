//! What a scrape sees of the shard's disk, network and processor work.

use net::ErrorCode;
use wal::Pressure;

use crate::broker::Broker;
use crate::census::Census;
use crate::metrics::{Kind, Labels, Samples};
use crate::observe::shard_labels;

pub fn io(broker: &Broker, samples: &mut Samples) {
    let labels = &shard_labels(broker);
    wal(broker, samples, labels);
    segments(broker, samples, labels);
    connections(broker, samples, labels);
    requests(broker, samples);
    executor(broker, samples, labels);
}

fn wal(broker: &Broker, samples: &mut Samples, labels: &Labels) {
    let (stats, histograms) = (broker.wal().stats(), broker.wal().histograms());
    let help = "Time from the submission of a frame (one group commit) to its durability.";
    samples.latency("chronik_wal_write_seconds", help, labels, &histograms.write_us);
    let help = "Sizes of the frames written, padding included.";
    samples.sizes("chronik_wal_frame_bytes", help, labels, &histograms.frame_bytes);
    let mut counter = |name, help, value| samples.counter(name, help, labels, value);
    counter("chronik_wal_frames_total", "Frames (group commits) written.", stats.frames);
    counter(
        "chronik_wal_empty_frames_total",
        "Frames written without records: they confirm others.",
        stats.empty_frames,
    );
    counter("chronik_wal_records_total", "Records written to the log.", stats.records);
    counter(
        "chronik_wal_bytes_total",
        "Bytes of the frames written, padding included.",
        stats.frame_bytes,
    );
    counter(
        "chronik_wal_body_bytes_total",
        "Bytes of the bodies of the records written to the log.",
        stats.body_bytes,
    );
    counter(
        "chronik_wal_recycled_files_total",
        "Files of the log used anew.",
        stats.recycled_files,
    );
    let help = "Bytes that were written again so that a file could be recycled.";
    counter("chronik_wal_relocated_bytes_total", help, stats.relocated_bytes);
    let mut gauge = |name, help, value: f64| samples.gauge(name, help, labels, value);
    gauge("chronik_wal_used_bytes", "Log that cannot be recycled yet.", stats.used_bytes as f64);
    gauge("chronik_wal_file_bytes", "All files of the log.", stats.file_bytes as f64);
    let in_flight = stats.in_flight.unwrap_or_default().as_secs_f64();
    gauge(
        "chronik_wal_in_flight_seconds",
        "Age of the write to the log that is under way.",
        in_flight,
    );
    let refusing = broker.wal().pressure() == Pressure::Refusing;
    let help = "1 while the log takes no records for want of room.";
    gauge("chronik_wal_refusing", help, f64::from(u8::from(refusing)));
}

fn segments(broker: &Broker, samples: &mut Samples, labels: &Labels) {
    let stats = broker.placement().storage().context().stats();
    let mut counter = |name, help, value| samples.counter(name, help, labels, value);
    counter("chronik_flush_rounds_total", "Rounds that wrote segments.", stats.rounds);
    let help = "Bytes that rounds wrote to segments.";
    counter("chronik_flush_bytes_total", help, stats.flushed_bytes);
    let help = "Bytes of long batches, written to their segments and not to the log.";
    counter("chronik_staged_bytes_total", help, stats.staged_bytes);
    let help = "Rounds that met a full disk.";
    counter("chronik_flush_full_disk_rounds_total", help, stats.full_disk_rounds);
    let help = "Bytes given to readers from memory.";
    counter("chronik_read_cache_bytes_total", help, stats.read_cache_bytes);
    let help = "Bytes given to readers from segment files.";
    counter("chronik_read_disk_bytes_total", help, stats.read_disk_bytes);
    let help = "Reads refused because what is on disk is not what was written.";
    counter("chronik_damaged_reads_total", help, stats.damaged_reads);
    let help = "Indexes rebuilt from their segments.";
    counter("chronik_index_rebuilds_total", help, stats.index_rebuilds);
    let mut gauge = |name, help, value: u64| samples.gauge(name, help, labels, value as f64);
    gauge("chronik_segment_files_open", "Segment files that are open.", stats.files_open);
    gauge("chronik_cache_bytes", "Memory for recent batches.", stats.cache_bytes);
    let help = "Batches that are in the log and not yet in segments.";
    gauge("chronik_dirty_bytes", help, stats.dirty_bytes);
}

fn connections(broker: &Broker, samples: &mut Samples, labels: &Labels) {
    let network = broker.network();
    let counts = network.stats.snapshot();
    let mut counter = |name, help, value| samples.counter(name, help, labels, value);
    let help = "Bytes received on the Kafka port.";
    counter("chronik_network_received_bytes_total", help, counts.bytes_in);
    let help = "Bytes sent on the Kafka port.";
    counter("chronik_network_sent_bytes_total", help, counts.bytes_out);
    let help = "Connections accepted.";
    counter("chronik_connections_accepted_total", help, counts.connections_accepted);
    let help = "Connections closed because of what the client sent.";
    counter("chronik_connections_refused_total", help, counts.connections_refused);
    let help = "Connections closed after connections_max_idle_ms.";
    counter("chronik_connections_idle_closed_total", help, counts.connections_idle_closed);
    let help = "Connections closed because a request came too slowly, or an answer was not taken.";
    counter("chronik_connections_stalled_closed_total", help, counts.connections_stalled_closed);
    let help = "Clients that spoke TLS to the plain port.";
    counter("chronik_tls_hellos_total", help, counts.tls_hellos);
    let help = "HTTP requests on the Kafka port.";
    counter("chronik_http_requests_total", help, counts.http_requests);
    let help = "How often a request was left in its socket until request_memory_bytes had room.";
    counter("chronik_request_memory_waits_total", help, counts.memory_waits);
    let mut gauge = |name, help, value: f64| samples.gauge(name, help, labels, value);
    let open = Census::of(broker).of_shard(broker.shard().id());
    gauge("chronik_connections", "Open connections.", f64::from(open));
    let help = "Bytes of requests that are being answered.";
    gauge("chronik_request_memory_bytes", help, network.memory.used_bytes() as f64);
    let help = "The shard's share of request_memory_bytes.";
    gauge("chronik_request_memory_limit_bytes", help, network.memory.max_bytes() as f64);
    for (limit, count) in broker.stats().connections_over_limit() {
        let labels = Labels::of(&[("limit", limit)]);
        let help = "Connections closed at once, by the limit that they met.";
        samples.counter("chronik_connections_over_limit_total", help, &labels, count);
    }
}

fn requests(broker: &Broker, samples: &mut Samples) {
    for api in &broker.network().stats.snapshot().apis {
        let labels = Labels::of(&[("api", &format!("{:?}", api.key))]);
        samples.counter("chronik_requests_total", "Requests, by API.", &labels, api.requests);
        let help = "Time from the arrival of a request to its answer; a Fetch waits for data as \
                    long as its client allows.";
        samples.latency("chronik_request_seconds", help, &labels, &api.latency_us);
    }
    for (key, code, count) in broker.stats().errors() {
        let api = net::registry::find(key).map_or_else(|| key.to_string(), |api| api.name());
        let error = ErrorCode::from_code(code)
            .map_or_else(|| code.to_string(), |code| code.name().to_owned());
        let labels = Labels::of(&[("api", &api), ("error", &error)]);
        let help = "Errors told to clients, by API and Kafka's name of the code; one for each \
                    partition or other thing that failed.";
        samples.counter("chronik_request_errors_total", help, &labels, count);
    }
}

fn executor(broker: &Broker, samples: &mut Samples, labels: &Labels) {
    let stats = broker.shard().stats();
    let help = "Processor time of the shard's thread.";
    let seconds = stats.cpu.as_secs_f64();
    samples.add("chronik_shard_cpu_seconds_total", help, Kind::Counter, labels, seconds);
    let mut counter = |name, help, value| samples.counter(name, help, labels, value);
    counter("chronik_shard_turns_total", "Time slices of the shard's executor.", stats.turns);
    let help = "Tasks that are not finished.";
    samples.gauge("chronik_shard_tasks", help, labels, stats.live_tasks as f64);
}
