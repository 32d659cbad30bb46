//! `chronik-server consume`: records of a topic become lines of standard output.
//!
//! Reads without a group and commits nothing. Ends at a signal, when the reader of the output goes
//! away, at the end that the topic had at the start (`--until-end`), or after `--count` records.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use clap::{value_parser, Arg, ArgAction, ArgMatches, Command};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{BrokerId, FetchRequest};
use net::batch::{BatchError, Batches};
use net::compress::DECOMPRESSED_MAX_BYTES;
use net::records::{Record, Unfolded};
use net::ErrorCode;
use rt::cross::{channel, CrossReceiver};

use super::connect::{by_leader, checked, in_session, topic_name, with_bootstrap, Session};
use super::connect::{EARLIEST, LATEST};
use crate::failure::{Exit, Failure};

const FETCH_WAIT_MS: usize = 500;
const FETCH_BYTES: i32 = 8 << 20;
const PARTITION_BYTES: i32 = 1 << 20;

pub fn command() -> Command {
    with_bootstrap(Command::new("consume"))
        .about("Print the records of a topic as lines")
        .long_about(
            "Print the records of a topic as lines, those that come from now on unless told \
             otherwise. No group is used and nothing is committed. Ends at Ctrl-C with exit code 0.",
        )
        .arg(Arg::new("topic").value_name("TOPIC").required(true).help("What to read"))
        .arg(
            Arg::new("from-beginning")
                .long("from-beginning")
                .action(ArgAction::SetTrue)
                .help("Start with the first record there is"),
        )
        .arg(
            Arg::new("offset")
                .long("offset")
                .short('o')
                .value_name("N")
                .value_parser(value_parser!(i64).range(0..))
                .requires("partition")
                .conflicts_with("from-beginning")
                .help("Start with this offset of the partition"),
        )
        .arg(
            Arg::new("partition")
                .long("partition")
                .short('p')
                .value_name("N")
                .value_parser(value_parser!(i32).range(0..))
                .help("Read this partition only"),
        )
        .arg(
            Arg::new("until-end")
                .long("until-end")
                .short('e')
                .action(ArgAction::SetTrue)
                .help("Stop at the end that the topic has now"),
        )
        .arg(
            Arg::new("count")
                .long("count")
                .short('n')
                .visible_alias("max-messages")
                .value_name("N")
                .value_parser(value_parser!(u64).range(1..))
                .help("Stop after so many records"),
        )
        .arg(
            Arg::new("key-separator")
                .long("key-separator")
                .short('k')
                .value_name("TEXT")
                .help("Print the key and this text before each value"),
        )
        .arg(
            Arg::new("position")
                .long("position")
                .action(ArgAction::SetTrue)
                .help("Print partition, offset and timestamp before each record, with tabs"),
        )
}

pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let job = Job::read(matches);
    let stop = stop_at_signals()?;
    in_session(matches, move |session| async move {
        let mut reader = Reader { session, job, positions: BTreeMap::new(), left: None };
        reader.left = reader.job.count;
        match rt::either(reader.read(), stop.recv()).await {
            rt::Either::Left(result) => result,
            // Whatever was printed is whole lines: output is written between two awaits.
            rt::Either::Right(_) => Ok(()),
        }
    })
}

/// A value comes at the first signal that asks for the end; a second one ends the process.
fn stop_at_signals() -> Result<CrossReceiver<()>, Failure> {
    let unable = |error| Failure::new(Exit::Machine, format!("signals: {error}"));
    rt::signals::block().map_err(unable)?;
    let (sender, receiver) = channel();
    let told = std::sync::atomic::AtomicBool::new(false);
    let deliver = move |signal| match signal {
        rt::signals::Signal::User1 => {}
        _ if told.swap(true, std::sync::atomic::Ordering::Relaxed) => std::process::exit(0),
        _ => drop(sender.send(())),
    };
    rt::signals::deliver(deliver).map_err(unable)?;
    Ok(receiver)
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Job {
    topic: String,
    from_beginning: bool,
    offset: Option<i64>,
    partition: Option<i32>,
    until_end: bool,
    count: Option<u64>,
    format: Format,
}

impl Job {
    fn read(matches: &ArgMatches) -> Job {
        Job {
            topic: matches.get_one::<String>("topic").cloned().unwrap_or_default(),
            from_beginning: matches.get_flag("from-beginning"),
            offset: matches.get_one("offset").copied(),
            partition: matches.get_one("partition").copied(),
            until_end: matches.get_flag("until-end"),
            count: matches.get_one("count").copied(),
            format: Format {
                separator: matches.get_one("key-separator").cloned(),
                position: matches.get_flag("position"),
            },
        }
    }
}

/// How a record becomes a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Format {
    separator: Option<String>,
    position: bool,
}

impl Format {
    /// Bytes are printed as they are; what is null reads `null`, as in Kafka's own tool.
    fn write(&self, out: &mut impl Write, partition: i32, record: &Record<'_>) -> io::Result<()> {
        if self.position {
            write!(out, "{partition}\t{}\t{}\t", record.offset, record.timestamp)?;
        }
        if let Some(separator) = &self.separator {
            out.write_all(record.key.unwrap_or(b"null"))?;
            out.write_all(separator.as_bytes())?;
        }
        out.write_all(record.value.unwrap_or(b"null"))?;
        out.write_all(b"\n")
    }
}

/// Where one partition is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    next: i64,
    /// Where to stop, if anywhere.
    end: Option<i64>,
}

impl Place {
    fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }
}

/// Why reading ends without a failure: the reader of the output is gone, or all is printed.
struct Enough;

struct Reader {
    session: Session,
    job: Job,
    positions: BTreeMap<i32, Place>,
    /// Records to print still.
    left: Option<u64>,
}

impl Reader {
    async fn read(&mut self) -> Result<(), Failure> {
        let mut topic = self.session.topic(&self.job.topic).await?;
        self.positions = self.start(&topic).await?;
        while !self.positions.values().all(Place::is_done) {
            let leaders = by_leader(&topic)?;
            let wait_ms = FETCH_WAIT_MS / leaders.len().max(1);
            let mut moved = false;
            for (leader, partitions) in leaders {
                let request = self.request(partitions, wait_ms as i32);
                if request.topics[0].partitions.is_empty() {
                    continue;
                }
                let answer = self.session.at(leader, &request, 12).await?;
                checked("fetch", answer.error_code, None)?;
                for data in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
                    let code = ErrorCode::from_code(data.error_code);
                    if code.is_some_and(|code| code != ErrorCode::None && code.is_retriable()) {
                        moved = true;
                        continue;
                    }
                    if self.print(data)?.is_err() {
                        return Ok(());
                    }
                }
            }
            if moved {
                let pause = std::time::Duration::from_millis(FETCH_WAIT_MS as u64);
                self.session.shard().clone().sleep(pause).await;
                topic = self.session.topic(&self.job.topic).await?;
            }
        }
        Ok(())
    }

    /// Where each partition starts and, perhaps, ends.
    async fn start(
        &mut self,
        topic: &MetadataResponseTopic,
    ) -> Result<BTreeMap<i32, Place>, Failure> {
        let end = self.session.offsets(topic, LATEST).await?;
        let first = match self.job.from_beginning {
            true => self.session.offsets(topic, EARLIEST).await?,
            false => end.clone(),
        };
        let mut places = BTreeMap::new();
        for (number, first) in first {
            if self.job.partition.is_none_or(|only| only == number) {
                let next = self.job.offset.unwrap_or(first);
                let end = end.get(&number).copied().filter(|_| self.job.until_end);
                places.insert(number, Place { next, end });
            }
        }
        match (places.is_empty(), self.job.partition) {
            (true, Some(number)) => {
                let message = format!("topic `{}` has no partition {number}", self.job.topic);
                Err(Failure::new(Exit::Failed, message)
                    .hint("`topic describe` shows its partitions"))
            }
            _ => Ok(places),
        }
    }

    fn request(&self, partitions: Vec<i32>, wait_ms: i32) -> FetchRequest {
        let wanted = partitions.into_iter().filter_map(|number| {
            let place = self.positions.get(&number).filter(|place| !place.is_done())?;
            let partition = FetchPartition::default()
                .with_partition(number)
                .with_current_leader_epoch(-1)
                .with_last_fetched_epoch(-1)
                .with_log_start_offset(-1)
                .with_fetch_offset(place.next)
                .with_partition_max_bytes(PARTITION_BYTES);
            Some(partition)
        });
        let topic = FetchTopic::default()
            .with_topic(topic_name(&self.job.topic))
            .with_partitions(wanted.collect());
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES)
            .with_session_epoch(-1)
            .with_topics(vec![topic])
    }

    fn print(&mut self, data: PartitionData) -> Result<Result<(), Enough>, Failure> {
        let number = data.partition_index;
        let what = format!("partition {number} of `{}`", self.job.topic);
        checked(&what, data.error_code, None)?;
        let Some(place) = self.positions.get_mut(&number) else { return Ok(Ok(())) };
        let records = data.records.unwrap_or_default();
        let mut out = BufWriter::with_capacity(256 * 1024, io::stdout().lock());
        let printed = print_batches(records, place, &mut self.left, |record| {
            self.job.format.write(&mut out, number, record)
        });
        let flushed = out.flush();
        match printed.and_then(|ended| flushed.map(|()| ended).map_err(Problem::Output)) {
            Ok(ended) => Ok(ended),
            Err(Problem::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                Ok(Err(Enough))
            }
            Err(problem) => Err(Failure::new(Exit::Failed, format!("{what}: {problem}"))),
        }
    }
}

/// Why records were not printed.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("standard output: {0}")]
    Output(io::Error),
    #[error("a batch cannot be read: {0}")]
    Batch(#[from] BatchError),
    #[error("a record cannot be read: {0}")]
    Record(#[from] net::records::RecordError),
}

/// Prints the records from the place on and moves it. A fetch may begin with records before the
/// place, since it answers whole batches, and may end within a batch.
fn print_batches(
    records: bytes::Bytes,
    place: &mut Place,
    left: &mut Option<u64>,
    mut print: impl FnMut(&Record<'_>) -> io::Result<()>,
) -> Result<Result<(), Enough>, Problem> {
    for batch in Batches::new(records) {
        let batch = match batch {
            Ok(batch) => batch,
            Err(BatchError::Truncated) => break,
            Err(error) => return Err(error.into()),
        };
        batch.check_crc()?;
        if !batch.header.is_control() {
            for record in &Unfolded::new(&batch, DECOMPRESSED_MAX_BYTES)? {
                let record = record?;
                let wanted =
                    record.offset >= place.next && place.end.is_none_or(|end| record.offset < end);
                if !wanted {
                    continue;
                }
                print(&record).map_err(Problem::Output)?;
                place.next = record.offset + 1;
                if let Some(left) = left {
                    *left -= 1;
                    if *left == 0 {
                        return Ok(Err(Enough));
                    }
                }
            }
        }
        place.next = place.next.max(batch.header.next_offset());
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use net::builder::BatchBuilder;
    use net::compress::Codec;

    use super::*;

    fn job(arguments: &[&str]) -> Result<Job, clap::Error> {
        let arguments = std::iter::once("consume").chain(arguments.iter().copied());
        Ok(Job::read(&command().try_get_matches_from(arguments)?))
    }

    #[test]
    fn an_offset_is_one_of_a_partition() {
        assert!(job(&["t", "--offset", "3"]).is_err());
        assert!(job(&["t", "--offset", "3", "-p", "0", "--from-beginning"]).is_err());
        let asked = job(&["t", "--offset", "3", "-p", "0", "-e", "-n", "2"]).unwrap();
        assert_eq!((asked.offset, asked.partition), (Some(3), Some(0)));
        assert_eq!((asked.until_end, asked.count), (true, Some(2)));
        assert!(!job(&["t"]).unwrap().until_end);
    }

    fn two_batches() -> bytes::Bytes {
        let batch = |base, codec| {
            let builder = BatchBuilder::new().base_offset(base).codec(codec);
            let builder = builder.record(7, Some(b"k"), Some(b"a")).record(8, None, Some(b"b"));
            builder.build().unwrap().bytes
        };
        let mut bytes = batch(10, Codec::None).to_vec();
        bytes.extend_from_slice(&batch(12, Codec::Zstd));
        bytes.into()
    }

    fn printed(place: &mut Place, left: &mut Option<u64>, bytes: bytes::Bytes) -> String {
        let format = Format { separator: Some("=".into()), position: true };
        let mut out = Vec::new();
        let write = |record: &Record<'_>| format.write(&mut out, 4, record);
        let _ = print_batches(bytes, place, left, write).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn records_are_printed_from_the_place_to_the_end() {
        let mut place = Place { next: 11, end: Some(13) };
        let lines = printed(&mut place, &mut None, two_batches());
        assert_eq!(lines, "4\t11\t8\tnull=b\n4\t12\t7\tk=a\n");
        assert!(place.is_done());
    }

    #[test]
    fn the_count_and_a_cut_batch_end_the_output() {
        let mut place = Place { next: 0, end: None };
        assert_eq!(printed(&mut place, &mut Some(1), two_batches()), "4\t10\t7\tk=a\n");
        assert_eq!(place.next, 11);
        let bytes = two_batches();
        let cut = bytes.slice(..bytes.len() - 1);
        let mut place = Place { next: 0, end: None };
        assert_eq!(printed(&mut place, &mut None, cut).lines().count(), 2);
        assert_eq!(place.next, 12);
    }
}
