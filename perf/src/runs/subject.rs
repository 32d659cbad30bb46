//! The brokers under measurement: how each starts, when it is ready, how it ends.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::messages::ApiVersionsRequest;
use rustix::process::{kill_process, Pid, Signal};

use super::kafka;
use super::lab::Tools;
use crate::connection::Connection;
use crate::error::PerfError;
use crate::process::{self, Usage};

const READY_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Longer than the 2 s after its start at which ours begins to fill its log's spare files, which no
/// later run of it would see.
const REST_AFTER_START: Duration = Duration::from_millis(2_500);
/// Longer than the 5 s after which ours writes even the smallest remainder to its segments.
pub const REST_AFTER_LOAD: Duration = Duration::from_secs(6);
/// Next to nothing: Kafka's controller writes to its log twice a second for ever.
const REST_BYTES: u64 = 256 << 10;
const REST_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The client's own ceiling.
    Null,
    /// The same, but that it writes each Produce once, durably, before it answers.
    NullDurable,
    /// As it comes: every acknowledged record durable.
    Chronik,
    /// `flush=relaxed`.
    ChronikRelaxed,
    /// As it comes: no fsync.
    Kafka,
    /// `log.flush.interval.messages=1`.
    KafkaFlush,
}

impl Subject {
    pub const ALL: [Subject; 6] = [
        Subject::Null,
        Subject::NullDurable,
        Subject::Chronik,
        Subject::ChronikRelaxed,
        Subject::Kafka,
        Subject::KafkaFlush,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Subject::Null => "null",
            Subject::NullDurable => "null-durable",
            Subject::Chronik => "chronik",
            Subject::ChronikRelaxed => "chronik-relaxed",
            Subject::Kafka => "kafka",
            Subject::KafkaFlush => "kafka-flush",
        }
    }

    /// The head of its column.
    pub fn title(self) -> &'static str {
        match self {
            Subject::Null => "null broker",
            Subject::NullDurable => "null broker, durable",
            Subject::Chronik => "Chronik",
            Subject::ChronikRelaxed => "Chronik relaxed",
            Subject::Kafka => "Kafka, no fsync",
            Subject::KafkaFlush => "Kafka, flush.messages=1",
        }
    }

    pub fn named(name: &str) -> Option<Subject> {
        Subject::ALL.into_iter().find(|subject| subject.name() == name)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A running broker with a data folder of its own. Dropping it kills the process and removes the
/// folder.
pub struct Running {
    subject: Subject,
    tools: Tools,
    child: Child,
    folder: PathBuf,
    port: u16,
    extra: Vec<String>,
}

impl Running {
    /// Starts a broker with an empty data folder, and waits until it answers.
    pub fn start(subject: Subject, tools: &Tools, extra: &[&str]) -> Result<Running, PerfError> {
        let folder = tools.work.join(format!("{subject}-{}", std::process::id()));
        remove(&folder)?;
        fs::create_dir_all(&folder).map_err(PerfError::io(folder.display().to_string()))?;
        let port = free_port()?;
        let extra: Vec<String> = extra.iter().map(|text| text.to_string()).collect();
        if matches!(subject, Subject::Kafka | Subject::KafkaFlush) {
            kafka::format(tools, &folder, port, subject == Subject::KafkaFlush)?;
        }
        let child = spawn(subject, tools, &folder, port, &extra)?;
        let tools = tools.clone();
        let mut running = Running { subject, tools, child, folder, port, extra };
        running.wait_until_ready()?;
        Ok(running)
    }

    /// Starts a broker, and waits until it is at rest.
    pub fn settled(subject: Subject, tools: &Tools, extra: &[&str]) -> Result<Running, PerfError> {
        let running = Running::start(subject, tools, extra)?;
        running.rest(REST_AFTER_START)?;
        Ok(running)
    }

    /// Waits until the broker has written next to nothing for so long; gives all that it has written.
    pub fn rest(&self, quiet: Duration) -> Result<u64, PerfError> {
        let begin = Instant::now();
        let (mut written, mut since) = (self.usage()?.written_bytes, begin);
        while since.elapsed() < quiet {
            thread::sleep(Duration::from_millis(50));
            let now = self.usage()?.written_bytes;
            if now - written > REST_BYTES {
                (written, since) = (now, Instant::now());
            }
            if begin.elapsed() > REST_LIMIT {
                return Err(self.fault(&format!("it still wrote after {REST_LIMIT:?}")));
            }
        }
        Ok(self.usage()?.written_bytes)
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn usage(&self) -> Result<Usage, PerfError> {
        process::usage(self.pid())
    }

    /// Where its records lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ends the process with a signal, and starts a new one on the same folder. Returns the time of
    /// that start, without waiting for the process to be ready.
    pub fn restart(&mut self, signal: Signal) -> Result<Instant, PerfError> {
        let ended = kill_process(Pid::from_child(&self.child), signal).map_err(io::Error::from);
        ended.and_then(|()| self.child.wait()).map_err(PerfError::io("ending the broker"))?;
        let begin = Instant::now();
        self.child = spawn(self.subject, &self.tools, &self.folder, self.port, &self.extra)?;
        Ok(begin)
    }

    /// Waits for an answer to ApiVersions.
    pub fn wait_until_ready(&mut self) -> Result<(), PerfError> {
        let deadline = Instant::now() + READY_LIMIT;
        while Instant::now() < deadline {
            let answer = Connection::open(&self.address())
                .and_then(|mut connection| connection.call(&ApiVersionsRequest::default(), 0));
            if answer.is_ok() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.fault(&format!("it ended with {status}")));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Err(self.fault(&format!("it was not ready within {READY_LIMIT:?}")))
    }

    /// What went wrong, with the last lines that the broker wrote.
    fn fault(&self, what: &str) -> PerfError {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n");
        PerfError::Late(format!("{}: {what}\n{tail}", self.subject))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + STOP_LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Err(error) = remove(&self.folder) {
            eprintln!("warning: {error}");
        }
    }
}

fn spawn(
    subject: Subject,
    tools: &Tools,
    folder: &Path,
    port: u16,
    extra: &[String],
) -> Result<Child, PerfError> {
    let mut command = match subject {
        Subject::Null | Subject::NullDurable => {
            let mut command = Command::new(&tools.null_broker);
            command.args(["--port", &port.to_string()]);
            if subject == Subject::NullDurable {
                command.arg("--durable").arg(folder);
            }
            command
        }
        Subject::Chronik | Subject::ChronikRelaxed => {
            let mut command = Command::new(&tools.server);
            command.arg("standalone").arg("--data-dir").arg(folder.join("data"));
            command.args(["--bind-addr", "127.0.0.1", "--kafka-port", &port.to_string()]);
            if subject == Subject::ChronikRelaxed {
                command.args(["--flush", "relaxed"]);
            }
            command.args(extra);
            command
        }
        Subject::Kafka | Subject::KafkaFlush => kafka::broker(tools, folder)?,
    };
    let log_path = folder.join("log");
    let log = File::options().create(true).append(true).open(&log_path);
    let log = log.map_err(PerfError::io(log_path.display().to_string()))?;
    let errors = log.try_clone().map_err(PerfError::io("the broker's log"))?;
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    command.spawn().map_err(PerfError::io(format!("starting {subject}: {command:?}")))
}

/// A port that nobody listens on. Somebody else may take it before the broker does; that run then
/// fails, and says so.
pub fn free_port() -> Result<u16, PerfError> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(PerfError::io("a port"))?;
    Ok(listener.local_addr().map_err(PerfError::io("a port"))?.port())
}

fn remove(folder: &Path) -> Result<(), PerfError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(PerfError::Io { what: folder.display().to_string(), error })
        }
        _ => Ok(()),
    }
}
