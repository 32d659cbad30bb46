//! The command line: what can be said, and which part of the program answers.
//!
//! The flags of `standalone` are made from the option registry. Each subcommand has a file of its
//! own with a `command()` that describes it and a function that does it.

mod config;
mod connect;
mod consume;
mod doctor;
mod group;
mod inspect;
mod machine;
mod options;
mod output;
mod produce;
mod standalone;
mod topic;

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::Command;

use crate::failure::{Exit, Failure, EXIT_CODES};

pub use machine::file_system_warning;

/// Parses `arguments` (the program's name first) and does what they say.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return usage(error),
    };
    match matches.subcommand() {
        Some(("standalone", matches)) => standalone::run(matches),
        Some(("topic", matches)) => topic::run(matches),
        Some(("group", matches)) => group::run(matches),
        Some(("produce", matches)) => produce::run(matches),
        Some(("consume", matches)) => consume::run(matches),
        Some(("config", matches)) => config::run(matches),
        Some(("inspect", matches)) => inspect::run(matches),
        Some(("doctor", matches)) => doctor::run(matches),
        other => unreachable!("clap knows no such subcommand: {other:?}"),
    }
}

/// Help and version are answers; anything else clap has to say is a mistake in the command line.
fn usage(error: clap::Error) -> Result<(), Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed pipe (`--help | head`) is no error of ours.
            let _ = error.print();
            Ok(())
        }
        // The program alone, or a group of commands alone: its help, but not as a success.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            Err(Failure::silent(Exit::Usage))
        }
        _ => {
            if let Some((name, what)) = not_yet(&error) {
                let message =
                    format!("`{name}` belongs to {what}, which this version does not have");
                return Err(Failure::new(Exit::Usage, message));
            }
            let text = error.render().to_string();
            let text = text.trim_end();
            Err(Failure::new(Exit::Usage, text.strip_prefix("error: ").unwrap_or(text)))
        }
    }
}

/// The flag or subcommand that was not understood, if other versions have it: its name, and what it
/// belongs to.
fn not_yet(error: &clap::Error) -> Option<(&str, &'static str)> {
    let context = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand];
    let named = context.into_iter().find_map(|kind| error.get(kind));
    let Some(ContextValue::String(name)) = named else { return None };
    let what = match name.as_str() {
        "cluster" => Some("clusters of several nodes"),
        flag => crate::config::not_yet(flag.trim_start_matches('-')),
    };
    Some((name, what?))
}

fn command() -> Command {
    Command::new("chronik-server")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A Kafka-compatible broker: one shard per core, durable before acknowledged.")
        .after_help("`chronik-server standalone` starts a broker on port 9092 with data in ./data.")
        .after_long_help(format!(
            "`chronik-server standalone` starts a broker on port 9092 with data in ./data.\n\n\
             {EXIT_CODES}"
        ))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .max_term_width(100)
        .subcommand(standalone::command())
        .subcommand(topic::command())
        .subcommand(group::command())
        .subcommand(produce::command())
        .subcommand(consume::command())
        .subcommand(config::command())
        .subcommand(inspect::command())
        .subcommand(doctor::command())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_with(arguments: &[&str]) -> Result<(), Failure> {
        run(std::iter::once("chronik-server").chain(arguments.iter().copied()).map(OsString::from))
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn wrong_usage_says_what_was_meant_and_exits_with_2() {
        let failure = run_with(&["config", "refrence"]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("reference"), "{failure}");
        assert_eq!(run_with(&[]).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn what_belongs_to_clusters_is_refused_by_its_name() {
        for arguments in [
            ["standalone", "--join=a:9093"].as_slice(),
            &["standalone", "--bootstrap"],
            &["cluster"],
        ] {
            let failure = run_with(arguments).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message.contains("clusters of several nodes"), "{failure}");
        }
    }
}
