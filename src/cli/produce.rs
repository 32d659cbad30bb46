//! `chronik-server produce`: lines of standard input become records.
//!
//! Whatever lines are there when one is read go out together, one batch to a partition, and the
//! next lines are read when those are acknowledged. A batch is sent again only after an answer that
//! says it was not stored, so a record is never written twice.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Stdin};
use std::time::Duration;

use clap::{value_parser, Arg, ArgMatches, Command};
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::ProduceRequest;
use net::builder::BatchBuilder;
use net::compress::Codec;
use net::ErrorCode;
use rt::Shard;

use super::connect::{
    broken, checked, in_session, no_answer, topic_name, with_bootstrap, Session, REQUEST_TIMEOUT_MS,
};
use crate::failure::{Exit, Failure};

/// Lines are gathered up to here; below every usual limit of a batch (1,048,588 bytes).
const BATCH_BYTES: usize = 512 * 1024;
/// A longer line is not a record but a mistake.
const LINE_MAX_BYTES: usize = 64 << 20;
/// Brokers close connections that idle (10 minutes by default); ours are opened anew after this.
const IDLE: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(200);

pub fn command() -> Command {
    with_bootstrap(Command::new("produce"))
        .about("Write lines of standard input as records to a topic")
        .long_about(
            "Write lines of standard input as records to a topic, in order. The topic is made at \
             its first record if the broker allows that. Ends with the input; then every record \
             is acknowledged as --acks asks.",
        )
        .arg(Arg::new("topic").value_name("TOPIC").required(true).help("Where to write"))
        .arg(
            Arg::new("partition")
                .long("partition")
                .short('p')
                .value_name("N")
                .value_parser(value_parser!(i32).range(0..))
                .help("Write to this partition [default: by key, or in turn without one]"),
        )
        .arg(
            Arg::new("key-separator")
                .long("key-separator")
                .short('k')
                .value_name("TEXT")
                .value_parser(clap::builder::NonEmptyStringValueParser::new())
                .help("A line is a key, this text, and a value [default: no keys]"),
        )
        .arg(
            Arg::new("acks")
                .long("acks")
                .value_name("WHO")
                .default_value("all")
                .value_parser(["all", "1", "0"])
                .help("Who must have a record: all in-sync replicas, the leader, or nobody"),
        )
        .arg(
            Arg::new("compression")
                .long("compression")
                .short('z')
                .value_name("CODEC")
                .default_value("none")
                .value_parser(["none", "gzip", "snappy", "lz4", "zstd"])
                .help("How batches are compressed"),
        )
}

pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let job = Job::read(matches);
    in_session(matches, move |session| produce(session, job))
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Job {
    topic: String,
    partition: Option<i32>,
    separator: Option<Vec<u8>>,
    acks: i16,
    codec: Codec,
}

impl Job {
    fn read(matches: &ArgMatches) -> Job {
        let text = |name| matches.get_one::<String>(name);
        Job {
            topic: text("topic").cloned().unwrap_or_default(),
            partition: matches.get_one("partition").copied(),
            separator: text("key-separator").map(|separator| separator.clone().into_bytes()),
            acks: match text("acks").map(String::as_str) {
                Some("0") => 0,
                Some("1") => 1,
                _ => -1,
            },
            codec: text("compression")
                .and_then(|name| Codec::from_name(name))
                .unwrap_or(Codec::None),
        }
    }
}

async fn produce(session: Session, job: Job) -> Result<(), Failure> {
    let mut writer = Writer { session, job, layout: Layout::default(), turn: 0, written: 0 };
    // Also says what is wrong with the topic before the first line is typed.
    writer.refresh().await?;
    let mut input = BufReader::with_capacity(256 * 1024, io::stdin());
    loop {
        let lines;
        (lines, input) = next_lines(&mut writer, input).await?;
        if lines.is_empty() {
            break;
        }
        writer.write(lines).await?;
    }
    let Writer { written, job, .. } = writer;
    let records = if written == 1 { "record" } else { "records" };
    eprintln!("{written} {records} written to topic {}", job.topic);
    Ok(())
}

/// The lines that are there, at least one; none at the end. While nobody types, the connections
/// are kept usable.
async fn next_lines(
    writer: &mut Writer,
    mut input: BufReader<Stdin>,
) -> Result<(Vec<Vec<u8>>, BufReader<Stdin>), Failure> {
    let shard: Shard = writer.session.shard().clone();
    let read = shard.blocking(move || {
        let lines = read_lines(&mut input);
        (lines, input)
    });
    let mut read = std::pin::pin!(read);
    loop {
        match rt::either(read.as_mut(), shard.sleep(IDLE)).await {
            rt::Either::Left(Ok((lines, input))) => {
                let unreadable =
                    |error| Failure::new(Exit::Failed, format!("standard input: {error}"));
                return Ok((lines.map_err(unreadable)?, input));
            }
            rt::Either::Left(Err(error)) => {
                return Err(Failure::new(Exit::Failed, format!("standard input: {error}")));
            }
            rt::Either::Right(_) => {
                writer.session.disconnect();
                writer.refresh().await?;
            }
        }
    }
}

/// Waits for a line and takes those that are there with it. Empty at the end of the input.
fn read_lines(input: &mut BufReader<impl Read>) -> io::Result<Vec<Vec<u8>>> {
    let (mut lines, mut bytes) = (Vec::new(), 0);
    loop {
        let mut line = Vec::new();
        let limit = LINE_MAX_BYTES as u64 + 1;
        if input.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(lines);
        }
        if line.pop_if(|last| *last == b'\n').is_some() {
            line.pop_if(|last| *last == b'\r');
        } else if line.len() > LINE_MAX_BYTES {
            let message = format!("a line is longer than {LINE_MAX_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        bytes += line.len();
        lines.push(line);
        if bytes >= BATCH_BYTES || !input.buffer().contains(&b'\n') {
            return Ok(lines);
        }
    }
}

/// The partitions of the topic, and who leads them.
#[derive(Debug, Default)]
struct Layout {
    leaders: BTreeMap<i32, i32>,
}

struct Writer {
    session: Session,
    job: Job,
    layout: Layout,
    /// The partition of records without a key: the next one for every group of lines.
    turn: usize,
    written: u64,
}

impl Writer {
    /// Learns who leads the partitions; makes the topic where the broker does that.
    async fn refresh(&mut self) -> Result<(), Failure> {
        let names = [self.job.topic.clone()];
        for attempt in 1.. {
            let answer = self.session.metadata(Some(&names), true).await?;
            let what = format!("topic `{}`", self.job.topic);
            let topic = answer.topics.into_iter().next().ok_or_else(|| no_answer(&what))?;
            let leading = topic.partitions.iter().all(|partition| partition.leader_id.0 >= 0);
            let code = match topic.error_code {
                0 if !leading => ErrorCode::LeaderNotAvailable.code(),
                code => code,
            };
            if attempt < ATTEMPTS && is_passing(code) {
                self.session.shard().clone().sleep(PAUSE).await;
                continue;
            }
            checked(&what, code, None)?;
            self.layout = layout(&topic);
            break;
        }
        match self.job.partition {
            Some(number) if !self.layout.leaders.contains_key(&number) => {
                let message = format!("topic `{}` has no partition {number}", self.job.topic);
                Err(Failure::new(Exit::Failed, message)
                    .hint("`topic describe` shows its partitions, `topic alter` adds some"))
            }
            _ => Ok(()),
        }
    }

    async fn write(&mut self, lines: Vec<Vec<u8>>) -> Result<(), Failure> {
        let mut batches: BTreeMap<i32, BatchBuilder> = BTreeMap::new();
        let now = self.session.shard().wall_ms();
        self.turn += 1;
        for line in &lines {
            let number = self.written + batches.values().map(count).sum::<u64>() + 1;
            let (key, value) = split(line, self.job.separator.as_deref(), number)?;
            let partition = self.partition(key);
            let full = batches
                .get(&partition)
                .is_some_and(|batch| batch.size_bytes() + line.len() > BATCH_BYTES);
            if full {
                self.flush(std::mem::take(&mut batches)).await?;
            }
            let codec = self.job.codec;
            let batch =
                batches.entry(partition).or_insert_with(|| BatchBuilder::new().codec(codec));
            batch.push(now, key, Some(value), &[]);
        }
        self.flush(batches).await
    }

    fn partition(&self, key: Option<&[u8]>) -> i32 {
        let partitions = self.layout.leaders.len().max(1);
        let by_key = |key| (murmur2(key) & 0x7fff_ffff) as usize % partitions;
        let chosen = key.map_or(self.turn % partitions, by_key) as i32;
        self.job.partition.unwrap_or(chosen)
    }

    /// Sends one batch to each partition and waits until all are acknowledged.
    async fn flush(&mut self, builders: BTreeMap<i32, BatchBuilder>) -> Result<(), Failure> {
        let mut waiting = BTreeMap::new();
        let mut records = 0;
        for (partition, builder) in builders {
            records += count(&builder);
            let built = builder.build();
            let built =
                built.map_err(|error| Failure::new(Exit::Failed, format!("a batch: {error}")))?;
            waiting.insert(partition, built.bytes);
        }
        for attempt in 1.. {
            let mut refusal = None;
            for (leader, partitions) in self.by_leader(waiting.keys()) {
                let data = |number: &i32| {
                    let records = waiting.get(number).cloned();
                    PartitionProduceData::default().with_index(*number).with_records(records)
                };
                let data = partitions.iter().map(data).collect();
                for (number, code, message) in self.send(leader, data).await? {
                    match code {
                        0 => {
                            waiting.remove(&number);
                        }
                        code if attempt < ATTEMPTS && is_passing(code) => refusal = Some(code),
                        code => {
                            let what = format!("partition {number} of `{}`", self.job.topic);
                            return checked(&what, code, message.as_ref());
                        }
                    }
                }
            }
            if waiting.is_empty() {
                break;
            }
            if refusal.is_none() {
                return Err(no_answer(&format!("records of topic `{}`", self.job.topic)));
            }
            self.session.shard().clone().sleep(PAUSE).await;
            self.refresh().await?;
        }
        self.written += records;
        Ok(())
    }

    fn by_leader<'a>(&self, partitions: impl Iterator<Item = &'a i32>) -> BTreeMap<i32, Vec<i32>> {
        let mut leaders: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for number in partitions {
            let leader = self.layout.leaders.get(number).copied().unwrap_or(-1);
            leaders.entry(leader).or_default().push(*number);
        }
        leaders
    }

    /// One request, and what became of each partition in it.
    async fn send(
        &mut self,
        leader: i32,
        data: Vec<PartitionProduceData>,
    ) -> Result<Vec<(i32, i16, Option<net::StrBytes>)>, Failure> {
        let unanswered: Vec<_> = data.iter().map(|data| (data.index, 0, None)).collect();
        let topic = TopicProduceData::default()
            .with_name(topic_name(&self.job.topic))
            .with_partition_data(data);
        let request = ProduceRequest::default()
            .with_acks(self.job.acks)
            .with_timeout_ms(REQUEST_TIMEOUT_MS)
            .with_topic_data(vec![topic]);
        if self.job.acks == 0 {
            let client = self.session.client(leader).await?;
            let sent = client.send_unanswered(&request, 9).await;
            sent.map_err(|error| broken(&format!("{leader}"), &error))?;
            return Ok(unanswered);
        }
        let answer = self.session.at(leader, &request, 9).await?;
        let partitions = answer.responses.into_iter().flat_map(|topic| topic.partition_responses);
        Ok(partitions
            .map(|partition| (partition.index, partition.error_code, partition.error_message))
            .collect())
    }
}

fn count(batch: &BatchBuilder) -> u64 {
    u64::try_from(batch.record_count()).unwrap_or_default()
}

fn layout(topic: &MetadataResponseTopic) -> Layout {
    let leader =
        |partition: &kafka_protocol::messages::metadata_response::MetadataResponsePartition| {
            (partition.partition_index, partition.leader_id.0)
        };
    Layout { leaders: topic.partitions.iter().map(leader).collect() }
}

/// Refusals that certainly stored nothing and pass.
fn is_passing(code: i16) -> bool {
    let passing = [
        ErrorCode::UnknownTopicOrPartition,
        ErrorCode::LeaderNotAvailable,
        ErrorCode::NotLeaderOrFollower,
        ErrorCode::NotEnoughReplicas,
    ];
    ErrorCode::from_code(code).is_some_and(|code| passing.contains(&code))
}

/// Key and value of a line.
fn split<'a>(
    line: &'a [u8],
    separator: Option<&[u8]>,
    number: u64,
) -> Result<(Option<&'a [u8]>, &'a [u8]), Failure> {
    let Some(separator) = separator else { return Ok((None, line)) };
    let at = line.windows(separator.len()).position(|window| window == separator);
    let at = at.ok_or_else(|| {
        let separator = String::from_utf8_lossy(separator);
        Failure::new(Exit::Failed, format!("line {number} has no `{separator}` after its key"))
            .hint("lines before it may have been written; this one and those after it were not")
    })?;
    Ok((Some(&line[..at]), &line[at + separator.len()..]))
}

/// The hash by which Kafka's clients choose the partition of a key (MurmurHash2 with Kafka's seed),
/// so that a key stays in its partition whoever writes it.
fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const MIX: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(MIX);
        k ^= k >> 24;
        hash = hash.wrapping_mul(MIX) ^ k.wrapping_mul(MIX);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(MIX);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MIX);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(arguments: &[&str]) -> Job {
        let arguments = std::iter::once("produce").chain(arguments.iter().copied());
        Job::read(&command().try_get_matches_from(arguments).unwrap())
    }

    #[test]
    fn the_command_line_says_how_to_write() {
        let plain = job(&["t"]);
        assert_eq!((plain.acks, plain.codec, plain.separator), (-1, Codec::None, None));
        let asked = job(&["t", "--acks", "0", "-z", "zstd", "-k", ": ", "-p", "3"]);
        assert_eq!((asked.acks, asked.codec), (0, Codec::Zstd));
        assert_eq!((asked.separator, asked.partition), (Some(b": ".to_vec()), Some(3)));
        let refused = command().try_get_matches_from(["produce", "t", "--acks", "2"]);
        assert!(refused.is_err());
    }

    #[test]
    fn lines_end_with_either_line_end_and_the_last_may_have_none() {
        let mut input = BufReader::new(b"one\r\ntwo\n\nlast".as_slice());
        let lines = read_lines(&mut input).unwrap();
        assert_eq!(lines, [b"one".to_vec(), b"two".to_vec(), Vec::new()]);
        assert_eq!(read_lines(&mut input).unwrap(), [b"last".to_vec()]);
        assert!(read_lines(&mut input).unwrap().is_empty());
    }

    #[test]
    fn a_key_ends_at_the_first_separator() {
        let (key, value) = split(b"k::v::w", Some(b"::"), 1).unwrap();
        assert_eq!((key, value), (Some(b"k".as_slice()), b"v::w".as_slice()));
        assert!(split(b"kv", Some(b":"), 4).unwrap_err().message.contains("line 4"));
        assert_eq!(split(b"kv", None, 1).unwrap(), (None, b"kv".as_slice()));
    }

    /// Values of `org.apache.kafka.common.utils.Utils.murmur2`, from its own test.
    #[test]
    fn keys_go_where_kafkas_clients_put_them() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }
}
