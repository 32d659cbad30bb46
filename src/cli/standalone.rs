//! `chronik-server standalone`: a broker in the foreground.

use clap::{ArgMatches, Command};

use super::options;
use crate::failure::{Failure, EXIT_CODES};

pub fn command() -> Command {
    let command = Command::new("standalone")
        .about("Start a broker in the foreground")
        .long_about(
            "Start a broker in the foreground. It serves Kafka clients, and metrics and health \
             over HTTP on the same port, until SIGTERM or SIGINT; a second one later than a second \
             ends it at once, which loses nothing that is durable. SIGHUP reads the log filter again.\n\n\
             Every option is a flag, an environment variable and a line of the configuration file; \
             a flag beats the environment, and the environment beats the file.",
        )
        .after_long_help(EXIT_CODES);
    options::with_options(command)
}

pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let sources = options::sources(matches);
    let resolved = options::resolve(&sources)?;
    crate::run::run(resolved, sources)
}
