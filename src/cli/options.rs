//! The registry's options as flags, and the way back from parsed flags to a configuration.

use std::path::PathBuf;

use clap::{value_parser, Arg, ArgMatches, Command};

use crate::config::{self, Default, Key, Resolved, Sources, FILE_VARIABLES, KEYS};
use crate::failure::{Exit, Failure};

/// The options that `-h` shows; `--help` shows all.
const COMMON: &[&str] = &[
    "node_id",
    "advertised_addr",
    "kafka_port",
    "bind_addr",
    "data_dir",
    "shards",
    "num_partitions",
    "flush",
    "log_filter",
];

/// Adds `--config` and a flag for every option of the registry.
pub fn with_options(command: Command) -> Command {
    let file = Arg::new("config")
        .long("config")
        .visible_alias("cluster-config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("The configuration file (TOML)")
        .long_help(format!(
            "The configuration file (TOML). `chronik-server config reference` prints one with \
             every option.\n[env: {}]",
            FILE_VARIABLES.join(", ")
        ));
    command.arg(file).args(KEYS.iter().map(flag))
}

fn flag(key: &'static Key) -> Arg {
    let default = match key.default {
        Default::Is(text) => format!("[default: {text}]"),
        Default::Unset(meaning) => format!("[default: {meaning}]"),
    };
    Arg::new(key.name)
        .long(key.flag())
        .visible_aliases(key.aliases.iter().map(|name| name.replace(['_', '.'], "-")))
        .value_name(key.kind.placeholder())
        .allow_hyphen_values(true)
        .help_heading(key.section.title())
        .hide_short_help(!COMMON.contains(&key.name))
        .help(format!("{} {default}", key.summary()))
        .long_help(format!("{}\n{default} [env: {}]", key.doc, key.variables().join(", ")))
}

/// Resolves the configuration; the mistakes of all sources become one failure.
pub fn resolve(sources: &Sources) -> Result<Resolved, Failure> {
    config::resolve(sources).map_err(|mistakes| {
        let message = match mistakes.len() {
            1 => "the configuration has a mistake".to_string(),
            count => format!("the configuration has {count} mistakes"),
        };
        mistakes.iter().fold(Failure::new(Exit::Usage, message), |failure, mistake| {
            failure.detail(mistake.to_string().replace('\n', "\n  "))
        })
    })
}

/// What flags, environment and file name say, as it was at the start of the process.
pub fn sources(matches: &ArgMatches) -> Sources {
    let flags = KEYS.iter().filter_map(|key| {
        let text = matches.get_one::<String>(key.name)?;
        Some((key.name.to_string(), text.clone()))
    });
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Sources {
        flags: flags.collect(),
        environment: environment.collect(),
        file: matches.get_one::<PathBuf>("config").cloned(),
    }
}
