//! The way from a command to the brokers: where to connect, who leads what, what a refusal means.
//!
//! A command runs on one shard of its own. Versions are fixed: every broker since Kafka 3.0 serves
//! them. No request is repeated here; what may be repeated is for the command to say.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    BrokerId, ListOffsetsRequest, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::Request;
use net::client::{Client, ClientError};
use net::{ErrorCode, StrBytes};
use rt::{uring, Shard};

use crate::failure::{Exit, Failure};

const DEFAULT_BOOTSTRAP: &str = "localhost:9092";
const KAFKA_PORT: u16 = 9092;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The broker's time for a change; ours for its answer is longer, so that its word is heard.
pub const REQUEST_TIMEOUT_MS: i32 = 30_000;
const ANSWER_LIMIT: Duration = Duration::from_secs(40);

/// Timestamps of ListOffsets with a meaning of their own.
pub const LATEST: i64 = -1;
pub const EARLIEST: i64 = -2;

/// What names the brokers to ask first. Not `CHRONIK_BOOTSTRAP`: that is the twin of the broker's own
/// option `bootstrap`, which founds a cluster.
const VARIABLE: &str = "CHRONIK_BOOTSTRAP_SERVER";

/// Adds `--bootstrap-server` to a command and the commands below it.
pub fn with_bootstrap(command: Command) -> Command {
    command.arg(
        Arg::new("bootstrap")
            .long("bootstrap-server")
            .short('b')
            .visible_alias("bootstrap")
            .value_name("HOST:PORT")
            .global(true)
            .help(format!(
                "Brokers to ask first, separated by commas [default: {DEFAULT_BOOTSTRAP}] \
                 [env: {VARIABLE}]"
            )),
    )
}

/// What the flag, the environment or the default says.
pub fn bootstrap(matches: &ArgMatches) -> String {
    let named = matches.get_one::<String>("bootstrap").cloned();
    named.or_else(|| std::env::var(VARIABLE).ok()).unwrap_or_else(|| DEFAULT_BOOTSTRAP.into())
}

/// Runs a command's body on one shard, on a thread of its own, and gives what it gives.
pub fn on_shard<M, F, T>(body: M) -> Result<T, Failure>
where
    M: FnOnce(Shard) -> F + Send + 'static,
    F: Future<Output = Result<T, Failure>> + 'static,
    T: Send + 'static,
{
    let body = Arc::new(Mutex::new(Some(body)));
    let output = Arc::new(Mutex::new(None));
    let slot = output.clone();
    let options = uring::Options { shards: Some(1), cpus: Some(Vec::new()) };
    let main = move |shard: Shard| {
        let body = body.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let future = body.map(|body| body(shard));
        let slot = slot.clone();
        async move {
            if let Some(future) = future {
                let result = future.await;
                *slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(result);
            }
        }
    };
    let unable = |error: uring::LaunchError| {
        Failure::new(Exit::Machine, error.to_string())
            .hint("`chronik-server doctor` says what this machine lacks")
    };
    uring::launch(options, main).map_err(unable)?.join().map_err(unable)?;
    let result = output.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    result.unwrap_or_else(|| Err(Failure::new(Exit::Failed, "the command was stopped")))
}

/// Opens a session and runs a command's body in it.
pub fn in_session<M, F, T>(matches: &ArgMatches, body: M) -> Result<T, Failure>
where
    M: FnOnce(Session) -> F + Send + 'static,
    F: Future<Output = Result<T, Failure>> + 'static,
    T: Send + 'static,
{
    let bootstrap = bootstrap(matches);
    on_shard(move |shard| async move { body(Session::open(shard, &bootstrap).await?).await })
}

/// Connections to the brokers of one cluster.
pub struct Session {
    shard: Shard,
    /// The bootstrap broker.
    first: Client,
    first_address: String,
    /// As the last Metadata answer named them.
    brokers: BTreeMap<i32, (String, u16)>,
    clients: BTreeMap<i32, Client>,
}

impl Session {
    /// Connects to the first of the bootstrap brokers that can be reached.
    pub async fn open(shard: Shard, bootstrap: &str) -> Result<Session, Failure> {
        let mut tried = Failure::new(Exit::Failed, "no broker can be reached");
        for place in bootstrap.split(',').map(str::trim).filter(|place| !place.is_empty()) {
            let (host, port) = host_and_port(place)?;
            match connect(&shard, &host, port).await {
                Ok(first) => {
                    let first_address = place.to_owned();
                    let (brokers, clients) = Default::default();
                    return Ok(Session { shard, first, first_address, brokers, clients });
                }
                Err(reason) => tried = tried.detail(reason),
            }
        }
        Err(tried.hint(
            "start one with `chronik-server standalone`, or name another with \
             --bootstrap-server HOST:PORT",
        ))
    }

    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Asks the bootstrap broker.
    pub async fn any<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<R::Response, Failure> {
        exchange(&self.shard, &mut self.first, &self.first_address, request, version).await
    }

    /// Asks one broker of the cluster, which a Metadata answer has named.
    pub async fn at<R: Request>(
        &mut self,
        broker: i32,
        request: &R,
        version: i16,
    ) -> Result<R::Response, Failure> {
        let address = self.address_of(broker)?;
        let shard = self.shard.clone();
        let client = self.client(broker).await?;
        exchange(&shard, client, &address, request, version).await
    }

    /// The connection to one broker, opened at its first use.
    pub async fn client(&mut self, broker: i32) -> Result<&mut Client, Failure> {
        if !self.clients.contains_key(&broker) {
            self.address_of(broker)?;
            let (host, port) = self.brokers[&broker].clone();
            let client = connect(&self.shard, &host, port).await.map_err(|reason| {
                Failure::new(Exit::Failed, format!("broker {broker} cannot be reached"))
                    .detail(reason)
                    .hint(
                        "it is reached at the address that it advertises: `standalone \
                         --advertised-addr` sets one that works from here",
                    )
            })?;
            self.clients.insert(broker, client);
        }
        Ok(self.clients.get_mut(&broker).expect("inserted above"))
    }

    /// Forgets the connections to leaders: brokers close those that idle.
    pub fn disconnect(&mut self) {
        self.clients.clear();
    }

    fn address_of(&self, broker: i32) -> Result<String, Failure> {
        let known = self.brokers.get(&broker).map(|(host, port)| format!("{host}:{port}"));
        known.ok_or_else(|| {
            Failure::new(Exit::Failed, format!("broker {broker} is not part of the cluster now"))
                .hint("try again in a moment; the cluster is changing")
        })
    }

    /// Metadata of the named topics, or of all.
    pub async fn metadata(
        &mut self,
        topics: Option<&[String]>,
        create: bool,
    ) -> Result<MetadataResponse, Failure> {
        let named =
            |name: &String| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let topics = topics.map(|names| names.iter().map(named).collect());
        let request =
            MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(create);
        let answer = self.any(&request, 12).await?;
        let address =
            |broker: &kafka_protocol::messages::metadata_response::MetadataResponseBroker| {
                let port = u16::try_from(broker.port).unwrap_or(KAFKA_PORT);
                (broker.node_id.0, (broker.host.to_string(), port))
            };
        self.brokers = answer.brokers.iter().map(address).collect();
        Ok(answer)
    }

    /// Metadata of one topic that must exist.
    pub async fn topic(&mut self, name: &str) -> Result<MetadataResponseTopic, Failure> {
        let answer = self.metadata(Some(&[name.to_owned()]), false).await?;
        let topic = answer.topics.into_iter().next();
        let topic = topic.ok_or_else(|| no_answer(&format!("topic `{name}`")))?;
        checked(&format!("topic `{name}`"), topic.error_code, None)?;
        Ok(topic)
    }

    /// The offset of every partition of a topic at a timestamp, or at one end of its log; -1 where
    /// no record is that young. By partition.
    pub async fn offsets(
        &mut self,
        topic: &MetadataResponseTopic,
        timestamp: i64,
    ) -> Result<BTreeMap<i32, i64>, Failure> {
        let name = topic.name.clone().unwrap_or_default();
        let mut offsets = BTreeMap::new();
        for (leader, partitions) in by_leader(topic)? {
            let ask = |partition: i32| {
                ListOffsetsPartition::default()
                    .with_partition_index(partition)
                    .with_current_leader_epoch(-1)
                    .with_timestamp(timestamp)
            };
            let wanted = ListOffsetsTopic::default()
                .with_name(name.clone())
                .with_partitions(partitions.into_iter().map(ask).collect());
            let request = ListOffsetsRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_topics(vec![wanted]);
            let answer = self.at(leader, &request, 7).await?;
            for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
                let number = partition.partition_index;
                let what = format!("offsets of partition {number} of `{}`", name.0);
                checked(&what, partition.error_code, None)?;
                offsets.insert(number, partition.offset);
            }
        }
        Ok(offsets)
    }
}

/// The partitions of a topic by the broker that leads them; a partition without a leader fails.
pub fn by_leader(topic: &MetadataResponseTopic) -> Result<BTreeMap<i32, Vec<i32>>, Failure> {
    let mut leaders: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for partition in &topic.partitions {
        let number = partition.partition_index;
        if partition.leader_id.0 < 0 {
            let name = topic.name.clone().unwrap_or_default();
            let what = format!("partition {number} of topic `{}`", name.0);
            return Err(refused(&what, ErrorCode::LeaderNotAvailable.code(), None));
        }
        leaders.entry(partition.leader_id.0).or_default().push(number);
    }
    Ok(leaders)
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Fails with what the broker said, unless it said that all is well.
pub fn checked(what: &str, code: i16, message: Option<&StrBytes>) -> Result<(), Failure> {
    match code {
        0 => Ok(()),
        code => Err(refused(what, code, message)),
    }
}

/// The broker's refusal in words.
pub fn refused(what: &str, code: i16, message: Option<&StrBytes>) -> Failure {
    let known = ErrorCode::from_code(code);
    let name = known.map_or_else(|| format!("error {code}"), |code| code.name().to_owned());
    let failure = Failure::new(Exit::Failed, format!("{what}: {name}"));
    let failure = match message {
        Some(message) if !message.is_empty() => failure.detail(message.as_str()),
        _ => failure,
    };
    match known.and_then(what_to_do) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The broker left out what it was asked for.
pub fn no_answer(what: &str) -> Failure {
    Failure::new(Exit::Failed, format!("{what}: the broker's answer does not mention it"))
        .hint("this is a bug of the broker; its log and this command's line help to find it")
}

fn what_to_do(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::UnknownTopicOrPartition => {
            "`chronik-server topic list` shows the topics, `topic describe` their partitions"
        }
        ErrorCode::TopicAlreadyExists => {
            "--if-not-exists makes this no error; `topic alter` changes a topic"
        }
        ErrorCode::InvalidPartitions => {
            "partitions can only be added: name a total above that of `topic describe`"
        }
        ErrorCode::InvalidReplicationFactor => {
            "there cannot be more replicas than brokers; leave --replication-factor out for the \
             cluster's default"
        }
        ErrorCode::InvalidTopicException => {
            "a name has 1 to 249 of the characters a-z A-Z 0-9 . _ -"
        }
        ErrorCode::InvalidConfig => "`topic describe --all` shows every option with its value",
        ErrorCode::NonEmptyGroup | ErrorCode::UnknownMemberId => {
            "stop the group's consumers first; `group describe` shows them"
        }
        ErrorCode::GroupIdNotFound => "`chronik-server group list` shows the groups",
        ErrorCode::OffsetOutOfRange => "`topic describe` shows the first and the next offset",
        ErrorCode::MessageTooLarge => {
            "the topic's max.message.bytes is the limit; `topic alter --set` raises it"
        }
        ErrorCode::InvalidRecord => {
            "a topic with cleanup.policy=compact takes no record without a key: --key-separator"
        }
        code if code.is_retriable() => "this passes: try again in a moment",
        _ => return None,
    })
}

async fn exchange<R: Request>(
    shard: &Shard,
    client: &mut Client,
    address: &str,
    request: &R,
    version: i16,
) -> Result<R::Response, Failure> {
    match shard.timeout(ANSWER_LIMIT, client.call(request, version)).await {
        Ok(answer) => answer.map_err(|error| broken(address, &error)),
        Err(_) => {
            let seconds = ANSWER_LIMIT.as_secs();
            let message = format!("broker {address}: no answer within {seconds} s");
            Err(Failure::new(Exit::Failed, message)
                .hint("whether it was done is not known; the broker's log may say more"))
        }
    }
}

/// A connection that failed, in words.
pub fn broken(address: &str, error: &ClientError) -> Failure {
    let failure = Failure::new(Exit::Failed, format!("broker {address}: {error}"));
    match error {
        ClientError::Closed => failure.hint(
            "the broker's log says why; this needs a plain listener of a broker that speaks \
             Kafka's protocol of version 3.0 or newer",
        ),
        _ => failure.hint("is this the plain Kafka port of a broker?"),
    }
}

/// The first address of the host that answers, or the reason why none does.
async fn connect(shard: &Shard, host: &str, port: u16) -> Result<Client, String> {
    let addresses = shard.resolve(host, port).await;
    let addresses = addresses.map_err(|error| format!("{host}:{port}: {error}"))?;
    let mut reason = format!("{host}:{port}: the name has no address");
    for address in addresses {
        let opened = Client::connect(shard, address, "chronik-cli");
        reason = match shard.timeout(CONNECT_LIMIT, opened).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(error)) => format!("{host}:{port}: {error}"),
            Err(_) => {
                let seconds = CONNECT_LIMIT.as_secs();
                format!("{host}:{port}: {address} does not answer within {seconds} s")
            }
        };
    }
    Err(reason)
}

/// `host`, `host:port`, `[v6]:port` or a bare IPv6 address.
fn host_and_port(place: &str) -> Result<(String, u16), Failure> {
    let wrong = || {
        Failure::new(Exit::Usage, format!("`{place}` is not an address"))
            .hint("--bootstrap-server takes HOST:PORT, for example localhost:9092 or [::1]:9092")
    };
    if place.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok((place.to_owned(), KAFKA_PORT));
    }
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
        None => (place, KAFKA_PORT),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bare.unwrap_or(host) {
        "" => Err(wrong()),
        host if bare.is_none() && host.contains([':', '/']) => Err(wrong()),
        host => Ok((host.to_owned(), port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_form() {
        let read = |place: &str| host_and_port(place).unwrap();
        assert_eq!(read("broker1:9094"), ("broker1".into(), 9094));
        assert_eq!(read("broker1"), ("broker1".into(), 9092));
        assert_eq!(read("[::1]:9094"), ("::1".into(), 9094));
        assert_eq!(read("::1"), ("::1".into(), 9092));
        for wrong in ["broker1:http", ":9092", "http://broker1:9092", "broker1:70000", "[]:1"] {
            assert_eq!(host_and_port(wrong).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn a_refusal_names_code_reason_and_what_to_do() {
        let failure = refused("topic `a`", 36, Some(&text("Topic 'a' already exists.")));
        assert_eq!(
            failure.to_string(),
            "error: topic `a`: TOPIC_ALREADY_EXISTS\n  Topic 'a' already exists.\n  hint: \
             --if-not-exists makes this no error; `topic alter` changes a topic\n"
        );
        assert!(refused("x", 6, None).hint.unwrap().contains("try again"));
        assert_eq!(refused("x", 4242, None).message, "x: error 4242");
    }
}
