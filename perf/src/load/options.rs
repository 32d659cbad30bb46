//! The options of a load, and their flags.

use std::time::Duration;

use clap::{value_parser, Arg, ArgMatches, Command};

use crate::error::PerfError;

/// A record's value starts with the time it was meant to be sent.
pub const RECORD_BYTES_MIN: usize = 8;

/// What load to make. Rates and counts are totals over all producers.
#[derive(Debug, Clone)]
pub struct Options {
    /// `host:port`.
    pub broker: String,
    /// The topics are called so, with `-1`, `-2` … behind it when there are several.
    pub topic: String,
    pub topics: usize,
    /// Of each topic.
    pub partitions: usize,
    /// Configurations of topics that the load creates.
    pub configs: Vec<(String, String)>,
    /// Connections that produce.
    pub producers: usize,
    /// Records per second; 0: as many as the broker takes.
    pub rate: f64,
    /// Ends the load early, after so many records.
    pub records: Option<u64>,
    pub record_bytes: usize,
    pub batch_bytes: usize,
    pub linger: Duration,
    /// Requests without an answer on one connection.
    pub in_flight: usize,
    /// -1 (all), 0 or 1.
    pub acks: i16,
    /// Distinct keys; 0: records without keys, batches go round the partitions.
    pub keys: u64,
    pub idempotent: bool,
    /// Connections that fetch, in each group.
    pub consumers: usize,
    /// Every group reads everything.
    pub groups: usize,
    pub from_beginning: bool,
    pub fetch_max_bytes: i32,
    pub partition_max_bytes: i32,
    pub max_wait: Duration,
    pub warm_up: Duration,
    pub duration: Duration,
    pub broker_pid: Option<u32>,
}

impl Default for Options {
    fn default() -> Options {
        let matches = command().get_matches_from(["loadgen", "--broker", "127.0.0.1:9092"]);
        Options::from_matches(&matches).expect("defaults fit together")
    }
}

/// The command line of `loadgen`.
pub fn command() -> Command {
    let seconds = value_parser!(f64);
    Command::new("loadgen")
        .about("An open-loop load on a Kafka broker, with latencies from the intended send times.")
        .after_help(
            "Latency is counted from the time at which a record was due, not from when it could be \
             sent: a stall shows in every record that was due meanwhile. MB and GB are 2^20 and \
             2^30 bytes of record values.",
        )
        .max_term_width(100)
        .arg(Arg::new("broker").long("broker").required(true).help("host:port"))
        .arg(flag("topic", "Topic name; default: a new one").value_name("NAME"))
        .arg(flag("topics", "Topics").default_value("1").value_parser(value_parser!(u32).range(1..)))
        .arg(
            flag("partitions", "Partitions of each topic")
                .default_value("6")
                .value_parser(value_parser!(u32).range(1..)),
        )
        .arg(
            flag("config", "Configuration of new topics, any number of times")
                .value_name("NAME=VALUE")
                .action(clap::ArgAction::Append)
                .value_parser(parse_pair),
        )
        .arg(number("producers", "Connections that produce", "1"))
        .arg(
            flag("rate", "Records per second in all; 0: as many as the broker takes")
                .default_value("0")
                .value_parser(value_parser!(f64)),
        )
        .arg(flag("records", "End after so many records").value_parser(value_parser!(u64)))
        .arg(number("record-size", "Bytes of a record's value, at least 8", "1024"))
        .arg(number("batch-size", "Bytes of a batch", "16384"))
        .arg(flag("linger-ms", "How long a batch waits to fill").default_value("0").value_parser(seconds))
        .arg(number("in-flight", "Unanswered requests per connection", "5"))
        .arg(flag("acks", "").default_value("all").value_parser(["all", "1", "0"]))
        .arg(number("keys", "Distinct keys; 0: no keys, batches go round the partitions", "0"))
        .arg(
            Arg::new("idempotent")
                .long("idempotent")
                .action(clap::ArgAction::SetTrue)
                .help("With producer ids and sequences, as Kafka's producer by default"),
        )
        .arg(number("consumers", "Connections that fetch, in each group", "0"))
        .arg(number("groups", "Groups; each reads everything, without a coordinator", "1"))
        .arg(flag("from", "Where consumers start").default_value("tail").value_parser(["tail", "beginning"]))
        .arg(number("fetch-max-bytes", "Bytes of a fetch", "52428800"))
        .arg(number("partition-max-bytes", "Bytes of a fetch from one partition", "1048576"))
        .arg(number("max-wait-ms", "How long a fetch waits for data", "500"))
        .arg(flag("warm-up", "Seconds before counting starts").default_value("2").value_parser(value_parser!(f64)))
        .arg(flag("duration", "Seconds that count").default_value("10").value_parser(value_parser!(f64)))
        .arg(
            flag("broker-pid", "Read the broker's CPU time, memory and writes from /proc")
                .value_parser(value_parser!(u32)),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(clap::ArgAction::SetTrue)
                .help("Print the result as JSON"),
        )
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    let help = if name == "acks" { "Which acknowledgement a record needs" } else { help };
    Arg::new(name).long(name).help(help)
}

fn number(name: &'static str, help: &'static str, default: &'static str) -> Arg {
    flag(name, help).default_value(default).value_parser(value_parser!(u32))
}

impl Options {
    /// Reads the flags, and refuses what makes no sense together.
    pub fn from_matches(matches: &ArgMatches) -> Result<Options, PerfError> {
        let count = |name: &str| *matches.get_one::<u32>(name).expect("it has a default") as usize;
        let real = |name: &str| *matches.get_one::<f64>(name).expect("it has a default");
        let seconds = |name: &str, unit: f64| Duration::try_from_secs_f64(real(name) * unit);
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        let seconds = |name: &str, unit: f64| {
            seconds(name, unit).map_err(|error| PerfError::Unfit(format!("--{name}: {error}")))
        };
        let acks = match text("acks").as_deref() {
            Some("0") => 0,
            Some("1") => 1,
            _ => -1,
        };
        let options = Options {
            broker: text("broker").expect("it is required"),
            topic: text("topic").unwrap_or_else(new_topic),
            topics: count("topics"),
            partitions: count("partitions"),
            configs: matches.get_many("config").into_iter().flatten().cloned().collect(),
            producers: count("producers"),
            rate: real("rate"),
            records: matches.get_one("records").copied(),
            record_bytes: count("record-size"),
            batch_bytes: count("batch-size"),
            linger: seconds("linger-ms", 1e-3)?,
            in_flight: count("in-flight"),
            acks,
            keys: count("keys") as u64,
            idempotent: matches.get_flag("idempotent"),
            consumers: count("consumers"),
            groups: count("groups"),
            from_beginning: text("from").as_deref() == Some("beginning"),
            fetch_max_bytes: count("fetch-max-bytes").min(i32::MAX as usize) as i32,
            partition_max_bytes: count("partition-max-bytes").min(i32::MAX as usize) as i32,
            max_wait: Duration::from_millis(count("max-wait-ms") as u64),
            warm_up: seconds("warm-up", 1.0)?,
            duration: seconds("duration", 1.0)?,
            broker_pid: matches.get_one("broker-pid").copied(),
        };
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), PerfError> {
        let unfit = |text: &str| Err(PerfError::Unfit(text.to_owned()));
        if self.producers == 0 && self.consumers == 0 {
            return unfit("neither producers nor consumers");
        }
        if self.record_bytes < RECORD_BYTES_MIN {
            return unfit("a record's value has at least 8 bytes: it starts with its send time");
        }
        if self.in_flight == 0 || self.groups == 0 {
            return unfit("--in-flight and --groups are at least 1");
        }
        if !(self.rate >= 0.0 && self.rate.is_finite()) {
            return unfit("--rate is 0 or more");
        }
        if self.idempotent && (self.acks != -1 || self.in_flight > 5) {
            return unfit("--idempotent needs acks=all and at most 5 requests in flight");
        }
        Ok(())
    }

    /// The names of all topics.
    pub fn topic_names(&self) -> Vec<String> {
        match self.topics {
            1 => vec![self.topic.clone()],
            many => (1..=many).map(|nth| format!("{}-{nth}", self.topic)).collect(),
        }
    }
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it is not NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A name that no earlier run has used.
fn new_topic() -> String {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("load-{}-{}", now.as_millis(), std::process::id())
}
