//! The real binary under test: started on a port of its own with a data folder of its own, watched,
//! killed, restarted, and always cleaned up.
//!
//! Everything is bounded in time. A test that fails prints the broker's log.

pub mod http;
pub mod memory;
pub mod wire;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{kill_process, Pid, Signal};

/// The longest that a broker may take to say that it is ready.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// The longest that a broker may take to end after SIGTERM (design: 10 s).
const STOP_LIMIT: Duration = Duration::from_secs(12);

/// A command of the binary, in an environment without options.
pub fn chronik() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronik-server"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHRONIK_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs the binary to its end.
pub fn run(arguments: &[&str]) -> Output {
    output(chronik().args(arguments))
}

/// Runs a command to its end, at most a minute.
pub fn output(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let errors = thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).map(|_| text)
    });
    let printed = thread::spawn(move || {
        let mut text = Vec::new();
        stdout.read_to_end(&mut text).map(|_| text)
    });
    let status = wait(&mut child, Duration::from_secs(60)).unwrap_or_else(|| {
        let _ = child.kill();
        panic!("the command did not end within a minute");
    });
    let (stdout, stderr) = (printed.join().unwrap().unwrap(), errors.join().unwrap().unwrap());
    Output { status, stdout, stderr }
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A running broker. Dropping it kills the process and removes the folder.
pub struct Broker {
    child: Child,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    port: u16,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Broker {
    /// Starts a broker in a new folder, with a small log so that tests are quick.
    pub fn start() -> Broker {
        Broker::start_with(&[])
    }

    /// As [`Broker::start`], with further flags of `standalone`.
    pub fn start_with(arguments: &[&str]) -> Broker {
        Broker::start_in(&std::env::temp_dir(), arguments)
    }

    /// As [`Broker::start_with`], with its folder in this one.
    pub fn start_in(parent: &Path, arguments: &[&str]) -> Broker {
        let folder = tempfile::Builder::new().prefix("chronik-test-").tempdir_in(parent).unwrap();
        let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string()).collect();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (child, port) = launch(folder.path(), 0, &arguments, &lines);
        Broker { child, folder, arguments, port, lines }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What a client is given as `bootstrap.servers`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn data_dir(&self) -> PathBuf {
        data_dir(self.folder.path())
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Everything that the broker has printed, in all its lives.
    pub fn log(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Waits for a line of the log that contains `text`.
    pub fn wait_for_line(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "no line with `{text}` in:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL: the process has no say in it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGTERM, and the status that the process ends with.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        wait(&mut self.child, STOP_LIMIT)
            .unwrap_or_else(|| panic!("still there {STOP_LIMIT:?} after SIGTERM:\n{}", self.log()))
    }

    /// Waits for the process to end by itself.
    #[cfg(feature = "real-disks")]
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let limit = Duration::from_secs(30);
        wait(&mut self.child, limit)
            .unwrap_or_else(|| panic!("still there after {limit:?}:\n{}", self.log()))
    }

    /// Starts the process again after it ended: the same folder, port and flags.
    pub fn restart(&mut self) {
        assert!(self.child.try_wait().unwrap().is_some(), "restart of a broker that runs");
        let (child, port) = launch(self.folder.path(), self.port, &self.arguments, &self.lines);
        assert_eq!(port, self.port);
        self.child = child;
    }

    /// As [`Broker::restart`]; how the process ended, if it did so instead of serving.
    #[cfg(feature = "real-disks")]
    pub fn try_restart(&mut self) -> Option<ExitStatus> {
        let (child, heard) = spawn(self.folder.path(), self.port, &self.arguments, &self.lines);
        self.child = child;
        match heard.recv_timeout(READY_LIMIT) {
            Ok(_) => None,
            Err(_) => Some(self.wait_for_end()),
        }
    }

    /// Starts the process again and kills it after `pause`; whether it had said by then that it
    /// was ready.
    pub fn kill_on_its_way(&mut self, pause: Duration) -> bool {
        assert!(self.child.try_wait().unwrap().is_some(), "restart of a broker that runs");
        let (child, heard) = spawn(self.folder.path(), self.port, &self.arguments, &self.lines);
        self.child = child;
        thread::sleep(pause);
        self.kill();
        heard.try_recv().is_ok()
    }

    /// As [`Broker::restart`], with other flags from now on.
    pub fn restart_with(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|argument| argument.to_string()).collect();
        self.restart();
    }

    /// Panics when the broker has ended by itself.
    pub fn assert_alive(&mut self) {
        let status = self.child.try_wait().unwrap();
        assert!(status.is_none(), "the broker ended with {status:?}:\n{}", self.log());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("---- log of the broker ----\n{}\n----", self.log());
        }
    }
}

fn data_dir(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn launch(
    folder: &Path,
    port: u16,
    arguments: &[String],
    lines: &Arc<Mutex<Vec<String>>>,
) -> (Child, u16) {
    let (mut child, heard) = spawn(folder, port, arguments, lines);
    match heard.recv_timeout(READY_LIMIT) {
        Ok(port) => (child, port),
        Err(_) => {
            let _ = child.kill();
            let status = child.wait();
            let log = lines.lock().unwrap().join("\n");
            panic!("the broker was not ready within {READY_LIMIT:?} ({status:?}):\n{log}");
        }
    }
}

/// The process, and where its port will be heard once it is ready.
fn spawn(
    folder: &Path,
    port: u16,
    arguments: &[String],
    lines: &Arc<Mutex<Vec<String>>>,
) -> (Child, Receiver<u16>) {
    let mut command = chronik();
    command.arg("standalone").arg("--data-dir").arg(data_dir(folder));
    let set = |flag: &str| arguments.iter().any(|argument| argument.starts_with(flag));
    for (flag, value) in
        [("--kafka-port", port.to_string().as_str()), ("--wal-budget-bytes", "64MiB")]
    {
        if !set(flag) {
            command.args([flag, value]);
        }
    }
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    if let Some(group) = std::env::var_os("CHRONIK_TEST_CGROUP") {
        let procs = Path::new(&group).join("cgroup.procs");
        std::fs::write(&procs, child.id().to_string())
            .unwrap_or_else(|error| panic!("{}: {error}", procs.display()));
    }
    let (ready, heard) = channel();
    collect(child.stdout.take().unwrap(), lines, None);
    collect(child.stderr.take().unwrap(), lines, Some(ready));
    (child, heard)
}

/// Keeps what the process prints, and hears the line that says where it serves.
fn collect(
    stream: impl Read + Send + 'static,
    lines: &Arc<Mutex<Vec<String>>>,
    ready: Option<Sender<u16>>,
) {
    let lines = lines.clone();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let port = ready_port(&line);
            lines.lock().unwrap().push(line);
            if let (Some(ready), Some(port)) = (&ready, port) {
                let _ = ready.send(port);
            }
        }
    });
}

/// The port of `Chronik server ready on 0.0.0.0:9092 (advertised: …)`.
fn ready_port(line: &str) -> Option<u16> {
    let (_, place) = line.split_once("Chronik server ready on ")?;
    place.split_whitespace().next()?.rsplit(':').next()?.parse().ok()
}
