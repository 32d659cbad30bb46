//! `standalone`: from a checked configuration to a broker that serves, and back.
//!
//! Claims what belongs to the process (signals, open files, data folder, port), starts a shard per
//! CPU, and waits. The first signal stops every shard in order; another one later ends the process
//! at once, which is a crash: nothing durable is lost. What the broker does lives in `shards` and `bootstrap`.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{mpsc, Arc, Mutex};
use std::time::{Duration, Instant};

use bootstrap::{Ready, StartError};
use rt::cross::{channel, CrossReceiver, CrossSender};
use rt::preflight::Severity;
use rt::signals::Signal;
use rt::uring;
use rt::Shard;
use shards::config::Settings;
use shards::meta::NodeId;
use shards::options::{Acknowledge, Options};

use crate::batches::Batches;
use crate::cli;
use crate::config::{self, Config, Resolved, Sources};
use crate::failure::{Exit, Failure};
use crate::folder::DataFolder;
use crate::logging::Logging;
use crate::port::PortClaim;
use crate::screen::Screen;

/// A stop takes 10 s at most; this much of it is for writing data that waits for its segments.
const FLUSH_LIMIT: Duration = Duration::from_secs(8);

/// A signal that comes so soon after the first is the same one, sent to the process and to its group
/// as timeout(1), shells and init programs do.
const ECHO: Duration = Duration::from_secs(1);

/// The limit of open files where the system does not tell.
const OPEN_FILES_USUAL: u64 = 1024;
/// Descriptors that are no connections: standard streams, rings, listeners, folders.
const FILES_OF_PROCESS: u64 = 128;
/// Descriptors of a shard beside its segments: log files, and some to spare.
const FILES_PER_SHARD: u64 = 128;
/// Fewest and most segments that a shard keeps open. With fewer than there are partitions that take
/// records, every flush round opens them all again.
const SEGMENTS_PER_SHARD: RangeInclusive<u64> = 512..=8192;

/// Runs a broker until it is told to stop.
pub fn run(resolved: Resolved, sources: Sources) -> Result<(), Failure> {
    let Resolved { config, file, warnings, .. } = resolved;
    rt::signals::block().map_err(|error| machine("signals cannot be blocked", &error))?;
    let logging = Logging::start(&config.log_filter)?;
    if let Some(file) = &file {
        tracing::info!("configuration read from {}", file.display());
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if config.acknowledge == Acknowledge::Relaxed {
        tracing::warn!(
            "flush = relaxed: a crash can lose records that producers were told are in; \
             `flush = always` answers when they are on disk"
        );
    }
    // The soft limit is often 1024, for programs that use `select`; the hard one counts.
    let open_files = rt::raise_open_files().unwrap_or_else(|error| {
        tracing::warn!("the limit of open files stays as it is: {error}");
        OPEN_FILES_USUAL
    });
    let batches = Batches::of(&config);
    if !batches.fit() {
        return Err(Failure::new(Exit::Usage, batches.text()).hint(batches.change()));
    }
    preflight()?;
    let _folder = DataFolder::claim(&config.data_dir)?;
    if let Some(warning) = cli::file_system_warning(&config.data_dir) {
        tracing::warn!("{warning}");
    }
    let port = PortClaim::new(config.bind_addr, config.kafka_port)?;
    let launch = uring::Options { shards: config.shards, ..uring::Options::default() };
    let descriptors = Descriptors::share(open_files, launch.shard_count());
    let options = Arc::new(broker_options(&config, port.address(), descriptors)?);
    warn_of_unknown_name(options.advertised_addr.clone(), port.address().port());

    let stop = StopSwitch::default();
    deliver_signals(stop.clone(), logging, sources)?;
    let screen = Screen {
        shards: launch.shard_count(),
        cpus: launch.cpu_list(),
        data_dir: absolute(&config.data_dir),
        bind: SocketAddr::new(config.bind_addr, port.address().port()),
        dual_stack: config.bind_addr.is_unspecified() && port.address().is_ipv6(),
        advertised: advertised(&options, port.address().port()),
        connections_max: descriptors.connections,
        http_on_kafka_port: config.http_on_kafka_port,
        relaxed: options.acknowledge == Acknowledge::Relaxed,
    };
    let start = Start { options, stop, screen, port: Arc::new(Mutex::new(Some(port))) };
    serve(launch, start)
}

/// What every shard starts with.
#[derive(Clone)]
struct Start {
    options: Arc<Options>,
    stop: StopSwitch,
    screen: Screen,
    /// Held until every shard listens.
    port: Arc<Mutex<Option<PortClaim>>>,
}

fn serve(launch: uring::Options, start: Start) -> Result<(), Failure> {
    let (ended, outcomes) = mpsc::channel();
    let main = move |shard: Shard| {
        let (start, ended) = (start.clone(), ended.clone());
        async move {
            // A receiver that is gone means that another shard has failed and the process ends.
            let _ = ended.send(shard_main(shard, start).await);
        }
    };
    let running = uring::launch(launch, main).map_err(|error| {
        Failure::new(Exit::Machine, error.to_string())
            .hint("`chronik-server doctor` says what this machine lacks")
    })?;
    // `main` went to the shards, and each drops its sender with its last future.
    for outcome in outcomes {
        outcome?;
    }
    running.join().map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    tracing::info!("stopped");
    Ok(())
}

/// One shard's whole life.
async fn shard_main(shard: Shard, start: Start) -> Result<(), Failure> {
    let stop = start.stop.subscribe();
    let Start { options, screen, port, .. } = start;
    let on_ready = move |ready: Ready| {
        drop(port.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take());
        screen.show(&ready);
    };
    let started = bootstrap::start(&shard, &options, on_ready);
    let broker = match rt::either(started, stop.recv()).await {
        rt::Either::Left(broker) => broker.map_err(|error| refused(&options, &error))?,
        rt::Either::Right(_) => return Ok(()),
    };
    stop.recv().await;
    shards::node::stop(broker, FLUSH_LIMIT).await;
    Ok(())
}

/// The signal that every shard waits for.
#[derive(Clone, Default)]
struct StopSwitch(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    thrown: Option<Instant>,
    shards: Vec<CrossSender<()>>,
}

impl StopSwitch {
    /// The receiver gets one value when the switch is thrown, also if it was already.
    fn subscribe(&self) -> CrossReceiver<()> {
        let (sender, receiver) = channel();
        let mut waiting = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if waiting.thrown.is_some() {
            let _ = sender.send(());
        }
        waiting.shards.push(sender);
        receiver
    }

    /// Tells every shard to stop, the first time.
    fn throw(&self, now: Instant) -> Thrown {
        let mut waiting = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(first) = waiting.thrown {
            let echoes = now.saturating_duration_since(first) < ECHO;
            return if echoes { Thrown::Echo } else { Thrown::Again };
        }
        waiting.thrown = Some(now);
        for shard in &waiting.shards {
            let _ = shard.send(());
        }
        Thrown::First
    }
}

/// What a signal to stop means.
#[derive(Debug, PartialEq, Eq)]
enum Thrown {
    First,
    Echo,
    Again,
}

fn deliver_signals(stop: StopSwitch, logging: Logging, sources: Sources) -> Result<(), Failure> {
    let deliver = move |signal| match signal {
        Signal::Interrupt | Signal::Terminate => match stop.throw(Instant::now()) {
            Thrown::First => tracing::info!("stopping; a second signal stops at once"),
            Thrown::Echo => {}
            Thrown::Again => {
                tracing::warn!("stopped at once; the next start replays the log");
                std::process::exit(Exit::Failed as i32);
            }
        },
        Signal::Hangup => reload_filter(&logging, &sources),
        Signal::User1 => {}
    };
    rt::signals::deliver(deliver)
        .map_err(|error| machine("the thread for signals cannot be started", &error))
}

/// Reads the log filter again, from the same sources as at the start.
fn reload_filter(logging: &Logging, sources: &Sources) {
    let reloaded = match config::resolve(sources) {
        Ok(resolved) => {
            let filter = resolved.config.log_filter;
            logging.reload(&filter).map(|()| filter).map_err(|failure| failure.message)
        }
        Err(mistakes) => {
            Err(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        }
    };
    match reloaded {
        Ok(filter) => tracing::info!("the log filter is now {filter}"),
        Err(reason) => tracing::warn!("the log filter stays as it is: {reason}"),
    }
}

/// How the limit of open files is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Descriptors {
    /// Of each shard.
    segments: u64,
    /// What is left, at least half of all.
    connections: u32,
}

impl Descriptors {
    fn share(open_files: u64, shards: u16) -> Descriptors {
        let shards = u64::from(shards);
        let (fewest, most) = SEGMENTS_PER_SHARD.into_inner();
        let segments = (open_files / 4 / shards).clamp(fewest, most);
        let files = FILES_OF_PROCESS + (FILES_PER_SHARD + segments) * shards;
        let left = open_files - files.min(open_files / 2);
        Descriptors { segments, connections: u32::try_from(left).unwrap_or(u32::MAX) }
    }
}

/// The configuration as the broker takes it. `bound` is what the shards listen on.
fn broker_options(
    config: &Config,
    bound: SocketAddr,
    descriptors: Descriptors,
) -> Result<Options, Failure> {
    let node = NodeId(config.node_id);
    let mut settings = Settings::new(node);
    let advertised = config.advertised_addr.as_ref().map(|host| {
        let port = config.advertised_port.unwrap_or(bound.port());
        format!("PLAINTEXT://{}", host_and_port(host, port))
    });
    let listener = SocketAddr::new(config.bind_addr, bound.port());
    let mut facts = vec![
        ("listeners", format!("PLAINTEXT://{listener}")),
        ("log.dirs", absolute(&config.data_dir).display().to_string()),
    ];
    facts.extend(advertised.map(|listener| ("advertised.listeners", listener)));
    facts.extend(config.kafka.iter().map(|(name, value)| (*name, value.clone())));
    for (name, value) in facts {
        settings = settings
            .with(name, &value)
            .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    }
    Ok(Options {
        bind_addr: bound.ip(),
        kafka_port: bound.port(),
        admin_port: config.admin_port,
        http_on_kafka_port: config.http_on_kafka_port,
        advertised_addr: config.advertised_addr.clone(),
        advertised_port: config.advertised_port,
        settings,
        wal_flush: config.wal_flush,
        acknowledge: config.acknowledge,
        wal_budget_bytes: config.wal_budget_bytes,
        staged_min_bytes: config.staged_min_bytes,
        cache_bytes: config.cache_memory_bytes,
        request_memory_bytes: config.request_memory_bytes,
        connections_ceiling: descriptors.connections,
        open_segments_max: descriptors.segments as usize,
        disk_reserve_bytes: config.disk_reserve_bytes,
        consumer_lag_series_max: config.consumer_lag_series_max,
        ..Options::new(node, config.data_dir.clone())
    })
}

fn advertised(options: &Options, port: u16) -> Option<String> {
    let port = options.advertised_port.unwrap_or(port);
    options.advertised_addr.as_ref().map(|host| host_and_port(host, port))
}

fn host_and_port(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}

fn absolute(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Refuses to start where shards cannot run, and says all of what is missing.
fn preflight() -> Result<(), Failure> {
    let mut failure = Failure::new(Exit::Machine, "this machine cannot run the broker");
    for finding in rt::preflight() {
        let text = format!("{}: {}", finding.what, finding.detail);
        match finding.severity {
            Severity::Error => failure = failure.detail(format!("{text}. {}", finding.hint)),
            Severity::Warning => tracing::warn!("{text}. {}", finding.hint),
            Severity::Info => {}
        }
    }
    match failure.details.is_empty() {
        true => Ok(()),
        false => Err(failure.hint("`chronik-server doctor` checks again")),
    }
}

/// A name that does not resolve here seldom resolves for clients; asked beside the start, since an
/// answer may take its time.
fn warn_of_unknown_name(host: Option<String>, port: u16) {
    let Some(host) = host else { return };
    let ask = move || {
        if let Err(error) = (host.as_str(), port).to_socket_addrs() {
            tracing::warn!(
                "the advertised name {host} does not resolve on this machine ({error}); clients \
                 that cannot resolve it cannot use this broker"
            );
        }
    };
    // Without the thread only the warning is missing.
    let _ = std::thread::Builder::new().name("resolve".into()).spawn(ask);
}

fn refused(options: &Options, error: &StartError) -> Failure {
    let exit = match error {
        StartError::Port(_) | StartError::AdminPort { .. } => Exit::Machine,
        StartError::Submit(_) => Exit::Failed,
        _ => Exit::DataFolder,
    };
    let data = options.data_dir.display();
    let failure = Failure::new(exit, format!("the broker cannot start: {error}"))
        .detail(format!("data folder {data}"));
    match error.is_no_space() {
        true => failure.hint(
            "free some space, or name a folder on a larger disk with --data-dir; a smaller \
             wal_budget_bytes makes the log smaller, but not that of a folder in use",
        ),
        false => failure,
    }
}

fn machine(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Machine, format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_right_after_the_first_is_the_same_one() {
        let (stop, start) = (StopSwitch::default(), Instant::now());
        assert_eq!(stop.throw(start), Thrown::First);
        assert_eq!(stop.throw(start), Thrown::Echo);
        assert_eq!(stop.throw(start + ECHO / 2), Thrown::Echo);
        assert_eq!(stop.throw(start + ECHO), Thrown::Again);
    }

    #[test]
    fn connections_get_what_the_files_leave_and_half_at_least() {
        let share = |open_files, shards| {
            let Descriptors { segments, connections } = Descriptors::share(open_files, shards);
            (segments, u64::from(connections))
        };
        assert_eq!(share(1024, 2), (512, 512));
        assert_eq!(share(20_000, 2), (2500, 20_000 - 128 - 2 * 2628));
        assert_eq!(share(65_536, 64), (512, 65_536 / 2));
        assert_eq!(share(u64::MAX, 2), (8192, u64::from(u32::MAX)));
    }
}
