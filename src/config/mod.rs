//! The broker's configuration: one registry, three sources, one typed result.
//!
//! A flag beats the environment, the environment beats the file, and the file beats the default.
//! Every mistake is collected, so that one start names them all. Runs on the main thread before any
//! shard exists; the result is immutable.

mod file;
mod keys;
mod reference;
mod registry;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use shards::options::{Acknowledge, FlushMode};

pub use keys::KEYS;
pub use reference::{listing, reference};
pub use registry::{not_yet, Default, Key, Target};
pub use value::{Kind, Value};

/// Environment variables that name the configuration file, the strongest first.
pub const FILE_VARIABLES: [&str; 2] = ["CHRONIK_CONFIG", "CHRONIK_CLUSTER_CONFIG"];

/// Variables with our prefix that belong to the commands that talk to a broker.
pub const TOOL_VARIABLES: [&str; 1] = ["CHRONIK_BOOTSTRAP_SERVER"];

/// Everything that can be set, checked. Fields are named as in the file; units end their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub node_id: i32,
    /// `None`: each client is told the address that its own connection reached.
    pub advertised_addr: Option<String>,
    /// `None`: the port that is listened on.
    pub advertised_port: Option<u16>,
    /// 0 takes a free port.
    pub kafka_port: u16,
    pub bind_addr: IpAddr,
    /// `None`: metrics and health have no listener of their own.
    pub admin_port: Option<u16>,
    pub http_on_kafka_port: bool,
    pub data_dir: PathBuf,
    /// `None`: one per CPU of the affinity mask.
    pub shards: Option<u16>,
    pub acknowledge: Acknowledge,
    pub wal_flush: FlushMode,
    pub wal_budget_bytes: u64,
    pub staged_min_bytes: u32,
    pub disk_reserve_bytes: u64,
    pub cache_memory_bytes: u64,
    pub request_memory_bytes: u64,
    pub consumer_lag_series_max: u32,
    pub log_filter: String,
    /// What the operator set of Kafka's own settings, under Kafka's names. The rest have the
    /// defaults of [`shards::config::broker`].
    pub kafka: BTreeMap<&'static str, String>,
}

/// Where a value came from, as messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Environment(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// What the three sources said, not yet checked.
#[derive(Clone, Debug, std::default::Default)]
pub struct Sources {
    /// Flags that were given: the option's name in the registry, and the text.
    pub flags: Vec<(String, String)>,
    /// The whole environment.
    pub environment: BTreeMap<String, String>,
    /// The configuration file that a flag names.
    pub file: Option<PathBuf>,
}

/// A configuration, and where each value of it came from.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub config: Config,
    pub file: Option<PathBuf>,
    /// Every option's value as text (`None`: unset) and its origin, in the registry's order.
    pub values: Vec<(&'static str, Option<Value>, Origin)>,
    /// Things that work but are probably not what was meant.
    pub warnings: Vec<String>,
}

/// An operator's mistake: the broker does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    #[error("{path}: cannot be read: {reason}\n  hint: --config names the configuration file")]
    Unreadable { path: String, reason: String },
    #[error("{place}: not valid TOML: {message}")]
    Syntax { place: String, message: String },
    #[error("{origin}: unknown option `{name}`{}", hint(.nearest))]
    Unknown { origin: String, name: String, nearest: Option<&'static str> },
    #[error("{origin}: `{name}` belongs to {what}, which this version does not have")]
    NotYet { origin: String, name: String, what: &'static str },
    #[error("{origin}: `{name}` is set twice; first at {first}")]
    Twice { origin: String, name: String, first: String },
    #[error("{origin}: `{name}`: {message}")]
    Illegal { origin: String, name: String, message: String },
    #[error("{0}")]
    Contradiction(String),
}

fn hint(nearest: &Option<&'static str>) -> String {
    match nearest {
        Some(name) => format!("\n  hint: did you mean `{name}`?"),
        None => "\n  hint: `chronik-server config reference` lists every option".into(),
    }
}

/// The mistake of an option that does not exist.
fn unknown(origin: String, name: String) -> Mistake {
    match registry::not_yet(&name) {
        Some(what) => Mistake::NotYet { origin, name, what },
        None => Mistake::Unknown { origin, nearest: registry::nearest(&name), name },
    }
}

/// Checks everything the sources say and resolves it. All mistakes are reported together.
pub fn resolve(sources: &Sources) -> Result<Resolved, Vec<Mistake>> {
    let mut resolver = Resolver::default();
    let file = file_path(sources);
    if let Some(path) = &file {
        resolver.read_file(path);
    }
    resolver.read_environment(&sources.environment);
    resolver.check_object_store(&sources.environment);
    resolver.read_flags(&sources.flags);
    resolver.finish(file)
}

fn file_path(sources: &Sources) -> Option<PathBuf> {
    let named = || FILE_VARIABLES.iter().find_map(|name| sources.environment.get(*name));
    sources.file.clone().or_else(|| named().map(PathBuf::from))
}

#[derive(std::default::Default)]
struct Resolver {
    chosen: BTreeMap<&'static str, (Value, Origin)>,
    mistakes: Vec<Mistake>,
    warnings: Vec<String>,
}

impl Resolver {
    fn read_file(&mut self, path: &std::path::Path) {
        let source = match std::fs::read_to_string(path) {
            Ok(source) => source,
            Err(error) => {
                let (path, reason) = (path.display().to_string(), error.to_string());
                return self.mistakes.push(Mistake::Unreadable { path, reason });
            }
        };
        let settings = match file::settings(&source) {
            Ok(settings) => settings,
            Err(file::SyntaxError { line, message }) => {
                let line = line.map(|line| format!(":{line}")).unwrap_or_default();
                let place = format!("{}{line}", path.display());
                return self.mistakes.push(Mistake::Syntax { place, message });
            }
        };
        for setting in settings {
            let origin = Origin::File { path: path.into(), line: setting.line };
            let Some(key) = registry::find(&setting.key) else {
                self.mistakes.push(unknown(origin.to_string(), setting.key));
                continue;
            };
            if let Some((_, first)) = self.chosen.get(key.name) {
                self.mistakes.push(Mistake::Twice {
                    origin: origin.to_string(),
                    name: setting.key,
                    first: first.to_string(),
                });
                continue;
            }
            self.choose(key, setting.text.as_deref().unwrap_or("a list or date"), origin);
        }
    }

    fn read_environment(&mut self, environment: &BTreeMap<String, String>) {
        for key in KEYS {
            let set = key.variables().into_iter().find(|name| environment.contains_key(name));
            if let Some(name) = set {
                self.choose(key, &environment[&name], Origin::Environment(name.clone()));
            }
        }
        // Kubernetes puts variables for every service into every container, so a stranger with our
        // prefix is a warning and not a mistake.
        for name in environment.keys().filter(|name| name.starts_with("CHRONIK_")) {
            let known = FILE_VARIABLES.contains(&name.as_str())
                || TOOL_VARIABLES.contains(&name.as_str())
                || KEYS.iter().any(|key| key.variables().contains(name));
            let name_of_option = name["CHRONIK_".len()..].to_ascii_lowercase();
            if !known && registry::not_yet(&name_of_option).is_some() {
                // Whoever set it does not want a node on its own.
                self.mistakes.push(unknown(format!("environment {name}"), name_of_option));
            } else if !known {
                let meant = registry::nearest(&name_of_option);
                let meant = meant.and_then(registry::find).map(|key| key.variables().remove(0));
                let meant = meant.map(|name| format!("; did you mean {name}?"));
                let meant = meant.unwrap_or_default();
                self.warnings.push(format!("environment {name} sets no option{meant}"));
            }
        }
    }

    /// Where data is kept is nothing to be silent about.
    fn check_object_store(&mut self, environment: &BTreeMap<String, String>) {
        let name = "OBJECT_STORE_BACKEND";
        let local = |kind: &String| kind.is_empty() || kind.eq_ignore_ascii_case("local");
        if environment.get(name).is_some_and(|kind| !local(kind)) {
            self.mistakes.push(unknown("environment".into(), name.to_ascii_lowercase()));
        }
    }

    fn read_flags(&mut self, flags: &[(String, String)]) {
        for (name, text) in flags {
            let key = registry::find(name).expect("flags are made from the registry");
            self.choose(key, text, Origin::Flag(key.flag()));
        }
    }

    fn choose(&mut self, key: &'static Key, text: &str, origin: Origin) {
        match key.kind.parse(text) {
            Ok(value) => {
                self.chosen.insert(key.name, (value, origin));
            }
            Err(mut message) => {
                if matches!(origin, Origin::Environment(_)) && text.contains("://") {
                    message += "\n  hint: Kubernetes sets such variables for services; \
                                `enableServiceLinks: false` in the pod turns that off";
                }
                self.mistakes.push(Mistake::Illegal {
                    origin: origin.to_string(),
                    name: key.name.into(),
                    message,
                });
            }
        }
    }

    fn finish(mut self, file: Option<PathBuf>) -> Result<Resolved, Vec<Mistake>> {
        let mut config = Config::unset();
        let mut values = Vec::with_capacity(KEYS.len());
        for key in KEYS {
            let (value, origin) = match self.chosen.remove(key.name) {
                Some((value, origin)) => (Some(value), origin),
                None => (key.default_value(), Origin::Default),
            };
            match (&value, key.target) {
                (Some(value), Target::Field(set)) => set(&mut config, value),
                (Some(value), Target::Kafka(name)) if origin != Origin::Default => {
                    config.kafka.insert(name, value.to_string());
                }
                _ => {}
            }
            values.push((key.name, value, origin));
        }
        if self.mistakes.is_empty() {
            self.mistakes.extend(contradictions(&config, &values));
        }
        match self.mistakes.is_empty() {
            true => Ok(Resolved { config, file, values, warnings: self.warnings }),
            false => Err(self.mistakes),
        }
    }
}

/// Values that are legal one by one and make no sense together.
fn contradictions(config: &Config, values: &[(&str, Option<Value>, Origin)]) -> Vec<Mistake> {
    let number = |name: &str| {
        let found =
            values.iter().find(|(key, ..)| *key == name).and_then(|(_, value, _)| value.as_ref());
        found.map_or(0, Value::number::<i64>)
    };
    let mut found = Vec::new();
    if number("group_min_session_timeout_ms") > number("group_max_session_timeout_ms") {
        found.push("group_min_session_timeout_ms is above group_max_session_timeout_ms".into());
    }
    if number("message_max_bytes") > number("socket_request_max_bytes") {
        found.push(
            "message_max_bytes is above socket_request_max_bytes: a batch of that size could \
             never arrive"
                .into(),
        );
    }
    let advertised = config.advertised_addr.as_ref().and_then(|host| host.parse::<IpAddr>().ok());
    if advertised.is_some_and(|address| address.is_unspecified()) {
        found.push(
            "advertised_addr is the wildcard address, which no client can connect to\n  hint: \
             name this machine as its clients see it, or leave advertised_addr out"
                .into(),
        );
    }
    found.into_iter().map(Mistake::Contradiction).collect()
}

impl Key {
    /// The default as a value; `None` where the option is unset by default.
    pub fn default_value(&self) -> Option<Value> {
        match self.default {
            Default::Is(text) => match self.kind.parse(text) {
                Ok(value) => Some(value),
                Err(message) => unreachable!("default of {}: {message}", self.name),
            },
            Default::Unset(_) => None,
        }
    }
}

impl Config {
    /// A configuration before the registry's defaults are put in.
    fn unset() -> Config {
        Config {
            node_id: 0,
            advertised_addr: None,
            advertised_port: None,
            kafka_port: 0,
            bind_addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            admin_port: None,
            http_on_kafka_port: false,
            data_dir: PathBuf::new(),
            shards: None,
            acknowledge: Acknowledge::Durable,
            wal_flush: FlushMode::Probed,
            wal_budget_bytes: 0,
            staged_min_bytes: 0,
            disk_reserve_bytes: 0,
            cache_memory_bytes: 0,
            request_memory_bytes: 0,
            consumer_lag_series_max: 0,
            log_filter: String::new(),
            kafka: BTreeMap::new(),
        }
    }
}

impl Value {
    /// The number; its kind's range must fit `T`, which a test holds every option to.
    fn number<T: TryFrom<i64>>(&self) -> T {
        match self {
            Value::Integer(value) => T::try_from(*value)
                .unwrap_or_else(|_| unreachable!("the kind's range is wider than its field")),
            other => unreachable!("the registry promised a number, not {other:?}"),
        }
    }

    fn flag(&self) -> bool {
        match self {
            Value::Bool(value) => *value,
            other => unreachable!("the registry promised true or false, not {other:?}"),
        }
    }

    fn text(&self) -> String {
        match self {
            Value::Text(value) => value.clone(),
            other => unreachable!("the registry promised text, not {other:?}"),
        }
    }

    /// What a word of a [`Kind::Choice`] stands for.
    fn word<T: Copy>(&self, meanings: &[(&str, T)]) -> T {
        let word = self.text();
        let found = meanings.iter().find(|(known, _)| *known == word);
        found.map(|(_, meaning)| *meaning).unwrap_or_else(|| unreachable!("no such word: {word}"))
    }

    fn address(&self) -> IpAddr {
        self.text().parse().unwrap_or_else(|_| unreachable!("the kind checked the address"))
    }
}

#[cfg(test)]
mod tests;
