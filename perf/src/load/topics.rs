//! What must be there before a load can start: topics, their leaders, offsets, producer ids.

use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;
use net::ErrorCode;

use super::options::Options;
use crate::connection::Connection;
use crate::error::PerfError;

const METADATA_VERSION: i16 = 9;
const CREATE_TOPICS_VERSION: i16 = 5;
const LIST_OFFSETS_VERSION: i16 = 6;
const INIT_PRODUCER_ID_VERSION: i16 = 4;

/// The longest that all partitions of a new topic may take to have leaders.
const LEADERS_LIMIT: Duration = Duration::from_secs(60);
/// How soon a broker is asked again that is not ready.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// A code that Kafka 4.1 does not know is as good as this one.
pub fn code_of(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}

/// Special timestamps of ListOffsets.
#[derive(Debug, Clone, Copy)]
pub enum End {
    Latest = -1,
    Earliest = -2,
}

/// Creates the topics of the load, where they are missing, and waits for their leaders.
pub fn prepare(options: &Options) -> Result<(), PerfError> {
    create(&options.broker, &options.topic_names(), options.partitions, &options.configs)
}

/// Creates topics, where they are missing, and waits for their leaders.
pub fn create(
    broker: &str,
    names: &[String],
    partitions: usize,
    configs: &[(String, String)],
) -> Result<(), PerfError> {
    let mut connection = Connection::open(broker)?;
    let config = |(name, value): &(String, String)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_string(name.clone()))
            .with_value(Some(StrBytes::from_string(value.clone())))
    };
    let topics = names.iter().map(|name| {
        CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions as i32)
            .with_replication_factor(1)
            .with_configs(configs.iter().map(config).collect())
    });
    let request =
        CreateTopicsRequest::default().with_topics(topics.collect()).with_timeout_ms(60_000);
    for topic in connection.call(&request, CREATE_TOPICS_VERSION)?.topics {
        let code = code_of(topic.error_code);
        if code != ErrorCode::None && code != ErrorCode::TopicAlreadyExists {
            let what = format!("creating topic {}", topic.name.0);
            return Err(PerfError::Refused { what, code });
        }
    }
    wait_for_leaders(&mut connection, names, partitions)?;
    // A load that begins before the leaders have taken over would be refused, not measured.
    for name in names {
        offsets(&mut connection, name, partitions, End::Latest)?;
    }
    Ok(())
}

fn wait_for_leaders(
    connection: &mut Connection,
    names: &[String],
    partitions: usize,
) -> Result<(), PerfError> {
    let topics =
        names.iter().map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))));
    let request = MetadataRequest::default()
        .with_topics(Some(topics.collect()))
        .with_allow_auto_topic_creation(false);
    let deadline = Instant::now() + LEADERS_LIMIT;
    loop {
        let answer = connection.call(&request, METADATA_VERSION)?;
        let led = answer.topics.iter().all(|topic| {
            topic.error_code == 0
                && topic.partitions.len() == partitions
                && topic.partitions.iter().all(|p| p.error_code == 0 && p.leader_id.0 >= 0)
        });
        if led {
            return Ok(());
        }
        if Instant::now() > deadline {
            let wanted = format!("{} topics with {partitions} led partitions", names.len());
            return Err(PerfError::Late(format!("no {wanted} within {LEADERS_LIMIT:?}")));
        }
        thread::sleep(ASK_AGAIN);
    }
}

/// The first or next offset of each partition of a topic. A leader that metadata names may not have
/// taken its partition over yet, as Kafka's right after a topic was created: it is asked again.
pub fn offsets(
    connection: &mut Connection,
    topic: &str,
    partitions: usize,
    end: End,
) -> Result<Vec<i64>, PerfError> {
    let deadline = Instant::now() + LEADERS_LIMIT;
    loop {
        match offsets_now(connection, topic, partitions, end) {
            Err(PerfError::Refused { code, .. })
                if is_on_its_way(code) && Instant::now() < deadline =>
            {
                thread::sleep(ASK_AGAIN);
            }
            answered => return answered,
        }
    }
}

/// Whether a leader answers so that will lead in a moment.
fn is_on_its_way(code: ErrorCode) -> bool {
    use ErrorCode::{LeaderNotAvailable, NotLeaderOrFollower, UnknownTopicOrPartition};
    matches!(code, LeaderNotAvailable | NotLeaderOrFollower | UnknownTopicOrPartition)
}

fn offsets_now(
    connection: &mut Connection,
    topic: &str,
    partitions: usize,
    end: End,
) -> Result<Vec<i64>, PerfError> {
    let asked = (0..partitions as i32).map(|index| {
        ListOffsetsPartition::default()
            .with_partition_index(index)
            .with_current_leader_epoch(-1)
            .with_timestamp(end as i64)
    });
    let asked =
        ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(asked.collect());
    let request =
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]);
    let answer = connection.call(&request, LIST_OFFSETS_VERSION)?;
    let mut found = vec![0; partitions];
    for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        let code = code_of(partition.error_code);
        if code != ErrorCode::None {
            let what = format!("offsets of {topic}-{}", partition.partition_index);
            return Err(PerfError::Refused { what, code });
        }
        let place = found.get_mut(partition.partition_index as usize);
        *place.ok_or(PerfError::Malformed("ListOffsets"))? = partition.offset;
    }
    Ok(found)
}

/// A producer id of one's own, with its epoch.
pub fn producer_id(connection: &mut Connection) -> Result<(i64, i16), PerfError> {
    let request = InitProducerIdRequest::default().with_transaction_timeout_ms(60_000);
    let answer = connection.call(&request, INIT_PRODUCER_ID_VERSION)?;
    match code_of(answer.error_code) {
        ErrorCode::None => Ok((answer.producer_id.0, answer.producer_epoch)),
        code => Err(PerfError::Refused { what: "a producer id".to_owned(), code }),
    }
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use bytes::{BufMut, BytesMut};
    use kafka_protocol::messages::list_offsets_response::{
        ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
    };
    use kafka_protocol::messages::{ListOffsetsResponse, ResponseHeader};
    use kafka_protocol::protocol::{Encodable, HeaderVersion};

    use super::*;
    use crate::frames::Frames;

    /// Answers one ListOffsets per code, then the end of the connection.
    fn answer(listener: TcpListener, codes: &[ErrorCode]) {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut frames = Frames::new(stream.try_clone().expect("a second handle"));
        for code in codes {
            let frame = frames.read().expect("a request").expect("no end yet");
            // Key, version, then the correlation id.
            let id = i32::from_be_bytes(frame[4..8].try_into().expect("four bytes"));
            let partition = ListOffsetsPartitionResponse::default()
                .with_error_code(code.code())
                .with_offset(if *code == ErrorCode::None { 7 } else { -1 });
            let topic = ListOffsetsTopicResponse::default()
                .with_name(topic_name("t"))
                .with_partitions(vec![partition]);
            let version = ListOffsetsResponse::header_version(LIST_OFFSETS_VERSION);
            let mut body = BytesMut::new();
            let header = ResponseHeader::default().with_correlation_id(id);
            header.encode(&mut body, version).expect("a header");
            let answer = ListOffsetsResponse::default().with_topics(vec![topic]);
            answer.encode(&mut body, LIST_OFFSETS_VERSION).expect("an answer");
            let mut out = BytesMut::new();
            out.put_u32(body.len() as u32);
            out.extend_from_slice(&body);
            stream.write_all(&out).expect("a client that reads");
        }
    }

    fn offsets_after(codes: &'static [ErrorCode]) -> Result<Vec<i64>, PerfError> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let broker = thread::spawn(move || answer(listener, codes));
        let mut connection = Connection::open(&address).expect("a connection");
        let found = offsets(&mut connection, "t", 1, End::Latest);
        broker.join().expect("the broker does not panic");
        found
    }

    #[test]
    fn a_leader_that_is_on_its_way_is_asked_again() {
        use ErrorCode::{NotLeaderOrFollower, UnknownTopicOrPartition};
        let found = offsets_after(&[NotLeaderOrFollower, UnknownTopicOrPartition, ErrorCode::None]);
        assert_eq!(found.expect("an answer"), [7]);
    }

    #[test]
    fn any_other_refusal_ends_it() {
        let code = ErrorCode::TopicAuthorizationFailed;
        let refused = offsets_after(&[ErrorCode::TopicAuthorizationFailed]);
        assert!(matches!(refused, Err(PerfError::Refused { code: is, .. }) if is == code));
    }
}
